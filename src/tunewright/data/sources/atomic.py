"""Interactions with what is known of users and items, as RecBole's atomic files keep them.

A folder with NAME.inter and, where there are any, NAME.user and NAME.item: tab-separated, the first line naming columns and
their types, such as `user_id:token	rating:float`. Users and items are joined to their interactions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from tunewright.data.lines import arrow_text, numbered_lines, read_whole
from tunewright.data.manifest import Column, Kind, Rejects
from tunewright.data.source import BATCH_ROWS, Source, with_rows
from tunewright.errors import DataError
from tunewright.limits import COLUMNS, TABLE_ROW

KINDS: dict[str, Kind] = {"token": "category", "token_seq": "labels", "float": "number"}
SIDES = ("user", "item")


@dataclass(frozen=True, kw_only=True)
class _File:
    path: Path
    kinds: Mapping[str, str]
    """The columns and their types."""

    @property
    def key(self) -> str:
        return next(iter(self.kinds))


def read_atomic(folder: Path) -> Source:
    """Read the interactions of a folder.

    Raises:
        DataError: there is not exactly one .inter file, or a first line is no list of columns and types.
    """
    found = sorted(folder.glob("*.inter"))
    if len(found) != 1:
        raise DataError(
            "the folder has not exactly one file of interactions",
            file=folder,
            found=", ".join(file.name for file in found) or "none",
            expected="NAME.inter",
            fix="name a folder with one of them",
        )
    interactions = _header(found[0])
    sides = {side: _header(path) for side in SIDES if (path := found[0].with_suffix(f".{side}")).exists()}
    for file in sides.values():
        if file.key not in interactions.kinds:
            raise DataError(
                f"{file.key!r} is the first column of {file.path.name}, and the interactions have no such column",
                file=interactions.path,
                found=", ".join(interactions.kinds),
                fix="let the first column be the one that joins them",
            )
    kinds = dict(interactions.kinds)
    for file in sides.values():
        kinds |= {name: kind for name, kind in file.kinds.items() if name not in kinds}
    return Source(
        format="atomic",
        parts={"all": partial(_batches, interactions, list(sides.values()))},
        files=[interactions.path, *(file.path for file in sides.values())],
        known={name: Column(name=name, kind=KINDS[kind]) for name, kind in kinds.items()},
    )


def _header(path: Path) -> _File:
    number, line = next(numbered_lines(path, TABLE_ROW), (1, b""))
    try:
        first = line.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise DataError(
            f"the file is not UTF-8 text: {error.reason}", file=path, place=f"line {number}", fix="save it as UTF-8"
        ) from None
    COLUMNS.require(first.count("\t") + 1, "the table has too many columns", file=path, place="line 1")
    kinds: dict[str, str] = {}
    for entry in first.split("\t"):
        name, _, kind = entry.rpartition(":")
        if name and name in kinds:
            raise DataError(
                f"the column name {name!r} occurs twice",
                file=path,
                place="line 1",
                expected="a name of its own for each column",
                fix="rename one of them",
            )
        kinds[name] = kind
    for name, kind in kinds.items():
        if not name or kind not in KINDS:
            raise DataError(
                "the first line does not name the columns and their types",
                file=path,
                place="line 1",
                found=first[:80],
                expected="NAME:TYPE for each column, of the types token, token_seq and float",
                fix="correct the line, or remove the column",
            )
    return _File(path=path, kinds=kinds)


def _tables(file: _File) -> Iterator[pa.Table]:
    texts = {f"{name}:{kind}": pa.string() for name, kind in file.kinds.items()}
    try:
        with read_whole(file.path), arrow_text(file.path) as opened:
            reader = csv.open_csv(
                opened,
                read_options=csv.ReadOptions(block_size=TABLE_ROW.value),
                parse_options=csv.ParseOptions(delimiter="\t", quote_char=False),
                convert_options=csv.ConvertOptions(column_types=texts, null_values=[""], strings_can_be_null=True),
            )
            for batch in reader:
                whole = pa.Table.from_batches([batch]).rename_columns(list(file.kinds))
                for start in range(0, batch.num_rows, BATCH_ROWS):
                    table = whole.slice(start, BATCH_ROWS)
                    yield pa.table({name: _cells(table[name], kind) for name, kind in file.kinds.items()})
    except pa.ArrowInvalid as error:
        raise DataError(
            f"the file cannot be read: {error}", file=file.path, expected="tab-separated lines", fix="correct the file"
        ) from error


def _cells(values: pa.ChunkedArray, kind: str) -> pa.ChunkedArray:
    if kind == "token_seq":
        return pc.split_pattern_regex(pc.fill_null(pc.utf8_trim_whitespace(values), ""), r"\s+")
    return values


def _batches(interactions: _File, sides: list[_File], rejects: Rejects) -> Iterator[pa.Table]:
    known = [(file, pa.concat_tables(_tables(file))) for file in sides]
    first = 1
    for table in _tables(interactions):
        columns = {name: table[name] for name in table.column_names}
        for file, about in known:
            place = pc.index_in(table[file.key], value_set=about[file.key].combine_chunks())
            joined = about.drop_columns([file.key]).take(place)
            columns |= {name: joined[name] for name in joined.column_names if name not in columns}
        yield with_rows(pa.table(columns), first)
        first += table.num_rows
