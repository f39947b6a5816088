"""Format numbers with their units for people."""

from __future__ import annotations


def size_of(number: float) -> str:
    """Format bytes."""
    for unit, size in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if number >= size:
            return f"{number / size:,.1f} {unit}"
    return f"{number:.0f} bytes"


def duration(seconds: float) -> str:
    """Format a duration in a suitable unit, from milliseconds to years."""
    for unit, size in (("years", 365 * 86_400.0), ("days", 86_400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.2f} ms"


def rate(number: float) -> str:
    """Format a number per second."""
    return f"{number:,.0f}" if number >= 10 else f"{number:.3g}"


def energy(kilowatt_hours: float) -> str:
    """Format energy in Wh, kWh or MWh."""
    if kilowatt_hours < 1:
        return f"{1000 * kilowatt_hours:,.3g} Wh"
    return f"{kilowatt_hours:,.1f} kWh" if kilowatt_hours < 1000 else f"{kilowatt_hours / 1000:,.1f} MWh"


def grams(value: float) -> str:
    """Format a mass in g, kg or t."""
    if value < 1000:
        return f"{value:,.3g} g"
    return f"{value / 1000:,.1f} kg" if value < 1e6 else f"{value / 1e6:,.1f} t"


def dollars(value: float) -> str:
    """Format an amount in US dollars."""
    return f"${value:,.2f}" if value < 100 else f"${value:,.0f}"
