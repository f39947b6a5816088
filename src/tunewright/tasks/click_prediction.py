"""Will this user like this item? From fields, by the networks that recommend at large."""

from tunewright.tasks.base.task import Task, Title
from tunewright.tasks.recommendation.categorical_encoder import fit_fields, load_fields

TASK = Task(
    name="click-prediction",
    summary="will this user click, like or buy? logistic, FM, Wide & Deep, DeepFM, DCN-v2, DLRM",
    title=Title(en="click prediction", zh="点击率预测"),
    hub_task="tabular-classification",
    target_kind="category",
    fit_inputs=fit_fields,
    load_inputs=load_fields,
    default_model={"backbone": "deepfm", "head": [{"dense": "auto"}]},
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
    objective="cross_entropy",
    metrics=("roc_auc", "grouped_auc", "log_loss", "accuracy", "ece"),
)
