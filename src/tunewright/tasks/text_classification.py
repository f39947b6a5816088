"""Which of K classes does this text, or this pair of texts, belong to?"""

from tunewright.models.hub.purposes import TEXT_CLASSIFICATION
from tunewright.tasks.base.evaluation import CategoryEvaluation
from tunewright.tasks.base.targets import CATEGORY
from tunewright.tasks.base.task import About, Architecture, Task
from tunewright.tasks.text.modality import TEXT

TASK = Task(
    name="text-classification",
    summary="which class a text, or a pair of texts, belongs to",
    about=About(en="text classification", zh="文本分类", hub_task="text-classification"),
    inputs=TEXT,
    target=CATEGORY,
    network=Architecture(default={"backbone": "minilm"}, purpose=TEXT_CLASSIFICATION),
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
    metrics=("accuracy", "f1_macro", "log_loss", "brier", "ece"),
    evaluation=CategoryEvaluation(),
)
