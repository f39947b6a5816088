"""Which number belongs to this text, or to this pair of texts?"""

from tunewright.models.hub.purposes import TEXT_CLASSIFICATION
from tunewright.tasks import text_classification
from tunewright.tasks.base.task import Task, Title
from tunewright.tasks.text.encoder import fit_tokens, load_tokens

TASK = Task(
    name="text-regression",
    summary="a number from a text, or from a pair of texts",
    title=Title(en="text regression", zh="文本回归"),
    hub_task="text-classification",
    target_kind="number",
    purpose=TEXT_CLASSIFICATION,
    fit_inputs=fit_tokens,
    load_inputs=load_tokens,
    default_model={"backbone": "minilm"},
    defaults={**text_classification.TASK.defaults, "data": {}},
    objective="mse",
    metrics=("rmse", "mae", "r2"),
)
