"""A search for settings as a page: the winner against the recipe as it is, what mattered, and each trial as a line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunewright.report.components import folded, table
from tunewright.report.html import Html, tag
from tunewright.report.page import whole_page
from tunewright.report.translations import Words

WIDTH, HEIGHT, SIDE, TOP = 760, 300, 60, 40


@dataclass(frozen=True, kw_only=True)
class TrialShown:
    """One trial."""

    number: int
    params: dict[str, Any]
    value: float | None
    state: str


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """What a search came to."""

    name: str
    metric: str
    greater: bool
    space: list[str]
    trials: Sequence[TrialShown]
    best: int
    importance: dict[str, float]
    held: dict[str, Any] | None
    """The winner against the recipe as it is, on the test rows."""
    command: str


def tuning_page(words: Words, tuned: Tuned) -> str:
    """One self-contained page that loads and runs nothing."""
    done = [trial for trial in tuned.trials if trial.state == "complete"]
    best = next(trial for trial in tuned.trials if trial.number == tuned.best)
    states = {state: sum(trial.state == state for trial in tuned.trials) for state in ("complete", "pruned", "fail")}
    rows = [
        (trial.number, *(_written(trial.params.get(name)) for name in tuned.space), _written(trial.value))
        for trial in sorted(done, key=lambda trial: trial.value or 0.0, reverse=tuned.greater)
    ]
    metric = words.known(tuned.metric)
    head = [words("tuning_trial"), *tuned.space, metric]
    shares = [(name, f"{share:.0%}") for name, share in tuned.importance.items()]
    titles = [words("tuning_setting"), words("tuning_share")]
    main = tag(
        "main",
        tag(
            "section",
            tag("h2", words("tuning_helped")),
            tag("p", tag("strong", tuned.held["sentence"], lang="en") if tuned.held else words("tuning_not_held")),
            tag("p", words("tuning_best", metric=metric, value=_written(best.value), trial=best.number)),
            tag("p", tag("code", tuned.command)),
        ),
        tag(
            "section",
            tag("h2", words("tuning_trials")),
            tag("p", words("tuning_counts", **states)),
            _parallel(words, tuned, done),
            tag("p", words("tuning_lines"), class_="small"),
            folded(words("tuning_all"), table(head, rows, caption=words("tuning_order"), right=[len(head) - 1])),
        ),
        tag(
            "section",
            tag("h2", words("tuning_mattered")),
            table(titles, shares, caption=words("tuning_anova"), right=[1])
            if shares
            else tag("p", words("tuning_too_few")),
        ),
    )
    title = words("tuning_title", name=tuned.name)
    body = tag("body", tag("div", tag("h1", title), main, class_="page"))
    return whole_page(words, title, body)


def _written(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "none" if value is None else str(value)


def _parallel(words: Words, tuned: Tuned, done: Sequence[TrialShown]) -> Html:
    """Parallel coordinates: an axis for each setting, and the metric at the right."""
    axes = [_axis(name, [trial.params.get(name) for trial in done]) for name in tuned.space]
    axes.append(_axis(tuned.metric, [trial.value for trial in done]))
    step = (WIDTH - 2 * SIDE) / max(1, len(axes) - 1)
    order = sorted(done, key=lambda trial: trial.value or 0.0, reverse=not tuned.greater)
    lines: list[Html] = []
    for place, trial in enumerate(order):
        values = [*(trial.params.get(name) for name in tuned.space), trial.value]
        points = " ".join(
            f"{SIDE + step * index:.1f},{axis.at(value):.1f}"
            for index, (axis, value) in enumerate(zip(axes, values, strict=True))
        )
        best = trial.number == tuned.best
        strength = 0.15 + 0.6 * (place / max(1, len(order) - 1)) ** 2
        lines.append(
            tag(
                "polyline",
                tag("title", f"{words('tuning_trial')} {trial.number}{words('colon')}{_written(trial.value)}"),
                points=points,
                fill="none",
                stroke="var(--two)" if best else "var(--one)",
                stroke_width=float(3 if best else 1.2),
                stroke_opacity=float(1.0 if best else strength),
            )
        )
    marks = [axis.drawn(SIDE + step * index) for index, axis in enumerate(axes)]
    return tag(
        "div",
        tag("svg", lines, marks, viewBox=f"0 0 {WIDTH} {HEIGHT}", width=WIDTH, height=HEIGHT, role="img",
            aria_label=words("tuning_lines")),
        class_="scroll",
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Axis:
    name: str
    labels: dict[str, float]
    """Where each label stands, from 0 at the bottom to 1 at the top."""
    low: float
    high: float
    logarithmic: bool
    named: bool

    def at(self, value: Any) -> float:
        return TOP + (HEIGHT - 2 * TOP) * (1 - self._share(value))

    def _share(self, value: Any) -> float:
        if self.named:
            return self.labels.get(_written(value), 0.0)
        if value is None or self.high == self.low:
            return 0.5
        if self.logarithmic:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def drawn(self, x: float) -> Html:
        bottom = HEIGHT - TOP
        marks = [
            tag("text", label, x=x + 5, y=TOP + (HEIGHT - 2 * TOP) * (1 - share) + 4, font_size=11, fill="currentColor")
            for label, share in self.labels.items()
        ]
        return tag(
            "g",
            tag("line", x1=x, x2=x, y1=TOP, y2=bottom, stroke="currentColor", stroke_opacity=0.5),
            tag(
                "text",
                self.name,
                x=x,
                y=18,
                text_anchor="middle",
                font_size=12,
                fill="currentColor",
                font_weight="bold",
            ),
            marks,
        )


def _axis(name: str, values: Sequence[Any]) -> _Axis:
    numbers = [float(value) for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) < len(values) or not numbers:
        known = sorted({_written(value) for value in values})
        spread = max(1, len(known) - 1)
        labels = {label: index / spread for index, label in enumerate(known)}
        return _Axis(name=name, labels=labels, low=0.0, high=1.0, logarithmic=False, named=True)
    low, high = min(numbers), max(numbers)
    labels = {f"{low:.3g}": 0.0} | ({f"{high:.3g}": 1.0} if high > low else {})
    return _Axis(name=name, labels=labels, low=low, high=high, logarithmic=low > 0 and high / low > 15, named=False)
