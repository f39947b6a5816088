"""The parts of a stage's summary.json: plain facts about data, network and training."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from tunewright.data.prepared import Prepared
from tunewright.models.core.network import Inputs, Network
from tunewright.models.diagram import network_svg
from tunewright.models.families import BESIDE
from tunewright.models.hub.hf_network import Transformer
from tunewright.models.layer_table import layer_table
from tunewright.pipeline.build.parts import StageParts
from tunewright.pipeline.stage import StageJob
from tunewright.runs.folder import read_json
from tunewright.training.freezing import TrainablePlan, is_trained
from tunewright.training.state import State


def describe_data(prepared: Prepared) -> dict[str, Any]:
    """Where the data came from, what was used and what was left out."""
    manifest = prepared.manifest
    return {
        "source": manifest.source,
        "rows": {split: prepared.rows(split) for split in ("train", "valid", "test")},
        "read": manifest.read,
        "used": manifest.used,
        "left_out": [asdict(entry) for entry in manifest.skipped],
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
    ingredients: StageParts, movements: list[TrainablePlan], epochs: int, lr: float | None
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
        title = f"{network.spec.config['model_type']}, {len(rows)} blocks"
        if (bits := network.spec.quantize) is not None:
            title += f", matrices in {bits}"
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


def describe_source(job: StageJob) -> dict[str, Any] | None:
    """The pretrained model that a stage's weights come from in the end: {"name", "hub", "licence"}; None: there is none."""
    if job.source is not None:
        beside = job.source / BESIDE
        saved = read_json(beside if beside.exists() else job.source / "config.json", "a saved model")
        return saved.get("made_from")
    if (backbone := job.pretrained) is None:
        return None
    name = Path(backbone.name).name if Path(backbone.name).is_absolute() else backbone.name
    return {"name": name, "hub": backbone.hub, "licence": backbone.licence}


def describe_opening(network: Network, made_from: dict[str, Any] | None) -> dict[str, Any]:
    """By which library the saved folder is opened, and how: what the model card says of it."""
    facts: dict[str, Any] = {"library": "tunewright", "made_from": made_from}
    if not isinstance(network, Transformer):
        return facts
    facts["tokenizer"] = not network.purpose.reads_images
    facts["named_classes"] = not network.purpose.names_tokens
    facts["own_head"] = network.spec.head is not None
    if facts["own_head"]:
        return facts
    facts["class"] = network.purpose.auto_class
    facts["library"] = "peft" if network.adapted else "transformers"
    if network.adapted:
        base = network.model.peft_config["default"].base_model_name_or_path  # pyright: ignore
        on_hub = made_from is not None and network.spec.base == made_from["name"]
        facts["base"] = made_from["hub"] if made_from is not None and on_hub and made_from["hub"] else base
        facts["quantize"] = network.spec.quantize
    return facts


def _reads_text(network: Network) -> bool:
    return isinstance(network, Transformer) and not network.purpose.reads_images


def _example(ingredients: StageParts) -> Inputs:
    """An empty example, of the longest text that the network gets."""
    network = ingredients.network
    if isinstance(network, Transformer) and _reads_text(network):
        return network.example(ingredients.preprocessor.inputs.input_shape)
    return network.example()


def describe_training(ingredients: StageParts, state: State, lr: float | None, selected_by: str) -> dict[str, Any]:
    """What was done, and how long it took."""
    recipe, best = ingredients.recipe, state.best
    return {
        "epochs": recipe.train.epochs,
        "epochs_run": state.epoch,
        "steps": state.step,
        "seconds": state.seconds,
        "examples_per_second": state.examples / state.seconds,
        "batch_size": recipe.train.batch_size * recipe.train.accumulate if recipe.train.batch_seconds is None else None,
        "batch_seconds": recipe.train.batch_seconds,
        "optimizer": recipe.train.optimizer,
        "lr": lr,
        "objective": ingredients.objective.name,
        "best": {"epoch": best.epoch, "step": best.step, "metric": selected_by, "value": best.value} if best else None,
        "stopped": state.finished,
        "device": str(next(ingredients.network.parameters()).device),
        "threads": torch.get_num_threads(),
    }
