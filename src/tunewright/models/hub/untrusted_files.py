"""What somebody else's model folder may ask for, and is refused: code, files elsewhere, sizes that are too large.

Everything is looked at before the Transformers library sees it, so that a refusal says what was asked and nothing has run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tunewright.checksums import CHECKSUMS, find_damage
from tunewright.errors import ArtifactError
from tunewright.files import open_regular
from tunewright.inside import VARIABLE, Roots
from tunewright.limits import CONFIG_KEYS, JSON_BYTES, MODEL_FILES, MODEL_LAYERS, MODEL_SIZE
from tunewright.models.core.meta_weights import allocates_memory
from tunewright.models.core.safe_weights import require_short_header
from tunewright.runs.folder import damaged, read_json

JSON_FILES = ("config.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json")
INDEX_FILES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
READ_ENDINGS = {".json", ".txt", ".model", ".jinja", ".safetensors", ".bin", ".pth", ".pt"}
# Of these the ones that the library reads whole.
TEXT_ENDINGS = {".json", ".txt", ".model", ".jinja"}
WEIGHT_ENDINGS = (".safetensors",)
# Keys by which a configuration names code of its own.
CODE_KEYS = {"auto_map", "custom_pipelines", "custom_generate"}
# Keys by which it names a class of the library.
CLASS_KEYS = {"tokenizer_class", "processor_class", "image_processor_type", "feature_extractor_type", "model_type"}
# Keys whose numbers say how large something is, and how many layers there are.
SIZES = re.compile(r"size|dim|width|channels|heads|position|labels|groups$|_len(gth)?$|^n_embd$")
COUNTS = re.compile(r"layers?$|depths?$|blocks?$|repeats$|stages$|experts$")
FLOAT_BYTES = 4


def check_files(folder: Path) -> None:
    """Look through a model folder.

    Raises:
        ArtifactError: a file asks for code, lies elsewhere, or is damaged.
    """
    require_own_files(folder)
    _require_bounded(folder)
    for name in JSON_FILES:
        if (folder / name).exists():
            values = read_json(folder / name, "a pretrained model")
            check_values(values, name, folder)
            if name == "tokenizer_config.json":
                _require_known_tokenizer(values.get("tokenizer_class"), folder / name)
    for name in INDEX_FILES:
        if (folder / name).exists():
            _check_index(folder, name)


def require_undamaged(folder: Path, *, weights: bool = True) -> None:
    """See that a model folder with checksums holds what was saved. One without, such as a stranger's, is not looked at.

    Args:
        weights: also check the weights; False where they are not read.

    Raises:
        ArtifactError: a file was changed, cut or removed since.
    """
    if not (folder / CHECKSUMS).exists():
        return
    damage = find_damage(folder, besides=() if weights else WEIGHT_ENDINGS)
    if damage is not None:
        raise damaged(
            damage,
            f"restore the file from a copy, or train again; if you changed it on purpose, remove {folder / CHECKSUMS}",
        )


def check_values(values: dict[str, Any], name: str, folder: Path | None = None) -> None:
    """Look through one configuration.

    Args:
        name: its file's name, for the error.

    Raises:
        ArtifactError: it asks for code, for weights of a kind that is not read here, or for an absurd size.
    """
    file = name if folder is None else folder / name
    CONFIG_KEYS.require(len(values), "the configuration has too many keys", error=ArtifactError, file=file)
    if (place := _asks_for_code(values)) is not None:
        raise ArtifactError(
            "this model asks to run code that comes with it or is fetched from elsewhere, which Tunewright never does",
            file=file,
            place=place,
            expected="an architecture and a tokenizer that the Transformers library has",
            fix="take a backbone without code of its own; nothing of this one was run",
        )
    if values.get("quantization_config"):
        raise ArtifactError(
            "the weights are already quantized, and cannot be fine-tuned",
            file=file,
            place="quantization_config",
            expected="weights in float32, float16 or bfloat16",
            fix="take the model that this one was made from",
        )
    if name == "config.json" and (found := _absurd(values)) is not None:
        place, value, limit = found
        raise ArtifactError(
            "the configuration asks for a network that is too large",
            file=file,
            place=place,
            found=value,
            expected=f"at most {limit:,}",
            fix="restore the file from a copy, or take another backbone",
        )


def drop_choices(values: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration without what is chosen here: the number type and how attention is computed."""
    ours = ("dtype", "torch_dtype")
    return {key: value for key, value in values.items() if key not in ours and "attn_implementation" not in key}


def weights_bytes(folder: Path) -> int:
    """Of the files that a model's weights lie in."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def require_memory(make: Callable[[], nn.Module], size: int | None = None, *, file: str | None = "config.json") -> None:
    """See whether a network fits into this machine, by making it without memory.

    Args:
        size: bytes of its weights; None: as many as they take in float32.
        file: where its sizes are given; None: in the recipe.

    Raises:
        ArtifactError: its weights alone are larger than the machine's memory.
    """
    if not allocates_memory():
        return
    try:
        with torch.device("meta"):
            ghost = make()
        count = sum(value.numel() for value in ghost.parameters())
    except RuntimeError as error:  # more bytes than 64 bits can count
        if "overflow" not in str(error):
            raise
        count, size = 2**62, None
    needed = count * FLOAT_BYTES if size is None else size
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory:
        raise ArtifactError(
            "the network does not fit into this machine's memory",
            file=file,
            place=None if file else "model",
            found=f"{count:.3g} parameters, {needed / 2**30:,.0f} GiB",
            expected=f"at most {memory / 2**30:,.0f} GiB",
            fix="take a smaller network, or check its sizes",
        )


def _asks_for_code(value: Any, path: str = "", *, attention: bool = False) -> str | None:
    """Return where a configuration names code of its own, or a kernel that would be fetched; None: nowhere."""
    if isinstance(value, list):
        entries = [(str(index), entry) for index, entry in enumerate(value)]
    elif isinstance(value, dict):
        entries = [(str(key), entry) for key, entry in value.items()]
    else:
        return path if attention and isinstance(value, str) and not value.isidentifier() else None
    for key, entry in entries:
        where = f"{path}.{key}" if path else key
        if key in CODE_KEYS and entry:
            return where
        if key in CLASS_KEYS and isinstance(entry, str) and not re.fullmatch(r"[A-Za-z0-9_-]+", entry):
            return where
        inside = attention or "_implementation" in key
        if (found := _asks_for_code(entry, where, attention=inside)) is not None:
            return found
    return None


def _absurd(values: dict[str, Any], path: str = "") -> tuple[str, float, int] | None:
    """Return where a configuration says a size that no network has, the size, and the largest that is taken; None: nowhere."""
    for key, value in values.items():
        where = f"{path}{key}"
        inner = value if isinstance(value, dict) and key not in ("label2id", "id2label") else {}
        if (found := _absurd(inner, f"{where}.")) is not None:
            return found
        limit = MODEL_LAYERS.value if COUNTS.search(key) else MODEL_SIZE.value if SIZES.search(key) else None
        for number in value if isinstance(value, list) else [value]:
            if limit is not None and isinstance(number, int | float) and number > limit:
                return where, number, limit
    return None


def _require_known_tokenizer(kind: object, path: Path) -> None:
    """The library would take another tokenizer in place of one that it does not have, and say nothing."""
    from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

    if kind is not None and (not isinstance(kind, str) or tokenizer_class_from_name(kind) is None):
        raise ArtifactError(
            "the installed Transformers library does not have this tokenizer",
            file=path,
            place="tokenizer_class",
            found=kind,
            expected="a tokenizer of the library, such as BertTokenizer or PreTrainedTokenizerFast",
            fix="take another backbone; code that comes with a model is never run here",
        )


def _check_index(folder: Path, name: str) -> None:
    """An index of weights in several files names files of its own folder, and they are there."""
    shards = read_json(folder / name, "an index of weights").get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
        raise ArtifactError(
            "the index of the weights is damaged",
            file=folder / name,
            expected='{"weight_map": {tensor: file}}',
            fix="restore the file from a copy",
        )
    for shard in sorted(set(shards.values())):
        if Path(shard).name != shard or shard in ("", ".", ".."):
            raise ArtifactError(
                "the index of the weights names a file outside its folder, which is never read",
                file=folder / name,
                found=shard,
                expected="names of files in the same folder",
                fix="take the model from a source that you trust",
            )
        if not (folder / shard).is_file():
            raise ArtifactError(
                "a part of the weights is missing",
                file=folder / shard,
                expected=f"every file that {name} names",
                fix="download the model again",
            )


def require_own_files(folder: Path) -> None:
    """No file or folder, at any level, is a link out of the folder. In the hub's cache links lead to the blobs of the same model.

    Raises:
        ArtifactError: one is, or there are too many to be a model's.
    """
    root = Path(os.path.realpath(folder))
    blobs = root.parents[1] / "blobs" if root.parent.name == "snapshots" else root
    roots = Roots(root) if blobs.is_symlink() else Roots(root, blobs)
    count = 0
    for top, folders, files in os.walk(root):
        count += len(folders) + len(files)
        MODEL_FILES.require(count, "the folder holds too many files for a model", error=ArtifactError, file=folder)
        for name in (*folders, *files):
            path = Path(top, name)
            if path.is_symlink() and (real := roots.outside(path)) is not None:
                raise ArtifactError(
                    "a file of the model is a link to another place, which is not followed",
                    file=folder / path.relative_to(root),
                    found=real,
                    expected="files that lie in the folder itself",
                    fix=f"copy the file into the folder; or, if you trust the model, list its target's folder in {VARIABLE}",
                )


def _require_bounded(folder: Path) -> None:
    """All that is read are regular files, and what is read whole is not too large for that."""
    for path in sorted(folder.rglob("*")):
        if path.suffix not in READ_ENDINGS or path.is_dir():
            continue
        with open_regular(path, error=ArtifactError) as file:
            if path.suffix in TEXT_ENDINGS:
                JSON_BYTES.require(file.seek(0, os.SEEK_END), "the file is too large", error=ArtifactError, file=path)
            elif path.suffix == ".safetensors":
                require_short_header(file, path)
