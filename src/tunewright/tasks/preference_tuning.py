"""Prefer the better of two answers: a model that talks learns from pairs which way of talking is wanted."""

from __future__ import annotations

from tunewright.models.hub.purposes import CAUSAL_LM
from tunewright.tasks.base.task import About, Architecture, Task
from tunewright.tasks.language_model.modality import PAIRS
from tunewright.tasks.language_model.preference_evaluation import (
    PreferenceEvaluation,
)
from tunewright.training.objectives.preference import PREFERENCES

TASK = Task(
    name="preference-tuning",
    summary="which of two answers is better, learned from pairs; DPO, IPO, ORPO, SimPO",
    about=About(
        en="preference tuning",
        zh="偏好微调",
        hub_task="text-generation",
        intended_use="A chat model that was trained on which of two answers people prefer. It was not tested for truthfulness or safety.",
    ),
    inputs=PAIRS,
    target=None,
    network=Architecture(default={"backbone": "gpt"}, purpose=CAUSAL_LM, needs_trained_model=True),
    defaults={
        "data": {"labelled": False},
        "stages": ["finetune"],
        "train": {
            "epochs": 1,
            "batch_size": 16,
            "optimizer": "adamw",
            "schedule": "linear",
            "warmup": 0.1,
            "clip_norm": 1.0,
        },
    },
    objectives=PREFERENCES,
    metrics=("reward_accuracy", "preference_accuracy", "reward_margin", "kl"),
    evaluation=PreferenceEvaluation(),
)
