"""Read and write weights in the safetensors format.

Loading is strict: no tensor may be missing or left over.
"""

from __future__ import annotations

import io
import os
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tunewright.errors import ArtifactError
from tunewright.files import open_regular, put_in_place
from tunewright.limits import SAFETENSORS_HEADER_BYTES


def write_weights(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a safetensors file; after an interruption it is complete or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    save_file(
        {name: value.clone().contiguous() for name, value in tensors.items()}, temporary, metadata={"format": "pt"}
    )
    put_in_place(temporary, path)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file, by name.

    Raises:
        ArtifactError: the file is missing or damaged.
    """
    if not path.exists():
        raise ArtifactError("the weights are missing", file=path, expected="a safetensors file", fix="check the path")
    with open_regular(path, error=ArtifactError) as file:
        require_short_header(file, path)
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ArtifactError(
            f"the weights cannot be read: {error}",
            file=path,
            expected="a whole safetensors file",
            fix="restore it from a copy, or train again",
        ) from error


def require_short_header(file: io.BufferedReader | io.BytesIO, path: Path) -> None:
    """Check the header length that a safetensors file declares, as the library reads the whole header into memory.

    Raises:
        ArtifactError: it is too long.
    """
    length = int.from_bytes(file.read(8), "little")
    rest = file.seek(0, os.SEEK_END) - 8  # a longer declared length than the file is damage, which the library reports
    SAFETENSORS_HEADER_BYTES.require(
        min(length, rest), "the list of tensors is too long", error=ArtifactError, file=path
    )


def load_weights(network: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Load the tensors into the network.

    Raises:
        ArtifactError: names or shapes differ.
    """
    wanted = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in tensors.items()}
    if wanted != given:
        wrong = [name for name in sorted({*wanted, *given}) if wanted.get(name) != given.get(name)]
        name = wrong[0]
        raise ArtifactError(
            f"the weights do not fit the network: {len(wrong)} tensors differ",
            file=path,
            place=name,
            found=f"shape {list(given[name])}" if name in given else "nothing",
            expected=f"shape {list(wanted[name])}" if name in wanted else "nothing",
            fix="the file belongs to another network: check the path",
        )
    network.load_state_dict(tensors)
