"""Warn of test texts that an earlier stage has read without their labels."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tunewright.console import Console
from tunewright.data.prepared import Prepared
from tunewright.recipe.stages import StageRecipe
from tunewright.tasks.registry import get_task


def warn_of_known_texts(stages: list[StageRecipe], prepared: list[Prepared], console: Console) -> None:
    """Say how many test texts of a stage an earlier stage learned from without their labels: the result on them may look
    better than it is on texts that are wholly new."""
    for index, stage in enumerate(stages):
        if not _reads_texts(stage) or not prepared[index].rows("test"):
            continue
        test = _texts(stage, prepared[index], "test")
        for before, data in zip(stages[:index], prepared[:index]):
            if not _reads_texts(before) or get_task(before.recipe.task).target is not None:
                continue
            read = pa.concat_arrays([column.combine_chunks() for column in _texts(before, data, "train")])
            known = np.any([np.asarray(pc.is_in(column, value_set=read)) for column in test], axis=0)
            if known.any():
                console.warning(
                    f"{int(known.sum()):,} of the {len(known):,} test texts of {stage.name} stand in what {before.name} "
                    "learns from, without their labels; so that no test text has been read, keep equal texts together in "
                    "both stages: data: {input: TEXT, split: {by: group, column: TEXT}}"
                )


def _reads_texts(stage: StageRecipe) -> bool:
    return get_task(stage.recipe.task).inputs.texts is not None


def _texts(stage: StageRecipe, prepared: Prepared, split: str) -> list[pa.ChunkedArray]:
    """The columns with a split's texts."""
    found = get_task(stage.recipe.task).inputs.texts
    columns = [] if found is None else found(prepared, stage.recipe)
    table = prepared.table(split, columns)
    return [table[name].cast(pa.string()) for name in columns]
