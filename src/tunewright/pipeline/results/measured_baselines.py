"""Measure models without skill on the rows that a stage is measured on."""

from __future__ import annotations

import pyarrow as pa

from tunewright.evaluation.baselines import Baseline
from tunewright.evaluation.intervals import bootstrap
from tunewright.evaluation.metrics import Metric, Outcome
from tunewright.models.core.network import Network
from tunewright.pipeline.device import threads
from tunewright.pipeline.stage import StageJob
from tunewright.runs.summary.evaluation import BaselineSummary
from tunewright.tasks.base.task import Preprocessor

# What the network that a stage began with is called among the baselines.
BEFORE = "the model before this stage"


def measure_baselines(
    job: StageJob,
    preprocessor: Preprocessor,
    before: Network | None,
    table: pa.Table,
    metrics: list[Metric],
    outcome: Outcome,
) -> list[BaselineSummary]:
    """Return the baselines' metrics with intervals: the network before the stage, then what is fitted to the training rows.

    Args:
        before: None: the stage began with random weights, or its task does not compare with them.
        outcome: the measured model's.
    """
    measured = preprocessor.task.evaluation
    # One thread: the sums are small, and two that wait for each other on a busy machine take many times as long.
    with threads(1):
        found = measured.baselines(preprocessor, job.prepared, table, job.recipe.seed)
    if before is not None:
        outputs, _ = measured.outputs(before, before, preprocessor, table)
        found = [Baseline(BEFORE, outputs), *found]
    return [
        BaselineSummary(
            name=baseline.name,
            training_rows=baseline.training_rows,
            metrics=bootstrap(
                [metric for metric in metrics if baseline.metrics is None or metric.name in baseline.metrics],
                Outcome(baseline.outputs, outcome.target, outcome.groups),
                resamples=job.recipe.eval.resamples,
                seed=job.recipe.seed,
            ),
        )
        for baseline in found
    ]
