"""Answer as the assistant does in these conversations: a language model becomes one that talks."""

from __future__ import annotations

from tunewright.models.hub.purposes import CAUSAL_LM
from tunewright.tasks.base.task import Evaluation, Task, Title
from tunewright.tasks.language_model.chat_encoder import fit_chat, load_chat
from tunewright.tasks.language_model.chat_evaluation import answer_baselines, answer_outputs, answered, answers_by_byte
from tunewright.tasks.language_modeling import foretelling

TASK = Task(
    name="supervised-fine-tuning",
    summary="what an assistant answers, learned from conversations",
    title=Title(en="supervised fine-tuning", zh="监督微调"),
    hub_task="text-generation",
    target_kind=None,
    purpose=CAUSAL_LM,
    fit_inputs=fit_chat,
    load_inputs=load_chat,
    default_model={"backbone": "gpt"},
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
    objective="next_tokens",
    objectives={"next_tokens": foretelling},
    evaluation=Evaluation(
        kind="answers",
        outputs=answer_outputs,
        baselines=answer_baselines,
        predictions=answered,
        zero_shot=("bits_per_byte", answers_by_byte),
    ),
    metrics=("exact_match", "token_loss", "next_token_accuracy"),
)
