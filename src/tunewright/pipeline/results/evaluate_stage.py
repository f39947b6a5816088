"""Measure a stage's model on the test rows: the metrics with their intervals, the baselines, the slices, the mistakes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tunewright.checksums import file_facts
from tunewright.console import Console, silent
from tunewright.data.column_types import missing_column
from tunewright.data.recommendation.column_roles import role_columns
from tunewright.errors import ArtifactError, DataError
from tunewright.evaluation.advice import hint
from tunewright.evaluation.intervals import Estimate, bootstrap
from tunewright.evaluation.metrics import Metric, Outcome, facts_of, get_metric
from tunewright.evaluation.slices import slice_by
from tunewright.files import write_atomic
from tunewright.models.core.network import Network
from tunewright.models.saved_model import load_network
from tunewright.pipeline.build.parts import build_parts
from tunewright.pipeline.results.explanations import explain_rows
from tunewright.pipeline.results.measured_baselines import measure_baselines
from tunewright.pipeline.results.other_data import measure_other_data
from tunewright.pipeline.results.predictions import PREDICTIONS_FILE, save_predictions
from tunewright.pipeline.stage import StageJob
from tunewright.random import permutation
from tunewright.report.card import model_card
from tunewright.runs.metrics_log import read_curves
from tunewright.runs.run_files import FileFacts
from tunewright.runs.summary.evaluation import EvaluationSummary, HintSummary, Mistake
from tunewright.runs.summary.explanation import ExplanationSummary
from tunewright.runs.summary.stage import read_summary, write_summary
from tunewright.tasks.base.task import Preprocessor
from tunewright.tasks.registry import load_preprocessor

METRICS_FILE = "metrics.jsonl"


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A stage's model, and what it gives for the rows that it is measured on."""

    job: StageJob
    network: Network
    before: Network | None
    """The network that the stage began with, for tasks that compare with it."""
    preprocessor: Preprocessor
    split: str
    table: pa.Table
    metrics: list[Metric]
    """The first is the headline."""
    outcome: Outcome

    def estimates(self) -> dict[str, Estimate]:
        """Return each metric with its interval."""
        return bootstrap(
            self.metrics, self.outcome, resamples=self.job.recipe.eval.resamples, seed=self.job.recipe.seed
        )


def evaluate_stage(job: StageJob, console: Console, *, full: bool, start: StageJob | None = None) -> None:
    """Write predictions.parquet and the summary's evaluation, in place of all that was measured before.

    Args:
        full: with baselines, slices, mistakes and calibration; otherwise the metrics alone, as for repetitions.
        start: the stage whose beginning the result is compared with, where that is another one.
    """
    summary = read_summary(job.folder).unmeasured
    saved = load_network(job.folder / "model")
    preprocessor = load_preprocessor(saved)
    if not preprocessor.answers:
        write_summary(job.folder, replace(summary, files=_files(job.folder)))
        return
    measured = _measure(job, start or job, saved.network, preprocessor)
    estimates = measured.estimates()
    evaluation = EvaluationSummary(
        split=measured.split,
        rows=len(measured.outcome),
        metrics=estimates,
        warning=None
        if measured.split == "test"
        else f"there is no test split: measured on the {measured.split} rows, which the training has seen",
    )
    headline = measured.metrics[0]
    if full:
        evaluation = _in_full(measured, evaluation, console)
        summary = replace(summary, hint=_hint(job, evaluation, headline))
    console.info(
        f"{job.stage.name}  {measured.split} {headline.name} {show(estimates[headline.name])}  ({evaluation.rows:,} rows)"
    )
    if evaluation.warning is not None:
        console.warning(evaluation.warning)
    named = [*estimates, *(name for other in evaluation.other_data or [] for name in other.metrics)]
    facts = {**summary.metric_facts, **{name: facts_of(name) for name in named}}
    summary = replace(summary, evaluation=evaluation, metric_facts=facts, files=_files(job.folder))
    write_atomic(job.folder / "model" / "README.md", model_card(summary, name=job.recipe.name))
    write_summary(job.folder, summary)


def _files(folder: Path) -> dict[str, FileFacts]:
    """The files of an evaluated stage that its summary vouches for."""
    paths = (folder / name for name in (METRICS_FILE, PREDICTIONS_FILE))
    return {path.name: FileFacts(**file_facts(path)) for path in paths if path.exists()}


def _measure(job: StageJob, start: StageJob, network: Network, preprocessor: Preprocessor) -> Measurement:
    """Run the network on the measured split, and write its predictions."""
    task, split = preprocessor.task, job.prepared.measured_split
    table = job.prepared.table(split)
    before = network_before(start) if task.evaluation.compares_with_start else None
    outputs, target = task.evaluation.outputs(network, before, preprocessor, table)
    wanted = dict.fromkeys([*(job.recipe.eval.metrics or task.metrics), *job.recipe.eval.target])
    groups = users_of(job, table) if preprocessor.target is not None else None
    save_predictions(job, task.kind, task.evaluation.units(preprocessor, table), target, outputs)
    return Measurement(
        job=job,
        network=network,
        before=before,
        preprocessor=preprocessor,
        split=split,
        table=table,
        metrics=[get_metric(name, task.kind) for name in wanted],
        outcome=Outcome(outputs, target, groups),
    )


def _in_full(measured: Measurement, evaluation: EvaluationSummary, console: Console) -> EvaluationSummary:
    """Add what is measured only once for a stage."""
    job, preprocessor, outcome = measured.job, measured.preprocessor, measured.outcome
    settings, seed, table = job.recipe.eval, job.recipe.seed, measured.table
    found = preprocessor.task.evaluation.facts(measured.network, preprocessor, job.prepared, table, outcome)
    slices = [
        part
        for column in settings.slices
        for part in slice_by(
            column,
            _slice_values(table, column),
            measured.metrics,
            outcome,
            resamples=settings.resamples,
            seed=seed,
        )
    ]
    evaluation = replace(
        evaluation,
        baselines=measure_baselines(job, preprocessor, measured.before, table, measured.metrics, outcome),
        slices=slices,
        **vars(found),
    )
    if job.beside:
        others = measure_other_data(job, measured.network, measured.before, preprocessor, console)
        evaluation = replace(evaluation, other_data=others)
    if settings.explain:
        evaluation = replace(evaluation, explanations=_explanations(measured, evaluation.mistakes or [], console))
    return evaluation


def users_of(job: StageJob, table: pa.Table) -> np.ndarray | None:
    """Return a number for the user of each row [N]; None where no column says who."""
    user, _ = role_columns(job.recipe.data, [name for name in table.column_names if name != "_row"])
    return None if user is None else np.unique([str(who) for who in table[user].to_pylist()], return_inverse=True)[1]


def network_before(job: StageJob) -> Network | None:
    """Return the network that a stage began with; None where its weights were random."""
    random = job.recipe.model.weights == "random" or job.backbone is None or not job.backbone.pretrained
    if job.source is None and random:
        return None
    return build_parts(job.recipe, job.prepared, job.origin(), job.backbone, silent()).network


def show(estimate: Estimate) -> str:
    """Write a value with its interval, for one line of text."""
    if estimate.value is None:
        return "not defined on these rows"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.4f}"
    return f"{estimate.value:.4f} [{estimate.low:.4f}, {estimate.high:.4f}]"


def _explanations(measured: Measurement, mistakes: list[Mistake], console: Console) -> list[ExplanationSummary]:
    """Explain the worst mistakes, or random rows where a task lists none. A model that cannot be explained gets a warning: it is
    evaluated all the same."""
    job, table = measured.job, measured.table
    rows = table["_row"].to_pylist()
    place = {row: index for index, row in enumerate(rows)}
    targets = {place[entry.row]: entry.target for entry in mistakes}
    at_random = permutation(job.recipe.seed, "explain", 0, len(rows)).tolist()
    chosen = (list(targets) or at_random)[: job.recipe.eval.explain]
    names = [{"row": rows[index]} for index in chosen]
    found = explain_rows(
        measured.network.eval(), measured.preprocessor, table.take(chosen), names, seed=job.recipe.seed
    )
    try:
        return [one.on_page(targets.get(index)) for index, one in zip(chosen, found)]
    except (ArtifactError, DataError) as error:
        console.warning(f"{job.stage.name}: nothing is explained (eval.explain): {error.problem}")
        return []


def _hint(job: StageJob, evaluation: EvaluationSummary, metric: Metric) -> HintSummary:
    sign = 1.0 if metric.greater_is_better else -1.0
    linear = evaluation.baselines[-1].metrics.get(metric.name) if evaluation.baselines else None
    values = [None if found is None else found.value for found in (linear, evaluation.metrics[metric.name])]
    signed = [None if value is None else sign * value for value in values]
    return hint(read_curves(job.folder / METRICS_FILE).epochs, signed[0], signed[1], metric.name)


def _slice_values(table: pa.Table, column: str) -> list[Any]:
    if column not in table.column_names:
        raise missing_column(
            "eval.slices", column, [name for name in table.column_names if name != "_row"], "the prepared data"
        )
    return table[column].to_pylist()
