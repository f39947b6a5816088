"""How the processes of a team share a stage's network: each has all of it, or a part of every weight (see `training/distributed/fsdp.py`)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from tunewright.errors import RecipeError
from tunewright.models.core.network import Network
from tunewright.models.hub.hf_network import Transformer
from tunewright.models.recommendation.embedding_table import has_sparse_gradients
from tunewright.pipeline.build.parts import StageParts
from tunewright.pipeline.session.memory import free_memory, weight_bytes
from tunewright.recipe.named import parse_named
from tunewright.recipe.schema import Recipe, Tune
from tunewright.training.distributed.process_group import ProcessGroup

# Of float32 weights, what else a training keeps: gradients and AdamW's two running means.
KEPT = 4
# The share of a process's memory that they may take; the rest is for activations.
SHARE = 0.5


def settle(ingredients: StageParts, team: ProcessGroup) -> StageParts:
    """The ingredients with `hardware.strategy` chosen, and what is measured on one device chosen without where no one device holds the network.

    Raises:
        RecipeError: several processes cannot train this, or not so.
    """
    recipe = ingredients.recipe
    if team.device.type == "cuda":
        free = torch.cuda.mem_get_info(team.device)[0]
    else:  # the processes of a machine share its memory
        free = free_memory(ingredients.network) // recipe.hardware.devices
    chosen: dict[str, Any] = {"strategy": strategy_for(recipe, ingredients.tune, ingredients.network, free)}
    _require(ingredients, divided=chosen["strategy"] == "fsdp")
    if recipe.hardware.tensor > 1:
        require_layers(ingredients, team.size)
    if chosen["strategy"] == "fsdp":
        chosen["prefix_cache"] = False
        if torch.cuda.is_available():
            if recipe.hardware.precision == "auto" and isinstance(ingredients.network, Transformer):
                chosen["precision"] = "bfloat16"
            if recipe.hardware.gradient_checkpointing == "auto":
                chosen["gradient_checkpointing"] = True
    hardware = recipe.hardware.model_copy(update=chosen)
    return replace(ingredients, recipe=recipe.model_copy(update={"hardware": hardware}))


def strategy_for(recipe: Recipe, tune: Tune, network: Network, free: float) -> str:
    """`hardware.strategy`, or what is chosen in its place: the network is divided where a device has too little memory for the whole.

    Args:
        free: bytes that each device has.
    """
    if recipe.hardware.strategy != "auto":
        return recipe.hardware.strategy
    if recipe.hardware.tensor > 1 or recipe.hardware.offload:
        return "fsdp"
    if tune.quantize is not None:
        return "ddp"
    return "fsdp" if KEPT * weight_bytes(network) > SHARE * free else "ddp"


def _require(ingredients: StageParts, *, divided: bool) -> None:
    """Raises RecipeError for what several processes cannot train."""
    devices = ingredients.recipe.hardware.devices
    for problem, place in obstacles(ingredients, divided=divided):
        alone = place == "hardware.devices"
        raise RecipeError(
            problem,
            place=place,
            found=devices if alone else "fsdp",
            expected="1" if alone else "ddp",
            fix="leave it out, or what does not go with it",
        )


def obstacles(ingredients: StageParts, *, divided: bool) -> list[tuple[str, str]]:
    """Why several processes cannot train this, or not with a divided network; and the place in the recipe that wants it."""
    recipe, network = ingredients.recipe, ingredients.network
    optimizer, _ = parse_named(recipe.train.optimizer, "train.optimizer")
    together = {
        "privacy is counted for one process": recipe.privacy is not None,
        "steps in the backward pass see the gradients of one process": recipe.hardware.optimizer_in_backward,
        "sparse gradients are not added up over processes": has_sparse_gradients(network),
    }
    in_parts = {
        "the reference of preferences is computed by a whole network": ingredients.objective.refer is not None,
        "muon needs whole matrices": optimizer == "muon",
        "states of 8 bits belong to whole parameters": optimizer == "adamw_8bit",
        "matrices in few bits are not divided": ingredients.tune.quantize is not None,
    }
    found = [(problem, "hardware.devices") for problem, present in together.items() if present]
    return found + [(problem, "hardware.strategy") for problem, present in in_parts.items() if present and divided]


def require_layers(ingredients: StageParts, processes: int) -> None:
    """Raises RecipeError where `hardware.tensor` processes of these cannot divide the layers of the network among them."""
    network, hardware = ingredients.network, ingredients.recipe.hardware
    count, penalties = hardware.tensor, ingredients.recipe.train.regularization
    wrong = {
        "hardware.strategy is ddp, which divides nothing": hardware.strategy == "ddp",
        "penalties are not added up over divided layers": bool(penalties.l1 or penalties.l2),
        f"{processes} processes are no multiple of it": processes % count != 0,
    }
    if network.tensor_parallel_plan():
        config = network.core.config  # pyright: ignore
        for name in ("num_attention_heads", "num_key_value_heads", "intermediate_size"):
            size = getattr(config, name)
            wrong[f"{name} {size} is no multiple of it"] = size % count != 0
    else:
        wrong["it is no gpt, or has an adapter"] = True
    for problem in (problem for problem, present in wrong.items() if present):
        raise RecipeError(
            f"the layers cannot be divided: {problem}", place="hardware.tensor", found=count, fix="hardware.tensor: 1"
        )
