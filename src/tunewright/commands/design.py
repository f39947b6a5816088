"""Run `tunewright design`: show the network of each stage, its sizes and costs, and what is trained."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from tunewright.console import Console
from tunewright.files import write_atomic
from tunewright.pipeline.build.assume_trained import as_if_trained
from tunewright.pipeline.build.parts import build_parts
from tunewright.pipeline.build.prepare_data import prepare_data
from tunewright.pipeline.read_recipe import given_origin, read_recipe
from tunewright.pipeline.stage import recipe_backbone
from tunewright.pipeline.summary.stage_summary import describe_network
from tunewright.recipe.stages import stage_recipes
from tunewright.runs.summary.model import LayerSummary, ModelSummary
from tunewright.training.freezing import resolve_trainable


def show_design(
    recipe: Path, overrides: list[str], svg: Path | None, *, console: Console | None = None
) -> list[ModelSummary]:
    """Print each stage's layer table without training, and return what each stage's summary says of its network."""
    console = console or Console()
    loaded, _, _, base, _ = read_recipe(recipe, overrides, None)
    stages = stage_recipes(loaded)
    origin = given_origin(stages[0].recipe, base)
    described: list[ModelSummary] = []
    for number, stage in enumerate(stages):
        backbone = recipe_backbone(stage.recipe, base)
        ingredients = build_parts(stage.recipe, prepare_data(stage.recipe, base, console), origin, backbone, console)
        lr = ingredients.lr
        movements = resolve_trainable(ingredients.network, ingredients.tune)
        facts = describe_network(ingredients, movements, stage.recipe.train.epochs, lr)
        console.rich.print(_table(stage.name, facts))
        if svg is not None:
            path = svg if len(stages) == 1 else svg.with_name(f"{svg.stem}-{stage.name}{svg.suffix}")
            write_atomic(path, facts.svg or "")
            console.info(f"diagram: {path}")
        described.append(facts)
        if number + 1 < len(stages):
            origin = as_if_trained(ingredients)
    return described


def _table(title: str, facts: ModelSummary) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in ("block", "layer", "output", "parameters", "FLOPs", ""):
        longest = max(len(layer.block) for layer in facts.layers) if name == "block" else None
        justify = "right" if name in ("parameters", "FLOPs") else "left"
        table.add_column(name, justify=justify, min_width=longest)
    for layer in facts.layers:
        state = _movement(layer)
        shape = "×".join(map(str, layer.output_shape))
        table.add_row(
            layer.block,
            layer.kind,
            shape,
            f"{layer.parameters:,}",
            f"{layer.flops:,}",
            state if layer.parameters else "",
        )
    parameters = facts.parameters
    frozen = f"{parameters.frozen:,} frozen" if parameters.frozen else ""
    table.add_row("total", "", "", f"{parameters.total:,}", f"{facts.flops_per_example:,}", frozen, style="bold")
    if facts.flops_of is not None:
        table.caption, table.caption_justify = f"FLOPs: one forward pass of {facts.flops_of}", "left"
    return table


def _movement(layer: LayerSummary) -> str:
    """Describe whether a layer is frozen or from when on it is trained, its learning rate, and how many parameters if not all."""
    if not layer.trained:
        return "frozen"
    parts = [f"lr {layer.lr:.2g}"] if layer.lr is not None else ["trained"]
    if (layer.from_epoch or 1) > 1:
        parts.append(f"from epoch {layer.from_epoch}")
    if layer.trainable is not None and layer.trainable < layer.parameters:
        parts.append(f"{layer.trainable:,} of them")
    return ", ".join(parts)
