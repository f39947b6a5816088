"""Folders of pictures: one folder for each class, or, without labels, the pictures themselves."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import prod
from pathlib import Path

import numpy as np
import pyarrow as pa

from tunewright.data.image.decode import ENDINGS, FORMATS, read_header, read_picture, require_size
from tunewright.data.image.resize_crop import Framing
from tunewright.data.manifest import Column, Rejects
from tunewright.data.source import ROW, Source, image_column
from tunewright.errors import DataError
from tunewright.files import files_below

PARTS = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "validation": "valid",
    "val": "valid",
    "dev": "valid",
    "test": "test",
    "testing": "test",
}
# Pictures that are decoded before they are written, at most, and of large ones so many bytes.
BATCH_IMAGES, BATCH_BYTES = 512, 512 * 2**20
UNREADABLE = "a picture that cannot be read"


def read_images(folder: Path, *, labelled: bool, framing: Framing | None) -> Source:
    """Read a folder of pictures. Sub-folders named train, valid and test are parts; below them, or at once, the classes.

    Args:
        framing: gives all pictures one size; None: they have one.

    Raises:
        DataError: no picture at all, or pictures of different sizes and no framing.
    """
    folders = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    parts = {PARTS[entry.name.lower()]: entry for entry in folders if entry.name.lower() in PARTS}
    if not parts or len(parts) != len(folders):
        parts = {"all": folder}
    ordered = {part: parts[part] for part in ("train", "all", "valid", "test") if part in parts}
    listed = {part: _list(root, labelled) for part, root in ordered.items()}
    files = [file for entries in listed.values() for file, _ in entries]
    if not files:
        raise DataError(
            "the folder holds no picture" + (" in a folder of its class" if labelled else ""),
            file=folder,
            found=", ".join(entry.name for entry in folders[:10]) or "no folders",
            expected="one folder for each class with pictures in it"
            if labelled
            else f"files ending with {', '.join(sorted(ENDINGS))}",
            fix="check the path" + ("; for pictures without labels: data.labelled: false" if labelled else ""),
        )
    column = picture_column("image", ((file.name, file) for file in files), framing, folder)
    first, batches = 1, {}
    for part, entries in listed.items():
        batches[part] = partial(_batches, entries, column, framing, labelled, first)
        first += len(entries)
    return Source(
        format="images",
        parts=batches,
        files=files,
        known={"image": column},
        target="label" if labelled else None,
    )


def _list(root: Path, labelled: bool) -> list[tuple[Path, str | None]]:
    """Pictures with their class, in the order of their names; links that lead in a circle are not followed."""
    found: list[tuple[Path, str | None]] = []
    names = [name for name in files_below(root) if os.path.splitext(name)[1].lower() in ENDINGS]
    for file in map(Path, sorted(names, key=lambda name: name.split(os.sep))):
        below = file.relative_to(root).parts
        if labelled and len(below) < 2:
            continue
        found.append((file, below[0] if labelled else None))
    return found


def picture_column(
    name: str, pictures: Iterable[tuple[str, Path | bytes | None]], framing: Framing | None, place: Path | str
) -> Column:
    """Return how pictures are stored: in one size and with one number of channels, both seen from their headers.

    Args:
        pictures: a name for people, and a file or its bytes; what cannot be read is ignored here, and skipped later.

    Raises:
        DataError: not one can be read, or they have different sizes and there is no framing.
    """
    sizes: dict[tuple[int, int], str] = {}
    channels, count = 1, 0
    for called, picture in pictures:
        count += 1
        try:
            header = read_header(picture)
        except ValueError:
            continue
        sizes.setdefault((header.height, header.width), called)
        if not header.grey:
            channels = 3
    if not sizes:
        raise DataError(
            "not one of the pictures can be read",
            file=place,
            found=f"{count} pictures",
            expected=f"pictures: {', '.join(FORMATS)}",
            fix="check them",
        )
    if framing is not None:
        return Column(name=name, kind="image", shape=(*framing.size, channels), framed=True)
    if len(sizes) > 1:
        (one, a), (other, b) = list(sizes.items())[:2]
        raise DataError(
            f"the pictures have {len(sizes)} different sizes",
            file=place,
            found=f"{a} is {one[0]}×{one[1]}, {b} is {other[0]}×{other[1]}",
            expected="one size for all",
            fix=f"data.resize: [{one[0]}, {one[1]}]",
        )
    return Column(name=name, kind="image", shape=(*next(iter(sizes)), channels))


def decode(picture: Path | bytes | None, column: Column, framing: Framing | None) -> np.ndarray | str:
    """Return a picture as the column stores it, [height, width, channels] uint8; or, in words, why it cannot be read."""
    assert column.shape is not None
    height, width, channels = column.shape
    try:
        ready = read_picture(picture, channels)
        if framing is not None:
            require_size(*framing.scaled(ready.height, ready.width))
            return framing.picture(ready)
    except ValueError as error:
        return str(error)
    if ready.size != (width, height):
        return f"it is {ready.height}×{ready.width}, not {height}×{width}"
    return np.asarray(ready, dtype=np.uint8).reshape(height, width, channels)


def pictures_at_once(columns: Iterable[Column]) -> int:
    """Return how many rows with these columns of pictures are decoded before they are written."""
    size = sum(prod(column.shape or ()) for column in columns)
    return min(BATCH_IMAGES, max(1, BATCH_BYTES // size))


def _batches(
    entries: list[tuple[Path, str | None]],
    column: Column,
    framing: Framing | None,
    labelled: bool,
    first: int,
    rejects: Rejects,
) -> Iterator[pa.Table]:
    # Decoding leaves Python's lock, so a thread for each core helps.
    at_once = pictures_at_once([column])
    with ThreadPoolExecutor() as threads:
        for start in range(0, len(entries), at_once):
            chosen = entries[start : start + at_once]
            decoded = list(threads.map(lambda entry: decode(entry[0], column, framing), chosen))
            pixels: list[np.ndarray] = []
            labels: list[str | None] = []
            rows: list[int] = []
            for number, (file, label), result in zip(range(first + start, first + len(entries)), chosen, decoded):
                if isinstance(result, str):
                    rejects.add(UNREADABLE, f"row {number}: {file}: {result}", "restore these files, or remove them")
                    continue
                pixels.append(result)
                labels.append(label)
                rows.append(number)
            if pixels:
                yield _table(pixels, labels, rows, labelled)


def _table(pixels: list[np.ndarray], labels: list[str | None], rows: list[int], labelled: bool) -> pa.Table:
    columns: dict[str, pa.Array] = {"image": image_column("image", np.stack(pixels))}
    if labelled:
        columns["label"] = pa.array(labels, pa.string())
    return pa.table({**columns, ROW: pa.array(rows, pa.int64())})
