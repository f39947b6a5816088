"""Prefer the better of two answers: a model that talks learns from pairs which way of talking is wanted."""

from __future__ import annotations

from tunewright.models.hub.purposes import CAUSAL_LM
from tunewright.tasks.base.task import Evaluation, Task, Title
from tunewright.tasks.language_model.chat_evaluation import answered
from tunewright.tasks.language_model.preference_encoder import fit_preferences, load_preferences
from tunewright.tasks.language_model.preference_evaluation import length_baseline, preference_outputs
from tunewright.training.objectives.preference import PREFERENCES

TASK = Task(
    name="preference-tuning",
    summary="which of two answers is better, learned from pairs; DPO, IPO, ORPO, SimPO",
    title=Title(en="preference tuning", zh="偏好微调"),
    hub_task="text-generation",
    target_kind=None,
    purpose=CAUSAL_LM,
    fit_inputs=fit_preferences,
    load_inputs=load_preferences,
    default_model={"backbone": "gpt"},
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
    needs_trained_model=True,
    objective="dpo",
    objectives=PREFERENCES,
    evaluation=Evaluation(
        kind="preferences", outputs=preference_outputs, baselines=length_baseline, predictions=answered
    ),
    metrics=("reward_accuracy", "preference_accuracy", "reward_margin", "kl"),
)
