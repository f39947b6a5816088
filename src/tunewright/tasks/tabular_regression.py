"""Which number goes with this row?"""

from tunewright.tasks.base.task import Task, Title
from tunewright.tasks.table.encoder import fit_rows, load_rows

TASK = Task(
    name="tabular-regression",
    summary="which number goes with a row of a table",
    title=Title(en="tabular regression", zh="表格回归"),
    hub_task="tabular-regression",
    target_kind="number",
    fit_inputs=fit_rows,
    load_inputs=load_rows,
    default_model={"backbone": {"mlp": {"hidden": [128, 64], "dropout": 0.1}}, "head": [{"dense": "auto"}]},
    defaults={"train": {"epochs": 60, "batch_size": 32, "early_stopping": {"patience": 10}}},
    objective="mse",
    metrics=("rmse", "mae", "r2"),
)
