"""Writing prepared data: one Parquet file for each split, and what is to be known of it."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tunewright.checksums import file_facts
from tunewright.data.column_types import sort_classes
from tunewright.data.manifest import Column, Manifest, Rejects, SkippedRows
from tunewright.data.prepare import splits
from tunewright.data.prepare.layout import Layout
from tunewright.data.prepared import load_prepared
from tunewright.errors import DataError
from tunewright.files import sweep, sync_file, sync_folder, write_record
from tunewright.recipe.schema import Data, Split


class Writer:
    """One Parquet file for each split, in a temporary folder."""

    def __init__(self, folder: Path, columns: dict[str, Column], class_column: str | None) -> None:
        self.folder = folder
        self.class_column = class_column
        folder.parent.mkdir(parents=True, exist_ok=True)
        sweep(folder.parent)
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
        write_record(self.temporary / "manifest.json", manifest.to_json())
        try:
            os.rename(self.temporary, self.folder)
        except OSError:
            if (known := load_prepared(self.folder)) is not None:
                return known.manifest
            os.rename(self.temporary, self.folder)
        sync_folder(self.folder.parent)
        return manifest

    def abandon(self) -> None:
        self.close()
        shutil.rmtree(self.temporary, ignore_errors=True)


def manifest_of(layout: Layout, fingerprint: str, writer: Writer, rejects: Rejects) -> Manifest:
    """Describe the rows that were written. Raises DataError when a split that the recipe asks for has none."""
    source, data, target = layout.source, layout.data, layout.target
    writer.close()
    skipped = rejects.summary()
    rows = {name: count for name, count in writer.rows.items() if count}
    official = set(source.parts)
    _require_rows(writer.rows, data, official, skipped)
    classes, notes = None, list(layout.notes)
    if target.class_column is not None:
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
        files=[{"path": str(file), **file_facts(file)} for file in source.files],
        columns=[replace(column, missing=writer.missing[name]) for name, column in layout.columns.items()],
        input=layout.inputs,
        target=target.column,
        target_kind=target.kind,
        target_reason=target.reason,
        classes=classes,
        read=sum(rows.values()) + sum(entry.count for entry in skipped),
        used=sum(rows.values()),
        skipped=skipped,
        splits={name: _file_facts(writer.temporary / f"{name}.parquet", count) for name, count in rows.items()},
        split_rule=splits.describe(_drawn(data.split, target.column), official),
        notes=notes,
        licence=source.licence,
        citation=source.citation,
    )


def _drawn(split: Split, target: str | None) -> Split:
    """How the rows were divided: without classes there are no strata."""
    return split.model_copy(update={"by": "random"}) if split.by == "stratified" and target is None else split


def _file_facts(path: Path, rows: int) -> dict[str, Any]:
    return {"rows": rows, "file": path.name, **file_facts(path)}


def _require_rows(rows: dict[str, int], data: Data, official: set[str], skipped: list[SkippedRows]) -> None:
    """Raises DataError when a split that the recipe asks for would be empty."""
    wanted = {"train": True, "valid": data.split.valid > 0, "test": data.split.test > 0}
    for name, needed in wanted.items():
        if needed and rows[name] == 0:
            reasons = "; ".join(f"{entry.count} skipped: {entry.reason} ({entry.examples[0]})" for entry in skipped)
            raise DataError(
                f"the {name} split would be empty" if sum(rows.values()) else "no usable row is left",
                file=data.source,
                place="data.split",
                found=f"{sum(rows.values())} usable rows{'; ' + reasons if reasons else ''}",
                expected="enough rows for every split",
                fix="give more rows" if name == "train" else f"give more rows, or set data.split.{name}: 0",
            )
