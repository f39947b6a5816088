"""Choose between a replicated and a sharded network for several processes, and refuse what they cannot train."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from tunewright.errors import RecipeError
from tunewright.models.core.network import Network
from tunewright.models.recommendation.embedding_table import has_sparse_gradients
from tunewright.pipeline.build.parts import StageParts
from tunewright.pipeline.session.memory import free_memory, weight_bytes
from tunewright.recipe.named import parse_named
from tunewright.recipe.schema import Recipe, Tune
from tunewright.training.distributed.process_group import ProcessGroup

# Float32 values per weight that a training keeps: weight, gradient, and AdamW's two running means.
KEPT = 4
# The share of a process's memory that these may take; the rest is for activations.
SHARE = 0.5


def settle(parts: StageParts, group: ProcessGroup) -> StageParts:
    """Choose `hardware.strategy`, and what would otherwise be measured on a device that holds the whole network.

    Raises:
        RecipeError: several processes cannot train this stage, or not with this strategy.
    """
    recipe = parts.recipe
    if group.device.type == "cuda":
        free = torch.cuda.mem_get_info(group.device)[0]
    else:  # the processes of a machine share its memory
        free = free_memory(parts.network) // recipe.hardware.devices
    chosen: dict[str, Any] = {"strategy": strategy_for(recipe, parts.tune, parts.network, free)}
    _require(parts, sharded=chosen["strategy"] == "fsdp")
    if recipe.hardware.tensor > 1:
        require_layers(parts, group.size)
    if chosen["strategy"] == "fsdp":
        chosen["prefix_cache"] = False
        if torch.cuda.is_available():
            if recipe.hardware.precision == "auto" and parts.network.supports_bfloat16:
                chosen["precision"] = "bfloat16"
            if recipe.hardware.gradient_checkpointing == "auto":
                chosen["gradient_checkpointing"] = True
    hardware = recipe.hardware.model_copy(update=chosen)
    return replace(parts, recipe=recipe.model_copy(update={"hardware": hardware}))


def strategy_for(recipe: Recipe, tune: Tune, network: Network, free: float) -> str:
    """Return `hardware.strategy`; `auto` shards the network where a device has too little memory for the whole.

    Args:
        free: bytes of memory of each device.
    """
    if recipe.hardware.strategy != "auto":
        return recipe.hardware.strategy
    if recipe.hardware.tensor > 1 or recipe.hardware.offload:
        return "fsdp"
    if tune.quantize is not None:
        return "ddp"
    return "fsdp" if KEPT * weight_bytes(network) > SHARE * free else "ddp"


def _require(parts: StageParts, *, sharded: bool) -> None:
    """Raise RecipeError for what several processes cannot train."""
    devices = parts.recipe.hardware.devices
    for problem, place in obstacles(parts, sharded=sharded):
        alone = place == "hardware.devices"
        raise RecipeError(
            problem,
            place=place,
            found=devices if alone else "fsdp",
            expected="1" if alone else "ddp",
            fix="remove it, or what it cannot be combined with",
        )


def obstacles(parts: StageParts, *, sharded: bool) -> list[tuple[str, str]]:
    """Return why several processes cannot train this stage, or not with a sharded network; and the key of the recipe that asks for it."""
    recipe, network = parts.recipe, parts.network
    optimizer, _ = parse_named(recipe.train.optimizer, "train.optimizer")
    of_several = {
        "privacy is accounted for one process": recipe.privacy is not None,
        "steps in the backward pass see the gradients of one process": recipe.hardware.optimizer_in_backward,
        "sparse gradients are not summed over processes": has_sparse_gradients(network),
    }
    of_shards = {
        "the reference of preferences is computed by a whole network": parts.objective.refer is not None,
        "muon needs whole matrices": optimizer == "muon",
        "8-bit optimizer states belong to whole parameters": optimizer == "adamw_8bit",
        "quantized matrices are not sharded": parts.tune.quantize is not None,
    }
    found = [(problem, "hardware.devices") for problem, present in of_several.items() if present]
    return found + [(problem, "hardware.strategy") for problem, present in of_shards.items() if present and sharded]


def require_layers(parts: StageParts, processes: int) -> None:
    """Raise RecipeError where the layers of the network cannot be divided among `hardware.tensor` processes."""
    network, hardware = parts.network, parts.recipe.hardware
    count, penalties = hardware.tensor, parts.recipe.train.regularization
    wrong = {
        "hardware.strategy is ddp, which divides nothing": hardware.strategy == "ddp",
        "penalties are not summed over divided layers": bool(penalties.l1 or penalties.l2),
        f"{processes} processes are not a multiple of it": processes % count != 0,
    }
    if network.tensor_parallel_plan():
        config = network.core.config  # pyright: ignore
        for name in ("num_attention_heads", "num_key_value_heads", "intermediate_size"):
            size = getattr(config, name)
            wrong[f"{name} {size} is not a multiple of it"] = size % count != 0
    else:
        wrong["the network is not a gpt, or has an adapter"] = True
    for problem in (problem for problem, present in wrong.items() if present):
        raise RecipeError(
            f"the layers cannot be divided: {problem}", place="hardware.tensor", found=count, fix="hardware.tensor: 1"
        )
