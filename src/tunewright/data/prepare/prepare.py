"""Read, type, split and write data: from any source to one Parquet file a split and a manifest.

Rows stream through twice, once to learn what the columns mean and once to write them, so memory does not grow with their
number. The result lies in the cache under the hash of everything it depends on: preparing the same data again returns at
once, and two runs that need it at the same moment do not disturb each other.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tunewright.checksums import known_sha256
from tunewright.data.column_types import (
    Seen,
    choose_inputs,
    choose_target,
    infer_columns,
    missing_column,
    possible_targets,
    settle_lists,
)
from tunewright.data.manifest import Column, Rejects, TargetKind
from tunewright.data.prepare import splits
from tunewright.data.prepare.cleaning import find_repeats
from tunewright.data.prepare.executor import Engine
from tunewright.data.prepare.json_cells import read_json_cells
from tunewright.data.prepare.multilabel import join_flags
from tunewright.data.prepare.parquet_writer import Writer, manifest_of
from tunewright.data.prepare.row_filter import PARTS, all_rows, limited, usable_rows
from tunewright.data.prepare.target_column import (
    labels_column,
    rating_column,
    require_few_classes,
    structure_column,
    target_column,
    without_strata,
)
from tunewright.data.prepared import Prepared, load_prepared
from tunewright.data.recommendation.column_roles import role_columns, speaker_column
from tunewright.data.recommendation.implicit_feedback import binarize
from tunewright.data.recommendation.k_core import keep_core
from tunewright.data.source import ROW, Source
from tunewright.data.sources.open import locate, open_source
from tunewright.errors import ArtifactError, DataError, RunFailed
from tunewright.files import cache_dir, identity_of, write_atomic
from tunewright.recipe.schema import Data, Split

if TYPE_CHECKING:
    from tunewright.data.image.resize_crop import Framing

# Raised when the way data is prepared changes, so that no run uses what an older version prepared.
VERSION = 2
# Splits that divide the rows of each group.
BY_EACH = ("within", "last")
# With fewer speakers than these a split by speaker would often leave one of its parts empty.
FEW_SPEAKERS = 10


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
        engine: where the texts of `data.clean` are processed; the result is the same.
        progress: gets the number of rows that were written, from time to time.

    Raises:
        DataError: the data cannot be read or used, or a split would be empty.
        RunFailed: the result cannot be written.
    """
    settings = {
        "data": data.model_dump(mode="json", exclude={"disjoint"}),  # which does not change the rows
        "seed": seed,
        "target": target_kind,
        "framing": framing.to_json() if framing else None,
        "version": VERSION,
    }
    shortcut = _shortcut(data, settings, base)
    if out is None and shortcut is not None and (found := _follow(shortcut)) is not None:
        return found
    source = open_source(data, base, framing)
    if not source.files and source.content is None:
        raise ArtifactError(
            f"the format {source.format} does not say what its data is, so a change of it would not be noticed",
            file=data.source,
            expected="the files that were read, or a hash of the content",
            fix="ask the package that adds the format to give Source.files or Source.content",
        )
    fingerprint = _hash([settings, source.content, [known_sha256(file) for file in source.files]])
    folder = out if out is not None else cache_dir() / "prepared" / fingerprint
    if out is not None and out.exists() and any(out.iterdir()):
        raise DataError(
            "the folder is not empty", file=out, expected="a new or empty folder", fix="choose another --out"
        )
    if data.mix:
        data = data.model_copy(update={"limit": None})  # the limits of the sources are applied already
    prepared = (load_prepared(folder) if out is None else None) or _build(
        source, data, seed, target_kind, fingerprint, folder, engine, progress
    )
    if shortcut is not None and out is None:
        write_atomic(shortcut, fingerprint)
    return prepared


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
        source = binarize(source, rating_column(data), data.liked, data.source)
    if data.core is not None:
        source = keep_core(source, data, data.core)
    if target_kind == "structure":
        source = read_json_cells(source, data.limit)
    source = replace(source, known=settle_lists(source.known, target_kind))
    columns, seen = infer_columns(
        all_rows(source, data.limit),
        dict(source.known),
        partial(possible_targets, data, source.known, source.target),
    )
    notes: list[str] = []
    target, reason = (None, "not wanted: the data is used without labels")
    if target_kind is not None:
        target, reason = choose_target(data, columns, source.target, data.source, target_kind)
        if target_kind == "labels":
            rows = all_rows(source, data.limit)
            columns[target], how = labels_column(columns[target], rows, data)
            reason = f"the columns {', '.join(flags)}, named in the recipe" if flags else f"{reason}; {how}"
            data, notes = without_strata(data)
        elif target_kind == "structure":
            columns[target] = structure_column(columns[target], data)
        else:
            columns[target] = target_column(columns[target], target_kind, seen.get(target), data)
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
    _require_plain_split(data, columns, target)
    used = {*inputs, target, data.split.column, data.split.order} - {None}

    rejects = Rejects()
    writer = Writer(folder, columns, target if target_kind in ("category", "labels") else None)
    try:

        def divided(rejects: Rejects) -> Iterator[tuple[pa.Table, np.ndarray]]:
            assigners = _assigners(source, data, seed, target, columns, used)  # which count as they go
            for part in PARTS:
                if part in source.parts:
                    for table in limited(source.parts[part](rejects), data.limit):
                        kept = usable_rows(table, columns, used, target, rejects)
                        yield kept, assigners[part](kept)

        cleaning = None
        if data.clean is not None:
            cleaning = find_repeats(data.clean, _cleaned_column(columns, inputs, data), divided(Rejects()), engine)
        rows = divided(rejects)
        for kept, assigned in cleaning.kept(rows, rejects) if cleaning is not None else rows:
            writer.write(kept, assigned)
            require_few_classes(writer.classes, target, data.source)
            if progress is not None:
                progress(sum(writer.rows.values()) + rejects.count)
        manifest = manifest_of(
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


def _require_plain_split(data: Data, columns: dict[str, Column], target: str | None) -> None:
    """Raise DataError where rows are to be divided by a column of lists or records."""
    by = {"data.split.column": data.split.column, "data.split.order": data.split.order}
    if data.split.by == "stratified":
        by["data.split.by"] = target
    for place, name in by.items():
        if name is not None and columns[name].kind in ("labels", "structure"):
            raise DataError(
                f"rows cannot be divided by {name!r}, whose cells are lists or records",
                file=data.source,
                place=place,
                found=f"by: {data.split.by}",
                expected="a column with one plain value a row" if place != "data.split.by" else "by: random",
                fix="data.split: {by: random}, or name another column",
            )


def _usual_split(split: Split, source: Source, columns: dict[str, Column], seen: dict[str, Seen]) -> Split:
    """How rows are divided where the recipe does not say: at random, but no speaker is in two splits."""
    speaker = speaker_column(columns)
    if source.format != "speech" or speaker is None:
        return split.model_copy(update={"by": "random"})
    speakers = seen[speaker].distinct if speaker in seen else None
    if speakers is not None and len(speakers) < FEW_SPEAKERS:
        return split.model_copy(update={"by": "random"})
    return split.model_copy(update={"by": "group", "column": speaker})


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
            for table in limited(source.parts[part](ignored), data.limit)
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
        for table in limited(source.parts[part](Rejects()), data.limit) if part in source.parts else ():
            kept = usable(table)
            groups += kept[data.split.column or ""].cast(pa.string()).fill_null("").chunks
            rows.append(np.asarray(kept[ROW]))
            if data.split.order is not None:
                times.append(splits.time_values(kept[data.split.order]))
    order = np.concatenate(times) if times else None
    numbers = pc.dictionary_encode(pa.chunked_array(groups, pa.string()).combine_chunks()).indices.to_numpy()
    shares = data.split.model_copy(update={"valid": valid, "test": test})
    return splits.within(shares, seed, numbers, np.concatenate(rows), order)


def _shortcut(data: Data, settings: dict[str, Any], base: Path) -> Path | None:
    """Where the fingerprint is remembered by the files' names and identities, so that they need not be read again."""
    files = locate(data, base)
    if files is None:
        return None
    try:
        return cache_dir() / "index" / _hash([settings, [identity_of(file) for file in files]])
    except OSError:  # a file is gone by now, or may not be looked at
        return None


def _follow(shortcut: Path) -> Prepared | None:
    """What a shortcut leads to; None where there is none, or it is damaged: then the files are read again."""
    try:
        name = shortcut.read_text()
        found = load_prepared(cache_dir() / "prepared" / name) if name.isalnum() else None
    except (OSError, ValueError):
        return None
    return found if found is not None and found.manifest.fingerprint == name else None


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:32]
