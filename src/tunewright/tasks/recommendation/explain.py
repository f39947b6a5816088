"""Explain a predicted click by its fields, and a recommended item by the history."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from tunewright.errors import ArtifactError, DataError
from tunewright.evaluation.attribution import Explained
from tunewright.models.core.network import Network
from tunewright.models.recommendation.base import Recommender
from tunewright.tasks.base.encoders import Encoders
from tunewright.tasks.base.explain import Question, explained_quantity, in_chunks, shorten_value
from tunewright.tasks.base.targets import index_of
from tunewright.tasks.recommendation.categorical_encoder import FILLING, FieldEncoder
from tunewright.tasks.recommendation.interaction_encoder import InteractionEncoder


def explain_click(network: Network, preprocessor: Encoders, table: pa.Table, wanted: str | None) -> Question:
    encoder = preprocessor.inputs
    assert isinstance(encoder, FieldEncoder)
    inputs = encoder.encode(table)
    f, said, what = explained_quantity(network, preprocessor, inputs, wanted)
    counts = [field.count for field in encoder.fields]
    group = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    unknown = torch.tensor([FILLING if field.kind == "labels" else 0 for field in encoder.fields], dtype=inputs.dtype)
    value = in_chunks(lambda present: f(network(torch.where(present[:, group], inputs[0], unknown[group]))))
    cells = [f"{field.column} = {shorten_value(table[field.column][0].as_py())}" for field in encoder.fields]
    explained = Explained(units=cells, value=value, along=None, what=what, absent="an unknown value")
    return Question(explained=explained, answer=said, usual="shapley")


def explain_recommendation(network: Network, preprocessor: Encoders, table: pa.Table, wanted: str | None) -> Question:
    encoder = preprocessor.inputs
    assert isinstance(encoder, InteractionEncoder) and isinstance(network, Recommender)
    if network.length == 0:
        raise ArtifactError(
            "this network has a vector for each user, and does not read their history",
            found=network.spec.facts.get("name", type(network).__name__),
            expected="a network that reads what was chosen before",
            fix="model: {backbone: sasrec}",
        )
    (user,) = encoder.user_numbers(table).tolist()
    if user < 0:
        raise DataError("the user has no history", found=table[encoder.user][0].as_py(), fix="name another one")
    history = encoder.histories(np.array([user]), encoder.known[encoder.known[:, 0] == user])[0]
    items = history[history > 0]
    who = torch.zeros(1, dtype=torch.int64)

    def scores(rows: Tensor) -> Tensor:
        return network.all_scores(who.expand(len(rows)), rows)

    with torch.no_grad():
        found = scores(torch.from_numpy(history)[None])[0]
    found[torch.from_numpy(encoder.known[encoder.known[:, 0] == user][:, 1])] = -torch.inf
    chosen = int(found.argmax()) if wanted is None else index_of(wanted, list(encoder.items), "item")
    name = encoder.items[chosen]

    def compute(present: Tensor) -> Tensor:
        rows = torch.zeros(len(present), len(history), dtype=torch.int64)
        for number, there in enumerate(present.numpy()):
            kept = items[there]
            rows[number, len(history) - len(kept) :] = torch.from_numpy(kept)
        return scores(rows).log_softmax(1)[:, chosen]

    units = [str(encoder.items[item - 1]) for item in items.tolist()]
    what = ["log p of {} among all items", name]
    explained = Explained(units=units, value=in_chunks(compute), along=None, what=what, absent="not chosen")
    return Question(explained=explained, answer=["{}, the best of what was not chosen", name], usual="shapley")
