"""Metrics of transcripts: outputs [N, 4] are the wrong words, the words, the wrong characters and the characters of a recording."""

from __future__ import annotations

import numpy as np

from tunewright.evaluation.metrics.base import Metric, Outcome, ratio
from tunewright.runs.summary.facts import Title

TRANSCRIPTS = "transcripts"


def wer(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """Word error rate: words to be changed, put in or taken out, for each word there is, over all recordings."""
    return ratio(outcome.outputs[:, 0], outcome.outputs[:, 1], weights)


def cer(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """Letter error rate, likewise; blanks between words do not count."""
    return ratio(outcome.outputs[:, 2], outcome.outputs[:, 3], weights)


WER = Metric(
    name="wer",
    title=Title(en="word error rate", zh="词错误率"),
    kinds=(TRANSCRIPTS,),
    greater_is_better=False,
    formula=wer,
    style="percent",
)
CER = Metric(
    name="cer",
    title=Title(en="character error rate", zh="字符错误率"),
    kinds=(TRANSCRIPTS,),
    greater_is_better=False,
    formula=cer,
    style="percent",
)
