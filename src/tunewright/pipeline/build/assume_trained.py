"""Assume that an earlier stage was trained, so that a later one can be described before anything is."""

from __future__ import annotations

from tunewright.models.core.meta_weights import Weights, building_with
from tunewright.models.families import build
from tunewright.pipeline.build.parts import StageParts
from tunewright.tasks.base.task import StartingModel


def as_if_trained(start: StageParts | StartingModel, kind: Weights = "random") -> StartingModel:
    """What a stage finds that begins with another one's network, or with a saved one: random weights in its place, or none."""
    with building_with(kind):
        network = build(start.network.spec, seed=0)
    return StartingModel(network, start.preprocessor, start.folder if isinstance(start, StartingModel) else None)
