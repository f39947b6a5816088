"""From what the recipe calls `data.source` to a source: by name, by prefix, by what the file or folder looks like."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tunewright.data.source import Source
from tunewright.data.sources.sample_sets import SAMPLE_SETS, open_sample, sample_files
from tunewright.errors import DataError, RecipeError
from tunewright.files import files_below, regular
from tunewright.inside import require_inside
from tunewright.plugins import Registry
from tunewright.recipe.named import choose
from tunewright.recipe.schema import Data, Mixed

if TYPE_CHECKING:
    from tunewright.data.image.resize_crop import Framing


@dataclass(frozen=True, kw_only=True)
class SourceRequest:
    """What a reader is to open."""

    name: str
    """`data.source`, without `FORMAT:` before it."""
    path: Path
    """The same as a path, counted from the recipe's folder."""
    by_scheme: bool
    """`data.source` was FORMAT:NAME: the name is no path."""
    data: Data
    framing: Framing | None
    """How pictures in files get one size; None: they have one."""


@dataclass(frozen=True, kw_only=True)
class SourceFormat:
    """A kind of data that can be read: a line of SOURCES, or the entry point of a package in the group `tunewright.sources`."""

    read: Callable[[SourceRequest], Source]
    """Raises DataError where there is nothing that can be read. The source names its files, or has a hash of its content."""
    files: bool = True
    """Whether a file can be of this format."""
    folders: bool = True
    """The same of a folder."""
    names: bool = False
    """Whether `data.source: FORMAT:NAME` is data of this format that is no path, such as a data set of a service."""
    endings: tuple[str, ...] = ()
    """Endings of files that are of this format unless the recipe says otherwise; of built-in formats only."""


def _delimited(request: SourceRequest, format: str) -> Source:
    from tunewright.data.sources.delimited import read_delimited

    return read_delimited(request.path, format)


def _jsonl(request: SourceRequest) -> Source:
    from tunewright.data.sources.jsonl import read_jsonl

    return read_jsonl(request.path, "jsonl")


def _parquet(request: SourceRequest) -> Source:
    from tunewright.data.sources.parquet import read_parquet

    return read_parquet(request.path, "parquet", framing=request.framing)


def _images(request: SourceRequest) -> Source:
    from tunewright.data.sources.images import read_images

    return read_images(request.path, labelled=request.data.labelled, framing=request.framing)


def _idx(request: SourceRequest) -> Source:
    from tunewright.data.sources.arrays import read_idx

    return read_idx(request.path, labelled=request.data.labelled)


def _npz(request: SourceRequest) -> Source:
    from tunewright.data.sources.arrays import read_npz

    return read_npz(request.path, labelled=request.data.labelled)


def _text(request: SourceRequest) -> Source:
    from tunewright.data.sources.text import read_text

    return read_text(request.path)


def _conll(request: SourceRequest) -> Source:
    from tunewright.data.sources.conll import read_conll

    return read_conll(request.path)


def _hub(request: SourceRequest) -> Source:
    from tunewright.data.sources.hub import read_hub, read_saved

    if request.by_scheme:
        return read_hub(request.name, framing=request.framing)
    return read_saved(request.path, framing=request.framing)


def _atomic(request: SourceRequest) -> Source:
    from tunewright.data.sources.atomic import read_atomic

    return read_atomic(request.path)


def _speech(request: SourceRequest) -> Source:
    from tunewright.data.sources.speech import read_speech

    return read_speech(request.path)


# Each imports its library when it is used: a table of numbers needs no image decoder.
BUILTIN: dict[str, SourceFormat] = {
    "csv": SourceFormat(read=partial(_delimited, format="csv"), folders=False, endings=(".csv",)),
    "tsv": SourceFormat(read=partial(_delimited, format="tsv"), folders=False, endings=(".tsv", ".tab")),
    "jsonl": SourceFormat(read=_jsonl, folders=False, endings=(".jsonl", ".ndjson")),
    "parquet": SourceFormat(read=_parquet, endings=(".parquet",)),
    "images": SourceFormat(read=_images, files=False),
    "idx": SourceFormat(read=_idx),
    "npz": SourceFormat(read=_npz, folders=False, endings=(".npz",)),
    "text": SourceFormat(read=_text, folders=False, endings=(".txt",)),
    "conll": SourceFormat(read=_conll, folders=False, endings=(".conll", ".iob", ".iob2", ".bio")),
    "hub": SourceFormat(read=_hub, files=False, names=True),
    "atomic": SourceFormat(read=_atomic, files=False),
    "speech": SourceFormat(read=_speech),
}
SOURCES: Registry[SourceFormat] = Registry("tunewright.sources", BUILTIN)
ENDINGS = {ending: name for name, format in BUILTIN.items() for ending in format.endings}


def open_source(data: Data, base: Path, framing: Framing | None = None) -> Source:
    """Open the source that the recipe names; relative paths count from `base`.

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
    scheme, colon, rest = name.partition(":")
    if colon and scheme in SOURCES and SOURCES[scheme].names:
        request = SourceRequest(name=rest, path=base / rest, by_scheme=True, data=data, framing=framing)
        return _with_sides(SOURCES[scheme].read(request), data, base)
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
            expected=f"a path, hub:OWNER/NAME, or one of {', '.join(SAMPLE_SETS)}{_added_schemes()}",
            fix=f"did you mean {near[0]}?"
            if near
            else "check data.source; a relative path counts from the recipe's folder",
        )
    if not path.is_dir():
        regular(path)
    source = _read(SourceRequest(name=name, path=path, by_scheme=False, data=data, framing=framing))
    if path.is_dir():
        require_inside(((file, None) for file in source.files), path, path)
    return _with_sides(source, data, base)


def _read(request: SourceRequest) -> Source:
    """Read the source of a file or folder.

    Raises:
        RecipeError: there is no format of the recipe's name.
        DataError: files or folders are never of this format, or it cannot be read.
    """
    path = request.path
    name = request.data.format or detect(path)
    format = choose(SOURCES, name, "data.format")
    if not (format.folders if path.is_dir() else format.files):
        what = "folder" if path.is_dir() else "file"
        raise DataError(
            f"{name} data is not a {what}",
            file=path,
            found=f"a {what}",
            expected="a file" if what == "folder" else "a folder",
            fix="check data.source and data.format",
        )
    return format.read(request)


def _added_schemes() -> str:
    """Return the formats of installed packages, for an error."""
    return "".join(f", {name}:NAME" for name in SOURCES if name not in BUILTIN)


def _with_sides(source: Source, data: Data, base: Path) -> Source:
    if data.users is None and data.items is None:
        return source
    from tunewright.data.recommendation.side_features import join_sides

    return join_sides(source, data, lambda name: open_source(Data(source=name, labelled=False), base))


def locate(data: Data, base: Path) -> list[Path] | None:
    """Return the files that a source consists of, without opening them; None when it is not made of local files."""
    if data.mix:
        found = [locate(one, base) for one in [data.model_copy(update={"mix": []}), *map(_alone, data.mix)]]
        return None if None in found else [file for files in found for file in files or []]
    sides = [Data(source=name, labelled=False) for name in (data.users, data.items) if name is not None]
    if sides:
        found = [locate(one, base) for one in [data.model_copy(update={"users": None, "items": None}), *sides]]
        return None if None in found else [file for files in found for file in files or []]
    scheme, colon, _ = data.source.partition(":")
    if (colon and scheme in SOURCES) or "\0" in data.source or (data.format or "csv") not in BUILTIN:
        return None  # a package's format may read more than the file that is named
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


def detect(path: Path) -> str:
    """Return the format of a file by its ending, of a folder by what is in it.

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
        fix=f"set data.format to one of {', '.join(SOURCES)}",
    )
