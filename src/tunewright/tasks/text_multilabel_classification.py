"""Which of K classes does this text, or this pair of texts, have? Any number of them.

A task of its own, and not a guess of text-classification from the data: whether "drama;comedy" is one class or two decides
the loss, the metrics and what a prediction is, so the recipe names it.
"""

from tunewright.models.hub.purposes import TEXT_CLASSIFICATION
from tunewright.tasks import text_classification
from tunewright.tasks.base.evaluation import LabelsEvaluation
from tunewright.tasks.base.targets import LABELS
from tunewright.tasks.base.task import About, Architecture, Task
from tunewright.tasks.text.modality import TEXT

TASK = Task(
    name="text-multilabel-classification",
    summary="which labels a text, or a pair of texts, has; any number of them",
    about=About(en="text classification with several labels", zh="多标签文本分类", hub_task="text-classification"),
    inputs=TEXT,
    target=LABELS,
    network=Architecture(default={"backbone": "minilm"}, purpose=TEXT_CLASSIFICATION),
    # F1 is 0 until the first probability passes 1/2, so it cannot tell early weights apart: the loss selects.
    defaults={
        **text_classification.TASK.defaults,
        "data": {},
        "train": {**text_classification.TASK.defaults["train"], "select": "loss"},
    },
    metrics=("f1_micro", "f1_macro", "subset_accuracy", "hamming_loss", "pr_auc", "log_loss"),
    evaluation=LabelsEvaluation(),
)
