"""The export case of a recommender."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import torch

from tunewright.models.core.network import Network
from tunewright.models.recommendation.base import Recommender
from tunewright.tasks.base.encoders import Encoders
from tunewright.tasks.base.export_case import HandedOn, Trial


def export_recommender(network: Network, preprocessor: Encoders, table: pa.Table) -> Trial:
    """Return the scores of all items [B, I] for users by number, and made-up histories where the network looks at one."""
    assert isinstance(network, Recommender)
    facts, count = network.spec.facts, table.num_rows
    draw = np.random.default_rng(0)
    inputs = {"users": torch.from_numpy(draw.integers(0, facts.get("users", 1), count))}
    if network.length:
        inputs["history"] = torch.from_numpy(draw.integers(0, facts["items"] + 1, (count, network.length)))
    return Trial(
        module=HandedOn(network, list(inputs), network.all_scores),
        count=count,
        batch=lambda ids: {name: values[ids] for name, values in inputs.items()},
        target=None,
    )
