"""Build a network of the Transformers library on weights: random ones, a folder's, or another network's; and save it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from tunewright.errors import ArtifactError
from tunewright.models.core.meta_weights import has_meta_weights
from tunewright.models.core.network import Network
from tunewright.models.core.safe_weights import load_weights, read_tensors
from tunewright.models.hub.catalog import BACKBONES, catalog_folder
from tunewright.models.hub.hf_network import (
    Transformer,
    TransformerSpec,
    build_transformer,
    first_line,
    from_config,
    implementation,
    make_config,
    put_head,
    quiet,
    seeded_library,
)
from tunewright.models.hub.quantization import restore
from tunewright.models.hub.untrusted_files import require_memory, weights_bytes
from tunewright.runs.folder import read_json

# What sums up a text or an image behind the layers: checkpoints of other purposes are saved without it.
SUMMARY = "pooler"
# Tables of 0, 1, 2 …, which older versions of the library saved as weights.
COUNTED = "position_ids"
OWN_WEIGHTS = "own.safetensors"


@dataclass(frozen=True, kw_only=True)
class LoadedNetwork:
    """Hold a network, and what its weights lacked or had too much of."""

    network: Transformer
    new: list[str]
    """The tensors that the weights did not have, random by the seed: the head's, and the pooler's where there was none."""
    unused: list[str]
    """The tensors of the pretrained part that the architecture has no place for."""


def build(
    spec: TransformerSpec, weights: Path | Transformer | None, *, seed: int, as_saved: bool = False
) -> LoadedNetwork:
    """Build the network of a spec.

    Args:
        weights: a folder with safetensors; another network, whose pretrained part is taken over, and its head too where it is
            the same; None: random by the seed.
        as_saved: as for `load_backbone`.

    Raises:
        ArtifactError: the weights cannot be read, or do not fit the architecture.
    """
    match weights:
        case Transformer() if spec.is_same_network(weights.spec):
            return LoadedNetwork(network=merged(weights), new=[], unused=[])
        case Transformer():
            return continue_from(weights, spec, seed=seed)
        case Path():
            return load_backbone(weights, spec, seed=seed, as_saved=as_saved)
        case None:
            return LoadedNetwork(network=build_transformer(spec, seed=seed), new=[], unused=[])


def require_transformer(network: Network, file: Path | None) -> Transformer:
    """Return the network of a saved model, which has to be one of the Transformers library.

    Raises:
        ArtifactError: it is another.
    """
    if not isinstance(network, Transformer):
        raise ArtifactError(
            "the model to start from is not a model of the Transformers library",
            file=file,
            fix="leave model.backbone out, or start from another model",
        )
    return network


def load_backbone(folder: Path, spec: TransformerSpec, *, seed: int, as_saved: bool = False) -> LoadedNetwork:
    """Load the network of a spec with the weights of a folder; a head that the folder lacks is random by the seed.

    Args:
        as_saved: weights stay in the type that the files have, such as bfloat16; otherwise they become float32.

    Raises:
        ArtifactError: the weights cannot be read, or do not fit the architecture.
    """
    # Of a configuration of its own: the library notes in it what a network was made in.
    ghost = make_config(spec.config)
    require_memory(lambda: from_config(spec.purpose, ghost), weights_bytes(folder) if as_saved else None)
    model, info = _read_model(folder, spec, seed, as_saved)
    network = Transformer(model, spec)
    other = {name: f"{name}: {list(given)} for {list(wanted)}" for name, given, wanted in info["mismatched_keys"]}
    _require_fit(network, info["missing_keys"], other, folder)
    new = {*info["missing_keys"], *other}
    if spec.head is not None:
        place = put_head(network, spec.head, seed)
        new = {name for name in model.state_dict() if name in new or name.startswith(f"{place}.")}
    elif (head := _head(network)) and not new.issuperset(head) and not _same_classes(folder, spec):
        fresh = build_transformer(spec, seed=seed).core.state_dict()
        model.load_state_dict({name: fresh[name] for name in head}, strict=False)
        new |= head
    return LoadedNetwork(network=network, new=sorted(new), unused=_unused(network, info["unexpected_keys"]))


def _read_model(folder: Path, spec: TransformerSpec, seed: int, as_saved: bool) -> tuple[nn.Module, dict[str, Any]]:
    """Read the library's model, and what it says of the tensors that it found."""
    config = make_config(spec.config)
    found: dict[str, Any] = {}

    def make() -> nn.Module:
        with quiet():
            model, info = spec.purpose.model_class(config).from_pretrained(
                folder,
                config=config,
                local_files_only=True,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # said by `_require_fit`, with all their names
                output_loading_info=True,
                **(implementation() | ({"dtype": "auto"} if as_saved else {})),
            )
        found.update(info)
        return model

    try:
        return seeded_library(seed, make), found
    except Exception as error:
        raise ArtifactError(
            f"the weights cannot be read: {first_line(error)}",
            file=folder,
            expected=f"the weights of a {config.model_type}",
            fix="restore the folder from a copy, or take another backbone",
        ) from None


def continue_from(origin: Transformer, spec: TransformerSpec, *, seed: int) -> LoadedNetwork:
    """Return a network for another purpose or other classes on the weights that `origin` has learned; the head is new.

    Raises:
        ArtifactError: the two are of different architectures.
    """
    network = build_transformer(spec, seed=seed)
    learned, wanted = merged(origin).base.state_dict(), network.base.state_dict()
    fitting = {name: value for name, value in learned.items() if name in wanted and wanted[name].shape == value.shape}
    missing = [f"{network.base_name}.{name}" for name in wanted if name not in fitting]
    _require_fit(network, missing, {}, None)
    network.base.load_state_dict(fitting, strict=False)
    return LoadedNetwork(network=network, new=sorted([*missing, *_head(network)]), unused=[])


def without_adapter(network: Network) -> Network:
    """Return the network with its adapter merged into the weights; itself where it has none."""
    return merged(network) if isinstance(network, Transformer) else network


def merged(network: Transformer) -> Transformer:
    """Return the network with its adapter worked into the weights; itself where it has none."""
    if not network.adapted:
        return network
    restore(network.model)
    # A head that was trained with the adapter is put in its place here: peft can do it only where that is a single layer.
    for name, module in list(network.model.named_modules()):
        if isinstance(trained := getattr(module, "modules_to_save", None), nn.ModuleDict):
            network.model.set_submodule(name, trained["default"])
    with quiet():
        core = network.model.merge_and_unload()  # pyright: ignore[reportCallIssue]
    return Transformer(core, network.spec.without_adapter())


def _head(network: Transformer) -> set[str]:
    """Return the names of the head's tensors in the library's model; a tensor that it shares with the base is the base's."""
    base = {value.data_ptr() for value in network.base.state_dict().values()}
    state = network.core.state_dict()
    return {
        name
        for name, value in state.items()
        if not name.startswith(f"{network.base_name}.") and value.data_ptr() not in base
    }


def _unused(network: Transformer, unexpected: Iterable[str]) -> list[str]:
    """Of the tensors that found no place those of the pretrained part; the head of another purpose is not among them."""
    # A checkpoint without a head names the parts without the prefix.
    parts = {network.base_name, *(name for name, _ in network.base.named_children())}
    return sorted(
        name
        for name in unexpected
        if name.split(".")[0] in parts and SUMMARY not in name and not name.endswith(COUNTED)
    )


def _same_classes(folder: Path, spec: TransformerSpec) -> bool:
    """Return whether a head that came with the weights tells the very classes apart that are asked for."""
    if spec.purpose.names_tokens:
        return True
    known = read_json(folder / "config.json", "a pretrained model").get("id2label")
    return known == spec.config["id2label"]


def _require_fit(network: Transformer, missing: Iterable[str], other: dict[str, str], folder: Path | None) -> None:
    """Refuse weights that lack a part of the pretrained network, or have it in another size: it would be random."""
    inside = f"{network.base_name}."
    lacking = sorted(name for name in {*missing, *other} if name.startswith(inside) and SUMMARY not in name)
    if lacking:
        shown = ", ".join(other.get(name, name) for name in lacking[:4])
        size = sum(name.startswith(inside) for name in network.core.state_dict())
        raise ArtifactError(
            f"the weights do not fit the architecture: {len(lacking)} of the {size} tensors of the pretrained part are "
            "missing or of another shape",
            file=folder,
            found=shown + (", …" if len(lacking) > 4 else ""),
            expected=f"every tensor of a {network.core.config.model_type} as its config.json describes it",
            fix="check that config.json belongs to these weights, or download the model again",
        )


def write_transformer(folder: Path, network: Transformer) -> None:
    """Save in the library's own format, or as a peft adapter, so that both open it without us.

    A head of one's own is no part of the library's architecture: then the folder has our names, and only we open it. Of a network
    of meta weights the weights are there already.
    """
    if network.adapted:
        with quiet():
            # The embeddings are never adapted; to find out whether they were, peft would ask the hub.
            network.model.save_pretrained(folder, save_embedding_layers=False)  # pyright: ignore[reportCallIssue]
        (folder / "README.md").unlink(missing_ok=True)  # the card is written by the evaluation
        return
    if network.spec.head is not None:
        tensors = {name: value.detach().cpu().contiguous() for name, value in network.core.state_dict().items()}
        save_file(tensors, folder / OWN_WEIGHTS, metadata={"format": "pt"})
        return
    with quiet():
        if has_meta_weights(network):
            network.core.config.dtype = "float32"
            network.core.save_config(folder)  # pyright: ignore[reportCallIssue]  a gpt, as no other is written in parts
        else:
            network.core.save_pretrained(folder)


def read_transformer(folder: Path, spec: TransformerSpec) -> Transformer:
    """Return what `write_transformer` wrote of a whole model.

    Raises:
        ArtifactError: it is damaged, or a tensor is missing.
    """
    if spec.head is not None:
        network = build_transformer(spec, seed=0)
        load_weights(network.core, read_tensors(folder / OWN_WEIGHTS), folder / OWN_WEIGHTS)
        return network
    started = load_backbone(folder, spec, seed=0)
    if started.new:
        raise ArtifactError(
            f"{len(started.new)} tensors of the model are missing or of another shape",
            file=folder,
            found=", ".join(started.new[:4]),
            expected="every tensor of the model",
            fix="restore the folder from a copy, or train again",
        )
    return started.network


def base_path(name: str) -> str:
    """Return what `from_pretrained` finds a backbone by: a folder, or a hub id."""
    return str(catalog_folder(name)) if name in BACKBONES else name
