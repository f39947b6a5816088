"""Run `tunewright merge`: merge an adapter into the weights, and verify that the model stays the same."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tunewright.console import Console
from tunewright.errors import ArtifactError, RunFailed, UserError
from tunewright.models.core.network import Inputs, Network, evaluating
from tunewright.models.hub.hf_files import merged
from tunewright.models.hub.hf_network import Transformer, library_network
from tunewright.models.saved_model import load_network, save_model
from tunewright.tasks.registry import load_preprocessor

# Rounding differs between W x + B A x and (W + B A) x: relative to 1 + the logits' magnitude.
TOLERANCE = 1e-3
TRIED = 4


@dataclass(frozen=True, kw_only=True)
class Merged:
    """Report a merged adapter."""

    folder: Path
    difference: float
    """The largest difference of a logit between both models, on synthetic inputs."""


def merge_adapter(folder: Path, out: Path, console: Console | None = None) -> Merged:
    """Write the model with its adapter merged; it opens without peft and without the base.

    Raises:
        ArtifactError: the model has no adapter.
        UserError: the output folder already exists.
        RunFailed: the outputs of both models differ.
    """
    console = console or Console()
    if out.exists():
        raise UserError("the folder already exists", file=out, fix="name another one, or delete it")
    saved = load_network(folder)
    network = library_network(saved.network)
    if network is None or not network.adapted:
        raise ArtifactError(
            "the model has no adapter to merge",
            file=folder,
            expected="a model that was trained with tune.adapter: lora or ia3",
            fix="use the folder as it is",
        )
    inputs = synthetic_inputs(network)
    before = _logits(network, inputs)
    whole = merged(network)
    after = _logits(whole, inputs)
    difference = (after - before).abs()
    if not bool((difference <= TOLERANCE * (1 + before.abs())).all()):
        raise RunFailed(
            "the merged model gives other outputs than the model with its adapter",
            found=f"a logit differs by {float(difference.max()):.3g}",
            expected=f"at most {TOLERANCE:g} of its magnitude",
            fix="keep the adapter; this is a bug in the adapter's code: please report it",
        )
    load_preprocessor(saved).inputs.write(out)
    save_model(out, whole, saved.extra)
    found = Merged(folder=out, difference=float(difference.max()))
    console.info(f"{out}: merged; the largest difference of a logit is {found.difference:.2g}")
    return found


def synthetic_inputs(network: Transformer) -> Inputs:
    """Return synthetic inputs, the same each time."""
    example = network.example()
    if isinstance(example, Tensor):
        return torch.linspace(-2, 2, TRIED * example.numel()).reshape(TRIED, *example.shape[1:])
    length = example["input_ids"].shape[1]
    pieces = int(network.core.config.vocab_size)
    ids = (torch.arange(TRIED * length).reshape(TRIED, length) * 7919 + 5) % pieces
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _logits(network: Network, inputs: Inputs) -> Tensor:
    with evaluating(network), torch.no_grad():
        return network(inputs)
