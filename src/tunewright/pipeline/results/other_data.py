"""What a stage did to a model elsewhere: `eval.beside`, other texts and questions, measured before and after it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from tunewright.console import Console
from tunewright.data.prepare.prepare import PrepareSettings, prepare
from tunewright.data.prepared import Prepared
from tunewright.data.text.multiple_choice import Question, recognise_questions
from tunewright.errors import DataError, RecipeError
from tunewright.evaluation.intervals import bootstrap, paired_bootstrap
from tunewright.evaluation.metrics import Metric, Outcome
from tunewright.evaluation.metrics.classification import ACCURACY, ACCURACY_PER_BYTE
from tunewright.evaluation.metrics.token_prediction import BITS_PER_BYTE
from tunewright.models.core.network import Network
from tunewright.pipeline.stage import StageJob
from tunewright.recipe.schema import Recipe
from tunewright.runs.summary.evaluation import OtherDataSummary, OtherFigure
from tunewright.tasks.base.encoders import Encoders
from tunewright.tasks.language_model.choice_scoring import choice_scores, per_byte, read_questions
from tunewright.tasks.language_model.encoder import CausalEncoder, CausalTextEncoder
from tunewright.tasks.language_model.evaluation import next_token_outputs
from tunewright.tasks.registry import get_task

# A metric, and the outcomes by the model and by the model before.
Found = tuple[Metric, Outcome, Outcome | None]


def prepare_beside(recipe: Recipe, base: Path, console: Console) -> dict[str, Prepared]:
    """The data that a stage names in `eval.beside`, seen before anything is trained.

    Raises:
        RecipeError: the task's model does not write.
        DataError: the data cannot be read, or holds neither texts nor questions.
    """
    if not recipe.eval.beside:
        return {}
    task = get_task(recipe.task)
    if task.purpose is None or not task.purpose.generates:
        raise RecipeError(
            "only a language model can be measured on other texts and questions",
            place="eval.beside",
            found=f"task: {task.name}",
            expected="language-modeling, supervised-fine-tuning or preference-tuning",
            fix="remove eval.beside",
        )
    found: dict[str, Prepared] = {}
    for name, data in recipe.eval.beside.items():
        with console.counting(f"preparing {data.source}") as progress:
            prepared = prepare(
                data, settings=PrepareSettings(progress=progress), seed=recipe.seed, target_kind=None, base=base
            )
        if _asks(prepared):
            read_questions(prepared.table(_split(prepared)), data.source)
        else:
            _require_texts(prepared, name)
        found[name] = prepared
    return found


def measure_other_data(
    job: StageJob, network: Network, before: Network | None, preprocessor: Encoders, console: Console
) -> list[OtherDataSummary]:
    """Measure the model now and before the stage on each; for questions also what guessing reaches."""
    settings, seed = job.recipe.eval, job.recipe.seed
    encoder = preprocessor.inputs_as(CausalTextEncoder)
    entries: list[OtherDataSummary] = []
    for name, prepared in job.beside.items():
        source, split = prepared.manifest.source, _split(prepared)
        table = prepared.table(split)
        if _asks(prepared):
            found, guesses = _on_questions(network, before, encoder, read_questions(table, source))
        else:
            found, guesses = _on_texts(network, before, encoder, table, prepared.manifest.input[0]), {}
        metrics: dict[str, OtherFigure] = {}
        for metric, now, then in found:
            estimate = bootstrap([metric], now, resamples=settings.resamples, seed=seed)[metric.name]
            metrics[metric.name] = OtherFigure(now=estimate)
            said = "not defined" if estimate.value is None else f"{estimate.value:.4f}"
            if then is not None:
                old = bootstrap([metric], then, resamples=settings.resamples, seed=seed)[metric.name]
                change = paired_bootstrap(metric, now, then, resamples=settings.resamples, seed=seed)
                metrics[metric.name] = OtherFigure(
                    now=estimate, before=old, difference=change.estimate, verdict=change.verdict
                )
                said += f" ({change.sentence('since before the stage')})"
            console.info(f"{job.stage.name}  other data, {name}: {metric.name} {said}")
        entries.append(
            OtherDataSummary(
                name=name,
                source=source,
                split=split,
                rows=table.num_rows,
                kind="questions" if _asks(prepared) else "texts",
                guesses=guesses,
                metrics=metrics,
            )
        )
    return entries


def _on_texts(
    network: Network, before: Network | None, encoder: CausalTextEncoder, table: pa.Table, column: str
) -> list[Found]:
    plain = CausalEncoder(
        columns=[column], max_length=encoder.max_length, limit=encoder.limit, tokenizer=encoder.tokenizer
    )
    now, then = (
        None if model is None else Outcome(*next_token_outputs(model, None, plain, table))
        for model in (network, before)
    )
    assert now is not None
    return [(BITS_PER_BYTE, now, then)]


def _on_questions(
    network: Network, before: Network | None, encoder: CausalTextEncoder, questions: list[Question]
) -> tuple[list[Found], dict[str, float]]:
    right = np.array([asked.answer for asked in questions])
    scores = [None if model is None else choice_scores(model, encoder, questions) for model in (network, before)]
    found: list[Found] = []
    for metric, adapt in ((ACCURACY, lambda values, _: values), (ACCURACY_PER_BYTE, per_byte)):
        now, then = (None if values is None else Outcome(adapt(values, questions), right) for values in scores)
        assert now is not None
        found.append((metric, now, then))
    longest = [max(range(len(asked.choices)), key=lambda place: len(asked.choices[place])) for asked in questions]
    guesses = {
        "chance": float(np.mean([1 / len(asked.choices) for asked in questions])),
        "the longest choice": float(np.mean(right == longest)),
        "always the same place": float(np.bincount(right).max() / len(right)),
    }
    return found, guesses


def _asks(prepared: Prepared) -> bool:
    return recognise_questions(column.name for column in prepared.manifest.columns) is not None


def _split(prepared: Prepared) -> str:
    return "test" if prepared.rows("test") else "train"


def _require_texts(prepared: Prepared, name: str) -> None:
    columns = prepared.manifest.input
    if len(columns) != 1:
        raise DataError(
            "it is neither one column of texts nor questions with choices",
            file=prepared.manifest.source,
            place=f"eval.beside.{name}",
            found=", ".join(columns),
            expected="a text column, named with `input`; or the columns question, choices and answer",
            fix=f"eval.beside: {{{name}: {{source: …, input: {columns[0]}}}}}",
        )
