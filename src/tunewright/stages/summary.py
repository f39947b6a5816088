"""The parts of a stage's summary.json: plain facts about data, network and training."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch

from tunewright.data.prepare import Prepared
from tunewright.models.describe import layer_table
from tunewright.models.network import AnyNetwork, Inputs
from tunewright.models.picture import network_svg
from tunewright.models.transformer import Transformer
from tunewright.stages.ingredients import Ingredients
from tunewright.training.freezing import Movement, is_trained
from tunewright.training.loop import State


def describe_data(prepared: Prepared) -> dict[str, Any]:
    """Where the data came from, what was used and what was left out."""
    manifest = prepared.manifest
    return {
        "source": manifest.source,
        "rows": {split: prepared.rows(split) for split in ("train", "valid", "test")},
        "read": manifest.read,
        "used": manifest.used,
        "left_out": [asdict(entry) for entry in manifest.left_out],
        "input": manifest.input,
        "target": manifest.target,
        "target_reason": manifest.target_reason,
        "classes": manifest.classes,
        "split_rule": manifest.split_rule,
        "fingerprint": manifest.fingerprint,
        "licence": manifest.licence,
        "citation": manifest.citation,
    }


def describe_network(
    ingredients: Ingredients, movements: list[Movement], epochs: int, lr: float | None
) -> dict[str, Any]:
    """The layers, which of them were trained and how fast, parameters, FLOPs, and the picture.

    Args:
        lr: None where nothing was learned by gradients.
    """
    network = ingredients.network
    moves = {f"{movement.block.part}.{movement.block.name}": movement for movement in movements}
    trained = {name: is_trained(movement, epochs - 1) for name, movement in moves.items()}
    rows = layer_table(network, _example(ingredients))
    frozen = {name for name, moving in trained.items() if not moving}
    moving = {
        name: sum(value.numel() for value in moves[name].parameters) if moves_now else 0
        for name, moves_now in trained.items()
    }
    layers = [
        {
            "block": row.block,
            "kind": row.kind,
            "output_shape": list(row.output_shape),
            "parameters": row.parameters,
            "flops": row.flops,
            "trained": trained[row.block],
            "moving": moving[row.block],
            "from_epoch": (moves[row.block].from_epoch or 0) + 1 if trained[row.block] else None,
            "lr": lr * moves[row.block].lr_multiplier if trained[row.block] and lr is not None else None,
        }
        for row in rows
    ]
    total = sum(row.parameters for row in rows)
    still = total - sum(moving.values())
    if isinstance(network, Transformer):
        title = f"{network.described['config']['model_type']}, {len(rows)} blocks"
    else:
        title = ", ".join(row.kind for row in rows) if len(rows) <= 12 else f"{len(rows)} blocks"
    return {
        "title": title,
        "layers": layers,
        "parameters": {"total": total, "trainable": total - still, "frozen": still},
        "flops_per_example": sum(row.flops for row in rows),
        "flops_of": f"a text of {ingredients.preprocessor.inputs.input_shape[0]} tokens"
        if _reads_text(network)
        else None,
        "svg": network_svg(rows, title=title, frozen=frozen),
    }


def _reads_text(network: AnyNetwork) -> bool:
    return isinstance(network, Transformer) and network.described["purpose"] != "image-classification"


def _example(ingredients: Ingredients) -> Inputs:
    """An empty example, of the longest text that the network gets."""
    network = ingredients.network
    if isinstance(network, Transformer) and _reads_text(network):
        return network.example(ingredients.preprocessor.inputs.input_shape)
    return network.example()


def describe_training(ingredients: Ingredients, state: State, lr: float | None, selected_by: str) -> dict[str, Any]:
    """What was done, and how long it took."""
    recipe, best = ingredients.recipe, state.best
    return {
        "epochs": recipe.train.epochs,
        "epochs_run": state.epoch,
        "steps": state.step,
        "seconds": state.seconds,
        "examples_per_second": state.examples / state.seconds,
        "batch_size": recipe.train.batch_size * recipe.train.accumulate,
        "optimizer": recipe.train.optimizer,
        "lr": lr,
        "objective": ingredients.objective.name,
        "best": {"epoch": best.epoch, "step": best.step, "metric": selected_by, "value": best.value} if best else None,
        "stopped": state.finished,
        "device": str(next(ingredients.network.parameters()).device),
        "threads": torch.get_num_threads(),
    }
