"""Use a saved model: `tunewright predict`, and `load_model` and `predict` in Python. Nothing of the training is built."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tunewright.data.manifest import Rejects
from tunewright.data.source import ROW, with_rows
from tunewright.errors import ArtifactError, DataError
from tunewright.evaluation.metrics import Outcome
from tunewright.evaluation.outputs import run_network
from tunewright.inference.read_input import given_pieces
from tunewright.inference.subtitles import subtitles
from tunewright.models.core.network import Network
from tunewright.models.saved_model import load_network
from tunewright.tasks.base.task import InputEncoder, Preprocessor
from tunewright.tasks.language_model.chat_encoder import ChatEncoder
from tunewright.tasks.registry import load_preprocessor
from tunewright.tasks.text.encoder import TokenEncoder

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
            found = [entry for entries in _predictions(self, data, rejects) for entry in entries]
            for line in left_out(rejects):
                warnings.warn(line, stacklevel=2)
            return found
        table = data if isinstance(data, pa.Table) else _texts_table(data, self.preprocessor.inputs)
        if table.num_rows == 0:
            return []
        if ROW not in table.column_names:
            table = with_rows(table, 1)
        try:
            return self._predict(table)
        except IndexError as error:
            if "out of range" not in str(error):
                raise
            raise ArtifactError(
                "the model's encoder gives numbers that its network has no row for",
                found=error,
                expected="files of one model: vocabulary and weights that belong together",
                fix="restore the model's folder from a copy, or train again",
            ) from error

    def _predict(self, table: pa.Table) -> list[dict[str, Any]]:
        if (examination := self.preprocessor.task.evaluation) is not None:
            return examination.predictions(self.network, self.preprocessor.inputs, table)
        target = self.preprocessor.target
        assert target is not None
        outputs = target.decode(run_network(self.network, self.preprocessor.inputs.examples(table, None)))
        _require_finite(outputs, table)
        if target.classes is None:
            return [{"prediction": float(value)} for value in outputs]
        if target.several:
            outcome = Outcome(outputs, np.zeros(outputs.shape))
            return [
                {
                    "prediction": [target.classes[k] for k in np.flatnonzero(chosen)],
                    "probabilities": dict(zip(target.classes, map(float, chances))),
                }
                for chosen, chances in zip(outcome.chosen, outcome.probabilities)
            ]
        outcome = Outcome(outputs, np.zeros(len(outputs), dtype=np.int64))
        return [
            {
                "prediction": target.classes[index],
                "confidence": float(chances[index]),
                "probabilities": dict(zip(target.classes, map(float, chances))),
            }
            for index, chances in zip(outcome.predicted, outcome.probabilities)
        ]


def load_model(folder: Path | str) -> Model:
    """The model that a stage saved, from its `model` folder.

    Raises:
        ArtifactError: it is no model, is damaged, or was pretrained without labels and has nothing to predict.
    """
    folder = Path(folder)
    saved = load_network(folder)
    preprocessor = load_preprocessor(saved)
    if preprocessor.target is None and preprocessor.task.evaluation is None:
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


def print_predictions(folder: Path, data: str, form: str = "json") -> None:
    """One JSON object a line on standard output, piece by piece, or subtitles; what was left out goes to standard error.

    Raises:
        DataError: subtitles are wanted, and it is not one recording.
    """
    rejects = Rejects()
    model = load_model(folder)
    if form != "json":
        entries = [entry for piece in _predictions(model, data, rejects) for entry in piece]
        if len(entries) != 1 or "words" not in entries[0]:
            raise DataError(
                "subtitles belong to one recording",
                file=data,
                found=f"{len(entries):,} rows" if len(entries) != 1 else model.preprocessor.task.name,
                expected="a sound file, and a model of speech",
                fix="leave --as out",
            )
        sys.stdout.write(subtitles(entries[0]["words"], form))
        return
    for entries in _predictions(model, data, rejects):
        for entry in entries:
            sys.stdout.write(_line(entry))
        sys.stdout.flush()
    for line in left_out(rejects):
        sys.stderr.write(f"note: {line}\n")


def _line(entry: dict[str, Any]) -> str:
    """A prediction as a line of JSON, which has no NaN and no infinity."""
    try:
        return json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n"
    except ValueError:
        place = next((f"{name} {entry[name]}" for name in ("row", "file") if name in entry), None)
        raise DataError("the prediction holds a number that is not finite", place=place, fix="remove the row") from None


def left_out(rejects: Rejects) -> list[str]:
    """A line for each reason."""
    return [f"{entry.count} left out: {entry.reason}: {'; '.join(entry.examples)}" for entry in rejects.summary()]


def _require_finite(outputs: np.ndarray, table: pa.Table) -> None:
    good = np.isfinite(outputs.reshape(len(outputs), -1)).all(axis=1)
    if not good.all():
        raise DataError(
            "the network's output is not finite",
            place=f"row {table[ROW][int(np.argmin(good))].as_py()}",
            expected="an input like those that the network was trained on",
            fix="correct the row, or remove it",
        )


def _predictions(model: Model, data: str, rejects: Rejects) -> Iterator[list[dict[str, Any]]]:
    for piece in given_pieces(data, model.preprocessor.inputs, rejects):
        reading = replace(model, preprocessor=replace(model.preprocessor, inputs=piece.inputs))
        yield [{**name, **entry} for name, entry in zip(piece.names, reading.predict(piece.table), strict=True)]


def _texts_table(texts: Sequence[str | Sequence[str]], inputs: InputEncoder) -> pa.Table:
    """Texts, or pairs of them, as the table that the model reads.

    Raises:
        DataError: the model reads no texts, or another number of them.
    """
    columns = inputs.columns if isinstance(inputs, TokenEncoder) else []
    if isinstance(inputs, ChatEncoder):
        columns = ["prompt"]
    rows = [[text] if isinstance(text, str) else list(text) for text in texts]
    if not columns or any(len(row) != len(columns) for row in rows):
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
    return pa.table({name: pa.array([row[index] for row in rows], pa.string()) for index, name in enumerate(columns)})
