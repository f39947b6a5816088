"""Read PyTorch's older weight files (.bin, .pt, .pth) safely: they are inspected first, and only tensors are loaded.

A file of a few kilobytes can describe tensors of terabytes, or storages that reach beyond its end. Therefore a zip archive is
memory-mapped and never unpacked, a pickle is read up to a limit, and all tensors together are no larger than the file.
"""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import torch
from torch import Tensor, nn

from tunewright.errors import ArtifactError, UserError
from tunewright.files import open_regular
from tunewright.limits import ARCHIVE_DIRECTORY_BYTES, WEIGHTS_PICKLE_BYTES

File = io.BufferedReader | io.BytesIO
# How often the bytes of a file may appear in its tensors: tied weights are stored once under several names.
SHARED = 4
# The types that a safetensors file and a network can hold.
DTYPES = {
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
}
# The record that ends a zip archive, and how far from the end it may begin.
END, END_BYTES, COMMENT_BYTES = b"PK\5\6", 22, 1 << 16
END_64 = b"PK\6\7"


def read_old_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a .pth or .bin file, by name.

    Raises:
        ArtifactError: the file holds anything but tensors, is damaged, or asks for more memory than it has bytes.
    """
    try:
        with open_regular(path, error=ArtifactError) as file:
            size = file.seek(0, io.SEEK_END)
            file.seek(0)
            if file.read(2) == b"PK":
                _check_archive(file, path)
                found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            else:
                file.seek(0)
                found = torch.load(_Bounded(file, path), map_location="cpu", weights_only=True)  # pyright: ignore
        _require_plain(found, size)
    except UserError:
        raise
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ArtifactError(
            f"the weights were not read: {reason}",
            file=path,
            expected="tensors by name and nothing else",
            fix="take weights in the safetensors format; nothing in this file was run",
        ) from None
    return found


class _Bounded:
    """Limit the pickles of a file in the format before zip archives; tensor data is read by `readinto`, without a limit.

    It has no `fileno`, so that PyTorch does not mistake it for a tar archive and unpack it.
    """

    def __init__(self, file: File, path: Path) -> None:
        self.file, self.path = file, path
        self.seek, self.tell, self.readinto = file.seek, file.tell, file.readinto
        self.left = WEIGHTS_PICKLE_BYTES.value

    def read(self, size: int) -> bytes:
        return self._counted(self.file.read(min(max(size, 0), self.left + 1)))

    def readline(self) -> bytes:
        return self._counted(self.file.readline(self.left + 1))

    def _counted(self, content: bytes) -> bytes:
        self.left -= len(content)
        found = float("inf") if self.left < 0 else 0
        WEIGHTS_PICKLE_BYTES.require(found, "the list of the weights is too large", error=ArtifactError, file=self.path)
        return content


def _check_archive(file: File, path: Path) -> None:
    """Check that a zip archive is as PyTorch writes it: nothing is compressed, and the list of tensors is short."""
    ARCHIVE_DIRECTORY_BYTES.require(
        _directory_bytes(file), "the archive has too many entries", error=ArtifactError, file=path
    )
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                raise ValueError(f"{entry.filename[:80]} is compressed in the archive, which PyTorch never does")
            if entry.filename.endswith(".pkl"):
                WEIGHTS_PICKLE_BYTES.require(
                    entry.file_size, "the list of the weights is too large", error=ArtifactError, file=path
                )


def _directory_bytes(file: File) -> int:
    """Return the declared size of an archive's table of contents."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - COMMENT_BYTES - END_BYTES - 20))
    tail = file.read()
    place = tail.rfind(END)
    if place < 0 or len(tail) < place + END_BYTES:
        raise ValueError("the archive has no end")
    (found,) = struct.unpack_from("<L", tail, place + 12)
    # In a large archive the 20 bytes before the end point to a record with 8 bytes for the size.
    if place >= 20 and tail[place - 20 : place - 16] == END_64:
        (where,) = struct.unpack_from("<Q", tail, place - 12)
        file.seek(min(where, size) + 40)
        (found,) = struct.unpack("<Q", file.read(8))
    return found


def _require_plain(found: object, size: int) -> None:
    """Check that a file of `size` bytes holds ordinary tensors only, and not more of them than fit.

    Raises:
        ValueError: it does not.
    """
    if not isinstance(found, dict):
        raise ValueError("it holds other things than tensors by name")
    total = 0
    for name, value in found.items():
        if not isinstance(name, str) or type(value) not in (Tensor, nn.Parameter):
            raise ValueError("it holds other things than tensors by name")
        if value.layout is not torch.strided or value.device.type != "cpu" or value.dtype not in DTYPES:
            raise ValueError(f"{name[:80]} is not an ordinary tensor of numbers ({value.layout}, {value.dtype})")
        total += value.numel() * value.element_size()
    if total > SHARED * size:
        raise ValueError(f"its tensors would take {total / 2**30:,.1f} GiB, and the file has {size:,} bytes")
