"""Opening a pretrained backbone: by catalog name, local folder or hub id; nothing that comes with it is run.

What is read: JSON, and weights as safetensors. Weights that ship in PyTorch's older format are read with
`weights_only`, which refuses everything but tensors, and are kept as safetensors from then on.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

from tunewright.cached import cached_folder
from tunewright.errors import ArtifactError, RecipeError, shorten
from tunewright.files import cache_dir, cached_sha256, open_regular, write_json
from tunewright.limits import MODEL_CARD_BYTES
from tunewright.models.build import MODELS
from tunewright.models.core.safe_weights import write_weights
from tunewright.models.core.torch_file import read_old_weights
from tunewright.models.exchange.keras_file import KIND as KERAS
from tunewright.models.exchange.keras_file import keras_backbone
from tunewright.models.hub.catalog import BACKBONES, catalog_folder
from tunewright.models.hub.untrusted_files import READ_ENDINGS, check_files, require_undamaged
from tunewright.models.language.new_encoder import ENCODERS, encoder_folder
from tunewright.models.recommendation.registry import RECOMMENDERS
from tunewright.models.speech.registry import SPEECH_MODELS
from tunewright.recipe.named import parse_named
from tunewright.recipe.schema import Model
from tunewright.recipe.yaml_text import read_yaml
from tunewright.runs.folder import read_json

# Of a hub's repository: JSON, tokenizers, the card for its licence; weights in the older format only where there are no others.
HUB_FILES = ["*.json", "*.txt", "*.model", "README.md"]
HUB_WEIGHTS = ["*.safetensors"]
OLD_HUB_WEIGHTS = ["pytorch_model*.bin"]
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
OLD_WEIGHTS = ("pytorch_model.bin", "model.pth", "model.pt")
OLD_INDEX = "pytorch_model.bin.index.json"
LONGEST_LICENCE = 100


@dataclass(frozen=True)
class Backbone:
    """A pretrained model's folder, checked."""

    name: str
    """As the recipe names it; what a saved adapter refers to."""
    folder: Path
    config: dict[str, Any]
    pretrained: bool = True
    """False: a new encoder, which has a configuration and no more."""

    @property
    def own(self) -> bool:
        """One of our own networks, with pretrained weights; not one of the Transformers library."""
        return self.config.get("model_type") in (*MODELS, KERAS)

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of its configuration and weights."""
        kinds = ("*.safetensors", "pytorch_model*.bin", "*.pth", "*.pt")
        files = [*sorted(file for kind in kinds for file in self.folder.glob(kind)), self.folder / "config.json"]
        return hashlib.sha256("".join(cached_sha256(file) for file in files).encode()).hexdigest()

    @property
    def hub(self) -> str | None:
        """Its id on the Hugging Face hub; None: a folder, whose origin is not known, or a new encoder."""
        if not self.pretrained:
            return None
        if self.name in BACKBONES:
            return BACKBONES[self.name].hub
        return None if Path(self.name).is_absolute() else self.name

    @property
    def licence(self) -> str | None:
        """The licence, as the catalog or its model card says; None: neither does, or the card cannot be read."""
        if self.name in BACKBONES:
            return BACKBONES[self.name].licence
        card = self.folder / "README.md"
        licence = _front_matter(card).get("license") if card.is_file() else None
        return shorten(licence, LONGEST_LICENCE) if isinstance(licence, str) else None


def _front_matter(card: Path) -> dict[str, Any]:
    """Return what a model card says in the YAML at its beginning; nothing where that is damaged or too long."""
    with open_regular(card) as file:
        begin = file.read(MODEL_CARD_BYTES.value).decode(errors="replace")
    first, *lines = begin.splitlines() or [""]
    if first.rstrip() != "---" or "---" not in (ends := [line.rstrip() for line in lines]):
        return {}
    try:
        facts, _ = read_yaml("\n".join(lines[: ends.index("---")]))
    except RecipeError:
        return {}
    return facts if isinstance(facts, dict) else {}


def named_backbone(model: Model) -> str | None:
    """Return the pretrained backbone that the recipe names, where `new_backbone` found none; None for random weights of one of
    our own networks.

    Raises:
        RecipeError: options for a pretrained backbone, or pretrained weights that are not to be had.
    """
    if model.backbone is None:
        return None
    name, options = parse_named(model.backbone, "model.backbone")
    if name in (*RECOMMENDERS, *SPEECH_MODELS) or (
        name in MODELS and (name not in BACKBONES or model.weights == "random")
    ):
        if model.weights == "pretrained":
            raise RecipeError(
                f"there are no pretrained weights for {name}",
                place="model.weights",
                found="pretrained",
                expected=f"pretrained with one of {', '.join(BACKBONES)}, or a model's folder or hub id as the backbone",
                fix="remove model.weights, or choose a pretrained backbone",
            )
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


def new_backbone(model: Model, base: Path) -> Backbone | None:
    """Return the new encoder that the recipe describes; None where it names something else, such as a folder."""
    if model.backbone is None:
        return None
    name, options = parse_named(model.backbone, "model.backbone")
    if name not in ENCODERS or (not options and (base / name).exists()):
        return None
    folder = encoder_folder(name, options)
    return Backbone(name=name, folder=folder, config=check_folder(folder), pretrained=False)


def open_backbone(name: str, base: Path) -> Backbone:
    """Open the backbone of that name.

    Args:
        base: the folder from which a relative path counts.

    Raises:
        RecipeError: there is none of that name.
        ArtifactError: it is damaged, of an unknown kind, or wants to run code of its own.
    """
    if name in BACKBONES and not (base / name).exists():
        folder = catalog_folder(name)
    elif name.endswith(".keras") and (base / name).is_file():
        folder = keras_backbone(base / name)
        return Backbone(name=str((base / name).resolve()), folder=folder, config=check_folder(folder))
    elif (base / name / "config.json").is_file():
        folder = base / name
    elif (base / name).exists():
        _refuse_adapter(base / name)
        raise ArtifactError(
            "the folder is not a pretrained model", file=base / name, expected="config.json and weights in it"
        )
    else:
        folder = _from_hub(name)
    _refuse_adapter(folder)
    config = check_folder(folder)
    return Backbone(name=name if name in BACKBONES else str(_stable(name, folder, base)), folder=folder, config=config)


def _refuse_adapter(folder: Path) -> None:
    """The library would open an adapter's folder by whatever model the adapter names."""
    if (folder / "adapter_config.json").exists():
        raise ArtifactError(
            "the folder holds an adapter, not a whole model",
            file=folder,
            expected="a model's config.json and weights, and no adapter_config.json",
            fix="name the model that the adapter belongs to; to continue an adapter that was trained here, set model.weights",
        )


def model_files(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of a model's folder by its name: weights, configuration, tokenizer, and no card."""
    files = [file for file in sorted(folder.iterdir()) if file.suffix in READ_ENDINGS and file.is_file()]
    return {file.name: cached_sha256(file) for file in files}


def check_folder(folder: Path) -> dict[str, Any]:
    """Return the folder's config.json, after everything in the folder was seen to be data only.

    Raises:
        ArtifactError: a file asks for code to be run, lies elsewhere, or is damaged.
    """
    require_undamaged(folder)
    check_files(folder)
    return read_json(folder / "config.json", "a pretrained model")


def weights_folder(backbone: Backbone) -> Path:
    """Return a folder with the weights as safetensors: the backbone's own, or a converted copy in the cache.

    Raises:
        ArtifactError: there are no weights, or the file holds more than tensors.
    """
    folder = backbone.folder
    if any((folder / name).is_file() for name in WEIGHTS):
        return folder
    if (folder / OLD_INDEX).is_file():
        return _converted_parts(backbone)
    old = next((folder / name for name in OLD_WEIGHTS if (folder / name).is_file()), None)
    if old is None:
        raise ArtifactError(
            "the folder has no weights",
            file=folder,
            expected="model.safetensors",
            fix="for random weights: model.weights: random",
        )

    def convert(converted: Path) -> None:
        write_weights(converted / "model.safetensors", read_old_weights(old))
        write_json(converted / "config.json", backbone.config)

    return cached_folder(cache_dir() / "converted" / cached_sha256(old), convert)


def _converted_parts(backbone: Backbone) -> Path:
    """Weights in several files, each converted by itself so that one of them is in memory at a time."""
    index = read_json(backbone.folder / OLD_INDEX, "an index of weights")
    parts = {old: f"{Path(old).stem}.safetensors" for old in sorted(set(index["weight_map"].values()))}
    content = [OLD_INDEX, *parts]
    key = hashlib.sha256("".join(cached_sha256(backbone.folder / name) for name in content).encode()).hexdigest()

    def convert(converted: Path) -> None:
        for old, new in parts.items():
            write_weights(converted / new, read_old_weights(backbone.folder / old))
        names = {tensor: parts[old] for tensor, old in index["weight_map"].items()}
        write_json(converted / "model.safetensors.index.json", {"metadata": {}, "weight_map": names})
        write_json(converted / "config.json", backbone.config)

    return cached_folder(cache_dir() / "converted" / key, convert)


def _stable(name: str, folder: Path, base: Path) -> Path | str:
    """Return a name that means the same from another folder."""
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
    from huggingface_hub.errors import HFValidationError

    try:
        return _download(name)
    except HFValidationError:
        reason = "it is no hub id"
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
    raise RecipeError(
        f"the backbone is not cached, and the hub did not return it: {reason}",
        place="model.backbone",
        found=name,
        expected=expected,
        fix="check the name; without a network, download the model elsewhere and name its folder",
    )


def _download(name: str) -> Path:
    """Return the repository's files in the hub's own cache; what is there is not fetched again."""
    from huggingface_hub import snapshot_download

    # Folders in the repository hold the same model for other programs.
    folder = Path(snapshot_download(name, allow_patterns=[*HUB_FILES, *HUB_WEIGHTS], ignore_patterns="*/*"))
    if not any((folder / known).exists() for known in WEIGHTS):
        folder = Path(snapshot_download(name, allow_patterns=[*HUB_FILES, *OLD_HUB_WEIGHTS], ignore_patterns="*/*"))
    return folder
