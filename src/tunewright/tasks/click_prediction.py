"""Will this user like this item? From fields, by the networks that recommend at large."""

from tunewright.tasks.base.evaluation import CategoryEvaluation
from tunewright.tasks.base.targets import CATEGORY
from tunewright.tasks.base.task import About, Architecture, Task
from tunewright.tasks.recommendation.modality import FIELDS

TASK = Task(
    name="click-prediction",
    summary="will this user click, like or buy? logistic, FM, Wide & Deep, DeepFM, DCN-v2, DLRM",
    about=About(en="click prediction", zh="点击率预测", hub_task="tabular-classification"),
    inputs=FIELDS,
    target=CATEGORY,
    network=Architecture(default={"backbone": "deepfm", "head": [{"dense": "auto"}]}),
    defaults={
        "train": {
            "epochs": 20,
            "batch_size": 512,
            "optimizer": "adamw",
            "lr": 1e-3,
            "regularization": {"weight_decay": 0.01},
            "early_stopping": {"patience": 2},
        },
    },
    metrics=("roc_auc", "grouped_auc", "log_loss", "accuracy", "ece"),
    evaluation=CategoryEvaluation(),
)
