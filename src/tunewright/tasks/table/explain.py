"""Explain an answer about a row by its columns."""

from __future__ import annotations

import pyarrow as pa
import torch

from tunewright.evaluation.attribution import Explained
from tunewright.models.core.network import Network
from tunewright.tasks.base.encoders import Encoders
from tunewright.tasks.base.explain import Question, explained_quantity, numeric_question, shorten_value
from tunewright.tasks.table.encoder import RowEncoder


def explain_row(network: Network, preprocessor: Encoders, table: pa.Table, wanted: str | None) -> Question:
    encoder = preprocessor.inputs
    assert isinstance(encoder, RowEncoder)
    inputs = encoder.encode(table)
    f, said, what = explained_quantity(network, preprocessor, inputs, wanted)
    widths = torch.tensor([feature.width for feature in encoder.features])
    group = torch.repeat_interleave(torch.arange(len(widths)), widths)
    value, along = numeric_question(
        inputs[0], torch.zeros_like(inputs[0]), group, len(widths), lambda found: f(network(found))
    )
    cells = [f"{feature.column} = {shorten_value(table[feature.column][0].as_py())}" for feature in encoder.features]
    absent = "the mean of the training rows, or no category"
    explained = Explained(units=cells, value=value, along=along, what=what, absent=absent)
    return Question(explained=explained, answer=said, usual="integrated-gradients")
