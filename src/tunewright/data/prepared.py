"""Prepared data: one Parquet file a split, and a manifest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tunewright.checksums import Damage, file_damage
from tunewright.data.manifest import Column, Manifest
from tunewright.data.source import ROW
from tunewright.files import open_record, remove_folder
from tunewright.notes import note

# Rows that are read at once where not all are wanted in memory.
PIECE = 2_000
# Columns that are decoded at once: each takes some 20 KiB meanwhile, however short it is.
COLUMNS_AT_ONCE = 500


@dataclass(frozen=True)
class Prepared:
    """Prepared data in its folder."""

    folder: Path
    manifest: Manifest
    base: Path = Path(".")
    """The folder that names of files in the recipe count from."""

    def rows(self, split: str) -> int:
        """Return how many rows a split has; 0 when there is no such split."""
        return self.manifest.splits.get(split, {"rows": 0})["rows"]

    @property
    def measured_split(self) -> str:
        """The split that results are measured on: the test, or else the validation, or else the training rows."""
        return next((split for split in ("test", "valid") if self.rows(split)), "train")

    def table(self, split: str, columns: list[str] | None = None) -> pa.Table:
        """Return the rows of a split, with `_row`, their numbers in the source."""
        wanted = None if columns is None else [*columns, ROW]
        # Not pq.read_table, which imports half a second's worth of dataset machinery.
        with pq.ParquetFile(self.folder / self.manifest.splits[split]["file"]) as file:
            return _read(file, file.schema_arrow.names if wanted is None else wanted)

    def pieces(self, split: str, columns: list[str] | None = None, *, rows: int = PIECE) -> Iterator[pa.Table]:
        """Yield the rows of a split, so many at a time: never are more of them in memory."""
        wanted = None if columns is None else [*columns, ROW]
        with pq.ParquetFile(self.folder / self.manifest.splits[split]["file"]) as file:
            for batch in file.iter_batches(batch_size=rows, columns=wanted):
                yield pa.Table.from_batches([batch])

    def chosen(self, split: str, places: np.ndarray) -> pa.Table:
        """Return the rows of a split at these places, which rise."""
        found: list[pa.Table] = []
        before = 0
        for piece in self.pieces(split):
            here = places[(places >= before) & (places < before + piece.num_rows)] - before
            found.append(piece.take(pa.array(here)))
            before += piece.num_rows
        return pa.concat_tables(found)


def _read(file: pq.ParquetFile, names: list[str]) -> pa.Table:
    """Read the columns of these names, in the file's order, so many at a time."""
    chosen, schema = set(names), file.schema_arrow  # made anew at each question
    names = [name for name in schema.names if name in chosen]
    if len(names) <= COLUMNS_AT_ONCE:
        return file.read(columns=names)
    groups = [names[first : first + COLUMNS_AT_ONCE] for first in range(0, len(names), COLUMNS_AT_ONCE)]
    columns = [column for group in groups for column in file.read(columns=group).columns]
    return pa.table(columns, schema=pa.schema([schema.field(name) for name in names]))


def load_prepared(folder: Path) -> Prepared | None:
    """Return what lies in a folder; None when it is not there, or damaged: then that is said, and it is removed to be made anew."""
    if not folder.exists():
        return None
    try:
        manifest = Manifest.from_json(open_record((folder / "manifest.json").read_bytes()))
        files = {folder / part["file"]: part for part in manifest.splits.values()}
        damage = next((found for file, part in files.items() if (found := file_damage(file, part)) is not None), None)
        if damage is None:
            return Prepared(folder, manifest)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        damage = Damage(file=folder / "manifest.json", problem=f"the file is missing or damaged ({error})")
    note(f"{damage}; the data is prepared again")
    remove_folder(folder)
    return None


def column_array(table: pa.Table, column: Column) -> np.ndarray:
    """Return an image or array column as [N, *shape], uint8 or float32, without a copy per row."""
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
