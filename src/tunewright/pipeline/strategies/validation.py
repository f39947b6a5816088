"""Validation metrics during training, and which of them selects the best weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from tunewright.data.batches.batch import Examples
from tunewright.data.batches.sampler import EVALUATION_BATCH, ids_in_order
from tunewright.errors import RecipeError
from tunewright.evaluation.metrics import METRICS
from tunewright.models.core.network import Network, evaluating
from tunewright.pipeline.build.parts import StageParts
from tunewright.training.distributed.process_group import ProcessGroup

# (the module that takes the batches, the whole network) → metrics on the validation examples.
Validator = Callable[[nn.Module, Network], dict[str, float]]


def validator(
    parts: StageParts,
    examples: Examples | None,
    device: torch.device,
    rows: ProcessGroup | None = None,
    *,
    whole_table: bool = True,
) -> Validator | None:
    """Return a function that measures a network on the validation examples; None: there are none.

    Args:
        rows: the processes that each measure a part of the batches; every one gets the metrics of all.
        whole_table: also measure what the task measures on the whole table.
    """
    if examples is None:
        return None
    examples = examples.to(device)
    objective = parts.objective.bind(parts.recipe.seed, device)
    evaluation = parts.task.evaluation
    target = parts.preprocessor.column_target if evaluation.by_batch else None
    names = {parts.task.metrics[0], selection_metric(parts)} - {"loss"}
    batches = list(ids_in_order(examples, EVALUATION_BATCH))

    def validate(model: nn.Module, network: Network) -> dict[str, float]:
        sums = torch.zeros(len(batches), 2, dtype=torch.float64)
        outputs: list[Tensor] = []
        whole: Tensor | None = None

        def remembered(inputs: Any) -> Tensor:
            outputs.append(model(inputs))
            return outputs[-1]

        with evaluating(model), torch.inference_mode():
            for place, counts in own_places(len(batches), rows):
                batch = examples.batch(batches[place])
                loss = objective.loss_sum(model if target is None else remembered, batch, 0)
                if target is not None:
                    found = outputs.pop()
                    whole = found.new_zeros(len(examples), *found.shape[1:]) if whole is None else whole
                    if counts:
                        whole[batch.ids.to(found.device)] = found
                if counts:
                    sums[place, 0], sums[place, 1] = float(loss), objective.weight(batch)
        if rows is not None:
            rows.all_reduce(sums)
            if whole is not None:
                rows.all_reduce(whole)
        losses, weights = sums.unbind(1)
        values = {"loss": sum(losses.tolist()) / sum(weights.tolist())}
        if target is not None and examples.target is not None and whole is not None:
            truth, predicted = target.truth(examples.target), target.decode(whole)
            values |= {name: METRICS[name].value(predicted, truth) for name in names}
        if whole_table and evaluation.select is not None:
            table = parts.prepared.table("valid")
            measured, truth = evaluation.outputs(network, None, parts.preprocessor, table)
            values[evaluation.select] = METRICS[evaluation.select].value(measured, truth)
        return {name: value for name, value in values.items() if math.isfinite(value)}  # JSON has no NaN

    return validate


def own_places(count: int, rows: ProcessGroup | None) -> Iterator[tuple[int, bool]]:
    """Yield the batches that this process measures, and whether they count. All processes take as many, as the shards of a network
    wait for each other; one that has none left repeats the first."""
    size, rank = (1, 0) if rows is None else (rows.size, rows.rank)
    for start in range(0, count, size):
        place = start + rank
        yield (place, True) if place < count else (0, False)


def selection_metric(parts: StageParts) -> str:
    """Return the validation metric that selects the best weights.

    Raises:
        RecipeError: `train.select` is not a metric of the task.
    """
    evaluation = parts.task.evaluation
    known = ["loss", *(parts.task.metrics if parts.objective.supervised and evaluation.by_batch else ())]
    if evaluation.select is not None:
        known.append(evaluation.select)
    wanted = parts.recipe.train.select
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
