"""Explain an answer about a picture by its patches."""

from __future__ import annotations

import pyarrow as pa
import torch
from torch import Tensor
from torch.nn import functional as F

from tunewright.evaluation.attribution import Explained
from tunewright.models.core.network import Network
from tunewright.models.hub.attention_rollout import attention_rollout
from tunewright.models.hub.hf_network import Transformer
from tunewright.tasks.base.encoders import Encoders
from tunewright.tasks.base.explain import GRID, Question, explained_quantity, numeric_question


def explain_image(network: Network, preprocessor: Encoders, table: pa.Table, wanted: str | None) -> Question:
    inputs = preprocessor.inputs.examples(table, None).batch(torch.tensor([0])).pixels
    f, said, what = explained_quantity(network, preprocessor, inputs, wanted)
    whole = inputs[0]
    height, width = whole.shape[-2:]
    rows, columns = min(GRID, height), min(GRID, width)
    down = torch.arange(height) * rows // height
    right = torch.arange(width) * columns // width
    group = (down[:, None] * columns + right).expand(whole.shape)
    nothing = whole.flatten(1).median(1).values[:, None, None].expand_as(whole)
    value, along = numeric_question(whole, nothing, group, rows * columns, lambda found: f(network(found)))
    units = [f"row {1 + unit // columns}, column {1 + unit % columns}" for unit in range(rows * columns)]
    explained = Explained(
        units=units,
        value=value,
        along=along,
        what=what,
        absent="the picture's median colour",
        attended=(lambda: on_patches(network, inputs, rows, columns)) if isinstance(network, Transformer) else None,
    )
    return Question(explained=explained, answer=said, usual="integrated-gradients", shape=(rows, columns))


def on_patches(network: Transformer, inputs: Tensor, rows: int, columns: int) -> Tensor:
    """Attention to the network's own patches, gathered into ours."""
    found = attention_rollout(network, inputs)
    height, width = inputs.shape[-2:]
    down = round((len(found) * height / width) ** 0.5)
    own = found[len(found) - down * (len(found) // down) :].reshape(1, 1, down, -1)  # the first are no patches
    return F.interpolate(own, (rows, columns), mode="area").flatten()
