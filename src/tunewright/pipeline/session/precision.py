"""Choose bfloat16 or float32, measured once for a network on this machine; a stage resumes in what it began with."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tunewright.console import Console
from tunewright.data.batches.batch import Examples
from tunewright.errors import ArtifactError, RecipeError
from tunewright.files import cache_file, write_record
from tunewright.models.core.meta_weights import has_meta_weights
from tunewright.models.core.network import Inputs, Network, evaluating
from tunewright.recipe.schema import Recipe
from tunewright.runs.folder import read_json, read_or_forget

# bfloat16 has 8 bits of precision where float32 has 24: it must be this many times as fast to be taken.
WORTH = 1.15
TRIED = 4
TOKENS = 1024
# Repetitions and seconds of the measurement at least: a busy moment of the machine must not decide.
REPEATS = 3
SECONDS = 1.0
# Where one product of matrices of this side takes so many times as long in bfloat16, no network is tried: it would take minutes.
SIDE = 256
HOPELESS = 4.0
# Raised when networks are computed in another way, so that what was measured before is measured again.
VERSION = 3


def set_precision(network: Network, recipe: Recipe, examples: Examples, folder: Path | None, console: Console) -> str:
    """Set the precision that the recipe asks for, or the one that is faster here; returns its name.

    The weights are float32 in any case; in bfloat16 the products of matrices are computed (autocast). The choice is
    kept in `folder`, so that a resumed run computes in the same precision. A network without memory cannot be measured: it
    computes in what was measured before, or in float32.

    Raises:
        RecipeError: bfloat16 for a network that is not of the Transformers library.
        ArtifactError: the stage resumes, and the precision that it began with is unknown.
    """
    wanted = recipe.hardware.precision
    if not network.supports_bfloat16:
        if wanted == "bfloat16":
            raise RecipeError(
                "bfloat16 is for backbones of the Transformers library",
                place="hardware.precision",
                found=wanted,
                expected="auto or float32",
                fix="leave hardware.precision out",
            )
        return "float32"
    kept = None if folder is None else folder / "precision.json"
    if kept is not None and kept.exists():
        chosen = read_json(kept, "the precision that the stage began with")["precision"]
    elif kept is not None and wanted == "auto" and any((kept.parent / "checkpoints").glob("step-*")):
        raise ArtifactError(
            "the precision that the stage began with is unknown, and another one gives other weights",
            file=kept,
            expected='{"precision": "float32"} or {"precision": "bfloat16"}, as log.txt says',
            fix="write the file again, or start anew under another name",
        )
    elif wanted != "auto":
        chosen = wanted
    elif has_meta_weights(network):
        chosen = known_precision(network, recipe.train.batch_size) or "float32"
    else:
        facts = _measured(network, examples, recipe.train.batch_size)
        chosen = facts["precision"]
        console.info(f"computing in {chosen}: bfloat16 takes {1 / facts['ratio']:.2f} times as long as float32 here")
    if kept is not None:
        write_record(kept, {"precision": chosen})
    network.reduced = chosen == "bfloat16"
    return chosen


def known_precision(network: Network, batch_size: int) -> str | None:
    """What was measured before for such a network; None: nothing was."""
    known = read_or_forget(_place(network, batch_size), "a measurement")
    return None if known is None else known["precision"]


def _place(network: Network, batch_size: int) -> Path:
    """The file of the measurement for this architecture, machine and number of threads."""
    device = next(network.parameters()).device
    known = (
        VERSION,
        network.spec.architecture(),
        batch_size,
        _machine(device),
        torch.get_num_threads(),
        torch.__version__,
    )
    return cache_file("precision", known)


def _machine(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()


def _measured(network: Network, examples: Examples, batch_size: int) -> dict[str, Any]:
    """The measurement, made once."""
    path = _place(network, batch_size)
    if (known := read_or_forget(path, "a measurement")) is not None:
        return known
    seconds = _product_seconds(next(network.parameters()).device)
    if seconds[True] < HOPELESS * seconds[False]:
        seconds = _network_seconds(network, _some(examples, batch_size))
    ratio = seconds[False] / seconds[True]
    facts = {
        "precision": "bfloat16" if ratio >= WORTH else "float32",
        "ratio": ratio,
        "float32_seconds": seconds[False],
        "bfloat16_seconds": seconds[True],
        "machine": _machine(next(network.parameters()).device),
    }
    write_record(path, facts)
    return facts


def _product_seconds(device: torch.device) -> dict[bool, float]:
    """The time of one product of matrices in float32 and in bfloat16 (True)."""
    found = dict.fromkeys((False, True), float("inf"))
    for _ in range(REPEATS):
        for reduced in found:
            matrix = torch.ones(SIDE, SIDE, dtype=torch.bfloat16 if reduced else torch.float32, device=device)
            found[reduced] = min(found[reduced], _timed(lambda matrix=matrix: matrix @ matrix))
    return found


def _network_seconds(network: Network, inputs: Inputs) -> dict[bool, float]:
    """The time of one forward and backward pass in float32 and in bfloat16 (True)."""

    def passes() -> None:
        network(inputs).square().sum().backward()
        network.zero_grad()

    found = dict.fromkeys((False, True), float("inf"))
    with evaluating(network):  # so that no running statistic moves
        began, tries = time.perf_counter(), 0
        while (
            tries < REPEATS or time.perf_counter() - began < SECONDS
        ):  # the first is a warm-up that the minimum forgets
            tries += 1
            for reduced in found:
                network.reduced = reduced
                found[reduced] = min(found[reduced], _timed(passes))
    return found


def _some(examples: Examples, batch_size: int) -> Inputs:
    """So many examples as are worth a measurement: with fewer numbers what surrounds the products would count too much."""
    one = examples.batch(torch.arange(1)).inputs
    length = 1 if isinstance(one, Tensor) else max(value.shape[1] for value in one.values())
    count = max(TRIED, TOKENS // length) if length > 1 else TRIED
    return examples.batch(torch.arange(min(batch_size, count, len(examples)))).inputs


def _timed(action: Callable[[], object]) -> float:
    """Seconds."""
    started = time.perf_counter()
    action()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _processor() -> str:
    """The processor's name, with what it can do, as far as torch makes use of it."""
    return f"{platform.machine()} {platform.processor()} {torch.backends.cpu.get_cpu_capability()}"
