"""The Hugging Face hub, and folders that `datasets` saved. Needs the extra `hub`; code from a hub is never run."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from tunewright.data.columns import Column, Rejects
from tunewright.data.sources.base import BATCH_ROWS, Source, image_column, with_rows
from tunewright.data.sources.images import BROKEN, GREY_MODES, to_pixels
from tunewright.data.sources.parquet import is_label_list, plain
from tunewright.errors import DataError

PARTS = {"train": "train", "validation": "valid", "valid": "valid", "test": "test"}


def read_hub(name: str, *, resize: tuple[int, int] | None, revision: str | None = None) -> Source:
    """A data set of the hub by its id, "owner/name".

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
    return _source(loaded, "hub", name, resize)


def read_saved(folder: Path, *, resize: tuple[int, int] | None) -> Source:
    """A folder that `save_to_disk` of the datasets library wrote.

    Raises:
        DataError: the extra is missing, or the folder is damaged.
    """
    datasets = _library()
    try:
        loaded = datasets.load_from_disk(str(folder))
    except Exception as error:
        raise DataError(
            f"the folder cannot be loaded: {type(error).__name__}: {error}",
            file=folder,
            expected="what datasets' save_to_disk wrote",
            fix="save it again",
        ) from error
    return _source(loaded, "hub", str(folder), resize)


def _library() -> Any:
    try:
        import datasets
    except ImportError:
        raise DataError(
            "the datasets library is not installed", expected="the extra `hub`", fix='pip install "tunewright[hub]"'
        ) from None
    return datasets


def _source(loaded: Any, format: str, name: str, resize: tuple[int, int] | None) -> Source:
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
    images = [column for column, feature in sample.features.items() if type(feature).__name__ == "Image"]
    labels = {
        column: list(feature.names)
        for column, feature in sample.features.items()
        if type(feature).__name__ == "ClassLabel"
    }
    lists = {
        column: getattr(inner, "names", None)
        for column, feature in sample.features.items()
        if (inner := getattr(feature, "feature", None)) is not None
        and is_label_list(sample.features.arrow_schema.field(column).type)
    }
    known: dict[str, Column] = {column: Column(name=column, kind="labels") for column in lists}
    for column in images:
        known[column] = Column(name=column, kind="image", shape=_image_shape(sample, column, resize, name))
    first, batches = 1, {}
    for part, value in named.items():
        batches[part] = partial(_batches, value, known, labels, lists, first)
        first += len(value)
    content = "".join(str(getattr(value, "_fingerprint", "")) for value in named.values())
    target = next(iter(labels), None) if len(labels) == 1 else None
    return Source(format=format, parts=batches, known=known, target=target, content=f"{name}:{content}:{first}")


def _image_shape(part: Any, column: str, resize: tuple[int, int] | None, name: str) -> tuple[int, int, int]:
    first = part[0][column]
    channels = 1 if first.mode in GREY_MODES else 3
    height, width = resize or (first.height, first.width)
    return height, width, channels


def _batches(
    part: Any,
    known: Mapping[str, Column],
    labels: Mapping[str, list[str]],
    lists: Mapping[str, list[str] | None],
    first: int,
    rejects: Rejects,
) -> Iterator[pa.Table]:
    raw = part.with_format("arrow")
    size = 1024 if any(column.kind == "image" for column in known.values()) else BATCH_ROWS
    for start in range(0, len(part), size):
        table: pa.Table = raw[start : start + size]
        columns: dict[str, Any] = {}
        keep = np.ones(table.num_rows, dtype=bool)
        for column in table.column_names:
            if (names := lists.get(column)) is not None:
                columns[column] = pa.array(
                    [None if cell is None else [names[index] for index in cell] for cell in table[column].to_pylist()],
                    pa.list_(pa.string()),
                )
            elif column in known and column not in lists:
                columns[column] = _pixels(table[column], known[column], first + start, keep, rejects)
            elif column in labels:
                names = labels[column]
                columns[column] = pa.array(
                    [None if index is None or index < 0 else names[index] for index in table[column].to_pylist()],
                    pa.string(),
                )
            else:
                columns[column] = plain(table.select([column]))[column]
        yield (
            with_rows(pa.table(columns), first + start).filter(pa.array(keep))
            if not keep.all()
            else with_rows(pa.table(columns), first + start)
        )


def _pixels(column: pa.ChunkedArray, known: Column, first: int, keep: np.ndarray, rejects: Rejects) -> pa.Array:
    height, width, channels = known.shape or (1, 1, 1)
    pixels = np.zeros((len(column), height, width, channels), dtype=np.uint8)
    for index, cell in enumerate(column.to_pylist()):
        try:
            with Image.open(io.BytesIO(cell["bytes"])) as image:
                pixels[index] = to_pixels(image, height, width, channels)
        except (*BROKEN, TypeError, KeyError) as error:
            keep[index] = False
            rejects.add(
                "a picture that cannot be read", f"row {first + index}: {error}", "correct these rows in the source"
            )
    return image_column(known.name, pixels)
