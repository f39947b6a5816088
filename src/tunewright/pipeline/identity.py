"""What a run is known by: its recipe, its data, and the files of the models that it starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunewright.data.prepared import Prepared
from tunewright.files import cached_sha256
from tunewright.models.backbone import Backbone, model_files
from tunewright.pipeline.read_recipe import given_weights
from tunewright.recipe.named import parse_named
from tunewright.recipe.schema import Recipe
from tunewright.recipe.stages import StageRecipe
from tunewright.runs.folder import Identity, recipe_hash


def identify(
    resolved: dict[str, Any],
    stages: list[StageRecipe],
    prepared: list[Prepared],
    backbones: list[Backbone | None],
    base: Path,
) -> Identity:
    """The identity of a run.

    Args:
        resolved: the recipe, without what may change while a run goes on.
        prepared: all data that the run reads.
        backbones: of each stage.

    Raises:
        ArtifactError: a model to start from is not there.
    """
    models: dict[str, dict[str, str]] = {}
    for stage, backbone in zip(stages, backbones, strict=True):
        for place, files in _named_files(stage.recipe, backbone, base).items():
            models[f"{place} ({stage.name})"] = files
    return Identity(recipe=recipe_hash(resolved), data=[part.manifest.fingerprint for part in prepared], models=models)


def _named_files(recipe: Recipe, backbone: Backbone | None, base: Path) -> dict[str, dict[str, str]]:
    """The hashes of the files that a stage's recipe names besides its data, by the place that names them."""
    found: dict[str, dict[str, str]] = {}
    if (weights := given_weights(recipe, base)) is not None and weights.is_dir():
        found[f"model.weights {recipe.model.weights}"] = model_files(weights)
    if backbone is not None and backbone.pretrained:
        found[f"model.backbone {Path(backbone.name).name}"] = model_files(backbone.folder)
    if (words := _word_counts(recipe, base)) is not None:
        found["model.decoding"] = {words.name: cached_sha256(words)}
    return found


def _word_counts(recipe: Recipe, base: Path) -> Path | None:
    """The file of an n-gram model that the letters of a recogniser are searched with."""
    words = parse_named(recipe.model.decoding or "greedy", "model.decoding")[1].get("words")
    return base / words if isinstance(words, str) and (base / words).is_file() else None
