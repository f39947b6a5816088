"""The Hugging Face hub, and folders that `datasets` saved. Needs the extra `hub`; code from a hub is never run."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from tunewright.data.image.resize_crop import Framing
from tunewright.data.manifest import Rejects
from tunewright.data.source import Source
from tunewright.data.sources.arrow_columns import ArrowColumns, arrow_columns
from tunewright.data.sources.cells import named_cells
from tunewright.data.sources.guard import Guard
from tunewright.data.sources.images import BATCH_IMAGES
from tunewright.errors import DataError
from tunewright.files import files_below, open_regular
from tunewright.inside import require_inside
from tunewright.limits import JSON_LINE

PARTS = {"train": "train", "validation": "valid", "valid": "valid", "test": "test"}


def read_hub(name: str, *, framing: Framing | None, revision: str | None = None) -> Source:
    """Read a data set of the hub by its id, "owner/name".

    Raises:
        DataError: the extra is missing, or the hub cannot be reached or does not know the name.
    """
    datasets = _library()
    try:
        loaded = datasets.load_dataset(name, revision=revision)
    except Exception as error:  # whatever the network, the hub or the library raise, the user's next step is the same
        raise DataError(
            f"the data set {name!r} could not be loaded from the hub: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            expected="an id such as owner/name, and a connection to the hub",
            fix="check name and connection; or save it elsewhere with datasets' save_to_disk and name that folder",
        ) from error
    return _source(loaded, "hub", name, framing)


def read_saved(folder: Path, *, framing: Framing | None) -> Source:
    """Read a folder that `save_to_disk` of the datasets library wrote.

    Raises:
        DataError: the extra is missing, or the folder is damaged.
    """
    datasets = _library()
    files = sorted(map(Path, files_below(folder)))
    require_inside(_named_files(files, folder), folder, folder)
    Guard([file for file in files if file.suffix == ".arrow"]).require(sys.maxsize)
    try:
        loaded = datasets.load_from_disk(str(folder))
    except Exception as error:
        raise DataError(
            f"the folder cannot be loaded: {type(error).__name__}: {error}",
            file=folder,
            expected="what datasets' save_to_disk wrote",
            fix="save it again",
        ) from error
    return _source(loaded, "hub", str(folder), framing)


def _named_files(files: list[Path], folder: Path) -> Iterator[tuple[Path, str | None]]:
    """Yield all files of a saved data set, and those that its parts say they consist of."""
    for file in files:
        yield file, None
        if file.name == "state.json":
            try:
                with open_regular(file) as opened:
                    names = [entry["filename"] for entry in json.loads(opened.read(JSON_LINE.value))["_data_files"]]
                yield from ((file.parent / str(name), file.relative_to(folder).as_posix()) for name in names)
            except (OSError, ValueError, TypeError, KeyError, RecursionError):
                pass  # the library says what is wrong with it


def _library() -> Any:
    try:
        import datasets
    except ImportError:
        raise DataError(
            "the datasets library is not installed", expected="the extra `hub`", fix='pip install "tunewright[hub]"'
        ) from None
    return datasets


def _source(loaded: Any, format: str, name: str, framing: Framing | None) -> Source:
    parts = dict(loaded) if isinstance(loaded, Mapping) else {"all": loaded}
    named = {PARTS.get(part, "all" if len(parts) == 1 else part): value for part, value in parts.items()}
    unknown = [part for part in named if part not in ("all", "train", "valid", "test")]
    for part in unknown:
        del named[part]
    if not named:
        raise DataError(
            "none of the data set's parts is train, validation or test",
            file=name,
            found=", ".join(unknown),
            expected="train",
            fix="save the part that you want by itself",
        )
    sample = next(iter(named.values()))
    columns = arrow_columns(
        sample.features.arrow_schema,
        sample.features.to_dict(),
        framing,
        lambda column: (cell for part in named.values() for cell in named_cells(_tables(part, BATCH_IMAGES), column)),
        name,
    )
    first, batches = 1, {}
    for part, value in named.items():
        batches[part] = partial(_batches, value, columns, first)
        first += len(value)
    content = "".join(str(getattr(value, "_fingerprint", "")) for value in named.values())
    return Source(
        format=format,
        parts=batches,
        known=columns.known,
        target=columns.target,
        content=f"{name}:{content}:{first}",
    )


def _tables(part: Any, rows: int) -> Iterator[pa.Table]:
    raw = part.with_format("arrow")
    for start in range(0, len(part), rows):
        yield raw[start : start + rows]


def _batches(part: Any, columns: ArrowColumns, first: int, rejects: Rejects) -> Iterator[pa.Table]:
    for table in _tables(part, columns.rows_at_once):
        yield columns.read(table, first, rejects)
        first += table.num_rows
