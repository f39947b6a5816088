"""The table of tasks: one line each. A third party adds its own by the entry point group `tunewright.tasks`."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from tunewright.errors import ArtifactError, RecipeError, UserError
from tunewright.models.saved_model import SavedModel
from tunewright.plugins import Registry
from tunewright.tasks import (
    click_prediction,
    image_classification,
    item_recommendation,
    language_modeling,
    masked_language_modeling,
    preference_tuning,
    speech_recognition,
    supervised_fine_tuning,
    tabular_classification,
    tabular_regression,
    text_classification,
    text_regression,
    token_classification,
)
from tunewright.tasks import text_multilabel_classification as text_multilabel
from tunewright.tasks.base.task import Preprocessor, Task

TASKS = Registry[Task](
    "tunewright.tasks",
    {
        task.name: task
        for task in (
            image_classification.TASK,
            tabular_classification.TASK,
            tabular_regression.TASK,
            text_classification.TASK,
            text_multilabel.TASK,
            text_regression.TASK,
            token_classification.TASK,
            masked_language_modeling.TASK,
            language_modeling.TASK,
            supervised_fine_tuning.TASK,
            preference_tuning.TASK,
            click_prediction.TASK,
            item_recommendation.TASK,
            speech_recognition.TASK,
        )
    },
)


def get_task(name: str) -> Task:
    """Return the task of that name.

    Raises:
        RecipeError: there is none; names the nearest.
    """
    if name in TASKS:
        return TASKS[name]
    near = difflib.get_close_matches(name, TASKS, n=1)
    raise RecipeError(
        "there is no such task",
        place="task",
        found=name,
        expected=", ".join(TASKS),
        fix=f"did you mean {near[0]}?" if near else "choose one of these",
    )


def task_defaults(name: str) -> dict[str, Any]:
    """Return the default recipe of a task, as nested dicts, for the recipe loader."""
    return get_task(name).defaults


def load_preprocessor(saved: SavedModel) -> Preprocessor:
    """Load a saved model's preprocessor from its JSON and the files in the model's folder.

    Raises:
        ArtifactError: it is damaged, or its tokens are not those of the network.
    """
    assert saved.folder is not None
    found = read_preprocessor(saved.extra, saved.folder)
    found.inputs.check_network(saved.network, saved.folder)
    return found


def read_preprocessor(extra: dict[str, Any], folder: Path) -> Preprocessor:
    """Read the preprocessor of a model's folder, without its network.

    Args:
        extra: the JSON that was saved with the network.

    Raises:
        ArtifactError: it is damaged.
    """
    try:
        value = extra["preprocessor"]
        task = get_task(value["task"])
        target = None if task.target is None or value["target"] is None else task.target.load(value["target"])
        inputs = task.inputs.load(value["inputs"], folder)
    except UserError:
        raise
    except Exception as error:  # the library's tokenizers raise whatever they like
        raise ArtifactError(
            f"the model's preprocessor is damaged: {type(error).__name__}: {error}",
            file=folder,
            expected="the files that were saved with the weights",
            fix="restore the folder from a copy, or train again",
        ) from error
    return Preprocessor(task=task, inputs=inputs, target=target)
