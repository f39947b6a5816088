"""Which items will this user choose next? From who chose what."""

from __future__ import annotations

from tunewright.models.network import AnyNetwork
from tunewright.models.pretrained import Backbone
from tunewright.models.recommender import build_recommender, describe_recommender
from tunewright.random import mix
from tunewright.recipe.schema import Recipe
from tunewright.tasks.base import Examination, Started, Task
from tunewright.tasks.full_ranking import ranked_users, ranking_baselines, ranking_outputs, recommended
from tunewright.tasks.interactions import InteractionEncoder, fit_interactions, load_interactions
from tunewright.training.ranking import RANKINGS


def recommender(
    recipe: Recipe, inputs: InteractionEncoder, backbone: Backbone | None, start: Started | None
) -> tuple[AnyNetwork, str | None]:
    """A network of ours that scores items, or that of a stage before."""
    if start is not None:
        return start.network, None
    described = describe_recommender(
        recipe.model.backbone or "factors", users=len(inputs.users), items=len(inputs.items)
    )
    return build_recommender(described, seed=mix(recipe.seed, "weights")), None


TASK = Task(
    name="item-recommendation",
    summary="which items a user will choose, from who chose what; all items ranked",
    target_kind=None,
    fit_inputs=fit_interactions,
    load_inputs=load_interactions,
    network=recommender,
    default_model={"backbone": "factors"},
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
    objective="bpr",
    objectives=RANKINGS,
    examination=Examination(
        kind="ranking",
        measure=ranking_outputs,
        baselines=ranking_baselines,
        answer=recommended,
        units=ranked_users,
        select="ndcg_at_10",
    ),
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
)
