"""Which of K classes does this row belong to?"""

from tunewright.tasks.base.evaluation import CategoryEvaluation
from tunewright.tasks.base.targets import CATEGORY
from tunewright.tasks.base.task import About, Architecture, Task
from tunewright.tasks.table.modality import TABLE

TASK = Task(
    name="tabular-classification",
    summary="which class a row of a table belongs to",
    about=About(en="tabular classification", zh="表格分类", hub_task="tabular-classification"),
    inputs=TABLE,
    target=CATEGORY,
    network=Architecture(
        default={"backbone": {"mlp": {"hidden": [128, 64], "dropout": 0.1}}, "head": [{"dense": "auto"}]}
    ),
    defaults={
        "data": {"split": {"by": "stratified"}},
        "train": {"epochs": 40, "batch_size": 32, "early_stopping": {"patience": 8}},
    },
    metrics=("accuracy", "f1_macro", "log_loss", "brier", "ece", "roc_auc", "pr_auc"),
    evaluation=CategoryEvaluation(),
)
