"""CSV and TSV. Every cell is read as text; what the columns mean is decided once all of them have been seen."""

from __future__ import annotations

import codecs
import csv as csv_text
import gzip
import io
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
from pyarrow import csv

from tunewright.data.columns import Rejects
from tunewright.data.sources.base import BATCH_ROWS, Source, with_rows
from tunewright.errors import DataError, shorten

BLOCK_BYTES = 8 << 20
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
MISSING = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "n/a", "#N/A"]


def read_delimited(path: Path, format: str) -> Source:
    """A CSV or TSV file, gzipped or not; its first line names the columns.

    Raises:
        DataError: no header, names that stand twice, another encoding than UTF-8.
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
    names = next(csv_text.reader(io.StringIO(first.lstrip("\r\n")), delimiter=delimiter))
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(
            f"the column name {twice[0]!r} stands twice",
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
    """Rows are numbered as lines are, the header not counted: row 1 is the first line of data."""
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
        with _reader(path, delimiter, reject, names) as reader:
            for batch in reader:
                for start in range(0, batch.num_rows, BATCH_ROWS):
                    piece = pa.Table.from_batches([batch.slice(start, BATCH_ROWS)])
                    yield with_rows(piece, first)
                    first += piece.num_rows
    except pa.ArrowInvalid as error:
        raise _broken(path, error) from error
    except (OSError, EOFError) as error:
        raise DataError(
            f"the file cannot be read to its end: {error}",
            file=path,
            expected="a whole file",
            fix="restore it from a copy",
        ) from error


def _reader(path: Path, delimiter: str, reject: object, names: list[str]) -> csv.CSVStreamingReader:
    return csv.open_csv(
        pa.input_stream(path, compression="detect"),
        # One thread, so that Arrow knows the line of a row that does not fit.
        read_options=csv.ReadOptions(block_size=BLOCK_BYTES, use_threads=False),
        parse_options=csv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=reject),
        convert_options=csv.ConvertOptions(
            column_types={name: pa.string() for name in names},
            null_values=MISSING,
            strings_can_be_null=True,
            quoted_strings_can_be_null=True,
        ),
    )


def _open(path: Path) -> gzip.GzipFile | BinaryIO:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def _require_text(path: Path) -> str:
    """The beginning of the file, after all of it was seen to be UTF-8 text: Arrow would drop a bad row unseen.

    Raises:
        DataError: names the line of the first byte that is no text.
    """
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    beginning = ""
    try:
        with _open(path) as file:
            while chunk := file.read(BLOCK_BYTES):
                if b"\x00" in chunk:
                    raise _not_text(path)
                text = decoder.decode(chunk)
                beginning = beginning or text
            decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise _not_text(path) from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"the file cannot be read to its end: {error}",
            file=path,
            expected="a whole, readable file",
            fix="restore it from a copy",
        ) from error
    return beginning


def _no_text(line: bytes) -> str | None:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as error:
        return "UTF-16 text" if line[:2] in UTF_16 else f"the byte 0x{line[error.start]:02x}"
    return "a NUL byte" if b"\x00" in line else None


def _not_text(path: Path) -> DataError:
    with _open(path) as file:
        number, found = next((n, what) for n, line in enumerate(file, start=1) if (what := _no_text(line)))
    return DataError(
        "the file is not UTF-8 text",
        file=path,
        place=f"line {number}",
        found=found,
        expected="UTF-8",
        fix="save the file as UTF-8",
    )


def _broken(path: Path, error: Exception) -> DataError:
    text = str(error)
    if "straddling" in text or "quot" in text.lower():
        fix = "look for a quote that is opened and never closed"
    else:
        fix = "check that the file is a table with one header line"
    return DataError(f"the table cannot be read: {text}", file=path, expected="rows of cells", fix=fix)
