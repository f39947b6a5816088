"""List the networks that score items by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tunewright.models.core.spec import Facts
from tunewright.models.hub.untrusted_files import require_memory
from tunewright.models.recommendation.base import (
    Factors,
    NeuralFactors,
    Recommender,
    RecommenderSpec,
    Towers,
    factors,
    neumf,
    two_tower,
)
from tunewright.models.recommendation.sasrec import NextItem, sasrec
from tunewright.recipe.named import check_options, choose, parse_named
from tunewright.recipe.schema import Named

# The function of its options with their defaults, and the network.
RECOMMENDERS: dict[str, tuple[Callable[..., Facts], type[Recommender]]] = {
    "factors": (factors, Factors),
    "two_tower": (two_tower, Towers),
    "neumf": (neumf, NeuralFactors),
    "sasrec": (sasrec, NextItem),
}


def describe_recommender(named: Named, *, users: int, items: int) -> RecommenderSpec:
    """Return the spec of the network that a recipe names.

    Raises:
        RecipeError: no such network or option.
    """
    name, given = parse_named(named, "model.backbone")
    options, _ = choose(RECOMMENDERS, name, "model.backbone")
    chosen = options(**check_options(options, given, f"model.backbone.{name}"))
    return RecommenderSpec({"name": name, "users": users, "items": items, **chosen})


def build_recommender(spec: RecommenderSpec, *, seed: int) -> Recommender:
    """Build a network from its spec.

    Raises:
        ArtifactError: it is larger than the machine's memory.
    """
    make = partial(RECOMMENDERS[spec.facts["name"]][1], spec, seed)
    require_memory(make, file=None)
    return make()
