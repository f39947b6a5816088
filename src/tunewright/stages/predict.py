"""Use a saved model: `tunewright predict`, and `load_model` and `predict` in Python. Nothing of the training is built."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tunewright.data.columns import Column, Rejects
from tunewright.data.framing import Framing
from tunewright.data.opening import open_source
from tunewright.data.sources.base import ROW, image_column, with_rows
from tunewright.data.types import infer_columns
from tunewright.errors import ArtifactError, DataError
from tunewright.evaluation.metrics import Outcome
from tunewright.evaluation.outputs import run_network
from tunewright.models.network import AnyNetwork
from tunewright.models.saved import load_network
from tunewright.recipe.schema import Data
from tunewright.stages.console import Screen
from tunewright.stages.hidden_tokens import fill_masks
from tunewright.tasks.base import Preprocessor
from tunewright.tasks.pixels import PixelEncoder
from tunewright.tasks.table import load_preprocessor
from tunewright.tasks.tokens import TextEncoder

PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"}


@dataclass(frozen=True)
class Model:
    """A saved model, ready to predict."""

    network: AnyNetwork
    preprocessor: Preprocessor

    def predict(self, table: pa.Table) -> list[dict[str, Any]]:
        """For each row {"prediction": …}; of a classifier also "confidence" and "probabilities" by class; with several
        labels a row the prediction is a list, and there is no confidence; of a masked language model {"masks": …}, the
        likeliest tokens for each [MASK] of the text.

        Raises:
            DataError: a column is missing or of another kind than in training.
        """
        if ROW not in table.column_names:
            table = with_rows(table, 1)
        if isinstance(self.preprocessor.inputs, TextEncoder) and self.preprocessor.task.kind == "tokens":
            return fill_masks(self.network, self.preprocessor.inputs, table)
        target = self.preprocessor.target
        assert target is not None
        outputs = target.decode(run_network(self.network, self.preprocessor.inputs.examples(table, None)))
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
    try:
        preprocessor = load_preprocessor(saved.extra["preprocessor"], folder)
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"the model's preprocessor is damaged: {error}", file=folder / "config.json", fix="train again"
        ) from error
    if preprocessor.target is None and preprocessor.task.kind != "tokens":
        raise ArtifactError(
            "this model was pretrained without labels: it has nothing to predict yet",
            file=folder,
            expected="a model with a target",
            fix="fine-tune it first",
        )
    return Model(saved.network.eval(), preprocessor)


def predict(model: Model | Path | str, data: str | Path | pa.Table) -> list[dict[str, Any]]:
    """Predictions for a table, a picture, or anything that a recipe's `data.source` can name, in its order."""
    ready = model if isinstance(model, Model) else load_model(model)
    if isinstance(data, pa.Table):
        return ready.predict(data)
    return [entry for entries in _predictions(ready, str(data), Rejects()) for entry in entries]


def print_predictions(folder: Path, data: str, *, screen: Screen | None = None) -> None:
    """One JSON object a line on standard output; what was left out goes to standard error."""
    import sys

    rejects = Rejects()
    for entries in _predictions(load_model(folder), data, rejects):
        for entry in entries:
            sys.stdout.write(json.dumps(entry, ensure_ascii=False) + "\n")
    for entry in rejects.summary():
        sys.stderr.write(f"note: {entry.count} left out: {entry.reason}: {'; '.join(entry.examples)}\n")


def _predictions(model: Model, data: str, rejects: Rejects) -> Iterator[list[dict[str, Any]]]:
    encoder = model.preprocessor.inputs
    if isinstance(encoder, PixelEncoder) and Path(data).suffix.lower() in PICTURES:
        stored = Column(
            name=encoder.column, kind="image", shape=(*encoder.file_framing.size, encoder.channels), framed=True
        )
        table = _picture(Path(data), stored, encoder.file_framing)
        yield [{"file": data, **_reading(model, encoder.reads(stored)).predict(table)[0]}]
        return
    framing = encoder.file_framing if isinstance(encoder, PixelEncoder) else None
    source = open_source(Data(source=data, labelled=False), Path("."), framing)
    if isinstance(encoder, PixelEncoder) and (stored := source.known.get(encoder.column)) is not None:
        model = _reading(model, encoder.reads(stored))
    columns, _ = infer_columns(
        (table for part in source.parts.values() for table in part(Rejects())), dict(source.known)
    )
    for part in source.parts.values():
        for table in part(rejects):
            rows = table["_row"].to_pylist()
            typed = _typed(table, {name: column.kind for name, column in columns.items()})
            yield [{"row": row, **entry} for row, entry in zip(rows, model.predict(typed))]


def _typed(table: pa.Table, kinds: dict[str, str]) -> pa.Table:
    """Text that holds numbers as numbers, as the encoders expect."""
    stored = {
        name: table[name].cast(pa.float64()) if kinds.get(name) == "number" else table[name]
        for name in table.column_names
    }
    return pa.table(stored)


def _reading(model: Model, encoder: PixelEncoder) -> Model:
    """The model for pictures that are stored in another way than those that it was trained on."""
    return replace(model, preprocessor=replace(model.preprocessor, inputs=encoder))


def _picture(path: Path, stored: Column, framing: Framing) -> pa.Table:
    from tunewright.data.sources.images import decode

    pixels = decode(path, stored, framing)
    if isinstance(pixels, str):
        raise DataError(
            f"the picture cannot be read: {pixels}",
            file=path,
            expected="a PNG, JPEG or other picture",
            fix="check the file",
        )
    return pa.table({stored.name: image_column(stored.name, pixels[None])})
