"""Use a saved model: `tunewright predict`, and `load_model` and `predict` in Python. Nothing of the training is built."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from tunewright.data.manifest import Rejects
from tunewright.data.source import ROW, with_rows
from tunewright.errors import ArtifactError, DataError
from tunewright.inference.read_input import read_input
from tunewright.models.core.network import Network
from tunewright.models.saved_model import load_network
from tunewright.tasks.base.request import Request
from tunewright.tasks.base.task import Preprocessor
from tunewright.tasks.registry import load_preprocessor

# A table, texts, pairs of texts, or the name of something.
Given = str | pa.Table | Sequence[str | Sequence[str]]


@dataclass(frozen=True)
class Model:
    """A saved model, ready to predict."""

    network: Network
    preprocessor: Preprocessor

    def predict(self, data: Given) -> list[dict[str, Any]]:
        """For each row {"prediction": …}; of a classifier also "confidence" and "probabilities" by class; with several
        labels a row the prediction is a list, and there is no confidence; of a masked language model {"masks": …}, the
        likeliest tokens for each [MASK] of the text; of a language model {"continuation": …}, of a chat
        model {"answer": …}.

        Args:
            data: a table with the columns of the training; texts, or pairs of them; or what the command line takes: the
                name of a file, a picture, or a text.

        Raises:
            DataError: a column is missing or of another kind than in training, or an output is not finite.
        """
        if isinstance(data, str):
            rejects = Rejects()
            found = [entry for entries in predictions(self, data, rejects) for entry in entries]
            for line in skipped_lines(rejects):
                warnings.warn(line, stacklevel=2)
            return found
        table = data if isinstance(data, pa.Table) else _texts_table(data, self.preprocessor.request)
        if table.num_rows == 0:
            return []
        if ROW not in table.column_names:
            table = with_rows(table, 1)
        try:
            return self.preprocessor.task.evaluation.predictions(self.network, self.preprocessor, table)
        except IndexError as error:
            if "out of range" not in str(error):
                raise
            raise ArtifactError(
                "the model's encoder gives indices for which its network has no embedding",
                found=error,
                expected="files of one model: vocabulary and weights that belong together",
                fix="restore the model's folder from a copy, or train again",
            ) from error


def load_model(folder: Path | str) -> Model:
    """Load the model that a stage saved, from its `model` folder.

    Raises:
        ArtifactError: it is no model, is damaged, or was pretrained without labels and has nothing to predict.
    """
    folder = Path(folder)
    saved = load_network(folder)
    preprocessor = load_preprocessor(saved)
    if not preprocessor.answers:
        raise ArtifactError(
            "this model was pretrained without labels: it has nothing to predict yet",
            file=folder,
            expected="a model with a target",
            fix="fine-tune it first",
        )
    return Model(saved.network.eval(), preprocessor)


def predict(model: Model | Path | str, data: Given | Path) -> list[dict[str, Any]]:
    """Predictions for a table, texts, a picture, or anything that a recipe's `data.source` can name, in its order."""
    ready = model if isinstance(model, Model) else load_model(model)
    return ready.predict(str(data) if isinstance(data, Path) else data)


def predictions(model: Model, data: str, rejects: Rejects) -> Iterator[list[dict[str, Any]]]:
    """Yield the predictions for what was given, chunk by chunk; rows that cannot be read are counted in `rejects`."""
    for chunk in read_input(data, model.preprocessor, rejects):
        reading = replace(model, preprocessor=replace(model.preprocessor, inputs=chunk.inputs))
        yield [{**name, **entry} for name, entry in zip(chunk.names, reading.predict(chunk.table), strict=True)]


def skipped_lines(rejects: Rejects) -> list[str]:
    """Return a line for each reason why rows were skipped."""
    return [f"{entry.count} skipped: {entry.reason}: {'; '.join(entry.examples)}" for entry in rejects.summary()]


def _texts_table(texts: Sequence[str | Sequence[str]], request: Request[Any]) -> pa.Table:
    """Return texts, or pairs of them, as the table that the model reads.

    Raises:
        DataError: the model reads no texts, or another number of them.
    """
    columns = request.columns
    rows = [request.record(text if isinstance(text, str) else list(text)) for text in texts]
    if not columns or None in rows:
        raise DataError(
            "the model does not read such texts",
            found=texts[0] if texts else "no texts",
            expected="a table"
            if not columns
            else "texts"
            if len(columns) == 1
            else f"pairs of texts ({', '.join(columns)})",
            fix="give it a pyarrow table with the columns that it was trained on",
        )
    return pa.table({name: pa.array([row[name] for row in rows if row is not None], pa.string()) for name in columns})
