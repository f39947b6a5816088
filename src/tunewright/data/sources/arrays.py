"""Arrays in files: idx (the format of MNIST) and NumPy .npz."""

from __future__ import annotations

import gzip
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa

from tunewright.data.columns import Column
from tunewright.data.sources.base import Batches, Source, array_column, from_arrays, image_column
from tunewright.errors import DataError

IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
IDX_PARTS = {"train": "train", "t10k": "test", "test": "test", "valid": "valid"}
# No array is larger than this; a header that says so is damaged.
MOST_VALUES = 1 << 33


def read_idx_array(path: Path) -> np.ndarray:
    """The array of an idx file, gzipped or not.

    Raises:
        DataError: it is no idx file, or ends too early or too late.
    """
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"the file cannot be read: {error}", file=path, expected="a whole file", fix="restore it from a copy"
        ) from error
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] not in IDX_TYPES:
        raise DataError(
            "this is not an idx file",
            file=path,
            place="byte 0",
            found=raw[:4].hex(" ") or "nothing",
            expected="00 00, the type, the number of dimensions",
            fix="check the path",
        )
    dimensions = raw[3]
    start = 4 + 4 * dimensions
    if not 1 <= dimensions <= 4 or len(raw) < start:
        raise DataError(
            "the header of the idx file is damaged",
            file=path,
            place="byte 3",
            found=f"{dimensions} dimensions",
            expected="1 to 4, and a size for each",
            fix="restore the file from a copy",
        )
    shape = tuple(int(size) for size in np.frombuffer(raw, ">u4", dimensions, 4))
    kind = np.dtype(IDX_TYPES[raw[2]])
    count = int(np.prod([float(size) for size in shape]))
    if count > MOST_VALUES or len(raw) != start + count * kind.itemsize:
        raise DataError(
            "the idx file has another length than its header says",
            file=path,
            found=f"{len(raw) - start:,} bytes of values",
            expected=f"{count * kind.itemsize:,} bytes for {'×'.join(map(str, shape))} values",
            fix="restore the file from a copy: it was cut off or altered",
        )
    return np.frombuffer(raw, kind, count, start).reshape(shape)


def read_idx(path: Path, *, labelled: bool) -> Source:
    """A folder with pairs of files such as train-images-idx3-ubyte and train-labels-idx1-ubyte, or one file of images.

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
                expected=f"{prefix}-labels-idx1-ubyte beside it",
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
    """A NumPy .npz with `x` and `y`, or with x_train, y_train, x_test, y_test (and x_valid, y_valid).

    uint8 arrays [N, H, W] or [N, H, W, C] are images; any other [N, …] is a column of arrays.

    Raises:
        DataError: the file is damaged, holds Python objects, or lacks an array.
    """
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as members:
            names = [name.removesuffix(".npy") for name in members.namelist()]
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
                arrays = {name.lower(): archive[name] for name in names}
    except ValueError as error:
        if "allow_pickle" in str(error) or "pickled" in str(error):
            raise DataError(
                "the file holds Python objects, which are never read: they can run code",
                file=path,
                found="an array of objects",
                expected="arrays of numbers",
                fix="save the arrays with a plain dtype",
            ) from None
        raise _broken_npz(path, error) from error
    except (OSError, zipfile.BadZipFile, EOFError, KeyError, zlib.error, NotImplementedError, SyntaxError) as error:
        raise _broken_npz(path, error) from error
    if not arrays:
        raise DataError("the file holds no array", file=path, expected="x and y", fix="check the file")
    splits = {"all": "", "train": "_train", "valid": "_valid", "test": "_test"}
    present = {part: ending for part, ending in splits.items() if f"x{ending}" in arrays}
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
        inputs, labels = arrays[f"x{ending}"], arrays.get(f"y{ending}")
        if labelled and labels is None:
            raise DataError(
                f"there is no y{ending} beside x{ending}",
                file=path,
                found=", ".join(arrays),
                expected=f"y{ending}",
                fix="add it, or set data.labelled: false",
            )
        if inputs.ndim < 2 or not len(inputs) or inputs.dtype.kind not in "uifb":
            raise DataError(
                f"x{ending} cannot be used",
                file=path,
                found=f"shape {list(inputs.shape)}, type {inputs.dtype}",
                expected="[N, …] numbers",
                fix="reshape it",
            )
        if labelled and labels is not None and (labels.ndim != 1 or len(labels) != len(inputs)):
            raise DataError(
                f"x{ending} and y{ending} differ in number",
                file=path,
                found=f"{list(labels.shape)}",
                expected=f"[{len(inputs)}]",
                fix="one label for each input",
            )
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
        if labelled and labels is not None:
            columns["label"] = pa.array(
                labels.tolist() if labels.dtype.kind not in "US" else labels.astype(str).tolist()
            ).cast(pa.string())
        parts[part] = from_arrays(columns, first)
        first += len(inputs)
    assert known is not None
    return Source(
        format="npz", parts=parts, files=[path], known={known.name: known}, target="label" if labelled else None
    )


def _broken_npz(path: Path, error: Exception) -> DataError:
    return DataError(
        f"the file is not a whole .npz: {error}",
        file=path,
        expected="an archive that numpy.savez wrote",
        fix="restore it from a copy",
    )
