"""Run `tunewright compare A B`: is the difference between two results real?"""

from __future__ import annotations

from pathlib import Path

from tunewright.console import Console
from tunewright.errors import ArtifactError
from tunewright.evaluation.intervals import Difference
from tunewright.evaluation.metrics import METRICS
from tunewright.evaluation.paired_comparison import Predictions, compare_predictions
from tunewright.pipeline.results.predictions import PREDICTIONS_FILE, read_predictions
from tunewright.runs.folder import Run
from tunewright.runs.summary.stage import damage_beside


def compare_runs(first: Path, second: Path, *, console: Console | None = None) -> dict[str, Difference]:
    """Compare two runs, or two stages, by every metric of both.

    Raises:
        UserError: one is not an evaluated run, or they were evaluated on different rows.
    """
    console = console or Console()
    a, b = load_result(first), load_result(second)
    console.info(f"A {a.name}\nB {b.name}\non the same {len(a.rows):,} rows; difference A − B with its 95 % interval")
    found: dict[str, Difference] = {}
    for metric in METRICS.values():
        if a.kind not in metric.kinds:
            continue
        found[metric.name] = compare_predictions(a, b, metric.name, resamples=2000)
        values = [metric.value(result.outputs, result.target) for result in (a, b)]
        console.info(f"{metric.name:<10} A {values[0]:.4f}  B {values[1]:.4f}  {found[metric.name].sentence('A − B')}")
    return found


def load_result(path: Path) -> Predictions:
    """Return the predictions in a stage's folder; of a run folder, those of its last evaluated stage."""
    if not (path / "run.json").exists():
        return read_predictions(path)
    stages = Run(path).told("stages")
    for stage in reversed(stages):
        # A stage with lost predictions is refused, not replaced by an earlier one.
        if (path / stage / PREDICTIONS_FILE).exists() or damage_beside(path / stage, PREDICTIONS_FILE) is not None:
            return read_predictions(path / stage)
    raise ArtifactError(
        "no stage of this run was evaluated", file=path, found=", ".join(stages), fix="tunewright run RECIPE"
    )
