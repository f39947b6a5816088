"""Read, type, split and write data: from any source to one Parquet file a split and a manifest.

Rows stream through twice, once to learn what the columns mean and once to write them, so memory does not grow with their
number. The result lies in the cache under the hash of everything it depends on: preparing the same data again returns at
once, and two runs that need it at the same moment do not disturb each other.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tunewright.data import splits
from tunewright.data.cleaning import look_at
from tunewright.data.columns import Column, Manifest, Rejects
from tunewright.data.core import keep_core
from tunewright.data.engine import Engine
from tunewright.data.labels import as_lists, find_separator, join_flags, split_cells
from tunewright.data.liked import judge
from tunewright.data.opening import locate, open_source
from tunewright.data.roles import role_columns, speaker_column
from tunewright.data.sources.base import ROW, Source
from tunewright.data.types import Seen, choose_inputs, choose_target, infer_columns, missing_column, sort_classes
from tunewright.errors import DataError, RunFailed, shorten
from tunewright.files import cache_dir, sha256_file, sync_file, sync_folder, write_atomic, write_json
from tunewright.recipe.schema import Data, Split

if TYPE_CHECKING:
    from tunewright.data.framing import Framing

# Raised when the way data is prepared changes, so that no run uses what an older version prepared.
VERSION = 1
MOST_CLASSES = 10_000

TargetKind = Literal["category", "number", "labels"]
# Splits that divide the rows of each group.
BY_EACH = ("within", "last")
# With fewer voices than these a split by voice would often leave one of its parts empty.
FEW_SPEAKERS = 10
PARTS = ("train", "all", "valid", "test")
# Rows that are read at once where not all are wanted in memory.
PIECE = 2_000


@dataclass(frozen=True)
class Prepared:
    """Prepared data in its folder."""

    folder: Path
    manifest: Manifest
    base: Path = Path(".")
    """The folder that names of files in the recipe count from."""

    def rows(self, split: str) -> int:
        """How many rows a split has; 0 when there is no such split."""
        return self.manifest.splits.get(split, {"rows": 0})["rows"]

    @property
    def measured_split(self) -> str:
        """The split that results are measured on: the test, or else the validation, or else the training rows."""
        return next((split for split in ("test", "valid") if self.rows(split)), "train")

    def table(self, split: str, columns: list[str] | None = None) -> pa.Table:
        """The rows of a split, with `_row`, their numbers in the source."""
        wanted = None if columns is None else [*columns, ROW]
        # Not pq.read_table, which imports half a second's worth of dataset machinery.
        with pq.ParquetFile(self.folder / self.manifest.splits[split]["file"]) as file:
            return file.read(columns=wanted)

    def pieces(self, split: str, columns: list[str] | None = None, *, rows: int = PIECE) -> Iterator[pa.Table]:
        """The rows of a split, so many at a time: never are more of them in memory."""
        wanted = None if columns is None else [*columns, ROW]
        with pq.ParquetFile(self.folder / self.manifest.splits[split]["file"]) as file:
            for batch in file.iter_batches(batch_size=rows, columns=wanted):
                yield pa.Table.from_batches([batch])

    def chosen(self, split: str, places: np.ndarray) -> pa.Table:
        """The rows of a split at these places, which rise."""
        found: list[pa.Table] = []
        before = 0
        for piece in self.pieces(split):
            here = places[(places >= before) & (places < before + piece.num_rows)] - before
            found.append(piece.take(pa.array(here)))
            before += piece.num_rows
        return pa.concat_tables(found)


def prepare(
    data: Data,
    *,
    seed: int,
    target_kind: TargetKind | None,
    base: Path,
    framing: Framing | None = None,
    out: Path | None = None,
    engine: Engine = "local",
    progress: Callable[[int], None] | None = None,
) -> Prepared:
    """Prepare the data that a recipe names.

    Args:
        seed: decides the split.
        target_kind: what the task wants to predict; None: there is no target.
        base: the folder from which a relative `data.source` counts.
        framing: how pictures in files get one size; None: by `data.resize`, or they have one.
        out: write to this folder, which must be new or empty, instead of the cache.
        engine: who looks at the texts of `data.clean`; the result is the same.
        progress: is told from time to time how many rows were written.

    Raises:
        DataError: the data cannot be read or used, or a split would be empty.
        RunFailed: the result cannot be written.
    """
    settings = {
        "data": data.model_dump(mode="json"),
        "seed": seed,
        "target": target_kind,
        "framing": framing.to_json() if framing else None,
        "version": VERSION,
    }
    shortcut = _shortcut(data, settings, base)
    if out is None and shortcut is not None and (found := _follow(shortcut)) is not None:
        return found
    source = open_source(data, base, framing)
    fingerprint = _hash([settings, source.content, [sha256_file(file) for file in source.files]])
    folder = out if out is not None else cache_dir() / "prepared" / fingerprint
    if out is not None and out.exists() and any(out.iterdir()):
        raise DataError(
            "the folder is not empty", file=out, expected="a new or empty folder", fix="choose another --out"
        )
    if data.mix:
        data = data.model_copy(update={"limit": None})  # each of the sources has had its own
    prepared = (load_prepared(folder) if out is None else None) or _build(
        source, data, seed, target_kind, fingerprint, folder, engine, progress
    )
    if shortcut is not None and out is None:
        write_atomic(shortcut, fingerprint)
    return prepared


def load_prepared(folder: Path) -> Prepared | None:
    """What lies in a folder; None when it is not there, or not whole."""
    try:
        manifest = Manifest.from_json(json.loads((folder / "manifest.json").read_bytes()))
        for part in manifest.splits.values():
            if (folder / part["file"]).stat().st_size != part["bytes"]:
                return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Prepared(folder, manifest)


def column_array(table: pa.Table, column: Column) -> np.ndarray:
    """An image or array column as [N, *shape], uint8 or float32, without a copy per row."""
    values = table[column.name].combine_chunks()
    if isinstance(values, pa.ChunkedArray):
        values = pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], values.type)
    shape = column.shape or ()
    if column.kind == "image":
        size = int(np.prod(shape))
        buffer = values.buffers()[1]
        flat = (
            np.frombuffer(buffer, np.uint8, len(values) * size, values.offset * size)
            if buffer
            else np.empty(0, np.uint8)
        )
        return flat.reshape(len(values), *shape)
    return values.flatten().to_numpy(zero_copy_only=False).reshape(len(values), *shape)


def _build(
    source: Source,
    data: Data,
    seed: int,
    target_kind: TargetKind | None,
    fingerprint: str,
    folder: Path,
    engine: Engine,
    progress: Callable[[int], None] | None,
) -> Prepared:
    """Both passes, in a temporary folder that gets its name when all of it is written."""
    flags = data.target if target_kind == "labels" and isinstance(data.target, list) else None
    if flags is not None:
        source = join_flags(source, data.source, flags)
        data = data.model_copy(update={"target": source.target})
    if data.liked is not None:
        source = judge(source, _rating(data), data.liked, data.source)
    if data.core is not None:
        source = keep_core(source, data, data.core)
    columns, seen = infer_columns(_all_rows(source, data.limit), dict(source.known))
    notes: list[str] = []
    target, reason = (None, "not wanted: the data is used without labels")
    if target_kind is not None:
        target, reason = choose_target(data, columns, source.target, data.source, several=target_kind == "labels")
        if target_kind == "labels":
            columns[target], how = _labels_column(columns[target], source, data)
            reason = f"the columns {', '.join(flags)}, named in the recipe" if flags else f"{reason}; {how}"
            data, notes = _without_strata(data)
        else:
            columns[target] = _target_column(columns[target], target_kind, seen.get(target), data)
    inputs = choose_inputs(data, columns, target, data.source)
    if data.split.by is None:
        data = data.model_copy(update={"split": _usual_split(data.split, source, columns, seen)})
    if data.split.by in BY_EACH and data.split.column is None:
        data = data.model_copy(
            update={"split": data.split.model_copy(update={"column": role_columns(data, columns)[0]})}
        )
    if data.split.order is not None and data.split.order not in columns:
        raise missing_column("data.split.order", data.split.order, list(columns), data.source)
    if data.split.by in ("group", "time", *BY_EACH) and (data.split.column or "") not in columns:
        if data.split.column is None:
            raise DataError(
                f"a split by {data.split.by} needs a column",
                file=data.source,
                place="data.split",
                found="no column",
                expected=", ".join(columns),
                fix="data.user: NAME OF THE COLUMN THAT SAYS WHO"
                if data.split.by in BY_EACH
                else f"data.split.column: NAME OF THE {data.split.by.upper()}",
            )
        raise missing_column("data.split.column", data.split.column, list(columns), data.source)
    used = {*inputs, target, data.split.column, data.split.order} - {None}

    rejects = Rejects()
    writer = _Writer(folder, columns, target if target_kind in ("category", "labels") else None)
    try:

        def divided(rejects: Rejects) -> Iterator[tuple[pa.Table, np.ndarray]]:
            assigners = _assigners(source, data, seed, target, columns, used)  # which count as they go
            for part in PARTS:
                if part in source.parts:
                    for table in _limited(source.parts[part](rejects), data.limit):
                        kept = usable_rows(table, columns, used, target, rejects)
                        yield kept, assigners[part](kept)

        cleaning = None
        if data.clean is not None:
            cleaning = look_at(data.clean, _cleaned_column(columns, inputs, data), divided(Rejects()), engine)
        rows = divided(rejects)
        for kept, assigned in cleaning.kept(rows, rejects) if cleaning is not None else rows:
            writer.write(kept, assigned)
            if progress is not None:
                progress(sum(writer.rows.values()) + rejects.count)
        manifest = _manifest(
            source, data, fingerprint, columns, seen, inputs, target, target_kind, reason, writer, rejects, notes
        )
        return Prepared(folder, writer.finish(manifest))
    except OSError as error:
        raise RunFailed(
            f"the prepared data could not be written: {error}",
            file=folder,
            fix="free disk space, or set TUNEWRIGHT_CACHE to another disk",
        ) from error
    finally:
        writer.abandon()


def _usual_split(split: Split, source: Source, columns: dict[str, Column], seen: dict[str, Seen]) -> Split:
    """How rows are divided where the recipe does not say: at random, but no voice stands on both sides of a split."""
    speaker = speaker_column(columns)
    if source.format != "speech" or speaker is None:
        return split.model_copy(update={"by": "random"})
    voices = seen[speaker].distinct if speaker in seen else None
    if voices is not None and len(voices) < FEW_SPEAKERS:
        return split.model_copy(update={"by": "random"})
    return split.model_copy(update={"by": "group", "column": speaker})


def _rating(data: Data) -> str:
    """The column that `data.liked` is about. Raises DataError when it is not named."""
    if isinstance(data.target, str):
        return data.target
    raise DataError(
        "data.liked makes classes of a rating, and it is not said which column holds it",
        file=data.source,
        place="data.target",
        found=data.target,
        expected="one column of numbers",
        fix="data.target: rating",
    )


def _cleaned_column(columns: dict[str, Column], inputs: list[str], data: Data) -> str:
    """The one column of texts that is cleaned.

    Raises:
        DataError: there is none, or there are several.
    """
    texts = [name for name in inputs if columns[name].kind in ("text", "category")]
    if len(texts) != 1:
        raise DataError(
            "data.clean reads one column of texts",
            file=data.source,
            place="data.clean",
            found=", ".join(texts) or "no column of texts",
            expected="one",
            fix="name it with data.input",
        )
    return texts[0]


def _labels_column(column: Column, source: Source, data: Data) -> tuple[Column, str]:
    """The target as lists of classes, and how its cells are read.

    Raises:
        DataError: it holds numbers with fractions, or text that nothing divides.
    """
    if column.kind == "labels":
        return column, "its cells are lists"
    if column.kind in ("image", "array", "time"):
        raise DataError(
            f"the target {column.name!r} holds no classes",
            file=data.source,
            found=column.kind,
            expected="lists of classes, or text that a sign divides",
            fix="name another column with data.target",
        )
    found = find_separator(data, column.name, _all_rows(source, data.limit), data.source)
    return replace(column, kind="labels", separator=found.sign), found.reason


def _without_strata(data: Data) -> tuple[Data, list[str]]:
    """Rows with several classes cannot be drawn from strata: the split is at random, and says so."""
    if data.split.by != "stratified":
        return data, []
    split = data.split.model_copy(update={"by": "random"})
    note = "split at random and not stratified: rows with several classes belong to no single stratum"
    return data.model_copy(update={"split": split}), [note]


def _target_column(column: Column, kind: TargetKind, seen: Seen | None, data: Data) -> Column:
    """The target as the task wants it.

    Raises:
        DataError: numbers are wanted and there is text, or classes are wanted and there are measurements.
    """
    if column.kind == "labels":
        raise DataError(
            f"the target {column.name!r} holds lists",
            file=data.source,
            expected="one number a row" if kind == "number" else "one class a row",
            fix="take task: text-multilabel-classification, or name another column with data.target",
        )
    if kind == "number":
        if column.kind != "number":
            example = next(iter(sorted(seen.distinct or ())), None) if seen else None
            raise DataError(
                f"the target {column.name!r} does not hold numbers",
                file=data.source,
                found=example or column.kind,
                expected="numbers, for a regression",
                fix="name another column with data.target, or take task: tabular-classification",
            )
        return column
    if seen is not None and seen.distinct is None:
        raise DataError(
            f"the target {column.name!r} has more than {MOST_CLASSES:,} different values",
            file=data.source,
            found="text or measurements",
            expected="classes that come again and again",
            fix="name another column with data.target"
            + (", or take task: tabular-regression" if column.kind == "number" else ""),
        )
    fractions = (
        [value for value in (seen.distinct or ()) if "." in value and not value.endswith(".0")]
        if seen and column.kind == "number"
        else []
    )
    if seen is not None and len(fractions) > 20 and len(fractions) > seen.present // 10:
        raise DataError(
            f"the target {column.name!r} holds measurements, not classes",
            file=data.source,
            found=", ".join(sorted(fractions)[:3]),
            expected="classes that come again and again",
            fix="take task: tabular-regression, or name another column with data.target",
        )
    return replace(column, kind="category")


def _assigners(
    source: Source, data: Data, seed: int, target: str | None, columns: dict[str, Column], used: set[Any]
) -> dict[str, splits.Assign]:
    """For each part of the source, what divides its rows."""
    official = set(source.parts)
    test = 0.0 if "test" in official else data.split.test
    valid = 0.0 if "valid" in official else data.split.valid
    if data.split.by == "group":
        drawn: splits.Assign = splits.ByGroup(seed, valid, test, data.split.column or "")
    elif data.split.by == "time":
        ignored = Rejects()
        times = [
            splits.time_values(usable_rows(table, columns, used, target, ignored)[data.split.column or ""])
            for part in ("train", "all")
            if part in official
            for table in _limited(source.parts[part](ignored), data.limit)
        ]
        drawn = splits.by_time(data.split.model_copy(update={"valid": valid, "test": test}), np.concatenate(times))
    elif data.split.by in BY_EACH:
        drawn = _within(
            source, data, seed, valid, test, lambda table: usable_rows(table, columns, used, target, Rejects())
        )
    else:
        drawn = splits.Strata(seed, valid, test, target if data.split.by == "stratified" else None)
    return {
        "train": drawn,
        "all": drawn,
        "valid": lambda table: np.full(table.num_rows, splits.VALID, dtype=np.int8),
        "test": lambda table: np.full(table.num_rows, splits.TEST, dtype=np.int8),
    }


def _within(
    source: Source, data: Data, seed: int, valid: float, test: float, usable: Callable[[pa.Table], pa.Table]
) -> splits.Within:
    groups: list[pa.Array] = []
    rows: list[np.ndarray] = []
    times: list[np.ndarray] = []
    for part in ("train", "all"):
        for table in _limited(source.parts[part](Rejects()), data.limit) if part in source.parts else ():
            kept = usable(table)
            groups += kept[data.split.column or ""].cast(pa.string()).fill_null("").chunks
            rows.append(np.asarray(kept[ROW]))
            if data.split.order is not None:
                times.append(splits.time_values(kept[data.split.order]))
    order = np.concatenate(times) if times else None
    numbers = pc.dictionary_encode(pa.chunked_array(groups, pa.string()).combine_chunks()).indices.to_numpy()
    shares = data.split.model_copy(update={"valid": valid, "test": test})
    return splits.within(shares, seed, numbers, np.concatenate(rows), order)


def usable_rows(
    table: pa.Table, columns: dict[str, Column], used: set[Any], target: str | None, rejects: Rejects
) -> pa.Table:
    """The rows that can be used, with every column as its kind is stored; what is left out is counted and named."""
    keep = np.ones(table.num_rows, dtype=bool)
    stored: dict[str, Any] = {ROW: table[ROW]}
    for name, column in columns.items():
        values = table[name]
        if column.kind == "number":
            stored[name], bad = _numbers(values)
            if name in used and bad.any():
                _reject(
                    table,
                    bad & keep,
                    name,
                    f"{name} is not a number",
                    rejects,
                    f"correct these cells, or leave {name!r} out of data.input",
                )
                keep &= ~bad
        elif column.kind == "labels":
            stored[name] = as_lists(values) if column.separator is None else split_cells(values, column.separator)
        elif column.kind not in ("image", "array", "audio"):
            stored[name] = values.cast(pa.string())
        else:
            stored[name] = values
    if target is not None:
        empty = np.asarray(pc.is_null(stored[target], nan_is_null=True))
        if (empty & keep).any():
            _reject(
                table,
                empty & keep,
                target,
                f"the target {target!r} is missing",
                rejects,
                f"fill in {target!r} for these rows, or remove them",
            )
            keep &= ~empty
    ordered = pa.table({name: stored[name] for name in [*columns, ROW]})
    return ordered if keep.all() else ordered.filter(pa.array(keep))


def _numbers(values: pa.ChunkedArray) -> tuple[pa.ChunkedArray, np.ndarray]:
    """A column as float64, and which cells are neither empty nor a finite number."""
    try:
        numbers = values.cast(pa.float64())
    except pa.ArrowInvalid:
        good = pc.match_substring_regex(values, r"^\s*[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?\s*$")
        numbers = pc.if_else(good, pc.utf8_trim_whitespace(values), None).cast(pa.float64())
    finite = pc.fill_null(pc.is_finite(numbers), False)
    missing = np.asarray(values.is_null())
    good_cells = np.asarray(finite)
    if not (good_cells | missing).all():
        numbers = pc.if_else(finite, numbers, None)
    return numbers, ~good_cells & ~missing


def _reject(table: pa.Table, bad: np.ndarray, name: str, reason: str, rejects: Rejects, fix: str) -> None:
    rows = np.flatnonzero(bad)
    for position, index in enumerate(rows[:3]):
        count = len(rows) - 2 if position == 2 else 1
        rejects.add(
            reason,
            f"row {table[ROW][int(index)].as_py()}: {name} {shorten(table[name][int(index)].as_py(), 40)!r}",
            fix,
            count,
        )


def _limited(tables: Iterator[pa.Table], limit: int | None) -> Iterator[pa.Table]:
    """The first `limit` rows; all of them when it is None."""
    left = limit
    for table in tables:
        if left is not None and table.num_rows >= left:
            yield table.slice(0, left)
            return
        if left is not None:
            left -= table.num_rows
        yield table


def _all_rows(source: Source, limit: int | None) -> Iterator[pa.Table]:
    ignored = Rejects()
    for part in PARTS:
        if part in source.parts:
            yield from _limited(source.parts[part](ignored), limit)


class _Writer:
    """One Parquet file for each split, in a temporary folder."""

    def __init__(self, folder: Path, columns: dict[str, Column], class_column: str | None) -> None:
        self.folder = folder
        self.class_column = class_column
        folder.parent.mkdir(parents=True, exist_ok=True)
        self.temporary = folder.parent / f".tmp-{folder.name}-{os.getpid()}"
        shutil.rmtree(self.temporary, ignore_errors=True)
        self.temporary.mkdir()
        # Pixels hardly shrink, and are read again at every start; tables shrink to a third.
        self.compression = "none" if any(column.kind in ("image", "array") for column in columns.values()) else "zstd"
        self.writers: dict[str, pq.ParquetWriter] = {}
        self.rows: dict[str, int] = dict.fromkeys(splits.NAMES, 0)
        self.missing: dict[str, int] = dict.fromkeys(columns, 0)
        self.classes: dict[str, set[str]] = {name: set() for name in splits.NAMES}
        self.without_label = 0

    def write(self, table: pa.Table, assigned: np.ndarray) -> None:
        for index, name in enumerate(splits.NAMES):
            chosen = assigned == index
            part = table if chosen.all() else table.filter(pa.array(chosen))
            if not part.num_rows:
                continue
            if name not in self.writers:
                self.writers[name] = pq.ParquetWriter(
                    self.temporary / f"{name}.parquet",
                    part.schema,
                    compression=self.compression,
                    use_dictionary=self.compression != "none",
                )
            self.writers[name].write_table(part)
            self.rows[name] += part.num_rows
            if self.class_column is not None:
                values = part[self.class_column]
                if pa.types.is_list(values.type):
                    self.without_label += pc.sum(pc.equal(pc.list_value_length(values), 0)).as_py()
                    values = pc.list_flatten(values)
                self.classes[name].update(pc.unique(values).to_pylist())
            for column in self.missing:
                self.missing[column] += part[column].null_count

    def close(self) -> None:
        for writer in self.writers.values():
            writer.close()

    def finish(self, manifest: Manifest) -> Manifest:
        """Sync, write the manifest, and give the folder its name; another process may have been faster."""
        for file in self.temporary.iterdir():
            sync_file(file)
        write_json(self.temporary / "manifest.json", manifest.to_json())
        if self.folder.exists() and load_prepared(self.folder) is None:
            shutil.rmtree(self.folder)
        try:
            os.rename(self.temporary, self.folder)
        except OSError:
            known = load_prepared(self.folder)
            if known is None:
                raise
            return known.manifest
        sync_folder(self.folder.parent)
        return manifest

    def abandon(self) -> None:
        self.close()
        shutil.rmtree(self.temporary, ignore_errors=True)


def _manifest(
    source: Source,
    data: Data,
    fingerprint: str,
    columns: dict[str, Column],
    seen: dict[str, Seen],
    inputs: list[str],
    target: str | None,
    target_kind: TargetKind | None,
    reason: str,
    writer: _Writer,
    rejects: Rejects,
    notes: list[str],
) -> Manifest:
    writer.close()
    left_out = rejects.summary()
    rows = {name: count for name, count in writer.rows.items() if count}
    official = set(source.parts)
    _require_rows(writer.rows, data, official, left_out)
    classes, notes = None, list(notes)
    if target is not None and target_kind in ("category", "labels"):
        by_split = {name: writer.classes[name] for name in rows}
        classes = sort_classes({value for values in by_split.values() for value in values})
        for name, values in by_split.items():
            absent = [value for value in classes if value not in values]
            if absent:
                notes.append(f"the {name} split has no row of class {', '.join(absent[:5])}")
    if writer.without_label:
        notes.append(f"{writer.without_label:,} rows have no label at all, which is an answer like any other")
    return Manifest(
        fingerprint=fingerprint,
        source=data.source,
        format=source.format,
        files=[{"path": str(file), "sha256": sha256_file(file), "bytes": file.stat().st_size} for file in source.files],
        columns=[replace(column, missing=writer.missing[name]) for name, column in columns.items()],
        input=inputs,
        target=target,
        target_kind=target_kind,
        target_reason=reason,
        classes=classes,
        read=sum(rows.values()) + sum(entry.count for entry in left_out),
        used=sum(rows.values()),
        left_out=left_out,
        splits={name: _file_facts(writer.temporary / f"{name}.parquet", count) for name, count in rows.items()},
        split_rule=splits.describe(_drawn(data.split, target), official),
        notes=notes,
        licence=source.licence,
        citation=source.citation,
    )


def _drawn(split: Split, target: str | None) -> Split:
    """How the rows were divided: without classes there are no strata."""
    return split.model_copy(update={"by": "random"}) if split.by == "stratified" and target is None else split


def _file_facts(path: Path, rows: int) -> dict[str, Any]:
    return {"rows": rows, "file": path.name, "bytes": path.stat().st_size, "sha256": sha256_file(path)}


def _require_rows(rows: dict[str, int], data: Data, official: set[str], left_out: list[Any]) -> None:
    """Raises DataError when a split that the recipe asks for would be empty."""
    wanted = {"train": True, "valid": data.split.valid > 0, "test": data.split.test > 0}
    for name, needed in wanted.items():
        if needed and rows[name] == 0:
            reasons = "; ".join(f"{entry.count} left out: {entry.reason} ({entry.examples[0]})" for entry in left_out)
            raise DataError(
                f"the {name} split would be empty" if sum(rows.values()) else "no usable row is left",
                file=data.source,
                place="data.split",
                found=f"{sum(rows.values())} usable rows{'; ' + reasons if reasons else ''}",
                expected="enough rows for every split",
                fix="give more rows" if name == "train" else f"give more rows, or set data.split.{name}: 0",
            )


def _shortcut(data: Data, settings: dict[str, Any], base: Path) -> Path | None:
    """Where the fingerprint is remembered by the files' names, sizes and times, so that they need not be read again."""
    files = locate(data, base)
    if files is None:
        return None
    facts = [(str(file.resolve()), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files]
    return cache_dir() / "index" / _hash([settings, facts])


def _follow(shortcut: Path) -> Prepared | None:
    try:
        return load_prepared(cache_dir() / "prepared" / shortcut.read_text())
    except OSError:
        return None


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:32]
