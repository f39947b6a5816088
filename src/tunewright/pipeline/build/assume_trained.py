"""Assume that an earlier stage was trained, so that a later one can be described before anything is."""

from __future__ import annotations

from tunewright.models.core.meta_weights import Numbers, weights
from tunewright.models.saved_model import fresh_network
from tunewright.pipeline.build.parts import Ingredients
from tunewright.pipeline.stage import Origin


def as_if_trained(start: Ingredients | Origin, numbers: Numbers = "random") -> Origin:
    """What a stage finds that begins with another one's network, or with a saved one: random weights in its place, or none."""
    with weights(numbers):
        network = fresh_network(start.network.described, seed=0)
    return Origin(network, start.preprocessor, start.folder if isinstance(start, Origin) else None)
