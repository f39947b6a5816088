"""Which number belongs to this text, or to this pair of texts?"""

from tunewright.models.hub.purposes import TEXT_CLASSIFICATION
from tunewright.tasks import text_classification
from tunewright.tasks.base.evaluation import NumberEvaluation
from tunewright.tasks.base.targets import NUMBER
from tunewright.tasks.base.task import About, Architecture, Task
from tunewright.tasks.text.modality import TEXT

TASK = Task(
    name="text-regression",
    summary="a number from a text, or from a pair of texts",
    about=About(en="text regression", zh="文本回归", hub_task="text-classification"),
    inputs=TEXT,
    target=NUMBER,
    network=Architecture(default={"backbone": "minilm"}, purpose=TEXT_CLASSIFICATION),
    defaults={**text_classification.TASK.defaults, "data": {}},
    metrics=("rmse", "mae", "r2"),
    evaluation=NumberEvaluation(),
)
