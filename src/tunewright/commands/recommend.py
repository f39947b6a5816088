"""Run `tunewright recommend`: print the items for one user."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from tunewright.console import Console
from tunewright.errors import ArtifactError
from tunewright.inference.model import load_model
from tunewright.tasks.recommendation.interaction_encoder import recommender
from tunewright.tasks.recommendation.ranking_evaluation import recommended


def recommend(folder: Path, user: str, count: int, console: Console | None = None) -> None:
    """Print rank, item and score of the best items that the user has not chosen; a note if the user is unknown.

    Raises:
        ArtifactError: it is not a model of item-recommendation.
    """
    console = console or Console()
    model = load_model(folder)
    encoder = recommender(model.preprocessor)
    if encoder is None:
        raise ArtifactError(
            "this model does not recommend items",
            file=folder,
            found=model.preprocessor.task.name,
            expected="a model of item-recommendation",
            fix="tunewright predict MODEL DATA",
        )
    (answer,) = recommended(model.network, encoder, pa.table({encoder.user: pa.array([user], pa.string())}), count)
    if "note" in answer:
        console.warning(answer["note"])
    width = max(map(len, answer["items"]), default=0)
    for rank, (item, score) in enumerate(zip(answer["items"], answer["scores"], strict=True), start=1):
        console.info(f"{rank:>4}  {item:<{width}}  {score:.4f}")
