"""Answer as the assistant does in these conversations: a language model becomes one that talks."""

from __future__ import annotations

from tunewright.models.hub.purposes import CAUSAL_LM
from tunewright.tasks.base.task import About, Architecture, Task
from tunewright.tasks.language_model.chat_evaluation import (
    AnswerEvaluation,
)
from tunewright.tasks.language_model.modality import CHAT
from tunewright.tasks.language_modeling import next_token_objective

TASK = Task(
    name="supervised-fine-tuning",
    summary="what an assistant answers, learned from conversations",
    about=About(
        en="supervised fine-tuning",
        zh="监督微调",
        hub_task="text-generation",
        intended_use="A chat model: it answers as the assistant of the conversations below does. It was not tested for truthfulness or safety.",
    ),
    inputs=CHAT,
    target=None,
    network=Architecture(default={"backbone": "gpt"}, purpose=CAUSAL_LM),
    defaults={
        "data": {"labelled": False},
        "train": {
            "epochs": 3,
            "batch_size": 16,
            "optimizer": "adamw",
            "schedule": "cosine",
            "warmup": 0.05,
            "clip_norm": 1.0,
        },
    },
    objectives={"next_tokens": next_token_objective},
    metrics=("exact_match", "token_loss", "next_token_accuracy"),
    evaluation=AnswerEvaluation(),
)
