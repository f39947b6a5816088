"""Which of K classes does this picture show?"""

from tunewright.models.hub.purposes import IMAGE_CLASSIFICATION
from tunewright.tasks.base.evaluation import CategoryEvaluation
from tunewright.tasks.base.targets import CATEGORY
from tunewright.tasks.base.task import About, Architecture, Task
from tunewright.tasks.image.modality import IMAGE

TASK = Task(
    name="image-classification",
    summary="which class an image belongs to",
    about=About(en="image classification", zh="图像分类", hub_task="image-classification"),
    inputs=IMAGE,
    target=CATEGORY,
    network=Architecture(
        default={
            "layers": [
                {"conv2d": 32, "kernel": 3, "activation": "relu"},
                {"max_pool": 2},
                {"conv2d": 64, "kernel": 3, "activation": "relu"},
                {"max_pool": 2},
                "flatten",
                {"dense": 128, "activation": "relu"},
                {"dropout": 0.25},
                {"dense": "auto"},
            ]
        },
        purpose=IMAGE_CLASSIFICATION,
    ),
    defaults={"data": {"split": {"by": "stratified"}}, "train": {"epochs": 5, "batch_size": 32}},
    metrics=("accuracy", "f1_macro", "log_loss", "brier", "ece"),
    evaluation=CategoryEvaluation(),
)
