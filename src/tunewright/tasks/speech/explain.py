"""Explain a transcript by the moments of the recording."""

from __future__ import annotations

import pyarrow as pa
import torch
from torch import Tensor
from torch.nn import functional as F

from tunewright.errors import ArtifactError, DataError
from tunewright.evaluation.attribution import Explained
from tunewright.models.core.network import Network
from tunewright.models.speech.base import Recogniser
from tunewright.tasks.base.encoders import Encoders
from tunewright.tasks.base.explain import MOMENT, Question, numeric_question
from tunewright.tasks.speech.encoder import SpeechEncoder
from tunewright.training.objectives.ctc import BLANK


def explain_transcript(network: Network, preprocessor: Encoders, table: pa.Table, wanted: str | None) -> Question:
    encoder = preprocessor.inputs
    assert isinstance(encoder, SpeechEncoder)
    if not isinstance(network, Recogniser):
        raise ArtifactError(
            "only speech models trained with CTC can be explained",
            found=type(network).__name__,
            fix="take a model of deepspeech, conformer or wav2vec2",
        )
    batch = encoder.heard(table).batch(torch.tensor([0]))
    inputs, lengths = batch.named["features"], batch.named["lengths"]
    with torch.inference_mode():
        best = network(batch.inputs)[0].argmax(1)
    letters = [int(number) for number in torch.unique_consecutive(best) if number != BLANK]
    said = encoder.read(letters)
    asked = torch.tensor(encoder.numbers(wanted) if wanted is not None else letters, dtype=torch.int64)
    if not len(asked):
        raise DataError(
            "the transcript is empty, so there is nothing to explain", fix="--target TEXT: the transcript to explain"
        )
    whole = inputs[0]
    step = MOMENT if whole.dim() == 2 else MOMENT * 160
    group = (torch.arange(len(whole)) // step).reshape(-1, *[1] * (whole.dim() - 1)).expand(whole.shape)
    count = int(group.max()) + 1
    # The quietest stretch as it is, over and over: a made-up one, such as its mean, sounds like nothing that was ever learned.
    loudness = whole.reshape(len(whole), -1).mean(1) if whole.dim() == 2 else whole.square()
    first = int(loudness.unfold(0, min(step, len(whole)), 1).mean(1).argmin())
    quiet = whole[first + torch.arange(len(whole)) % min(step, len(whole))]

    def f(found: Tensor) -> Tensor:
        size = len(found)
        log_chances = network({"features": found, "lengths": lengths.expand(size)}).transpose(0, 1)
        moments = network.moments(lengths.expand(size))
        long = torch.full((size,), len(asked))
        return -F.ctc_loss(log_chances, asked.expand(size, -1), moments, long, blank=BLANK, reduction="none")

    value, along = numeric_question(whole, quiet, group, count, f)
    units = [f"{number * MOMENT / 100:.1f} s" for number in range(count)]
    what = ["log p of {}", repr(encoder.read(asked.tolist()))]
    explained = Explained(
        units=units, value=value, along=along, what=what, absent="the recording's quietest tenth of a second"
    )
    return Question(explained=explained, answer=["{}", said], usual="shapley")
