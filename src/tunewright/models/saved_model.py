"""The saved model: a folder of JSON and safetensors, nothing that can run code.

Our own networks have all in `config.json` and `model.safetensors`. A network of the Transformers library is saved in that
library's format (or as a peft adapter), with what only we know beside it in `tunewright.json`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from tunewright.checksums import write_checksums
from tunewright.errors import ArtifactError, RecipeError
from tunewright.files import sync_all, write_json
from tunewright.models.backbone import open_backbone, weights_folder
from tunewright.models.build import build_network
from tunewright.models.core.meta_weights import memory_is_taken
from tunewright.models.core.network import Network, SequentialNetwork
from tunewright.models.core.safe_weights import load_weights, read_tensors
from tunewright.models.hub.adapters import read_adapter
from tunewright.models.hub.hf_files import read_transformer, write_transformer
from tunewright.models.hub.hf_network import Transformer, build_transformer
from tunewright.models.hub.untrusted_files import check_files, require_own_files, require_undamaged
from tunewright.models.recommendation.registry import build_recommender
from tunewright.models.speech.registry import build_speech
from tunewright.runs.folder import read_json

FORMAT = 1
BESIDE = "tunewright.json"
# The model card: people edit it, and no answer depends on it.
CARD = "README.md"


@dataclass(frozen=True)
class SavedModel:
    """A network, and what was saved beside it."""

    network: Network
    extra: dict[str, Any]
    folder: Path | None = None
    """Where it was read from."""


def save_model(folder: Path, network: Network, extra: dict[str, Any]) -> None:
    """Write the folder; the file that makes it a model comes late, and the checksums of all files but the model card last.

    Args:
        extra: more JSON to keep, such as the preprocessor.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write_network(folder, network, extra)
    write_checksums(folder, besides={CARD})


def _write_network(folder: Path, network: Network, extra: dict[str, Any]) -> None:
    if isinstance(network, Transformer):
        write_transformer(folder, network)
        sync_all(folder)
        write_json(folder / BESIDE, {"format": FORMAT, "network": network.spec, **extra})
        return
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    temporary = folder / ".model.safetensors.tmp"
    save_file(tensors, temporary, metadata={"format": "pt"})
    temporary.replace(folder / "model.safetensors")
    sync_all(folder)
    write_json(
        folder / "config.json",
        {"model_type": "tunewright", "format": FORMAT, "network": network.spec, **extra},
    )


def fresh_network(described: dict[str, Any], *, seed: int) -> Network:
    """The network of a description with random weights."""
    if "speech" in described:
        return build_speech(described, seed=seed)
    if "recommender" in described:
        return build_recommender(described, seed=seed)
    return (build_transformer if "purpose" in described else build_network)(described, seed=seed)


def load_network(folder: Path) -> SavedModel:
    """The network with its weights, or without memory where `hollow.weights` says so, and what was saved beside it.

    Raises:
        ArtifactError: the folder is no model of Tunewright, or its files are missing, damaged or of a newer version.
    """
    require_own_files(folder)
    require_undamaged(folder, numbers=memory_is_taken())
    path = folder / (BESIDE if (folder / BESIDE).exists() else "config.json")
    config = read_json(path, "a model folder of Tunewright")
    own = path.name == "config.json"
    if (own and config.get("model_type") != "tunewright") or not isinstance(config.get("network"), dict):
        raise ArtifactError(
            "this is not a model of Tunewright",
            file=path,
            found=f"model_type {config.get('model_type')!r}",
            expected='model_type "tunewright", or tunewright.json beside it',
            fix="name the `model` folder of a stage, such as runs/mnist/pretrain/model",
        )
    if config.get("format") != FORMAT:
        raise ArtifactError(
            "the model was written by another version of Tunewright",
            file=path,
            found=f"format {config.get('format')}",
            expected=f"format {FORMAT}",
            fix="use the version that wrote it, or train again",
        )
    extra = {key: value for key, value in config.items() if key not in ("model_type", "format", "network")}
    described = config["network"]
    try:
        if not own and memory_is_taken():
            return SavedModel(_read_transformer(folder, described), extra, folder)
        network = fresh_network(described, seed=0)
    except (RecipeError, KeyError, TypeError, ValueError, AttributeError, AssertionError, RuntimeError) as error:
        raise ArtifactError(
            f"the description of the network is damaged: {error}",
            file=path,
            fix="restore the file from a copy, or train again",
        ) from error
    if memory_is_taken():
        load_weights(network, read_tensors(folder / "model.safetensors"), folder / "model.safetensors")
    return SavedModel(network, extra, folder)


def _read_transformer(folder: Path, described: dict[str, Any]) -> Transformer:
    check_files(folder)
    if "adapter" not in described:
        return read_transformer(folder, described)
    try:
        base = open_backbone(described["base"], Path("/"))
    except RecipeError as error:
        raise ArtifactError(
            f"the model that this adapter belongs to is not here: {error.problem}",
            file=folder / BESIDE,
            found=described["base"],
            fix="put it back, or train the adapter again",
        ) from None
    if base.fingerprint != described["base_fingerprint"]:
        raise ArtifactError(
            "the weights that this adapter belongs to have changed",
            file=base.folder,
            found=f"sha256 {base.fingerprint[:16]}…",
            expected=f"sha256 {described['base_fingerprint'][:16]}…",
            fix="restore the weights, or train the adapter again",
        )
    return read_adapter(folder, described, weights_folder(base))


def load_backbone_weights(network: SequentialNetwork, folder: Path) -> None:
    """Put the pretrained weights in `folder` into the network's backbone; its head stays as it is.

    Raises:
        ArtifactError: the file is missing or damaged, or belongs to another network.
    """
    path = folder / "model.safetensors"
    tensors = {name: value for name, value in read_tensors(path).items() if name.startswith("backbone.")}
    head = {name: value for name, value in network.state_dict().items() if name.startswith("head.")}
    load_weights(network, {**tensors, **head}, path)
