"""The export case of a recommender."""

from __future__ import annotations

import numpy as np
import torch

from tunewright.models.recommendation.base import Recommender
from tunewright.tasks.base.export_case import HandedOn, Trial


def export_recommender(network: Recommender, count: int) -> Trial:
    """Users by number, and made-up histories where the network looks at one."""
    facts = network.spec.facts
    draw = np.random.default_rng(0)
    users = torch.from_numpy(draw.integers(0, facts.get("users", 1), count))
    if not network.length:
        return Trial(
            module=HandedOn(network, ["users"]), count=count, batch=lambda ids: {"users": users[ids]}, target=None
        )
    history = torch.from_numpy(draw.integers(0, facts["items"] + 1, (count, network.length)))
    names = ["users", "history"]
    return Trial(
        module=HandedOn(network, names),
        count=count,
        batch=lambda ids: {"users": users[ids], "history": history[ids]},
        target=None,
    )
