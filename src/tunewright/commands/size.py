"""Run `tunewright design --compute`: find the best language model for a compute budget, by scaling laws."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from tunewright.console import Console
from tunewright.errors import RecipeError
from tunewright.hardware.rates import product_rate
from tunewright.planning.compute_optimal import HEAD, Size, shape_for, sizes
from tunewright.planning.scaling_laws import EACH

# Four bytes each for the weight, its gradient, and Adam's two moments (Rajbhandari et al. 2020, section 3.1).
BYTES_PER_PARAMETER = 16
# The width of the small network whose learning rate is transferred.
PROXY = 256
# The range of compute on which the published laws were fitted.
FITTED = (6e18, 3e21)
LEAST, MOST = 1e9, 1e30


def show_sizes(
    recipe: Path | None, compute: float, tokens: float | None, *, console: Console | None = None
) -> list[Size]:
    """Print the optimum of each law, a shape, and the line for a recipe.

    Raises:
        RecipeError: a recipe is named too, or a number is out of range.
    """
    console = console or Console()
    if recipe is not None:
        raise RecipeError("--compute works without a recipe", found=str(recipe), fix="omit the recipe or --compute")
    for name, value, least in (("--compute", compute, LEAST), ("--tokens", tokens, 1.0)):
        if value is not None and not least <= value <= MOST:
            raise RecipeError(
                "the number is out of range",
                place=name,
                found=value,
                expected=f"{least:g} to {MOST:g}",
                fix="write it such as 1e18",
            )
    found = sizes(compute, tokens)
    table = Table(title=f"{compute:.3g} FLOPs, C = {EACH} N D", title_justify="left", box=None, pad_edge=False)
    for heading in ("law", "parameters N", "tokens D", "epochs", "loss, nats per token"):
        table.add_column(heading, justify="left" if heading == "law" else "right")
    for size in found:
        row = (f"{size.parameters:.3g}", f"{size.tokens:.3g}", f"{size.epochs:.3g}", f"{size.loss:.3f}")
        table.add_row(size.law.name, *row)
    console.rich.print(table)
    for size in found:
        console.info(f"{size.law.name}: {size.law.source}")
    shape = shape_for(found[0].parameters)
    console.info(
        f"a shape for {found[0].parameters:.3g}: {shape.parameters:.3g} parameters without embeddings"
        f"\nmodel: {{backbone: {{gpt: {{layers: {shape.layers}, width: {shape.width}, heads: {shape.heads}}}}}}}"
    )
    console.info(
        f"learning rate transfer: find the best rate for {{gpt: {{layers: {shape.layers}, width: {PROXY}, heads: {PROXY // HEAD}, "
        f"tied: false, base_width: {PROXY}}}}}, then write tied: false and base_width: {PROXY} into the large one. By muP (Yang and Hu "
        f"et al. 2022, table 3, for Adam) the matrices' rate is then divided by {shape.width / PROXY:g}, width / base_width, and so is "
        "the initial output; everything else is unchanged"
    )
    rate = product_rate()
    console.info(
        f"training with Adam in float32 needs {BYTES_PER_PARAMETER * shape.parameters / 2**30:,.2f} GiB, {BYTES_PER_PARAMETER} bytes per parameter, plus "
        f"activations; this machine reaches at most {rate / 1e9:,.0f} GFLOP/s, so it would take {_days(compute / rate)} or more"
    )
    if not FITTED[0] <= compute <= FITTED[1]:
        console.warning(
            f"the laws were fitted on runs of {FITTED[0]:.0e} to {FITTED[1]:.0e} FLOPs on English web text: here they are "
            "extrapolated, and the loss on your texts with your tokenizer differs"
        )
    return found


def _days(seconds: float) -> str:
    for unit, size in (("years", 365 * 86_400.0), ("days", 86_400.0), ("hours", 3600.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds / 60:,.1f} minutes"
