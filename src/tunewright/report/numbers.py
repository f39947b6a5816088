"""How numbers are written: the same everywhere, with no more digits than the interval allows."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tunewright.runs.summary.evaluation import Estimate
from tunewright.runs.summary.facts import MetricFacts, Style

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A value that is defined, and its 95 % interval where there is one."""

    value: float
    low: float | None = None
    high: float | None = None


def figure(found: Estimate | None) -> Figure | None:
    """Return an estimate as a figure; None where it has no value."""
    if found is None or found.value is None:
        return None
    return Figure(value=found.value, low=found.low, high=found.high)


def estimate(metric: MetricFacts, found: Figure) -> str:
    """ "97.6 % [97.3, 97.9]", "0.974 [0.971, 0.977]", or the value alone."""
    bounds = interval(metric, found)
    return value(metric, found.value, like=found) + (f" {bounds}" if bounds else "")


def interval(metric: MetricFacts, found: Figure) -> str | None:
    """ "[97.3, 97.9]", or None where there is no interval."""
    if found.low is None or found.high is None:
        return None
    scale, _ = _scale(metric)
    digits = _digits(metric.style, _half(found) * scale, found.value * scale)
    return f"[{_fixed(found.low * scale, digits)}, {_fixed(found.high * scale, digits)}]"


def value(metric: MetricFacts, number: float, *, like: Figure | None = None) -> str:
    """ "97.6 %"; with as many digits as the estimate `like` is written with."""
    scale, unit = _scale(metric)
    return _fixed(number * scale, _digits(metric.style, _half(like) * scale, number * scale)) + unit


def difference(metric: MetricFacts, found: Figure, points: str) -> str:
    """ "−0.7 points [−2.8, +1.3]": signed, and percentages in points, for which `points` is the word."""
    scale, unit = _scale(metric)
    digits = _digits(metric.style, _half(found) * scale, found.value * scale)
    middle = _signed(found.value * scale, digits) + (f" {points}" if unit else "")
    if found.low is None or found.high is None:
        return middle
    return f"{middle} [{_signed(found.low * scale, digits)}, {_signed(found.high * scale, digits)}]"


def percent(share: float) -> str:
    """ "97.6 %"."""
    return f"{_fixed(100 * share, 1)} %"


def score(number: float) -> str:
    """ "0.974": a number without a unit, such as F1."""
    return _fixed(number, 3)


def tick(metric: MetricFacts, number: float, step: float) -> str:
    """A label on an axis whose ticks are `step` apart; 0 stands for a logarithmic axis."""
    return _tick(*_scale(metric), number, step)


def percent_tick(share: float, step: float) -> str:
    """The same of a share."""
    return _tick(100.0, " %", share, step)


def plain_tick(number: float, step: float) -> str:
    """The same of a number without a unit."""
    return _tick(1.0, "", number, step)


def _tick(scale: float, unit: str, number: float, step: float) -> str:
    if step == 0:
        return significant(number * scale, 2) + unit
    if (size := abs(step * scale)) >= 100_000:
        return compact(number * scale) + unit
    return _fixed(number * scale, min(8, max(0, math.ceil(-math.log10(size) - 1e-9)))) + unit


def significant(number: float, digits: int = 4, *, aligned: bool = False) -> str:
    """So many significant digits: "0.0629", "12,340", "1.2×10⁻⁷"; trailing zeros only where figures are `aligned`."""
    if number == 0:
        return "0"
    power = math.floor(math.log10(abs(number)))
    if power < -5 or power >= 9:
        mantissa, _, exponent = f"{number:.{digits - 1}e}".partition("e")
        return f"{_trim(mantissa)}×10{str(int(exponent)).translate(_SUPERSCRIPT)}".replace("-", "−")
    written = _fixed(number, max(0, digits - 1 - power))
    return written if aligned else _trim(written)


def confidence(share: float) -> str:
    """A probability in percent; one below 1 is never written as 100 %: "99.996 %", "> 99.9999 %"."""
    for digits in (1, 2, 3, 4):
        written = _fixed(share * 100, digits)
        if share >= 1 or not written.startswith("100"):
            return f"{written} %"
    return "> 99.9999 %"


def count(number: float) -> str:
    """ "60,000"."""
    return f"{number:,.0f}".replace("-", "−")


def compact(number: float) -> str:
    """ "203 k", "1.27 M": three significant digits, for parameters and operations."""
    for unit, name in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= unit:
            return f"{_trim(_fixed(number / unit, max(0, 2 - math.floor(math.log10(abs(number) / unit)))))} {name}"
    return count(number)


def duration(seconds: float) -> str:
    """ "0.67 s", "7.1 s", "3 min 20 s", "2 h 5 min"."""
    if seconds < 60:
        return f"{significant(seconds, 2)} s"
    if seconds < 3600:
        return f"{int(seconds) // 60} min {int(seconds) % 60} s"
    return f"{int(seconds) // 3600} h {int(seconds) % 3600 // 60} min"


def size(number: float) -> str:
    """Bytes: "1.6 MB"; a kilobyte is 1,000 bytes."""
    return f"{compact(number)}B" if number >= 1000 else f"{count(number)} B"


def _half(found: Figure | None) -> float:
    """Half the width of the interval; 0 where there is none."""
    return 0.0 if found is None or found.low is None or found.high is None else (found.high - found.low) / 2


def _scale(metric: MetricFacts) -> tuple[float, str]:
    return (100.0, " %") if metric.style == "percent" else (1.0, "")


def _digits(style: Style, half: float, number: float) -> int:
    """Decimals: one more than where the half width of the interval begins for amounts, as far as it for the others."""
    first = -math.floor(math.log10(half)) if half > 0 else 0
    if style == "percent":
        return min(6, max(1, first))
    if style == "number":
        return min(6, max(3, first))
    if half > 0:
        return min(8, max(0, first + 1))
    return min(8, max(0, 3 - math.floor(math.log10(abs(number))))) if number else 0


def _fixed(number: float, digits: int) -> str:
    written = f"{number:,.{digits}f}"
    # What rounds to zero has no sign.
    if not written.strip("-0.,"):
        written = written.lstrip("-")
    return written.replace("-", "−")


def _signed(number: float, digits: int) -> str:
    written = _fixed(number, digits)
    return written if written.startswith("−") or not written.strip("0.,") else f"+{written}"


def _trim(written: str) -> str:
    return written.rstrip("0").rstrip(".") if "." in written else written
