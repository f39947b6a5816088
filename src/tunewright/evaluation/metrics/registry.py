"""All metrics by name: those of Tunewright, and those that installed packages add."""

from __future__ import annotations

import difflib

from tunewright.errors import RecipeError
from tunewright.evaluation.metrics import (
    classification,
    preference_pairs,
    ranked_lists,
    regression,
    token_prediction,
    transcripts,
)
from tunewright.evaluation.metrics.base import Metric
from tunewright.plugins import Registry
from tunewright.runs.metrics_log import LOSS
from tunewright.runs.summary.facts import MetricFacts, Title

_BUILTIN = (
    classification.ACCURACY,
    classification.F1_MICRO,
    classification.F1_MACRO,
    classification.SUBSET_ACCURACY,
    classification.HAMMING_LOSS,
    classification.LOG_LOSS,
    classification.BRIER,
    classification.ECE,
    classification.ROC_AUC,
    classification.GROUPED_AUC,
    classification.PR_AUC,
    regression.MAE,
    regression.RMSE,
    regression.R2,
    token_prediction.MASKED_LOSS,
    token_prediction.PSEUDO_PERPLEXITY,
    token_prediction.MASKED_ACCURACY,
    token_prediction.TOKEN_LOSS,
    token_prediction.PERPLEXITY,
    token_prediction.EXACT_MATCH,
    token_prediction.BITS_PER_BYTE,
    token_prediction.NEXT_TOKEN_ACCURACY,
    preference_pairs.REWARD_ACCURACY,
    preference_pairs.PREFERENCE_ACCURACY,
    preference_pairs.REWARD_MARGIN,
    preference_pairs.KL,
    ranked_lists.NDCG_AT_10,
    ranked_lists.RECALL_AT_10,
    ranked_lists.PRECISION_AT_10,
    ranked_lists.HIT_AT_10,
    ranked_lists.MRR_AT_10,
    ranked_lists.MAP_AT_10,
    ranked_lists.NOVELTY,
    transcripts.WER,
    transcripts.CER,
    ranked_lists.COVERAGE,
    classification.ACCURACY_PER_BYTE,
)

METRICS = Registry[Metric]("tunewright.metrics", {metric.name: metric for metric in _BUILTIN})

# The objective's value on validation rows is listed with the metrics, and selects the best weights where no metric does.
VALIDATION_LOSS = MetricFacts(
    name=LOSS, title=Title(en="loss", zh="损失"), greater_is_better=False, style="amount", hub_name=LOSS
)


def facts_of(name: str) -> MetricFacts:
    """Return what a report needs to know of a metric, or of the validation loss; of an unknown one only its name is known."""
    if name == LOSS:
        return VALIDATION_LOSS
    if name in METRICS:
        return METRICS[name].facts
    return MetricFacts(name=name, title=Title(en=name, zh=name), greater_is_better=True, style="number", hub_name=name)


def get_metric(name: str, kind: str, place: str = "eval.metrics") -> Metric:
    """Return the metric of that name, for a kind of outputs and targets.

    Raises:
        RecipeError: there is none, or it is for another kind.
    """
    known = [metric.name for metric in METRICS.values() if kind in metric.kinds]
    if name in known:
        return METRICS[name]
    near = difflib.get_close_matches(name, known, n=1)
    raise RecipeError(
        f"there is no metric of this name for {kind}",
        place=place,
        found=name,
        expected=", ".join(known),
        fix=f"did you mean {near[0]}?" if near else "choose one of these",
    )
