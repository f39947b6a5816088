"""From what the recipe calls `data.source` to a source: by name, by prefix, by what the file or folder looks like."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tunewright.data.source import Source
from tunewright.data.sources.sample_sets import SAMPLE_SETS, open_sample, sample_files
from tunewright.errors import DataError, RecipeError
from tunewright.files import files_below, regular
from tunewright.inside import require_inside
from tunewright.recipe.schema import Data, Mixed

if TYPE_CHECKING:
    from tunewright.data.image.resize_crop import Framing

Reader = Callable[[Path, Data, "Framing | None"], Source]


def _delimited(path: Path, data: Data, framing: Framing | None) -> Source:
    from tunewright.data.sources.delimited import read_delimited

    return read_delimited(path, data.format or detect(path, data))


def _jsonl(path: Path, data: Data, framing: Framing | None) -> Source:
    from tunewright.data.sources.jsonl import read_jsonl

    return read_jsonl(path, "jsonl")


def _parquet(path: Path, data: Data, framing: Framing | None) -> Source:
    from tunewright.data.sources.parquet import read_parquet

    return read_parquet(path, "parquet", framing=framing)


def _images(path: Path, data: Data, framing: Framing | None) -> Source:
    from tunewright.data.sources.images import read_images

    return read_images(path, labelled=data.labelled, framing=framing)


def _idx(path: Path, data: Data, framing: Framing | None) -> Source:
    from tunewright.data.sources.arrays import read_idx

    return read_idx(path, labelled=data.labelled)


def _npz(path: Path, data: Data, framing: Framing | None) -> Source:
    from tunewright.data.sources.arrays import read_npz

    return read_npz(path, labelled=data.labelled)


def _text(path: Path, data: Data, framing: Framing | None) -> Source:
    from tunewright.data.sources.text import read_text

    return read_text(path)


def _saved(path: Path, data: Data, framing: Framing | None) -> Source:
    from tunewright.data.sources.hub import read_saved

    return read_saved(path, framing=framing)


def _atomic(path: Path, data: Data, framing: Framing | None) -> Source:
    from tunewright.data.sources.atomic import read_atomic

    return read_atomic(path)


def _speech(path: Path, data: Data, framing: Framing | None) -> Source:
    from tunewright.data.sources.speech import read_speech

    return read_speech(path)


# Each imports its library when it is used: a table of numbers needs no image decoder.
SOURCES: dict[str, Reader] = {
    "csv": _delimited,
    "tsv": _delimited,
    "jsonl": _jsonl,
    "parquet": _parquet,
    "images": _images,
    "idx": _idx,
    "npz": _npz,
    "text": _text,
    "hub": _saved,
    "atomic": _atomic,
    "speech": _speech,
}
ENDINGS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".npz": "npz",
    ".txt": "text",
}
FILES_ONLY = {"csv", "tsv", "jsonl", "npz", "text"}
FOLDERS_ONLY = {"images", "hub", "atomic"}


def open_source(data: Data, base: Path, framing: Framing | None = None) -> Source:
    """The source that the recipe names; relative paths count from `base`.

    Args:
        framing: how pictures in files get one size; None: by `data.resize`, or they have one.

    Raises:
        DataError: there is no such file, folder or sample set, or it is of another kind.
    """
    if data.mix:
        return _mix(data, base)
    name = data.source
    if framing is None and data.resize is not None:
        from tunewright.data.image.resize_crop import Framing

        framing = Framing(size=data.resize, scale_to=data.resize)
    if name.startswith("hub:"):
        from tunewright.data.sources.hub import read_hub

        return read_hub(name.removeprefix("hub:"), framing=framing)
    path = base / name
    exists = os.path.exists(path)  # unlike Path.exists, False for a name that is too long
    if name in SAMPLE_SETS and not exists:
        return _with_sides(open_sample(name, base, data), data, base)
    if not exists:
        near = difflib.get_close_matches(name, SAMPLE_SETS, n=1)
        raise DataError(
            "there is no such file, folder or sample set",
            file=path if "\0" not in name else None,
            found=name,
            expected=f"a path, hub:OWNER/NAME, or one of {', '.join(SAMPLE_SETS)}",
            fix=f"did you mean {near[0]}?"
            if near
            else "check data.source; a relative path counts from the recipe's folder",
        )
    if not path.is_dir():
        regular(path)
    format = data.format or detect(path, data)
    if (path.is_dir() and format in FILES_ONLY) or (path.is_file() and format in FOLDERS_ONLY):
        what = "folder" if path.is_dir() else "file"
        raise DataError(
            f"{format} data is not a {what}",
            file=path,
            found=f"a {what}",
            expected="a file" if what == "folder" else "a folder",
            fix="check data.source and data.format",
        )
    source = SOURCES[format](path, data, framing)
    if path.is_dir():
        require_inside(((file, None) for file in source.files), path, path)
    return _with_sides(source, data, base)


def _with_sides(source: Source, data: Data, base: Path) -> Source:
    if data.users is None and data.items is None:
        return source
    from tunewright.data.recommendation.side_features import join_sides

    return join_sides(source, data, lambda name: open_source(Data(source=name, labelled=False), base))


def locate(data: Data, base: Path) -> list[Path] | None:
    """The files that a source consists of, without opening them; None when it is not made of local files."""
    if data.mix:
        found = [locate(one, base) for one in [data.model_copy(update={"mix": []}), *map(_alone, data.mix)]]
        return None if None in found else [file for files in found for file in files or []]
    sides = [Data(source=name, labelled=False) for name in (data.users, data.items) if name is not None]
    if sides:
        found = [locate(one, base) for one in [data.model_copy(update={"users": None, "items": None}), *sides]]
        return None if None in found else [file for files in found for file in files or []]
    if data.source.startswith("hub:") or "\0" in data.source:
        return None
    path = base / data.source
    if os.path.isdir(path):  # unlike Path.is_dir, False for a name that is too long
        # A class or a part may be a link to a folder elsewhere.
        links = [entry for entry in path.iterdir() if entry.is_symlink() and entry.is_dir()]
        return [Path(name) for name in sorted({name for folder in (path, *links) for name in files_below(folder)})]
    if os.path.exists(path):
        # What a table of recordings names can change without it.
        return None if data.format == "speech" else [path]
    return sample_files(data.source, base)


def _mix(data: Data, base: Path) -> Source:
    """Raises RecipeError when it is not said which column of the first source holds the texts."""
    from tunewright.data.sources.mixed import Named, mix_sources

    if data.input is None or len(data.input) != 1:
        raise RecipeError(
            "a mix of sources reads one column of texts",
            place="data.input",
            found=", ".join(data.input or ()) or "nothing",
            expected=f"the column of {data.source} with the texts",
            fix="data.input: text",
        )
    first = data.model_copy(update={"mix": []})
    parts = [Named(name=data.source, source=open_source(first, base), column=data.input[0], limit=data.limit)]
    for one in data.mix:
        source = open_source(_alone(one), base)
        parts.append(Named(name=one.source, source=source, column=one.input, limit=one.limit))
    return mix_sources(parts)


def _alone(one: Mixed) -> Data:
    return Data(source=one.source, format=one.format, labelled=False)


def detect(path: Path, data: Data) -> str:
    """The format of a file by its ending, of a folder by what is in it.

    Raises:
        DataError: it looks like none of the formats.
    """
    if path.is_dir():
        if (path / "dataset_dict.json").exists() or (path / "dataset_info.json").exists():
            return "hub"
        names = [entry.name for entry in path.iterdir()]
        if any("-images" in name and "idx" in name for name in names):
            return "idx"
        if any(name.endswith(".inter") for name in names):
            return "atomic"
        if any(name.endswith(".parquet") for name in names):
            return "parquet"
        return "images"
    endings = [ending.lower() for ending in path.suffixes if ending.lower() != ".gz"]
    if endings and endings[-1] in ENDINGS:
        return ENDINGS[endings[-1]]
    if "idx" in path.name:
        return "idx"
    raise DataError(
        "the format of the file cannot be seen from its name",
        file=path,
        found=path.suffix or "no ending",
        expected=", ".join(ENDINGS),
        fix="say it: data.format: csv",
    )
