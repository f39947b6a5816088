"""Arrays in files: idx (the format of MNIST) and NumPy .npz."""

from __future__ import annotations

import gzip
import lzma
import math
import os
import zipfile
import zlib
from io import BufferedIOBase
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pyarrow as pa

from tunewright.data.manifest import Column
from tunewright.data.source import Batches, Source, array_column, from_arrays, image_column
from tunewright.errors import DataError
from tunewright.files import open_regular
from tunewright.limits import ARCHIVE_MEMBERS, ARRAY_BYTES

IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
IDX_PARTS = {"train": "train", "t10k": "test", "test": "test", "valid": "valid"}
NPZ_SPLITS = {"all": "", "train": "_train", "valid": "_valid", "test": "_test"}
NPZ_NAMES = {f"{what}{ending}" for what in "xy" for ending in NPZ_SPLITS.values()}
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
# Bytes from the end of a zip archive that hold the end of its directory, and of the shortest entry there.
ZIP_TAIL = 1 << 17
ZIP_ENTRY = 47
CHUNK = 1 << 20


def read_idx_array(path: Path) -> np.ndarray:
    """Read the array of an idx file, gzipped or not. No more of it is read than its header says, and one byte.

    Raises:
        DataError: it is no idx file, ends too early or too late, or expands to more than an array may have.
    """
    try:
        with open_regular(path) as packed:
            size = packed.seek(0, os.SEEK_END)
            packed.seek(0)
            if path.suffix.lower() != ".gz":
                return _idx_array(packed, path, size, compressed=False)
            with gzip.GzipFile(fileobj=packed) as file:
                return _idx_array(file, path, size, compressed=True)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"the file cannot be read: {error}", file=path, expected="a whole file", fix="restore it from a copy"
        ) from error


def _idx_array(file: BufferedIOBase, path: Path, size: int, *, compressed: bool) -> np.ndarray:
    """
    Args:
        size: of the file as it lies on the disk.
    """
    start = file.read(4)
    if len(start) < 4 or start[:2] != b"\0\0" or start[2] not in IDX_TYPES:
        raise DataError(
            "this is not an idx file",
            file=path,
            place="byte 0",
            found=start.hex(" ") or "nothing",
            expected="00 00, the type, the number of dimensions",
            fix="check the path",
        )
    dimensions = start[3]
    sizes = file.read(4 * dimensions)
    if not 1 <= dimensions <= 4 or len(sizes) < 4 * dimensions:
        raise DataError(
            "the header of the idx file is damaged",
            file=path,
            place="byte 3",
            found=f"{dimensions} dimensions",
            expected="1 to 4, and a size for each",
            fix="restore the file from a copy",
        )
    shape = tuple(int(size) for size in np.frombuffer(sizes, ">u4"))
    kind = np.dtype(IDX_TYPES[start[2]])
    length = math.prod(shape) * kind.itemsize
    if compressed:
        require_small_array(length, size, path)
        values = _read(file, length)
        found = f"{len(values):,}" if not file.read(1) else f"more than {length:,}"
    else:
        found = f"{size - file.tell():,}"
        values = _read(file, length) if size - file.tell() == length else np.empty(0, np.uint8)
    if found != f"{length:,}":
        raise DataError(
            "the idx file has another length than its header says",
            file=path,
            found=f"{found} bytes of values",
            expected=f"{length:,} bytes for {'×'.join(map(str, shape))} values",
            fix="restore the file from a copy: it was cut off or altered",
        )
    return values.view(kind).reshape(shape)


def _read(file: BufferedIOBase, length: int) -> np.ndarray:
    """Read the next bytes: `length` of them, or fewer where the file ends."""
    values = np.empty(length, np.uint8)
    view, count = values.data, 0
    while count < length and (more := file.readinto(view[count : count + CHUNK])):
        count += more
    return values[:count]


def require_small_array(length: int, packed: int, path: Path, place: str | None = None) -> None:
    """Raise DataError where an array is far larger than its file, and than an array of a small file may be.

    Args:
        length: bytes of the array.
        packed: bytes of the file.
    """
    if length > 4 * packed:
        ARRAY_BYTES.require(length, "the array is far larger than its file", file=path, place=place)


def read_idx(path: Path, *, labelled: bool) -> Source:
    """Read a folder with pairs of files such as train-images-idx3-ubyte and train-labels-idx1-ubyte, or one file of images.

    Raises:
        DataError: a file is missing or damaged, or images and labels differ in number.
    """
    if path.is_file():
        return _idx_source({"all": (path, None)}, labelled=labelled)
    images = sorted(file for file in path.iterdir() if "-images" in file.name and "idx" in file.name)
    if not images:
        raise DataError(
            "the folder holds no idx images",
            file=path,
            expected="files such as train-images-idx3-ubyte.gz",
            fix="check the path",
        )
    pairs: dict[str, tuple[Path, Path | None]] = {}
    for file in images:
        prefix = file.name.split("-images")[0]
        labels = next((entry for entry in sorted(path.iterdir()) if entry.name.startswith(f"{prefix}-labels")), None)
        if labelled and labels is None:
            raise DataError(
                "the images have no file of labels",
                file=file,
                expected=f"{prefix}-labels-idx1-ubyte in the same folder",
                fix="add the file, or set data.labelled: false",
            )
        pairs[IDX_PARTS.get(prefix, "all")] = (file, labels if labelled else None)
    # Rows are numbered through the parts: the training images first, as their authors count them.
    ordered = {part: pairs[part] for part in ("train", "all", "valid", "test") if part in pairs}
    return _idx_source(ordered, labelled=labelled)


def _idx_source(pairs: dict[str, tuple[Path, Path | None]], *, labelled: bool) -> Source:
    parts: dict[str, Batches] = {}
    first, column, files = 1, None, []
    for part, (image_file, label_file) in pairs.items():
        pixels = read_idx_array(image_file)
        files += [image_file, *([label_file] if label_file else [])]
        if pixels.ndim not in (3, 4) or pixels.dtype != np.uint8 or not len(pixels):
            raise DataError(
                "the idx file holds no images",
                file=image_file,
                found=f"{'×'.join(map(str, pixels.shape))} values of type {pixels.dtype}",
                expected="N×height×width bytes",
                fix="name the file with the images",
            )
        pixels = pixels.reshape(*pixels.shape[:3], -1)
        column = Column(name="image", kind="image", shape=pixels.shape[1:])
        columns = {"image": image_column("image", pixels)}
        if label_file is not None:
            labels = read_idx_array(label_file)
            if labels.ndim != 1 or len(labels) != len(pixels):
                raise DataError(
                    "images and labels differ in number",
                    file=label_file,
                    found=f"{len(labels):,} labels",
                    expected=f"{len(pixels):,}, one for each image of {image_file.name}",
                    fix="use the files that belong together",
                )
            columns["label"] = pa.array(labels.astype(np.int64)).cast(pa.string())
        parts[part] = from_arrays(columns, first)
        first += len(pixels)
    assert column is not None
    target = "label" if labelled and all(labels for _, labels in pairs.values()) else None
    return Source(format="idx", parts=parts, files=files, known={"image": column}, target=target)


def read_npz(path: Path, *, labelled: bool) -> Source:
    """Read a NumPy .npz with `x` and `y`, or with x_train, y_train, x_test, y_test (and x_valid, y_valid).

    uint8 arrays [N, H, W] or [N, H, W, C] are images; any other [N, …] is a column of arrays.

    Raises:
        DataError: the file is damaged, holds Python objects, or lacks an array.
    """
    arrays = _npz_arrays(path)
    if not arrays:
        raise DataError("the file holds no array", file=path, expected="x and y", fix="check the file")
    present = {part: ending for part, ending in NPZ_SPLITS.items() if f"x{ending}" in arrays}
    if not present:
        raise DataError(
            "the file holds no array of inputs",
            file=path,
            found=", ".join(arrays),
            expected="x and y, or x_train, y_train, x_test, y_test",
            fix="rename the arrays",
        )
    parts: dict[str, Batches] = {}
    first, known = 1, None
    for part, ending in present.items():
        inputs = _npz_inputs(arrays, ending, path)
        image = inputs.dtype == np.uint8 and inputs.ndim in (3, 4)
        shaped = inputs.reshape(*inputs.shape[:3], -1) if image else inputs
        if known is not None and known.shape != shaped.shape[1:]:
            raise DataError(
                f"x{ending} has another shape than the part before",
                file=path,
                found=list(shaped.shape[1:]),
                expected=str(list(known.shape or ())),
                fix="give all parts one shape",
            )
        known = Column(name="image" if image else "x", kind="image" if image else "array", shape=shaped.shape[1:])
        columns = {known.name: image_column("image", shaped) if image else array_column(shaped)}
        if labelled:
            columns["label"] = _npz_labels(arrays, ending, len(inputs), path)
        parts[part] = from_arrays(columns, first)
        first += len(inputs)
    assert known is not None
    return Source(
        format="npz", parts=parts, files=[path], known={known.name: known}, target="label" if labelled else None
    )


def _npz_inputs(arrays: dict[str, np.ndarray], ending: str, path: Path) -> np.ndarray:
    inputs = arrays[f"x{ending}"]
    if inputs.ndim < 2 or not inputs.size or inputs.dtype.kind not in "uifb":
        raise DataError(
            f"x{ending} cannot be used",
            file=path,
            found=f"shape {list(inputs.shape)}, type {inputs.dtype}",
            expected="[N, …] numbers",
            fix="reshape it",
        )
    return inputs


def _npz_labels(arrays: dict[str, np.ndarray], ending: str, count: int, path: Path) -> pa.Array:
    """Return the labels of a part, for `count` inputs."""
    labels = arrays.get(f"y{ending}")
    if labels is None:
        raise DataError(
            f"x{ending} has no y{ending}",
            file=path,
            found=", ".join(arrays),
            expected=f"y{ending}",
            fix="add it, or set data.labelled: false",
        )
    if labels.ndim != 1 or len(labels) != count:
        raise DataError(
            f"x{ending} and y{ending} differ in number",
            file=path,
            found=f"{list(labels.shape)}",
            expected=f"[{count}]",
            fix="one label for each input",
        )
    return _label_texts(labels, path, f"y{ending}")


def _label_texts(labels: np.ndarray, path: Path, name: str) -> pa.Array:
    try:
        if labels.dtype.kind not in "uifbUS":
            raise ValueError(f"type {labels.dtype}")
        plain = labels.tolist() if labels.dtype.kind not in "US" else labels.astype(str).tolist()
        return pa.array(plain).cast(pa.string())
    except (ValueError, SystemError) as error:  # of numpy, for numbers that are no characters
        raise DataError(
            f"{name} cannot be used", file=path, found=error, expected="numbers or texts", fix="save it as one of them"
        ) from None


def _npz_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of inputs and labels; of the other members the names alone are read.

    Raises:
        DataError: the file is damaged, or an array is too large, of Python objects, or of fields.
    """
    try:
        with open_regular(path) as file:
            require_few_members(file, path)
            with zipfile.ZipFile(file) as archive:
                arrays: dict[str, np.ndarray] = {}
                for member in archive.infolist():
                    name = member.filename.removesuffix(".npy").lower()
                    before = sum(array.nbytes for array in arrays.values())
                    arrays[name] = _npz_array(archive, member, path, before) if name in NPZ_NAMES else np.empty(0)
                return arrays
    except (
        OSError,
        zipfile.BadZipFile,
        EOFError,
        KeyError,
        ValueError,
        zlib.error,
        lzma.LZMAError,
        NotImplementedError,
        RuntimeError,
        SyntaxError,
    ) as error:
        raise _broken_npz(path, error) from error


def _npz_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path, before: int) -> np.ndarray:
    """One array; what its header says is checked before it is read.

    Args:
        before: bytes of the arrays that were read before it.
    """
    with cast(BufferedIOBase, archive.open(member)) as file:
        shape, fortran, kind = _npz_header(file, member.filename)
        if kind.hasobject:
            raise DataError(
                "the file holds Python objects, which are never read: they can run code",
                file=path,
                place=member.filename,
                found="an array of objects",
                expected="arrays of numbers",
                fix="save the arrays with a plain dtype",
            )
        if kind.names is not None or kind.subdtype is not None:
            raise DataError(
                "the file holds an array with fields",
                file=path,
                place=member.filename,
                found=kind,
                expected="arrays of numbers",
                fix="save each field as an array of its own",
            )
        length = math.prod(shape) * kind.itemsize
        require_small_array(before + length, path.stat().st_size, path, member.filename)
        values = _read(file, length)
        whole = len(values) == length and not file.read(1)
    if not whole:
        raise ValueError(f"the array {member.filename} has another length than its header says")
    return np.ndarray(shape, kind, values.data, order="F" if fortran else "C")


def _npz_header(file: BufferedIOBase, name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether the order is Fortran's, and type. Raises ValueError where there is no such header."""
    try:
        shape, fortran, kind = HEADERS[np.lib.format.read_magic(cast(BinaryIO, file))](file)
    except Exception as error:  # the header is an expression of Python: its parser raises errors of many kinds
        raise ValueError(f"the header of {name} cannot be read: {type(error).__name__}: {error}") from None
    if any(size < 0 for size in shape):
        raise ValueError(f"the array {name} has a negative size")
    return shape, fortran, kind


def require_few_members(file: BinaryIO, path: Path) -> None:
    """Raise DataError where a zip archive has so large a directory that reading it takes long."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - ZIP_TAIL))
    tail = file.read()
    file.seek(0)
    end = tail.rfind(b"PK\5\6")
    if end < 0 or len(tail) < end + 22:
        return  # which is no archive
    directory = int.from_bytes(tail[end + 12 : end + 16], "little")
    if directory == 0xFFFFFFFF and (wide := tail.rfind(b"PK\6\6", 0, end)) >= 0:
        directory = int.from_bytes(tail[wide + 40 : wide + 48], "little")
    ARCHIVE_MEMBERS.require(min(directory, size) // ZIP_ENTRY, "the archive has too many members", file=path)


def _broken_npz(path: Path, error: Exception) -> DataError:
    return DataError(
        f"the file is not a whole .npz: {error}",
        file=path,
        expected="an archive that numpy.savez wrote",
        fix="restore it from a copy",
    )
