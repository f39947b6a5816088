"""predictions.parquet: what a stage's model answered for each test row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tunewright.errors import ArtifactError
from tunewright.evaluation.paired_comparison import Predictions
from tunewright.files import put_in_place
from tunewright.pipeline.stage import StageJob
from tunewright.runs.folder import damaged
from tunewright.runs.summary.stage import damage_beside

PREDICTIONS_FILE = "predictions.parquet"


def save_predictions(job: StageJob, kind: str, rows: np.ndarray, target: np.ndarray, outputs: np.ndarray) -> None:
    """predictions.parquet: row, target and outputs of each test row; what `compare` reads."""
    columns = {
        "row": pa.array(rows),
        "target": _lists(target) if target.ndim == 2 else pa.array(target),
        "outputs": _lists(outputs.reshape(len(outputs), -1)),
    }
    facts = {"data": job.prepared.manifest.fingerprint, "kind": kind, "name": job.stage.name}
    table = pa.table(columns).replace_schema_metadata(facts)
    temporary = job.folder / ".predictions.parquet.tmp"
    pq.write_table(table, temporary)
    put_in_place(temporary, job.folder / "predictions.parquet")


def _lists(values: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).reshape(-1)), values.shape[1])


def read_predictions(folder: Path) -> Predictions:
    """A stage's predictions.

    Raises:
        ArtifactError: the stage has none, or the file is damaged.
    """
    path = folder / PREDICTIONS_FILE
    if (damage := damage_beside(folder, PREDICTIONS_FILE)) is not None:
        raise damaged(damage, "restore it from a copy, or make it anew: tunewright evaluate RUN")
    try:
        table = pq.read_table(path)
        facts = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        outputs, target = np.stack(table["outputs"].to_numpy()), table["target"].to_numpy()
        if pa.types.is_fixed_size_list(table.schema.field("target").type):  # several labels
            target = np.stack(target)
        elif outputs.shape[1] == 1:  # a number
            outputs = outputs[:, 0]
        return Predictions(
            name=str(folder),
            data=facts["data"],
            kind=facts["kind"],
            rows=table["row"].to_numpy(),
            target=target,
            outputs=outputs,
        )
    except FileNotFoundError:
        raise ArtifactError(
            "there are no predictions here",
            file=folder,
            expected="the folder of an evaluated stage, with predictions.parquet, or a run folder, with run.json",
            fix="run the recipe, or name the stage's folder: runs/NAME/STAGE",
        ) from None
    except (pa.ArrowInvalid, OSError, KeyError, ValueError) as error:
        raise ArtifactError(
            f"the predictions cannot be read: {error}",
            file=path,
            expected="what an evaluation wrote",
            fix="tunewright evaluate RUN",
        ) from error
