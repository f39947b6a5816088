"""Which number goes with this row?"""

from tunewright.tasks.base.evaluation import NumberEvaluation
from tunewright.tasks.base.targets import NUMBER
from tunewright.tasks.base.task import About, Architecture, Task
from tunewright.tasks.table.modality import TABLE

TASK = Task(
    name="tabular-regression",
    summary="which number goes with a row of a table",
    about=About(en="tabular regression", zh="表格回归", hub_task="tabular-regression"),
    inputs=TABLE,
    target=NUMBER,
    network=Architecture(
        default={"backbone": {"mlp": {"hidden": [128, 64], "dropout": 0.1}}, "head": [{"dense": "auto"}]}
    ),
    defaults={"train": {"epochs": 60, "batch_size": 32, "early_stopping": {"patience": 10}}},
    metrics=("rmse", "mae", "r2"),
    evaluation=NumberEvaluation(),
)
