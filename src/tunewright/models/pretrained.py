"""Opening a pretrained backbone: by catalog name, local folder or hub id; nothing that comes with it is run.

What is read: JSON, and weights as safetensors. Weights that ship in PyTorch's older format are read with
`weights_only`, which refuses everything but tensors, and are kept as safetensors from then on.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

from tunewright.errors import ArtifactError, RecipeError
from tunewright.files import cache_dir, sha256_file
from tunewright.models.build import MODELS
from tunewright.models.catalog import BACKBONES, catalog_folder
from tunewright.models.encoders import ENCODERS, encoder_folder
from tunewright.recipe.named import parse_named
from tunewright.recipe.schema import Model
from tunewright.runs import read_json

JSON_FILES = ("config.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json")
HUB_FILES = ["*.json", "*.txt", "*.model", "*.safetensors", "pytorch_model.bin"]
OLD_WEIGHTS = ("pytorch_model.bin", "model.pth", "model.pt")


@dataclass(frozen=True)
class Backbone:
    """A pretrained model's folder, checked."""

    name: str
    """As the recipe names it; what a saved adapter refers to."""
    folder: Path
    config: dict[str, Any]
    pretrained: bool = True
    """False: a new encoder, which has a configuration and no more."""

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of its configuration and weights."""
        files = sorted([*self.folder.glob("*.safetensors"), self.folder / "config.json"])
        return hashlib.sha256("".join(sha256_file(file) for file in files).encode()).hexdigest()


def named_backbone(model: Model) -> str | None:
    """The backbone that the recipe names, where it is none of our own networks."""
    if model.backbone is None:
        return None
    name, options = parse_named(model.backbone, "model.backbone")
    if name in MODELS or name in ENCODERS:
        return None
    if options:
        raise RecipeError(
            "a pretrained backbone takes no options",
            place="model.backbone",
            found=name,
            expected=f"a hub id, a folder, {', '.join(BACKBONES)}, or one of {', '.join([*ENCODERS, *MODELS])}",
            fix=f"model.backbone: {name}",
        )
    return name


def new_backbone(model: Model) -> Backbone | None:
    """The new encoder that the recipe describes; None where it names something else."""
    if model.backbone is None:
        return None
    name, options = parse_named(model.backbone, "model.backbone")
    if name not in ENCODERS:
        return None
    folder = encoder_folder(name, options)
    return Backbone(name=name, folder=folder, config=check_folder(folder), pretrained=False)


def open_backbone(name: str, base: Path) -> Backbone:
    """The backbone of that name.

    Args:
        base: the folder from which a relative path counts.

    Raises:
        RecipeError: there is none of that name.
        ArtifactError: it is damaged, of an unknown kind, or wants to run code of its own.
    """
    if name in BACKBONES and not (base / name).exists():
        folder = catalog_folder(name)
    elif (base / name / "config.json").is_file():
        folder = base / name
    elif (base / name).exists():
        raise ArtifactError(
            "the folder is no pretrained model", file=base / name, expected="config.json and weights in it"
        )
    else:
        folder = _from_hub(name)
    config = check_folder(folder)
    return Backbone(name=name if name in BACKBONES else str(_stable(name, folder, base)), folder=folder, config=config)


def check_folder(folder: Path) -> dict[str, Any]:
    """The folder's config.json, after everything in the folder was seen to be data only.

    Raises:
        ArtifactError: a file asks for code to be run, or is damaged.
    """
    for name in JSON_FILES:
        if (folder / name).exists() and (path := _asks_for_code(read_json(folder / name, "a pretrained model"))):
            raise ArtifactError(
                "this model asks to run code that comes with it, which is never done here",
                file=folder / name,
                place=path,
                expected="an architecture that the Transformers library knows",
                fix="take a backbone without code of its own; nothing of this one was run",
            )
    return read_json(folder / "config.json", "a pretrained model")


def weights_folder(backbone: Backbone) -> Path:
    """A folder with the weights as safetensors: the backbone's own, or a converted copy in the cache.

    Raises:
        ArtifactError: there are no weights, or the file holds more than tensors.
    """
    if list(backbone.folder.glob("*.safetensors")):
        return backbone.folder
    old = next((backbone.folder / name for name in OLD_WEIGHTS if (backbone.folder / name).is_file()), None)
    if old is None:
        raise ArtifactError(
            "the folder has no weights",
            file=backbone.folder,
            expected="model.safetensors",
            fix="for random weights: model.weights: random",
        )
    converted = cache_dir() / "converted" / sha256_file(old)
    if not (converted / "config.json").exists():
        convert_weights(old, converted / "model.safetensors")
        (converted / "config.json").write_text(json.dumps(backbone.config))
    return converted


def convert_weights(old: Path, new: Path) -> None:
    """Rewrite a PyTorch file as safetensors; refuses a file with anything but tensors in it.

    Raises:
        ArtifactError: the file holds code, or is damaged.
    """
    import torch
    from safetensors.torch import save_file

    try:
        tensors = torch.load(old, map_location="cpu", weights_only=True)
        if not isinstance(tensors, dict) or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
            raise ValueError("it holds other things than tensors by name")
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise ArtifactError(
            f"the weights were not read: {reason}",
            file=old,
            expected="tensors by name and nothing else",
            fix="take weights in the safetensors format; nothing in this file was run",
        ) from None
    new.parent.mkdir(parents=True, exist_ok=True)
    temporary = new.with_suffix(".tmp")
    save_file({name: value.clone().contiguous() for name, value in tensors.items()}, temporary)
    temporary.replace(new)


def _asks_for_code(value: Any, path: str = "") -> str | None:
    """Where a configuration names code of its own, or a kernel that would be downloaded; None: nowhere."""
    if isinstance(value, dict):
        for key, entry in value.items():
            where = f"{path}.{key}" if path else str(key)
            if key in ("auto_map", "custom_pipelines") and entry:
                return where
            if "attn_implementation" in key and isinstance(entry, str) and "/" in entry:
                return where
            if (found := _asks_for_code(entry, where)) is not None:
                return found
    return None


def _stable(name: str, folder: Path, base: Path) -> Path | str:
    """A name that means the same from another folder."""
    return folder.resolve() if (base / name).exists() else name


def _from_hub(name: str) -> Path:
    near = get_close_matches(name, [*BACKBONES, *ENCODERS, *MODELS], n=1, cutoff=0.8)
    expected = f"one of {', '.join([*BACKBONES, *ENCODERS, *MODELS])}, a folder with config.json, or a hub id such as bert-base-uncased"
    if near:
        raise RecipeError(
            "there is no backbone of this name",
            place="model.backbone",
            found=name,
            expected=expected,
            fix=f"did you mean {near[0]}?",
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(snapshot_download(name, allow_patterns=HUB_FILES))
    except HFValidationError:
        reason = "it is no hub id"
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
    raise RecipeError(
        f"there is no such backbone here, and the hub did not give it: {reason}",
        place="model.backbone",
        found=name,
        expected=expected,
        fix="check the name; without a network, download the model elsewhere and name its folder",
    )
