"""Answers of a model, explained, and each explanation checked: what `explain` prints and a run's report shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from tunewright.errors import RecipeError
from tunewright.evaluation.attribution import METHODS, VIEWS, Attribution, Check, check
from tunewright.models.core.network import Network
from tunewright.runs.summary.explanation import CheckSummary, ExplanationSummary, Phrases, UnitScore
from tunewright.tasks.base.explain import Question
from tunewright.tasks.base.task import Preprocessor


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """One answer, explained and checked."""

    name: dict[str, Any]
    """How the row is called: {"row": 3}, {"file": "a.png"}, or {} where there is only one."""
    question: Question
    found: Attribution
    checked: Check
    picture: str | None = None
    """A data URI of the picture that it is of."""
    influence: dict[str, Any] | None = None
    """The training rows behind it; None: nobody asked."""

    def to_json(self) -> dict[str, Any]:
        explained, found = self.question.explained, self.found
        return {
            **self.name,
            "answer": self.question.said,
            "explained": explained.phrase,
            "absent": explained.absent,
            "method": found.method,
            "converged": found.converged,
            **found.facts,
            "units": [{"unit": unit, "score": score} for unit, score in zip(explained.units, found.scores.tolist())],
            "check": {**asdict(self.checked), "faithful": self.checked.faithful},
            **({} if self.influence is None else {"influence": self.influence}),
        }

    def on_page(self, target: str | list[str] | float | None = None) -> ExplanationSummary:
        """Return what a page shows of it.

        Args:
            target: the right answer, where it is known and was missed.
        """
        question, explained, found = self.question, self.question.explained, self.found
        return ExplanationSummary(
            **self.name,
            **found.facts,
            answer=question.said,
            explained=explained.phrase,
            absent=explained.absent,
            method=found.method,
            converged=found.converged,
            units=[UnitScore(unit=unit, score=score) for unit, score in zip(explained.units, found.scores.tolist())],
            check=CheckSummary(**asdict(self.checked), faithful=self.checked.faithful),
            phrases=Phrases(answer=list(question.answer), explained=list(explained.what)),
            look=question.look,
            shape=None if question.shape is None else list(question.shape),
            image=self.picture,
            target=target,
        )


def explain_rows(
    network: Network,
    preprocessor: Preprocessor,
    table: pa.Table,
    names: Sequence[dict[str, Any]],
    *,
    method: str | None = None,
    target: str | None = None,
    seed: int = 0,
) -> Iterator[Explanation]:
    """An explanation of the answer to each row.

    Args:
        names: how each row is called.
        method: a name of `METHODS` or `VIEWS`; None: the one that fits the inputs.
        target: the class, item or text that is explained; None: the model's own answer.

    Raises:
        UserError: such a model cannot be explained, the method does not fit it, or there is no such target.
    """
    for row, name in zip(range(table.num_rows), names):
        question = preprocessor.question(network, table.slice(row, 1), target)
        explained = question.explained
        chosen = method or question.usual
        needs = {
            "integrated-gradients": (
                explained.along,
                "between these inputs there is nothing, so there is no gradient to follow",
            ),
            "attention-rollout": (explained.attended, "this network has no attention"),
        }
        if chosen in needs and needs[chosen][0] is None:
            raise RecipeError(
                needs[chosen][1],
                place="--method",
                found=chosen,
                expected="shapley, ablation",
                fix="--method shapley",
            )
        found = {**METHODS, **VIEWS}[chosen](explained, seed)
        yield Explanation(
            name=name,
            question=question,
            found=found,
            checked=check(explained, found.scores, seed),
            picture=preprocessor.inputs.show(table, row)["image"] if question.shape is not None else None,
        )
