"""Control trainings: does the result depend on the pretrained weights, or would less have reached the same?

`from_scratch` trains the same network from random weights with nothing frozen and no adapter; `head_only`, for our own
networks, trains the head alone on the raw inputs. Both get the stage's own data, epochs, optimiser, learning rate and seed,
and are compared on the same test rows.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tunewright.console import Console, silent
from tunewright.errors import RecipeError
from tunewright.evaluation.paired_comparison import compare_predictions
from tunewright.models.families import build
from tunewright.models.saved_model import load_network
from tunewright.pipeline.build.parts import build_parts
from tunewright.pipeline.results.evaluate_stage import evaluate_stage
from tunewright.pipeline.results.predictions import read_predictions
from tunewright.pipeline.stage import StageJob
from tunewright.pipeline.train.methods import is_learned
from tunewright.pipeline.train.train_stage import train_stage
from tunewright.random import mix
from tunewright.recipe.schema import Recipe, Tune
from tunewright.runs.summary.evaluation import Comparison
from tunewright.runs.summary.stage import read_summary, write_summary

TITLES = {
    "from_scratch": "the same network from random weights, nothing frozen",
    "head_only": "the same head alone, on the raw inputs",
}


def run_controls(job: StageJob, console: Console) -> None:
    """Train and evaluate the stage's controls and write the comparisons into its summary."""
    summary = read_summary(job.folder)
    if summary.comparisons is not None or summary.evaluation is None:
        return
    comparisons: list[Comparison] = []
    metric = next(iter(summary.evaluation.metrics))
    for name in job.recipe.eval.controls:
        folder = job.folder / "controls" / name
        control = replace(job, folder=folder, source=None, backbone=None, stage=_control_stage(job, name))
        if not is_learned(folder):
            _train_control(job, control, name, console)
        if read_summary(folder).files is None:
            evaluate_stage(control, console, full=False, start=job)
        difference = compare_predictions(
            read_predictions(job.folder), read_predictions(folder), metric, resamples=job.recipe.eval.resamples
        )
        comparisons.append(
            Comparison(name=TITLES[name], metric=metric, difference=difference.estimate, verdict=difference.verdict)
        )
        console.info(f"{job.stage.name} against {TITLES[name]}: {difference.sentence(metric)}")
    write_summary(job.folder, replace(summary, comparisons=comparisons))


def require_controls(recipe: Recipe, pretrained: bool) -> None:
    """Check the controls before anything is trained.

    Args:
        pretrained: the network is one of the Transformers library.

    Raises:
        RecipeError: the head alone of such a network.
    """
    if pretrained and "head_only" in recipe.eval.controls:
        raise RecipeError(
            "head_only works with Tunewright's own networks: the head of a pretrained network reads features, not raw inputs",
            place="eval.controls",
            found="head_only",
            expected="from_scratch",
            fix="remove head_only; the report always compares with a linear baseline on the raw inputs",
        )


def _control_stage(job: StageJob, name: str) -> Any:
    recipe = job.recipe.model_copy(update={"tune": Tune()})
    return replace(job.stage, name=f"{job.stage.name}: {name}", recipe=recipe)


def _train_control(job: StageJob, control: StageJob, name: str, console: Console) -> None:
    network = load_network(job.folder / "model").network
    spec = network.spec.head_only() if name == "head_only" else network.spec.from_scratch()
    ingredients = build_parts(job.recipe, job.prepared, job.origin(), job.backbone, silent())
    fresh = build(spec, seed=mix(job.recipe.seed, "control", name))
    train_stage(control, replace(ingredients, network=fresh, tune=Tune()), console)
