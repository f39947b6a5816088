"""The saved model: a folder of JSON and safetensors, nothing that can run code.

Our own networks have all in `config.json` and `model.safetensors`. A network of the Transformers library is saved in that
library's format (or as a peft adapter), with Tunewright's own facts in `tunewright.json`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright.checksums import write_checksums
from tunewright.errors import ArtifactError, RecipeError
from tunewright.files import sync_all, write_json
from tunewright.models.core.meta_weights import allocates_memory
from tunewright.models.core.network import Network
from tunewright.models.families import BESIDE, CONFIG, FAMILIES, build, family_of
from tunewright.models.hub.untrusted_files import require_own_files, require_undamaged
from tunewright.runs.folder import read_json

FORMAT = 1
KIND = "tunewright"
# The model card: people edit it, and no answer depends on it.
CARD = "README.md"


@dataclass(frozen=True)
class SavedModel:
    """A network, and what was saved with it."""

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
    family = FAMILIES[network.spec.family]
    family.write(folder, network)
    sync_all(folder)
    # `config.json` is what other programs look into first.
    kind = {"model_type": KIND} if family.file == CONFIG else {}
    write_json(folder / family.file, {**kind, "format": FORMAT, "network": network.spec.to_json(), **extra})


def load_network(folder: Path) -> SavedModel:
    """Load the network with its weights, or on the meta device where `meta_weights.weights` says so, and what was saved with it.

    Raises:
        ArtifactError: the folder is no model of Tunewright, or its files are missing, damaged or of a newer version.
    """
    require_own_files(folder)
    require_undamaged(folder, weights=allocates_memory())
    path = folder / (BESIDE if (folder / BESIDE).exists() else CONFIG)
    config = read_json(path, "a model folder of Tunewright")
    if (path.name == CONFIG and config.get("model_type") != KIND) or not isinstance(config.get("network"), dict):
        raise ArtifactError(
            "this is not a Tunewright model",
            file=path,
            found=f"model_type {config.get('model_type')!r}",
            expected='model_type "tunewright", or a tunewright.json in the same folder',
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
    values = config["network"]
    try:
        family = family_of(values)
        spec = family.read_spec(values)
        network = family.load(folder, spec) if allocates_memory() else build(spec, seed=0)
    except (RecipeError, KeyError, TypeError, ValueError, AttributeError, AssertionError, RuntimeError) as error:
        raise ArtifactError(
            f"the description of the network is damaged: {error}",
            file=path,
            fix="restore the file from a copy, or train again",
        ) from error
    return SavedModel(network, extra, folder)
