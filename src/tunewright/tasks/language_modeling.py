"""What comes next? A language model learned from texts alone: from nothing with our gpt, or going on from its weights."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tunewright.models.hub.purposes import CAUSAL_LM
from tunewright.tasks.base.task import Evaluation, Task, Title
from tunewright.tasks.language_model.encoder import CausalEncoder, fit_causal, load_causal
from tunewright.tasks.language_model.evaluation import continued, frequencies, next_token_outputs, written
from tunewright.training.objectives.base import Objective
from tunewright.training.objectives.causal_lm import next_tokens


def foretelling(
    encoder: CausalEncoder, *, z_loss: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
) -> Objective:
    """Say which token comes next."""
    return next_tokens(z_loss=z_loss)


TASK = Task(
    name="language-modeling",
    summary="the next token of a text; a language model from nothing, or one that goes on",
    title=Title(en="language modelling", zh="语言建模"),
    hub_task="text-generation",
    target_kind=None,
    purpose=CAUSAL_LM,
    fit_inputs=fit_causal,
    load_inputs=load_causal,
    default_model={"backbone": "gpt"},
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
    objective="next_tokens",
    objectives={"next_tokens": foretelling},
    evaluation=Evaluation(
        kind="next_tokens",
        outputs=next_token_outputs,
        baselines=frequencies,
        predictions=continued,
        zero_shot=("bits_per_byte", lambda network, encoder, table: next_token_outputs(network, None, encoder, table)),
        sample=written,
    ),
    metrics=("token_loss", "perplexity", "bits_per_byte", "next_token_accuracy"),
)
