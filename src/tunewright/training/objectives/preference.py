"""Define the losses of preference tuning, where one of two answers to a prompt is preferred, from their log probabilities.

For a pair let π be the network's log probability of the chosen and of the rejected answer (a sum over tokens), π₀ that of the
reference, the network before the first step, and T the number of an answer's tokens. The formulas:

    dpo    −log σ(β ((π_c − π₀_c) − (π_r − π₀_r)))                       Rafailov et al. 2023, equation 7
    ipo    ((π_c − π₀_c)/T_c − (π_r − π₀_r)/T_r − 1/(2β))²               Azar et al. 2023, equation 17
    simpo  −log σ(β (π_c/T_c − π_r/T_r) − γ)                             Meng et al. 2024, equation 6
    orpo   −π_c/T_c − λ log σ(odds(π_c/T_c) − odds(π_r/T_r)),            Hong et al. 2024, equations 4 to 7
           where odds(l) = l − log(1 − eˡ)

ipo takes means over tokens, as its authors recommended later; with sums the margin 1/(2β) would depend on the length. π₀ is
computed once, before the first step, so that no second network is in memory during training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from jaxtyping import Bool, Float, Int, Real
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from tunewright.data.batches.batch import Batch, Examples, Inputs
from tunewright.data.batches.packing import IGNORED
from tunewright.data.batches.sampler import EVALUATION_BATCH, in_order
from tunewright.models.core.network import evaluating
from tunewright.training.objectives.base import LanguageModel, Objective, Scalar
from tunewright.training.objectives.chunked_cross_entropy import each_token_loss

# The name under which a batch holds π₀, [pairs, 2].
REFERENCE = "reference"

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]

Sums = Float[Tensor, "pairs 2"]
"""π or π₀ of the chosen answer and of the rejected one."""
Counts = Real[Tensor, "pairs 2"]
"""T, likewise."""
Losses = Float[Tensor, " pairs"]
# (π, T, π₀) → the loss of each pair.
PairLoss = Callable[[Sums, Counts, Sums], Losses]


def dpo(sums: Sums, tokens: Counts, reference: Sums, *, beta: float) -> Losses:
    """Compute direct preference optimisation; the formula is above."""
    return -F.logsigmoid(beta * _difference(sums - reference))


def ipo(sums: Sums, tokens: Counts, reference: Sums, *, beta: float) -> Losses:
    """Compute identity preference optimisation; the formula is above."""
    return (_difference((sums - reference) / tokens) - 1 / (2 * beta)).square()


def simpo(sums: Sums, tokens: Counts, reference: Sums, *, beta: float, gamma: float) -> Losses:
    """Compute simple preference optimisation, which has no reference; the formula is above."""
    return -F.logsigmoid(beta * _difference(sums / tokens) - gamma)


def orpo(sums: Sums, tokens: Counts, reference: Sums, *, weight: float) -> Losses:
    """Compute odds ratio preference optimisation, which has no reference and also trains on the chosen answer."""
    means = sums / tokens
    # 1 − eˡ of a likely answer would cancel; a mean of 0 would have infinite odds.
    odds = means - torch.log(-torch.expm1(means.clamp(max=-1e-6)))
    return -means[:, 0] - weight * F.logsigmoid(_difference(odds))


def _difference(values: Sums) -> Losses:
    return values[:, 0] - values[:, 1]


@dataclass(frozen=True, kw_only=True)
class PreferenceLoss:
    """Compute the loss of pairs, which have equal weight."""

    formula: PairLoss

    def weight(self, batch: Batch) -> float:
        """Return the number of pairs."""
        return batch.ids.shape[0]

    def loss_sum(self, model: Callable[[Inputs], Tensor], batch: Batch, epoch: int) -> Scalar:
        """Return the sum over the batch's pairs."""
        assert isinstance(model, LanguageModel)
        sums, tokens = answer_log_probabilities(model, batch)
        return self.formula(sums, tokens, batch.named.get(REFERENCE, torch.zeros_like(sums))).sum()


def answer_log_probabilities(model: LanguageModel, batch: Batch) -> tuple[Sums, Counts]:
    """Return the log probability of each answer and its number of tokens.

    Args:
        batch: each row holds two documents, the first the chosen conversation; the target marks their answers.
    """
    wanted, truth, answer = answer_places(batch)
    inputs = {name: value for name, value in batch.named.items() if name != REFERENCE}
    if (weight := model.output_weight) is not None:
        dtype = torch.bfloat16 if model.reduced else torch.float32
        losses = each_token_loss(model.hidden(inputs)[wanted], weight, truth, dtype=dtype)
    else:
        losses = F.cross_entropy(model(inputs)[wanted], truth, reduction="none")
    count = 2 * len(batch.ids)
    sums = torch.zeros(count, device=losses.device).index_add(0, answer, -losses)
    return sums.view(-1, 2), torch.bincount(answer, minlength=count).view(-1, 2)


def answer_places(
    batch: Batch,
) -> tuple[Bool[Tensor, "batch time"], Int[Tensor, " tokens"], Int[Tensor, " tokens"]]:
    """Return which positions predict a token of an answer, these tokens, and the number of each one's answer, two per row."""
    assert batch.target is not None
    wanted = batch.target != IGNORED
    row, _ = wanted.nonzero(as_tuple=True)
    return wanted, batch.target[wanted], 2 * row + batch.named["document"][wanted] - 1


def refer(model: nn.Module, examples: Examples) -> Sums:
    """Compute the network's log probabilities of the answers of all pairs."""
    assert isinstance(model, LanguageModel)
    found = torch.zeros(len(examples), 2)
    with evaluating(model), torch.inference_mode():
        for batch in in_order(examples, EVALUATION_BATCH):
            found[batch.ids] = answer_log_probabilities(model, batch)[0].cpu()
    return found


def _objective(name: str, formula: PairLoss, *, refers: bool) -> Objective:
    loss = PreferenceLoss(formula=formula)
    return Objective(name=name, supervised=False, bind=lambda seed, device: loss, refer=refer if refers else None)


def dpo_objective(encoder: object, *, beta: Positive = 0.1) -> Objective:
    """Build DPO: prefer the chosen answer, relative to the reference."""
    return _objective("dpo", lambda *pair: dpo(*pair, beta=beta), refers=True)


def ipo_objective(encoder: object, *, beta: Positive = 0.1) -> Objective:
    """Build IPO: prefer the chosen answer by a fixed margin, which stays bounded where all annotators agree."""
    return _objective("ipo", lambda *pair: ipo(*pair, beta=beta), refers=True)


def simpo_objective(encoder: object, *, beta: Positive = 2.0, gamma: NotNegative = 1.0) -> Objective:
    """Build SimPO: prefer the chosen answer by the mean over its tokens, without a reference."""
    return _objective("simpo", lambda *pair: simpo(*pair, beta=beta, gamma=gamma), refers=False)


def orpo_objective(encoder: object, *, weight: Positive = 0.1) -> Objective:
    """Build ORPO: train on the chosen answer and prefer it, without a reference."""
    return _objective("orpo", lambda *pair: orpo(*pair, weight=weight), refers=False)


PREFERENCES: dict[str, Callable[..., Objective]] = {
    "dpo": dpo_objective,
    "ipo": ipo_objective,
    "simpo": simpo_objective,
    "orpo": orpo_objective,
}
