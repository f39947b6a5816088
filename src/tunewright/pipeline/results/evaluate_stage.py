"""Measure a stage's model on the test rows: the number, its interval, the baselines, the slices, the mistakes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from tunewright.checksums import file_facts
from tunewright.console import Console, silent
from tunewright.data.recommendation.column_roles import role_columns
from tunewright.errors import ArtifactError, DataError
from tunewright.evaluation.advice import hint
from tunewright.evaluation.baselines import Baseline
from tunewright.evaluation.intervals import Estimate, bootstrap
from tunewright.evaluation.metrics import Metric, Outcome, get_metric
from tunewright.evaluation.slices import slice_by
from tunewright.files import write_atomic, write_record
from tunewright.models.core.network import Network
from tunewright.models.saved_model import load_network
from tunewright.pipeline.build.parts import build_parts
from tunewright.pipeline.device import threads
from tunewright.pipeline.results.explanations import explain_rows
from tunewright.pipeline.results.other_data import measure_beside
from tunewright.pipeline.results.predictions import PREDICTIONS_FILE, save_predictions
from tunewright.pipeline.stage import StageJob
from tunewright.random import permutation
from tunewright.report.card import model_card
from tunewright.runs.folder import read_json
from tunewright.runs.metrics_log import read_metrics
from tunewright.tasks.base.task import Preprocessor
from tunewright.tasks.registry import load_preprocessor

# What the network that a stage began with is called among the baselines.
BEFORE = "the model before this stage"
# What a summary has from measuring; the rest is of the training.
MEASURED = ("evaluation", "seeds", "comparisons", "hint", "target", "files")
METRICS_FILE = "metrics.jsonl"


def evaluate_stage(job: StageJob, screen: Console, *, full: bool, start: StageJob | None = None) -> None:
    """Write predictions.parquet and the summary's "evaluation", in place of all that was measured before.

    Args:
        full: with baselines, slices, mistakes and calibration; otherwise the metrics alone, as for repetitions.
        start: the stage whose beginning the result is held against, where that is another one.
    """
    summary_path = job.folder / "summary.json"
    summary = unmeasured(read_json(summary_path, "a stage's summary"))
    saved = load_network(job.folder / "model")
    preprocessor = load_preprocessor(saved)
    if not preprocessor.answers:
        write_record(summary_path, {**summary, "evaluation": None})
        return
    split = job.prepared.measured_split
    table = job.prepared.table(split)
    measured = preprocessor.task.evaluation
    before = network_before(start or job) if measured.compares_with_start else None
    outputs, target = measured.outputs(saved.network, before, preprocessor, table)
    settings, seed = job.recipe.eval, job.recipe.seed
    kind = preprocessor.task.kind
    wanted = dict.fromkeys([*(settings.metrics or preprocessor.task.metrics), *settings.target])
    metrics = [get_metric(name, kind) for name in wanted]
    groups = users_of(job, table) if preprocessor.target is not None else None
    outcome = Outcome(outputs, target, groups)
    estimates = bootstrap(metrics, outcome, resamples=settings.resamples, seed=seed)
    evaluation: dict[str, Any] = {
        "split": split,
        "rows": len(outcome),
        "metrics": {name: estimate.to_json() for name, estimate in estimates.items()},
    }
    if split != "test":
        evaluation["warning"] = f"there is no test split: measured on the {split} rows, which the training has seen"
    save_predictions(job, kind, measured.units(preprocessor, table), target, outputs)
    if full:
        evaluation["baselines"] = _baselines(job, preprocessor, before, metrics, table, target, groups)
        for column in settings.slices:
            values = _slice_values(table, column)
            found = slice_by(column, values, metrics, outcome, resamples=settings.resamples, seed=seed)
            evaluation.setdefault("slices", []).extend(found)
        evaluation |= measured.facts(saved.network, preprocessor, job.prepared, table, outcome)
        if job.beside:
            evaluation["beside"] = measure_beside(job, saved.network, before, preprocessor, screen)
        if settings.explain:
            evaluation["explanations"] = _explanations(job, saved.network, preprocessor, table, evaluation, screen)
        summary["hint"] = _hint(job, evaluation, metrics[0])
    headline = metrics[0].name
    screen.info(f"{job.stage.name}  {split} {headline} {show(estimates[headline])}  ({len(outcome):,} rows)")
    if "warning" in evaluation:
        screen.warning(evaluation["warning"])
    beside = (job.folder / name for name in (METRICS_FILE, PREDICTIONS_FILE))
    files = {path.name: file_facts(path) for path in beside if path.exists()}
    summary = {**summary, "evaluation": evaluation, "files": files}
    write_atomic(job.folder / "model" / "README.md", model_card(summary, job.recipe.model_dump(mode="json")))
    write_record(summary_path, summary)


def unmeasured(summary: dict[str, Any]) -> dict[str, Any]:
    """A stage's summary without what was measured."""
    return {key: value for key, value in summary.items() if key not in MEASURED}


def users_of(job: StageJob, table: pa.Table) -> np.ndarray | None:
    """[N] a number for the user of each row; None where no column says who."""
    user, _ = role_columns(job.recipe.data, [name for name in table.column_names if name != "_row"])
    return None if user is None else np.unique([str(who) for who in table[user].to_pylist()], return_inverse=True)[1]


def network_before(job: StageJob) -> Network | None:
    """The network that a stage began with; None where its weights were random."""
    random = job.recipe.model.weights == "random" or job.backbone is None or not job.backbone.pretrained
    if job.source is None and random:
        return None
    return build_parts(job.recipe, job.prepared, job.origin(), job.backbone, silent()).network


def show(estimate: Estimate) -> str:
    """A value with its interval, for one line of text."""
    if estimate.value is None:
        return "not defined on these rows"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.4f}"
    return f"{estimate.value:.4f} [{estimate.low:.4f}, {estimate.high:.4f}]"


def _baselines(
    job: StageJob,
    preprocessor: Preprocessor,
    before: Network | None,
    metrics: list[Metric],
    table: pa.Table,
    target: np.ndarray,
    groups: np.ndarray | None,
) -> list[dict[str, Any]]:
    settings = job.recipe.eval
    measured = preprocessor.task.evaluation
    # One thread: the sums are small, and two that wait for each other on a busy machine take many times as long.
    with threads(1):
        found = measured.baselines(preprocessor, job.prepared, table, job.recipe.seed)
    if before is not None:
        outputs, _ = measured.outputs(before, before, preprocessor, table)
        found = [Baseline(BEFORE, outputs), *found]
    return [
        {
            "name": baseline.name,
            "metrics": {
                name: estimate.to_json()
                for name, estimate in bootstrap(
                    [metric for metric in metrics if baseline.metrics is None or metric.name in baseline.metrics],
                    Outcome(baseline.outputs, target, groups),
                    resamples=settings.resamples,
                    seed=job.recipe.seed,
                ).items()
            },
        }
        for baseline in found
    ]


def _explanations(
    job: StageJob,
    network: Network,
    preprocessor: Preprocessor,
    table: pa.Table,
    evaluation: dict[str, Any],
    screen: Console,
) -> list[dict[str, Any]]:
    """The worst mistakes, explained; rows by lot where a task lists none. Nothing where such a model is not explained: what was trained
    is worth its evaluation all the same."""
    rows = table["_row"].to_pylist()
    place = {row: index for index, row in enumerate(rows)}
    mistakes = {place[entry["row"]]: entry["target"] for entry in evaluation.get("mistakes", [])}
    by_lot = permutation(job.recipe.seed, "explain", 0, len(rows)).tolist()
    chosen = (list(mistakes) or by_lot)[: job.recipe.eval.explain]
    names = [{"row": rows[index]} for index in chosen]
    found = explain_rows(network.eval(), preprocessor, table.take(chosen), names, seed=job.recipe.seed)
    try:
        return [{**one.on_page(), "target": mistakes.get(index)} for index, one in zip(chosen, found)]
    except (ArtifactError, DataError) as error:
        screen.warning(f"{job.stage.name}: nothing is explained (eval.explain): {error.problem}")
        return []


def _hint(job: StageJob, evaluation: dict[str, Any], metric: Metric) -> dict[str, Any]:
    sign = 1.0 if metric.greater_is_better else -1.0
    linear = evaluation["baselines"][-1]["metrics"].get(metric.name, {}).get("value")
    reached = evaluation["metrics"][metric.name]["value"]
    epochs = [entry for entry in read_metrics(job.folder / "metrics.jsonl") if entry["kind"] == "epoch"]
    return hint(
        epochs,
        None if linear is None else sign * linear,
        None if reached is None else sign * reached,
        metric.name,
    ).to_json()


def _slice_values(table: pa.Table, column: str) -> list[Any]:
    from tunewright.data.column_types import missing_column

    if column not in table.column_names:
        raise missing_column(
            "eval.slices", column, [name for name in table.column_names if name != "_row"], "the prepared data"
        )
    return table[column].to_pylist()
