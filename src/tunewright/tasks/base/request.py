"""How a person's request becomes rows that a model reads: the one way for predict, serve, its page, and explain."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, TypeVar

import pyarrow as pa

from tunewright.data.image.resize_crop import Framing
from tunewright.data.manifest import Column, Rejects
from tunewright.data.source import ROW
from tunewright.errors import DataError, shorten
from tunewright.limits import COLUMNS
from tunewright.tasks.base.encoders import InputEncoder

Encoder = TypeVar("Encoder", bound=InputEncoder)
# A row by its columns, as a person writes it.
Record = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class InputChunk:
    """Some rows of a request."""

    table: pa.Table
    names: list[dict[str, Any]]
    """How each row is called in the output: {"row": 3}, {"file": "a.png"}, or {} where there is only one."""
    inputs: InputEncoder
    """The model's encoder, for the way in which these rows are stored."""


class Request(Generic[Encoder]):
    """Reads rows, files and contents of files for one encoder. By itself it reads rows of columns alone."""

    kind: ClassVar[str] = "rows"
    """What the page of `serve` asks for."""
    reads_lines: ClassVar[bool] = False
    """Whether each line of a .txt file is a row."""
    files: ClassVar[frozenset[str]] = frozenset()
    """The endings of files that are one example each."""
    media_types: ClassVar[tuple[str, ...]] = ()
    """The Content-Types of such files; empty: a request is always JSON."""
    formats: ClassVar[str] = ""
    """The formats of such files, in words."""
    data_format: ClassVar[Literal["speech"] | None] = None
    """`data.format` of a file with many rows; None: it is recognised."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    @property
    def wanted(self) -> str:
        """What a line has to be, in words."""
        return "a JSON object such as {column: value}"

    @property
    def columns(self) -> list[str]:
        """The columns that a bare text, or a list of texts, fills; none: a bare text is no row."""
        return []

    @property
    def framing(self) -> Framing | None:
        """How pictures in the files of a source get one size."""
        return None

    def parse(self, text: str) -> Record | None:
        """Return one row from JSON, or from a text itself where the model reads one; None where it is neither."""
        try:
            value = json.loads(text) if text[:1] in ("{", "[", '"') else text
        except (ValueError, RecursionError):
            value = text  # a text that merely begins so
        if isinstance(value, dict):
            return value
        # [ and { are good beginnings of a text, too.
        return self.record(value) or self.record(text)

    def record(self, value: Any) -> Record | None:
        """Return the row that a text, or a list of texts, stands for; None where it is no row."""
        values = value if isinstance(value, list) else [value]
        if not self.columns or len(values) != len(self.columns) or not all(isinstance(entry, str) for entry in values):
            return None
        return dict(zip(self.columns, values))

    def table(self, rows: Iterable[tuple[int, Record]], rejects: Rejects) -> pa.Table:
        """Return numbered rows as the model reads them; those that it cannot read are counted in `rejects`."""
        rows = [(row, record) for row, record in rows if _is_written(row, record, rejects)]
        names = dict.fromkeys(name for _, record in rows for name in record)
        COLUMNS.require(len(names), "the rows have too many different keys")
        columns = {name: pa.array([_cell(record.get(name)) for _, record in rows], pa.string()) for name in names}
        return self.readable(pa.table({**columns, ROW: pa.array([row for row, _ in rows], pa.int64())}), rejects)

    def readable(self, table: pa.Table, rejects: Rejects) -> pa.Table:
        """Return the model's columns, numbers as numbers; rows that cannot be read are skipped and counted."""
        return table

    def line(self, text: str) -> Record | None:
        """Return the row that a line of standard input stands for; None where it is no row."""
        return self.parse(text)

    def chunks(self, rows: list[tuple[int, Record]], rejects: Rejects) -> Iterator[InputChunk]:
        """Yield numbered rows that `line` gave as the model reads them."""
        table = self.table(rows, rejects)
        if table.num_rows:
            names = [{"row": row} for row in table[ROW].to_pylist()]
            yield InputChunk(table=table, names=names, inputs=self.encoder)

    def file(self, path: str) -> InputChunk:
        """Return the one example that a file of `files` holds.

        Raises:
            DataError: the file cannot be read.
        """
        raise DataError("the model reads no such files", file=path, expected=self.wanted)

    def content(self, content: bytes) -> InputChunk:
        """Return the example whose file has this content.

        Raises:
            DataError: it cannot be read.
        """
        raise DataError("the model reads no such files", expected=self.wanted)

    def duration(self, content: bytes) -> tuple[float, int]:
        """Return the seconds and samples of a recording without decoding it; (0, 0) for what does not last.

        Raises:
            ValueError: it is no recording.
        """
        return 0.0, 0

    def stored(self, columns: Mapping[str, Column]) -> InputEncoder:
        """Return the encoder for rows of a source with columns of known kinds."""
        return self.encoder


def _is_written(row: int, record: Record, rejects: Rejects) -> bool:
    """Return whether the row can be written as text: halves of characters and very deep lists cannot."""
    try:
        json.dumps(record, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError) as error:
        rejects.add("it cannot be written as text", f"row {row}: {shorten(error, 60)}", "correct these rows")
        return False
    return True


def _cell(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value or None
    return json.dumps(value)
