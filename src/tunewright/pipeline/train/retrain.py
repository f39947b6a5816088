"""Train a stage again on other rows, for the predictions of its model; nothing of it is kept."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tunewright.console import silent
from tunewright.data.prepared import Prepared
from tunewright.pipeline.stage import StageJob
from tunewright.pipeline.train.methods import learn_stage


@contextmanager
def learned_from(job: StageJob, splits: dict[str, pa.Table], seed: int) -> Generator[StageJob]:
    """Yield the stage as trained with another seed and on these rows; its folder is deleted afterwards.

    Args:
        splits: the rows of each split that is not the data's own.
    """
    place = Path(tempfile.mkdtemp(prefix="tunewright-"))
    try:
        recipe = job.recipe.model_copy(update={"seed": seed, "track": []})
        stage = replace(job.stage, recipe=recipe)
        again = replace(job, stage=stage, folder=place / "stage", prepared=_with_rows(job.prepared, splits, place))
        learn_stage(again, silent())
        yield again
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _with_rows(prepared: Prepared, tables: dict[str, pa.Table], place: Path) -> Prepared:
    splits = {
        name: {**facts, "file": str((prepared.folder / facts["file"]).resolve())}
        for name, facts in prepared.manifest.splits.items()
    }
    for name, table in tables.items():
        pq.write_table(table, place / f"{name}.parquet")
        splits[name] = {**splits.get(name, {}), "file": str(place / f"{name}.parquet"), "rows": table.num_rows}
    # A separate fingerprint: caches of the whole data must not be used for these rows.
    own = f"{prepared.manifest.fingerprint}-{place.name}"
    return replace(prepared, manifest=replace(prepared.manifest, splits=splits, fingerprint=own))
