"""Which tokens were hidden? Learned from texts alone: an encoder continues from its weights, or starts from random ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from pydantic import Field

from tunewright.data.prepared import Prepared
from tunewright.errors import DataError
from tunewright.models.backbone import Backbone
from tunewright.models.hub.purposes import MASKED_LM
from tunewright.recipe.schema import Recipe
from tunewright.tasks.base.task import About, Architecture, Task
from tunewright.tasks.text.encoder import TextEncoder, fit_tokens
from tunewright.tasks.text.masked_evaluation import (
    MaskedEvaluation,
)
from tunewright.tasks.text.modality import TEXT
from tunewright.training.objectives.base import Objective
from tunewright.training.objectives.masked_lm import masked_tokens


def fit_passages(
    prepared: Prepared, recipe: Recipe, backbone: Backbone | None, known: TextEncoder | None
) -> TextEncoder:
    """Fit the encoder for the text column of a prepared set; longer texts become several examples.

    Raises:
        DataError: there is no text column, or there are several.
        RecipeError: as `fit_tokens`; or the tokenizer has no [MASK].
    """
    encoder = replace(fit_tokens(prepared, recipe, backbone, known), passages=True)
    if len(encoder.columns) != 1:
        raise DataError(
            "a masked language model reads one column of text, the data has several",
            file=prepared.manifest.source,
            place="data.input",
            found=", ".join(encoder.columns),
            expected="one text column",
            fix=f"data.input: {encoder.columns[0]}",
        )
    _ = encoder.vocabulary
    return encoder


def hidden_tokens(encoder: TextEncoder, *, ratio: Annotated[float, Field(gt=0, lt=1)] = 0.15) -> Objective:
    """Say which tokens were hidden."""
    return masked_tokens(encoder.vocabulary, ratio=ratio)


# Hidden tokens are named where a person puts [MASK]: there is no one answer to explain.
MASKED_TEXT = replace(TEXT, fit=fit_passages, explain=None)

TASK = Task(
    name="masked-language-modeling",
    summary="the hidden tokens of a text, learned without labels; pretraining for the other text tasks",
    about=About(
        en="masked language modelling",
        zh="掩码语言建模",
        hub_task="fill-mask",
        intended_use="An encoder that was pretrained by predicting masked tokens, to be fine-tuned on texts with labels.",
    ),
    inputs=MASKED_TEXT,
    target=None,
    network=Architecture(default={"backbone": "minilm"}, purpose=MASKED_LM),
    defaults={
        "data": {"labelled": False},
        "train": {
            "epochs": 3,
            "batch_size": 32,
            "optimizer": "adamw",
            "schedule": "linear",
            "warmup": 0.1,
            "clip_norm": 1.0,
        },
    },
    objectives={"masked_tokens": hidden_tokens},
    metrics=("masked_loss", "pseudo_perplexity", "masked_accuracy"),
    evaluation=MaskedEvaluation(),
)
