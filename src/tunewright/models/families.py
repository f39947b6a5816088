"""The kinds of networks: how each one's spec is read, its network made, and its folder written and loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from tunewright.errors import ArtifactError, RecipeError
from tunewright.models.backbone import open_backbone, weights_folder
from tunewright.models.build import build_network
from tunewright.models.core.network import Network
from tunewright.models.core.safe_weights import load_weights, read_tensors
from tunewright.models.core.spec import NetworkSpec, SequentialSpec
from tunewright.models.hub.adapters import read_adapter
from tunewright.models.hub.hf_files import read_transformer, write_transformer
from tunewright.models.hub.hf_network import Transformer, TransformerSpec, build_transformer
from tunewright.models.hub.untrusted_files import check_files
from tunewright.models.recommendation.base import RecommenderSpec
from tunewright.models.recommendation.registry import build_recommender
from tunewright.models.speech.base import SpeechSpec
from tunewright.models.speech.registry import build_speech

CONFIG = "config.json"
# Beside the files of the Transformers library, whose own `config.json` it is.
BESIDE = "tunewright.json"
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Family:
    """Describe one kind of network."""

    read_spec: Callable[[dict[str, Any]], NetworkSpec]
    build: Callable[..., Network]
    """(spec, seed=) → the network with random weights."""
    file: str
    """Where a saved model has the spec."""
    write: Callable[[Path, Any], None]
    """(folder, network) → the weights, and what else opens them."""
    load: Callable[[Path, Any], Network]
    """(folder, spec) → the network with the weights that `write` wrote."""


def build(spec: NetworkSpec, *, seed: int) -> Network:
    """Return the network of a spec with random weights, or on the meta device where `meta_weights.weights` says so.

    Raises:
        RecipeError: its parts do not fit each other.
        ArtifactError: it is larger than the machine's memory.
    """
    return FAMILIES[spec.family].build(spec, seed=seed)


def family_of(values: dict[str, Any]) -> Family:
    """Return the family that a saved spec is of.

    Raises:
        KeyError: it is of none.
    """
    return FAMILIES[next((name for name in FAMILIES if name in values), "family")]


def load_backbone_weights(network: Network, folder: Path) -> None:
    """Put the pretrained weights in `folder` into the network's backbone; its head stays as it is.

    Raises:
        ArtifactError: the file is missing or damaged, or belongs to another network.
    """
    path = folder / WEIGHTS
    tensors = {name: value for name, value in read_tensors(path).items() if name.startswith("backbone.")}
    head = {name: value for name, value in network.state_dict().items() if name.startswith("head.")}
    load_weights(network, {**tensors, **head}, path)


def _write_own(folder: Path, network: Network) -> None:
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    temporary = folder / f".{WEIGHTS}.tmp"
    save_file(tensors, temporary, metadata={"format": "pt"})
    temporary.replace(folder / WEIGHTS)


def _load_own(folder: Path, spec: NetworkSpec) -> Network:
    network = build(spec, seed=0)
    load_weights(network, read_tensors(folder / WEIGHTS), folder / WEIGHTS)
    return network


def _load_transformer(folder: Path, spec: TransformerSpec) -> Transformer:
    check_files(folder)
    if spec.adapter is None:
        return read_transformer(folder, spec)
    assert spec.base is not None and spec.base_fingerprint is not None
    try:
        base = open_backbone(spec.base, Path("/"))
    except RecipeError as error:
        raise ArtifactError(
            f"the model that this adapter belongs to is not here: {error.problem}",
            file=folder / BESIDE,
            found=spec.base,
            fix="put it back, or train the adapter again",
        ) from None
    if base.fingerprint != spec.base_fingerprint:
        raise ArtifactError(
            "the weights that this adapter belongs to have changed",
            file=base.folder,
            found=f"sha256 {base.fingerprint[:16]}…",
            expected=f"sha256 {spec.base_fingerprint[:16]}…",
            fix="restore the weights, or train the adapter again",
        )
    return read_adapter(folder, spec, weights_folder(base))


# By the key of the spec's JSON that only this family has.
FAMILIES = {
    TransformerSpec.family: Family(
        TransformerSpec.from_json, build_transformer, BESIDE, write_transformer, _load_transformer
    ),
    SpeechSpec.family: Family(SpeechSpec.from_json, build_speech, CONFIG, _write_own, _load_own),
    RecommenderSpec.family: Family(RecommenderSpec.from_json, build_recommender, CONFIG, _write_own, _load_own),
    SequentialSpec.family: Family(SequentialSpec.from_json, build_network, CONFIG, _write_own, _load_own),
}
