"""Which items will this user choose next? From who chose what."""

from __future__ import annotations

import torch

from tunewright.models.backbone import Backbone
from tunewright.models.core.network import Network
from tunewright.models.recommendation.base import Towers
from tunewright.models.recommendation.registry import build_recommender, describe_recommender
from tunewright.random import mix
from tunewright.recipe.schema import Recipe
from tunewright.tasks.base.encoders import Encoders
from tunewright.tasks.base.task import About, Architecture, StartingModel, Task
from tunewright.tasks.recommendation.interaction_encoder import InteractionEncoder
from tunewright.tasks.recommendation.modality import INTERACTIONS
from tunewright.tasks.recommendation.ranking_evaluation import (
    RankingEvaluation,
)
from tunewright.training.objectives.ranking import RANKINGS


def recommender(
    recipe: Recipe, encoders: Encoders, backbone: Backbone | None, start: StartingModel | None
) -> tuple[Network, str | None]:
    """Return a network of ours that scores items, or that of a stage before."""
    inputs = encoders.inputs_as(InteractionEncoder)
    if start is not None:
        return start.network, None
    spec = describe_recommender(recipe.model.backbone or "factors", users=len(inputs.users), items=len(inputs.items))
    for side, about in inputs.about.items():
        fields = {"sizes": [field.size for field in about.fields], "counts": [field.count for field in about.fields]}
        spec.facts[f"{side}_fields"] = fields
    network = build_recommender(spec, seed=mix(recipe.seed, "weights"))
    if not isinstance(network, Towers):
        return network, None
    for side, about in inputs.about.items():
        network.get_buffer(f"{side}_features").copy_(torch.from_numpy(about.values))
    said = [f"{side}s by {', '.join(field.column for field in about.fields)}" for side, about in inputs.about.items()]
    return network, f"features: {'; '.join(said)}" if said else "no features of users and items"


TASK = Task(
    name="item-recommendation",
    summary="which items a user will choose, from who chose what; all items ranked",
    about=About(
        en="item recommendation",
        zh="物品推荐",
        hub_task="other",
        intended_use="It ranks the items of its training data for the users of that data.",
    ),
    inputs=INTERACTIONS,
    target=None,
    network=Architecture(default={"backbone": "factors"}, build=recommender),
    defaults={
        "data": {"labelled": False, "split": {"by": "within"}},
        "train": {
            "epochs": 100,
            "batch_size": 2048,
            "optimizer": "adam",
            "lr": 1e-3,
            "early_stopping": {"patience": 10},
        },
    },
    objectives=RANKINGS,
    metrics=(
        "ndcg_at_10",
        "recall_at_10",
        "mrr_at_10",
        "hit_at_10",
        "precision_at_10",
        "map_at_10",
        "novelty",
        "coverage",
    ),
    evaluation=RankingEvaluation(),
)
