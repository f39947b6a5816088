"""Which of K classes does this text, or this pair of texts, belong to?"""

from tunewright.models.hub.purposes import TEXT_CLASSIFICATION
from tunewright.tasks.base.task import Task, Title
from tunewright.tasks.text.encoder import fit_tokens, load_tokens

TASK = Task(
    name="text-classification",
    summary="which class a text, or a pair of texts, belongs to",
    title=Title(en="text classification", zh="文本分类"),
    hub_task="text-classification",
    target_kind="category",
    purpose=TEXT_CLASSIFICATION,
    fit_inputs=fit_tokens,
    load_inputs=load_tokens,
    default_model={"backbone": "minilm"},
    defaults={
        "data": {"split": {"by": "stratified"}},
        "train": {
            "epochs": 3,
            "batch_size": 32,
            "optimizer": "adamw",
            "schedule": "linear",
            "warmup": 0.1,
            "clip_norm": 1.0,
        },
        "stages": ["finetune"],
    },
    objective="cross_entropy",
    metrics=("accuracy", "f1_macro", "log_loss", "brier", "ece"),
)
