"""Read, type, split and write data: from any source to one Parquet file a split and a manifest.

Rows stream through twice, once to learn what the columns mean and once to write them, so memory does not grow with their
number. The result lies in the cache under the hash of everything it depends on: preparing the same data again returns at
once, and two runs that need it at the same moment do not disturb each other.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tunewright.checksums import known_sha256
from tunewright.data.manifest import Column, Rejects, TargetKind
from tunewright.data.prepare.assigners import assigners
from tunewright.data.prepare.cleaning import Divided, find_repeats
from tunewright.data.prepare.executor import Engine
from tunewright.data.prepare.layout import Layout, plan_layout
from tunewright.data.prepare.parquet_writer import Writer, manifest_of
from tunewright.data.prepare.row_filter import PARTS, limited, usable_rows
from tunewright.data.prepare.target_column import require_few_classes
from tunewright.data.prepared import Prepared, load_prepared
from tunewright.data.sources.open import locate, open_source
from tunewright.errors import ArtifactError, DataError, RunFailed
from tunewright.files import cache_dir, identity_of, write_atomic
from tunewright.recipe.schema import Data

if TYPE_CHECKING:
    from tunewright.data.image.resize_crop import Framing

# Raised when the way data is prepared changes, so that no run uses what an older version prepared.
VERSION = 2


@dataclass(frozen=True, kw_only=True)
class PrepareSettings:
    """Say how and where the prepared data is written."""

    out: Path | None = None
    """Write to this folder, which must be new or empty; None: to the cache."""
    engine: Engine = "local"
    """Where the texts of `data.clean` are processed."""
    progress: Callable[[int], None] | None = None
    """Gets the number of rows that were written, from time to time."""


def prepare(
    data: Data,
    *,
    seed: int,
    target_kind: TargetKind | None,
    base: Path,
    framing: Framing | None = None,
    settings: PrepareSettings = PrepareSettings(),
) -> Prepared:
    """Prepare the data that a recipe names.

    Args:
        seed: decides the split.
        target_kind: what the task wants to predict; None: there is no target.
        base: the folder from which a relative `data.source` counts.
        framing: how pictures in files get one size; None: by `data.resize`, or they have one.
        settings: how and where it is written; the content is the same.

    Raises:
        DataError: the data cannot be read or used, or a split would be empty.
        RunFailed: the result cannot be written.
    """
    identity: dict[str, object] = {
        "data": data.model_dump(mode="json", exclude={"disjoint"}),  # which does not change the rows
        "seed": seed,
        "target": target_kind,
        "framing": framing.to_json() if framing else None,
        "version": VERSION,
    }
    shortcut = _shortcut(data, identity, base)
    out = settings.out
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
    fingerprint = _hash([identity, source.content, [known_sha256(file) for file in source.files]])
    folder = out if out is not None else cache_dir() / "prepared" / fingerprint
    if out is not None and out.exists() and any(out.iterdir()):
        raise DataError(
            "the folder is not empty", file=out, expected="a new or empty folder", fix="choose another --out"
        )
    if data.mix:
        data = data.model_copy(update={"limit": None})  # the limits of the sources are applied already
    prepared = (load_prepared(folder) if out is None else None) or _build(
        plan_layout(source, data, target_kind), seed, fingerprint, folder, settings
    )
    if shortcut is not None and out is None:
        write_atomic(shortcut, fingerprint)
    return prepared


def _build(layout: Layout, seed: int, fingerprint: str, folder: Path, settings: PrepareSettings) -> Prepared:
    """Write the rows to a temporary folder that gets its name when all of it is written."""
    rejects = Rejects()
    writer = Writer(folder, layout.columns, layout.target.class_column)
    try:
        for kept, assigned in _kept(layout, seed, rejects, settings.engine):
            writer.write(kept, assigned)
            require_few_classes(writer.classes, layout.target.column, layout.data.source)
            if settings.progress is not None:
                settings.progress(sum(writer.rows.values()) + rejects.count)
        return Prepared(folder, writer.finish(manifest_of(layout, fingerprint, writer, rejects)))
    except OSError as error:
        raise RunFailed(
            f"the prepared data could not be written: {error}",
            file=folder,
            fix="free disk space, or set TUNEWRIGHT_CACHE to another disk",
        ) from error
    finally:
        writer.abandon()


def _kept(layout: Layout, seed: int, rejects: Rejects, engine: Engine) -> Iterator[Divided]:
    """The rows that are written, each with its split."""
    clean = layout.data.clean
    if clean is None:
        return _divided(layout, seed, rejects)
    column = _cleaned_column(layout.columns, layout.inputs, layout.data)
    cleaning = find_repeats(clean, column, _divided(layout, seed, Rejects()), engine)
    return cleaning.kept(_divided(layout, seed, rejects), rejects)


def _divided(layout: Layout, seed: int, rejects: Rejects) -> Iterator[Divided]:
    """The rows that can be used, each with its split."""
    source, found = layout.source, assigners(layout, seed)
    for part in PARTS:
        if part in source.parts:
            for table in limited(source.parts[part](rejects), layout.data.limit):
                kept = usable_rows(table, layout.columns, layout.used, layout.target.column, rejects)
                yield kept, found[part](kept)


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


def _shortcut(data: Data, identity: dict[str, object], base: Path) -> Path | None:
    """Where the fingerprint is remembered by the files' names and identities, so that they need not be read again."""
    files = locate(data, base)
    if files is None:
        return None
    try:
        return cache_dir() / "index" / _hash([identity, [identity_of(file) for file in files]])
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


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:32]
