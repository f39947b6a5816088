"""How the network does on the validation split, measured while it is trained; and which metric selects the best weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tunewright.data.batching import EVALUATION_BATCH, Examples, in_order
from tunewright.errors import RecipeError
from tunewright.evaluation.metrics import METRICS
from tunewright.models.network import AnyNetwork, evaluating
from tunewright.stages.ingredients import Ingredients


def validator(
    ingredients: Ingredients, examples: Examples | None, device: torch.device
) -> Callable[[nn.Module], dict[str, float]] | None:
    """A function that measures a network on the validation examples; None when there are none."""
    if examples is None:
        return None
    examples = examples.to(device)
    objective = ingredients.objective.bind(ingredients.recipe.seed, device)
    target = ingredients.preprocessor.target
    examination = ingredients.task.examination
    names = {ingredients.task.metrics[0], selection_metric(ingredients)} - {"loss"}

    def validate(network: nn.Module) -> dict[str, float]:
        loss, weight = 0.0, 0.0
        ids: list[Tensor] = []
        outputs: list[Tensor] = []

        def remembered(inputs: Any) -> Tensor:
            outputs.append(network(inputs))
            return outputs[-1]

        with evaluating(network), torch.inference_mode():
            for batch in in_order(examples, EVALUATION_BATCH):
                loss += float(objective.loss_sum(network if target is None else remembered, batch, 0))
                weight += objective.weight(batch)
                ids.append(batch.ids)
        values = {"loss": loss / weight}
        if target is not None and examples.target is not None:
            truth = target.truth(examples.target[torch.cat(ids).to(examples.target.device)])
            predicted = target.decode(torch.cat(outputs))
            values |= {name: METRICS[name].value(predicted, truth) for name in names}
        if examination is not None and examination.select is not None:
            table = ingredients.prepared.table("valid")
            assert isinstance(network, AnyNetwork)
            measured, truth = examination.measure(network, None, ingredients.preprocessor.inputs, table)
            values[examination.select] = METRICS[examination.select].value(measured, truth)
        # A metric that is not defined on these rows, or overflowed, is left out: JSON has no NaN.
        return {name: value for name, value in values.items() if math.isfinite(value)}

    return validate


def selection_metric(ingredients: Ingredients) -> str:
    """The validation metric that chooses the best weights.

    Raises:
        RecipeError: `train.select` is none of the task's metrics.
    """
    known = ["loss", *(ingredients.task.metrics if ingredients.objective.supervised else ())]
    if (examination := ingredients.task.examination) is not None and examination.select is not None:
        known.append(examination.select)
    wanted = ingredients.recipe.train.select
    if wanted is None:
        return known[min(1, len(known) - 1)]
    if wanted not in known:
        raise RecipeError(
            "train.select is not a validation metric of this task",
            place="train.select",
            found=wanted,
            expected=", ".join(known),
            fix="choose one of these",
        )
    return wanted
