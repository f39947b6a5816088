"""Adapters: a few new weights in or next to the frozen ones, by peft; and BitFit, which trains the biases alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import nn

from tunewright.errors import ArtifactError, RecipeError
from tunewright.models.core.layers import is_linear
from tunewright.models.core.network import Network, evaluating
from tunewright.models.core.safe_weights import read_tensors
from tunewright.models.hub.hf_files import base_path, load_backbone
from tunewright.models.hub.hf_network import Transformer, TransformerSpec, first_line, quiet, seeded_library
from tunewright.models.hub.quantization import Kind, nothing_fetched, quantize
from tunewright.random import mix
from tunewright.recipe.named import check_options, choose, parse_named
from tunewright.recipe.schema import Named
from tunewright.runs.folder import read_json

Rank = Annotated[int, Field(gt=0, le=1024)]
Share = Annotated[float, Field(ge=0, lt=1)]
Targets = Literal["attention", "linear"] | list[str]


def lora(
    *,
    r: Rank = 8,
    alpha: Annotated[float, Field(gt=0)] = 16,
    dropout: Share = 0.0,
    target: Targets = "linear",
    rslora: bool = False,
    dora: bool = False,
) -> Callable[[list[str], list[str]], Any]:
    """W + (α/r) B A with A [r, in] and B [out, r], B zero at the start (Hu et al. 2021, section 4.1).

    rslora scales by α/√r (Kalajdzievski 2023, equation 4); dora trains the columns' lengths apart (Liu et al. 2024).
    `target`: attention, all linear layers of the backbone, or names of modules.
    """

    def config(targets: list[str], head: list[str]) -> Any:
        return peft().LoraConfig(
            r=r,
            lora_alpha=alpha,  # pyright: ignore[reportArgumentType]  peft divides by it, whole or not
            lora_dropout=dropout,
            target_modules=targets,
            modules_to_save=head,
            use_rslora=rslora,
            use_dora=dora,
        )

    config.target = target  # pyright: ignore[reportFunctionMemberAccess]
    return config


def ia3(*, target: Targets = "linear") -> Callable[[list[str], list[str]], Any]:
    """Return a learned factor for each output of the targeted layers, one at the start (Liu et al. 2022, section 3.3)."""

    def config(targets: list[str], head: list[str]) -> Any:
        return peft().IA3Config(target_modules=targets, feedforward_modules=[], modules_to_save=head)

    config.target = target  # pyright: ignore[reportFunctionMemberAccess]
    return config


def bitfit() -> None:
    """Only the biases move (Ben Zaken et al. 2021): nothing is added."""


@cache
def peft() -> Any:
    """Return the library, imported when it is first needed."""
    with nothing_fetched():
        import peft

    return peft


ADAPTERS: dict[str, Callable[..., Any]] = {"lora": lora, "ia3": ia3, "bitfit": bitfit}
# The layers that make queries and values, which Hu et al. (section 4.2) adapt, by the names that they go by.
ATTENTION = (
    "query",
    "value",
    "q",
    "v",
    "q_lin",
    "v_lin",
    "query_proj",
    "value_proj",
    "q_proj",
    "v_proj",
    "Wqkv",
    "qkv",
)


def is_moved_by(adapter: Named | None, name: str, *, head: bool) -> bool:
    """Return whether a parameter of this name moves in a block that is trained: all without an adapter; with one its own."""
    if adapter is None:
        return True
    kind, _ = parse_named(adapter, "tune.adapter")
    if kind == "bitfit":
        return head or name.endswith("bias")
    if head:
        return ".original_module." not in name
    return "lora_" in name or "ia3_" in name


def add_adapter(network: Network, adapter: Named, *, seed: int, bits: Kind | None = None) -> Network:
    """Return the network with the adapter around it; its outputs are the same until the adapter is trained.

    Args:
        bits: the matrices of the backbone are kept in so few, rounded; None: as they are.

    Raises:
        RecipeError: no such adapter or option, or the network has nothing to put it on.
    """
    name, given = parse_named(adapter, "tune.adapter")
    function = choose(ADAPTERS, name, "tune.adapter")
    options = check_options(function, given, f"tune.adapter.{name}")
    if name == "bitfit":
        if bits is not None:
            raise RecipeError(
                "bitfit trains what is in the backbone, and quantized weights cannot be trained",
                place="tune.quantize",
                found=bits,
                fix="tune.adapter: lora, or remove tune.quantize",
            )
        return _with_biases(network)
    if not isinstance(network, Transformer):
        raise RecipeError(
            f"{name} is for pretrained backbones of the Transformers library",
            place="tune.adapter",
            found=name,
            fix="use tune.freeze for this network, or tune.adapter: bitfit",
        )
    if network.spec.base is None:
        raise RecipeError(
            "an adapter needs saved base weights, and these are random",
            place="tune.adapter",
            found=name,
            fix="leave model.weights: random out, or leave tune.adapter out",
        )
    config = function(**options)
    targets = _targets(network, config.target, name)
    head = [block.name for block in network.blocks() if block.part == "head" and block.parameters()]

    core, spec = network.core, replace(network.spec, adapter=adapter)
    if bits is not None:
        quantize(core, _targets(network, "linear", name), bits)
        core.float()  # the rest, which may have been read in the type that it was saved in
        spec = replace(spec, quantize=bits)

    def make() -> nn.Module:
        with quiet():
            return peft().get_peft_model(core, config(targets, head))

    adapted = seeded_library(mix(seed, "adapter"), make)
    written = adapted.peft_config["default"]  # pyright: ignore
    written.base_model_name_or_path = base_path(network.spec.base)
    if network.purpose.adapter_type is not None:
        written.task_type = network.purpose.adapter_type
    else:
        written.auto_mapping = {"base_model_class": type(core).__name__, "parent_library": type(core).__module__}
    found = Transformer(adapted, spec)
    _require_pass(found, name)
    return found


def _require_pass(network: Transformer, adapter: str) -> None:
    """See that the adapted network still computes: some look into their layers, and an adapter looks different."""
    try:
        with evaluating(network), torch.no_grad():
            network(network.example())
    except (AttributeError, TypeError) as error:
        raise RecipeError(
            f"with this adapter the network cannot be computed: {first_line(error)}",
            place="tune.adapter",
            found=f"{adapter} on a {network.core.config.model_type}",
            fix="name other layers (target), or use tune.adapter: bitfit or tune.freeze",
        ) from None


def read_adapter(folder: Path, spec: TransformerSpec, base: Path) -> Transformer:
    """Read a saved adapter on the weights that it belongs to.

    The adapter is made anew from our own description, as it was for the training; of peft's files the tensors are read.

    Args:
        base: the folder of these weights.

    Raises:
        ArtifactError: a file is damaged, or was changed to name other code or other weights.
    """
    assert spec.adapter is not None
    whole = replace(spec, adapter=None, quantize=None)
    loaded = load_backbone(base, whole, seed=0, as_saved=spec.quantize is not None)
    network = add_adapter(loaded.network, spec.adapter, seed=0, bits=spec.quantize)
    assert isinstance(network, Transformer)
    model: Any = network.model
    path = folder / "adapter_model.safetensors"
    tensors = read_tensors(path)
    wanted = {name: tuple(value.shape) for name, value in peft().get_peft_model_state_dict(model).items()}
    given = {name: tuple(value.shape) for name, value in tensors.items()}
    if wanted != given:
        wrong = [name for name in sorted({*wanted, *given}) if wanted.get(name) != given.get(name)]
        raise ArtifactError(
            f"the weights do not fit the adapter: {len(wrong)} tensors differ",
            file=path,
            found=", ".join(wrong[:4]),
            expected=f"the {len(wanted)} tensors of {spec.adapter}",
            fix="restore the file from a copy, or train again",
        )
    peft().set_peft_model_state_dict(model, tensors)
    _require_unchanged(folder / "adapter_config.json", model.peft_config["default"])
    return network


def _require_unchanged(path: Path, expected: Any) -> None:
    """The file that other programs open an adapter by says what it was written with."""
    found = read_json(path, "an adapter's configuration")
    for key in ("base_model_name_or_path", "auto_mapping", "peft_type"):
        wanted = getattr(expected, key)
        if found.get(key) != wanted:
            raise ArtifactError(
                "the adapter's configuration was changed since it was written; nothing that it names was opened",
                file=path,
                place=key,
                found=found.get(key),
                expected=str(wanted),
                fix="restore the file from a copy, or train again",
            )


def _with_biases(network: Network) -> Network:
    """Return the network itself, if its backbone has biases."""
    backbone = [block for block in network.blocks() if block.part == "backbone"]
    if not any(name.endswith("bias") for block in backbone for name in block.parameters()):
        raise RecipeError(
            "bitfit trains biases, and this backbone has none",
            place="tune.adapter",
            found="bitfit",
            fix="tune.adapter: lora, or tune.freeze: backbone",
        )
    return network


def _targets(network: Transformer, wanted: Targets, adapter: str) -> list[str]:
    """Return the full names of the modules that get the adapter."""
    inside = [block.name for block in network.blocks() if block.part == "backbone"]
    prefix = f"{network.base_name}."
    fitting = [
        name
        for name, module in network.core.named_modules()
        if _can_be_adapted(module)
        and name.startswith(prefix)
        and any(name.removeprefix(prefix).startswith(f"{block}.") for block in inside)
    ]
    linear = [name for name in fitting if is_linear(network.core.get_submodule(name))] or fitting
    if wanted == "linear":
        found = [name for name in linear if "embed" not in name]
    elif wanted == "attention":
        found = [name for name in linear if name.rpartition(".")[2] in ATTENTION]
    else:
        found = [name for name in fitting if any(name == part or name.endswith(f".{part}") for part in wanted)]
    if not found:
        endings = ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in fitting))
        raise RecipeError(
            "the adapter matches none of the backbone's layers",
            place=f"tune.adapter.{adapter}.target",
            found=wanted,
            expected=f"linear, attention, or names that end in: {endings}",
        )
    return found


def _can_be_adapted(module: nn.Module) -> bool:
    if isinstance(module, nn.Conv2d):
        return module.groups == 1
    return is_linear(module)
