"""What a model learned from, stage after stage, and which promise of differential privacy that leaves.

One stage's ε says nothing by itself: an earlier or later stage may have read the same rows, with noise of its own or without
any. So each saved model carries its lineage, and the promise is computed from all of it. Whatever is not known to be apart
counts as shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from tunewright.runs.summary.training import Guarantee, Statistic, Unit
from tunewright.training.privacy.accounting import Steps, composed_epsilon, convolved_or_none


@dataclass(frozen=True, kw_only=True)
class Spent:
    """The private training of one stage."""

    steps: Steps
    delta: float
    unit: Unit

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Spent:
        return cls(steps=Steps(**value["steps"]), delta=value["delta"], unit=value["unit"])


@dataclass(frozen=True, kw_only=True)
class Learned:
    """One stage's learning."""

    stage: str
    source: str
    """The name of its data, for people."""
    data: str
    """The fingerprint of its prepared data."""
    content: str
    """The hash of the files that the data was read from, however they were split."""
    spent: Spent | None
    """None: it learned without privacy."""
    disjoint: bool = False
    """The recipe promises that none of its units is in other data that was learned from before."""
    statistics: list[Statistic] = field(default_factory=list)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Learned:
        facts: dict[str, Any] = dict(value)
        spent, found = facts.pop("spent"), facts.pop("statistics")
        return cls(
            **facts,
            spent=None if spent is None else Spent.from_json(spent),
            statistics=[Statistic(**entry) for entry in found],
        )

    def same_data(self, other: Learned) -> bool:
        return self.data == other.data or self.content == other.content


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """All that a model's weights come from, in order."""

    stages: list[Learned] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    """Starting models of which no record says what they learned from."""
    public: list[str] = field(default_factory=list)
    """Published pretrained models; what they learned from is outside of any promise."""

    @property
    def is_private(self) -> bool:
        """Whether any stage was trained with privacy."""
        return any(stage.spent is not None for stage in self.stages)

    def after(self, learned: Learned) -> Lineage:
        """Return the lineage of a model that learned this next."""
        return replace(self, stages=[*self.stages, learned])

    def guarantees(self) -> list[Guarantee]:
        """For the units of each data that was learned from with privacy, the last stage on them first."""
        found: list[Guarantee] = []
        seen: list[tuple[Learned, Unit]] = []
        for stage in reversed(self.stages):
            if stage.spent is None:
                continue
            unit = stage.spent.unit
            if not any(stage.same_data(other) and unit == known for other, known in seen):
                found.append(self._guarantee(stage, stage.spent))
                seen.append((stage, unit))
        return found

    def _guarantee(self, own: Learned, spent: Spent) -> Guarantee:
        sharing = [stage for stage in self.stages if self._may_share(own, stage)]
        account = [stage.spent for stage in sharing if stage.spent is not None]
        delta = min(entry.delta for entry in account)
        history = [entry.steps for entry in account]
        reason, because_of = self._obstacle(own, spent, sharing)
        return Guarantee(
            source=own.source,
            unit=spent.unit,
            delta=delta,
            epsilon=composed_epsilon(history, delta) if reason is None else None,
            epsilon_prv=convolved_or_none(history, delta) if reason is None else None,
            stages=[stage.stage for stage in sharing],
            reason=reason,
            because_of=because_of,
        )

    def _obstacle(
        self, own: Learned, spent: Spent, sharing: Sequence[Learned]
    ) -> tuple[Literal["without privacy", "unknown start", "other units"] | None, str]:
        """Why nothing can be promised to the units of `own`."""
        for stage in sharing:
            if stage.spent is None:
                return "without privacy", stage.stage
        if self.unknown and not own.disjoint:
            return "unknown start", ", ".join(self.unknown)
        for stage in sharing:
            if stage.spent is not None and stage.spent.unit != spent.unit:
                return "other units", stage.stage
        return None, ""

    def _may_share(self, one: Learned, other: Learned) -> bool:
        """Return whether a unit of one stage's data may be in the other's."""
        if one.same_data(other):
            return True
        later = max(one, other, key=self.stages.index)
        return not later.disjoint

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Lineage:
        return cls(
            stages=[Learned.from_json(entry) for entry in value["stages"]],
            unknown=list(value["unknown"]),
            public=list(value["public"]),
        )
