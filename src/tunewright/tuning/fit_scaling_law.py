"""Run `tunewright design RECIPE --fit`: train small networks of several sizes, and fit a scaling law to their losses.

Each size is trained once, at a constant learning rate, and its validation loss after each epoch is a point: a token that is repeated up to four
times is worth about as much as a new one (Muennighoff et al. 2023, section 6). The learning rate is that of the smallest size,
transferred to the others by muP.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from rich.table import Table

from tunewright.console import Console, silent
from tunewright.errors import RecipeError
from tunewright.pipeline.read_recipe import read_recipe
from tunewright.planning.compute_optimal import SQUARES
from tunewright.planning.law_fitting import Fit, Point, fit_law
from tunewright.planning.plan import plan
from tunewright.planning.scaling_laws import EACH
from tunewright.recipe.named import parse_named
from tunewright.report.reading import read_run
from tunewright.run_recipe import run
from tunewright.runs.metrics_log import LOSS
from tunewright.runs.summary.data import TextSummary
from tunewright.tasks import language_modeling
from tunewright.units import duration

# Layers and width; the head dimension is 32.
SHAPES = ((2, 64), (3, 96), (4, 128), (5, 192))
HEAD = 32
EPOCHS = 4
# Budgets for which the optimum is shown, as multiples of the compute of the largest training here.
BEYOND = (1, 10, 100)


def fit_own_law(recipe: Path, overrides: list[str], *, console: Console | None = None) -> Fit:
    """Train, fit, and print the law with its intervals.

    Raises:
        RecipeError: the recipe does not train a `gpt` from scratch as its first stage.
    """
    console = console or Console()
    loaded, _, _, base, _ = read_recipe(recipe, overrides, None)
    options = _options(loaded.task, loaded.model.backbone)
    points: list[Point] = []
    with tempfile.TemporaryDirectory() as folder:
        changes = [[*overrides, *_changes(shape, options)] for shape in SHAPES]
        seconds = sum(plan(recipe, part, probe=False, console=silent())[0].seconds.middle for part in changes)
        console.info(
            f"{len(SHAPES)} sizes are trained for {EPOCHS} epochs each: about {duration(seconds)}, by the plan"
        )
        for (layers, width), part in zip(SHAPES, changes):
            done = run(recipe, overrides=part, base=base, runs=folder, until="pretrain", console=silent())
            points += _points(done.folder, layers, width)
            console.info(f"{layers} layers of {width}: validation loss {points[-1].loss:.3f}")
    found = fit_law(points)
    _show(found, points, console)
    return found


def _options(task: str, backbone: Any) -> dict[str, Any]:
    name, options = parse_named(backbone, "model.backbone") if backbone is not None else (None, {})
    if task != language_modeling.TASK.name or name != "gpt":
        raise RecipeError(
            "a scaling law is fitted to language models that are trained from scratch",
            place="--fit",
            found=f"task: {task}, backbone: {name}",
            expected=f"task: {language_modeling.TASK.name}, backbone: gpt",
            fix=f"tunewright init {language_modeling.TASK.name} writes such a recipe",
        )
    return options


def _changes(shape: tuple[int, int], options: dict[str, Any]) -> list[str]:
    layers, width = shape
    kept = {"context": options.get("context", 64), "layers": layers, "width": width, "heads": width // HEAD}
    written = ", ".join(
        f"{name}: {value}" for name, value in {**kept, "tied": "false", "base_width": SHAPES[0][1]}.items()
    )
    return [
        f"model.backbone={{gpt: {{{written}}}}}",
        f"train.epochs={EPOCHS}",
        "train.schedule=constant",
        "stages=[pretrain]",
        "eval.resamples=100",
        "eval.seeds=1",
        "eval.target={}",
    ]


def _points(folder: Path, layers: int, width: int) -> list[Point]:
    """Return the validation loss after each epoch, and the number of tokens read so far."""
    (stage,) = read_run(folder).stages
    texts = stage.summary.texts
    assert isinstance(texts, TextSummary)
    return [
        Point(float(SQUARES * layers * width**2), float(texts.tokens * line.epoch), line.valid[LOSS])
        for line in stage.curves.epochs
        if line.valid is not None
    ]


def _show(found: Fit, points: list[Point], console: Console) -> None:
    law = found.law
    for name, said in (("irreducible", "E"), ("alpha", "α"), ("beta", "β")):
        low, high = found.interval(name)
        console.info(f"{said} = {getattr(law, name):.3f} [{low:.3f}, {high:.3f}]")
    console.info(
        f"A = {law.a:.4g}, B = {law.b:.4g}; the law fits the {len(points)} losses with a mean error of {found.error:.4f}"
    )
    spent = EACH * max(point.parameters * point.tokens for point in points)
    table = Table(title="the best size for a budget by this law", title_justify="left", box=None, pad_edge=False)
    for heading in ("FLOPs", "parameters", "tokens", "loss"):
        table.add_column(heading, justify="right")
    for times in BEYOND:
        size, tokens = law.optimum(times * spent)
        sizes = [other.optimum(times * spent)[0] for other in found.laws]
        low, high = sorted(sizes)[len(sizes) // 40], sorted(sizes)[-1 - len(sizes) // 40]
        shown = f"{size:.3g} [{low:.3g}, {high:.3g}]"
        table.add_row(f"{times * spent:.2g}", shown, f"{tokens:.3g}", f"{law.loss(size, tokens):.3f}")
    console.rich.print(table)
    console.warning(
        "few and small trainings say little about large ones: far beyond the sizes trained here the published laws are the safer guide"
    )
