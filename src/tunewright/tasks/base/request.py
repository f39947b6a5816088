"""A piece of a person's input, as a table that an encoder reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from tunewright.tasks.base.task import InputEncoder


@dataclass(frozen=True, kw_only=True)
class InputChunk:
    """Some rows."""

    table: pa.Table
    names: list[dict[str, Any]]
    """How each row is called in the output: {"row": 3}, {"file": "a.png"}, or {} where there is only one."""
    inputs: InputEncoder
    """The model's encoder, for the way in which these rows are stored."""
