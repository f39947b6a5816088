"""Which of K classes does this picture show?"""

from tunewright.models.hub.purposes import IMAGE_CLASSIFICATION
from tunewright.tasks.base.task import Task, Title
from tunewright.tasks.image.encoder import fit_pixels, frame_pictures, load_pixels

TASK = Task(
    name="image-classification",
    summary="which class an image belongs to",
    title=Title(en="image classification", zh="图像分类"),
    hub_task="image-classification",
    target_kind="category",
    purpose=IMAGE_CLASSIFICATION,
    frame=frame_pictures,
    fit_inputs=fit_pixels,
    load_inputs=load_pixels,
    default_model={
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
    defaults={"data": {"split": {"by": "stratified"}}, "train": {"epochs": 5, "batch_size": 32}},
    objective="cross_entropy",
    metrics=("accuracy", "f1_macro", "log_loss", "brier", "ece"),
)
