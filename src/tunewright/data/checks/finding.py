"""What a check found."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Severity = Literal["info", "warning", "problem"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is to be known about the data, with three examples and the way to mend it."""

    code: str
    severity: Severity
    title: str
    """One sentence with the figures."""
    count: int = 0
    examples: list[str] = field(default_factory=list)
    fix: str = ""
    """The command or recipe line that mends it; empty where there is nothing to mend."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
