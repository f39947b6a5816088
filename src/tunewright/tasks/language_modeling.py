"""What comes next? A language model learned from texts alone: a new gpt, or one that continues from its weights."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tunewright.models.hub.purposes import CAUSAL_LM
from tunewright.tasks.base.task import About, Architecture, Task
from tunewright.tasks.language_model.encoder import CausalEncoder
from tunewright.tasks.language_model.evaluation import (
    NextTokenEvaluation,
)
from tunewright.tasks.language_model.modality import LANGUAGE_MODEL
from tunewright.training.objectives.base import Objective
from tunewright.training.objectives.causal_lm import next_tokens


def next_token_objective(
    encoder: CausalEncoder, *, z_loss: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
) -> Objective:
    """Say which token comes next."""
    return next_tokens(z_loss=z_loss)


TASK = Task(
    name="language-modeling",
    summary="the next token of a text; a new language model, or continued pretraining",
    about=About(
        en="language modelling",
        zh="语言建模",
        hub_task="text-generation",
        intended_use="A language model: it continues a text. It was not trained to follow instructions, nor tested for truthfulness.",
    ),
    inputs=LANGUAGE_MODEL,
    target=None,
    network=Architecture(default={"backbone": "gpt"}, purpose=CAUSAL_LM),
    defaults={
        "data": {"labelled": False},
        "train": {
            "epochs": 1,
            "batch_size": 16,
            "optimizer": "adamw",
            "schedule": "cosine",
            "warmup": 0.05,
            "clip_norm": 1.0,
            "regularization": {"weight_decay": 0.1},
        },
    },
    objectives={"next_tokens": next_token_objective},
    metrics=("token_loss", "perplexity", "bits_per_byte", "next_token_accuracy"),
    evaluation=NextTokenEvaluation(),
)
