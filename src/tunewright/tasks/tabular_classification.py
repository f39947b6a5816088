"""Which of K classes does this row belong to?"""

from tunewright.tasks.base.task import Task, Title
from tunewright.tasks.table.encoder import fit_rows, load_rows

TASK = Task(
    name="tabular-classification",
    summary="which class a row of a table belongs to",
    title=Title(en="tabular classification", zh="表格分类"),
    hub_task="tabular-classification",
    target_kind="category",
    fit_inputs=fit_rows,
    load_inputs=load_rows,
    default_model={"backbone": {"mlp": {"hidden": [128, 64], "dropout": 0.1}}, "head": [{"dense": "auto"}]},
    defaults={
        "data": {"split": {"by": "stratified"}},
        "train": {"epochs": 40, "batch_size": 32, "early_stopping": {"patience": 8}},
    },
    objective="cross_entropy",
    metrics=("accuracy", "f1_macro", "log_loss", "brier", "ece", "roc_auc", "pr_auc"),
)
