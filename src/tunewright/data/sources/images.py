"""Folders of pictures: one folder for each class, or, without labels, the pictures themselves."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image, UnidentifiedImageError

from tunewright.data.columns import Column, Rejects
from tunewright.data.sources.base import ROW, Source, image_column
from tunewright.errors import DataError

ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
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
GREY_MODES = {"1", "L", "I", "I;16", "F", "LA"}
BATCH_IMAGES = 512
# A picture with more pixels is more likely an attack on memory than a picture.
MOST_PIXELS = 100_000_000

BROKEN = (OSError, UnidentifiedImageError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)


def read_images(folder: Path, *, labelled: bool, resize: tuple[int, int] | None) -> Source:
    """A folder of pictures. Sub-folders named train, valid and test are parts; below them, or at once, the classes.

    Raises:
        DataError: no picture at all, or pictures of different sizes and no `data.resize`.
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
    height, width, channels = _common_shape(files, folder, resize)
    first, batches = 1, {}
    for part, entries in listed.items():
        batches[part] = partial(_batches, entries, (height, width, channels), labelled, first)
        first += len(entries)
    return Source(
        format="images",
        parts=batches,
        files=files,
        known={"image": Column(name="image", kind="image", shape=(height, width, channels))},
        target="label" if labelled else None,
    )


def _list(root: Path, labelled: bool) -> list[tuple[Path, str | None]]:
    """Pictures with their class, in the order of their names; links that lead in a circle are not followed."""
    found: list[tuple[Path, str | None]] = []
    for file in sorted(root.rglob("*")):
        if file.suffix.lower() not in ENDINGS or not file.is_file():
            continue
        below = file.relative_to(root).parts
        if labelled and len(below) < 2:
            continue
        found.append((file, below[0] if labelled else None))
    return found


def _common_shape(files: list[Path], folder: Path, resize: tuple[int, int] | None) -> tuple[int, int, int]:
    """Height, width and channels of all pictures, from their headers."""
    sizes: dict[tuple[int, int], Path] = {}
    channels = 1
    for file in files:
        try:
            with Image.open(file) as image:
                sizes.setdefault((image.height, image.width), file)
                if image.mode not in GREY_MODES:
                    channels = 3
        except BROKEN:
            continue  # left out, and named, when it is decoded
    if resize is not None:
        return *resize, channels
    if not sizes:
        raise DataError(
            "not one of the pictures can be read",
            file=folder,
            found=f"{len(files)} files",
            expected="PNG, JPEG or other pictures",
            fix="check the files",
        )
    if len(sizes) > 1:
        (one, a), (other, b) = list(sizes.items())[:2]
        raise DataError(
            f"the pictures have {len(sizes)} different sizes",
            file=folder,
            found=f"{a.name} is {one[0]}×{one[1]}, {b.name} is {other[0]}×{other[1]}",
            expected="one size for all",
            fix=f"data.resize: [{one[0]}, {one[1]}]",
        )
    return *next(iter(sizes)), channels


def _batches(
    entries: list[tuple[Path, str | None]], shape: tuple[int, int, int], labelled: bool, first: int, rejects: Rejects
) -> Iterator[pa.Table]:
    pixels: list[np.ndarray] = []
    labels: list[str | None] = []
    rows: list[int] = []
    for number, (file, label) in enumerate(entries, start=first):
        decoded = _decode(file, shape, number, rejects)
        if decoded is None:
            continue
        pixels.append(decoded)
        labels.append(label)
        rows.append(number)
        if len(pixels) == BATCH_IMAGES:
            yield _table(pixels, labels, rows, labelled)
            pixels, labels, rows = [], [], []
    if pixels:
        yield _table(pixels, labels, rows, labelled)


def _table(pixels: list[np.ndarray], labels: list[str | None], rows: list[int], labelled: bool) -> pa.Table:
    columns: dict[str, pa.Array] = {"image": image_column("image", np.stack(pixels))}
    if labelled:
        columns["label"] = pa.array(labels, pa.string())
    return pa.table({**columns, ROW: pa.array(rows, pa.int64())})


def _decode(file: Path, shape: tuple[int, int, int], number: int, rejects: Rejects) -> np.ndarray | None:
    height, width, channels = shape
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise ValueError(f"{image.width}×{image.height} pixels are more than {MOST_PIXELS:,}")
                return to_pixels(image, height, width, channels)
    except BROKEN as error:
        rejects.add(
            "a picture that cannot be read", f"row {number}: {file}: {error}", "restore these files, or remove them"
        )
        return None


def to_pixels(image: Image.Image, height: int, width: int, channels: int) -> np.ndarray:
    """[height, width, channels] uint8; bilinear where the size changes, 16-bit grey scaled down to 8."""
    if image.mode in ("I", "I;16", "F"):
        values = np.asarray(image, dtype=np.float64)
        image = Image.fromarray(np.clip(values / (257.0 if values.max() > 255 else 1.0), 0, 255).astype(np.uint8))
    image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.uint8).reshape(height, width, channels)
