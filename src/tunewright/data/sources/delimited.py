"""CSV and TSV. Every cell is read as text; what the columns mean is decided once all of them have been seen."""

from __future__ import annotations

import codecs
import csv as csv_text
import io
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
from pyarrow import csv

from tunewright.data.lines import arrow_text, open_text, read_whole
from tunewright.data.manifest import Rejects
from tunewright.data.source import BATCH_ROWS, Source, with_rows
from tunewright.errors import DataError, shorten
from tunewright.limits import COLUMNS, TABLE_ROW

BLOCK_BYTES = 8 << 20
# Bytes of a block for each column of a wide table, and of a block at most.
COLUMN_BYTES = 4 << 10
MOST_BLOCK_BYTES = 128 << 20
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
MISSING = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "n/a", "#N/A"]


def read_delimited(path: Path, format: str) -> Source:
    """Read a CSV or TSV file, gzipped or not; its first line names the columns.

    Raises:
        DataError: no header, duplicate column names, another encoding than UTF-8.
    """
    delimiter = "\t" if format == "tsv" else ","
    names = _header(path, delimiter)
    return Source(format=format, parts={"all": partial(_batches, path, delimiter, names)}, files=[path])


def _header(path: Path, delimiter: str) -> list[str]:
    first = _require_text(path)
    if not first.strip():
        raise DataError(
            "the file is empty", file=path, expected="a line of column names, then rows", fix="check the file"
        )
    try:
        names = next(csv_text.reader(io.StringIO(first.lstrip("\r\n"), newline=None), delimiter=delimiter))
    except csv_text.Error as error:
        raise DataError(
            f"the first line cannot be read: {error}",
            file=path,
            place="line 1",
            expected="names of columns",
            fix="look for a quote that is opened and never closed",
        ) from None
    COLUMNS.require(len(names), "the table has too many columns", file=path, place="line 1")
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise DataError(
            f"the column name {twice[0]!r} occurs twice",
            file=path,
            place="line 1",
            found=delimiter.join(names),
            expected="a name of its own for each column",
            fix="rename one of them",
        )
    empty = [index + 1 for index, name in enumerate(names) if not name.strip()]
    if empty:
        raise DataError(
            f"column {empty[0]} has no name",
            file=path,
            place="line 1",
            found=delimiter.join(names),
            expected="a name for each column",
            fix="name it",
        )
    return names


def _batches(path: Path, delimiter: str, names: list[str], rejects: Rejects) -> Iterator[pa.Table]:
    """Yield the rows, numbered as lines are, the header not counted: row 1 is the first line of data."""
    bad: list[int] = []

    def reject(row: csv.InvalidRow) -> str:
        number = len(bad)
        bad.append(number)
        line = row.number if row.number is not None else None
        where = f"line {line}" if line is not None else f"the {number + 1}. such line"
        rejects.add(
            "another number of cells than the header",
            f"{where}: {row.actual_columns} cells instead of {row.expected_columns}: {shorten(row.text, 60)}",
            f"correct these lines in {path.name}: a comma inside a cell needs quotes around it",
        )
        return "skip"

    first = 1
    try:
        with read_whole(path), arrow_text(path) as file, _reader(file, delimiter, reject, names) as reader:
            for batch in reader:
                for start in range(0, batch.num_rows, BATCH_ROWS):
                    piece = pa.Table.from_batches([batch.slice(start, BATCH_ROWS)])
                    yield with_rows(piece, first)
                    first += piece.num_rows
    except pa.ArrowInvalid as error:
        raise _broken(path, error) from error


def _reader(file: pa.NativeFile, delimiter: str, reject: object, names: list[str]) -> csv.CSVStreamingReader:
    return csv.open_csv(
        file,
        # One thread, so that Arrow knows the line of a row that does not fit.
        read_options=csv.ReadOptions(block_size=_block_bytes(names), use_threads=False),
        parse_options=csv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=reject),
        convert_options=csv.ConvertOptions(
            column_types={name: pa.string() for name in names},
            null_values=MISSING,
            strings_can_be_null=True,
            quoted_strings_can_be_null=True,
        ),
    )


def _block_bytes(names: list[str]) -> int:
    """Bytes that are read at once: what a row may have, and of wide tables so many that a block holds enough rows."""
    return max(TABLE_ROW.value, min(MOST_BLOCK_BYTES, len(names) * COLUMN_BYTES))


def _require_text(path: Path) -> str:
    """Return the beginning of the file, after all of it was seen to be UTF-8 text: Arrow would drop a bad row unseen.

    Raises:
        DataError: names the line of the first byte that is no text.
    """
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    beginning, before = "", 0
    with read_whole(path), open_text(path) as file:
        while True:
            chunk = file.read(BLOCK_BYTES)
            if not beginning and chunk[:2] in UTF_16:
                raise _not_text(path, 0, "UTF-16 text")
            if (place := chunk.find(b"\0")) >= 0:
                raise _not_text(path, before + place, "a NUL byte")
            try:
                text = decoder.decode(chunk, not chunk)
            except UnicodeDecodeError as error:
                held = len(error.object) - len(chunk)  # of the chunk before
                found = f"the byte 0x{error.object[error.start]:02x}"
                raise _not_text(path, before - held + error.start, found) from None
            if not chunk:
                return beginning
            beginning = beginning or text
            before += len(chunk)


def _line_of(path: Path, place: int) -> int:
    """Return the line of the byte at an offset, counted from 1."""
    number = 1
    with open_text(path) as file:
        while place > 0 and (chunk := file.read(min(BLOCK_BYTES, place))):
            number += chunk.count(b"\n")
            place -= len(chunk)
    return number


def _not_text(path: Path, place: int, found: str) -> DataError:
    return DataError(
        "the file is not UTF-8 text",
        file=path,
        place=f"line {_line_of(path, place)}",
        found=found,
        expected="UTF-8",
        fix="save the file as UTF-8",
    )


def _broken(path: Path, error: Exception) -> DataError:
    text = str(error)
    if "straddling" in text:
        TABLE_ROW.require(
            float("inf"),
            "a row is too long",
            file=path,
            fix="look for a quote that is opened and never closed",
        )
    if "quot" in text.lower():
        fix = "look for a quote that is opened and never closed"
    else:
        fix = "check that the file is a table with one header line"
    return DataError(f"the table cannot be read: {text}", file=path, expected="rows of cells", fix=fix)
