"""How well speech is recognised: the words and letters that have to be changed, and how fast."""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from tunewright.data.batching import EVALUATION_BATCH, in_order
from tunewright.evaluation.baselines import Baseline
from tunewright.models.deepspeech import DeepSpeech
from tunewright.models.network import AnyNetwork, evaluating
from tunewright.tasks.base import Measured
from tunewright.tasks.recordings import TEXT, SpeechEncoder, SpeechExamples, spoken
from tunewright.training.ctc import BLANK


def transcripts(network: DeepSpeech, encoder: SpeechEncoder, table: pa.Table) -> list[str]:
    """What is heard in each recording of a table: the likeliest letter of each moment, repetitions and blanks taken away
    (Graves et al. 2006, section 3.2)."""
    heard = [""] * table.num_rows
    examples = SpeechExamples(
        features=encoder.features(table), letters=None, rows=torch.tensor(np.asarray(table["_row"]))
    )
    with evaluating(network), torch.inference_mode():
        for batch in in_order(examples.to(next(network.parameters()).device), EVALUATION_BATCH):
            best = network(batch.inputs).argmax(-1).cpu()
            moments = network.moments(batch.named["lengths"]).cpu()
            for place, letters, length in zip(batch.ids.tolist(), best, moments.tolist(), strict=True):
                heard[place] = encoder.read(collapsed(letters[:length]))
    return heard


def collapsed(letters: Tensor) -> list[int]:
    """The letters of the moments without repetitions and blanks."""
    return [letter for letter, _ in groupby(letters.tolist()) if letter != BLANK]


def transcription_outputs(
    network: AnyNetwork, before: AnyNetwork | None, encoder: SpeechEncoder, table: pa.Table
) -> Measured:
    """What the "transcripts" metrics want, for each recording: see `errors_of`."""
    assert isinstance(network, DeepSpeech)
    return errors_of(table, transcripts(network, encoder, table))


def errors_of(table: pa.Table, heard: list[str]) -> Measured:
    """[N, 4]: the words that have to be changed, put in or taken out, the words there are, and the same of letters without blanks
    between words; and [N], the words there are."""
    outputs = np.zeros((table.num_rows, 4))
    for row, (text, found) in enumerate(zip(table[TEXT].to_pylist(), heard, strict=True)):
        wanted = spoken(text or "")
        words = len(wanted.split())
        letters = wanted.replace(" ", "")
        outputs[row] = [_changes(wanted, found), words, _changes(_apart(wanted), _apart(found)), len(letters)]
    return outputs, outputs[:, 1].astype(np.int64)


def _apart(text: str) -> str:
    """Each letter as a word of its own."""
    return " ".join(text.replace(" ", ""))


def _changes(wanted: str, found: str) -> int:
    if not wanted:
        return len(found.split())
    import jiwer  # when it is needed: it takes a tenth of a second

    counted = jiwer.process_words(wanted, found)
    return counted.substitutions + counted.deletions + counted.insertions


def transcription_baselines(encoder: SpeechEncoder, train: pa.Table, table: pa.Table) -> list[Baseline]:
    """What is reached by always saying the commonest sentence."""
    commonest = Counter(spoken(text or "") for text in train[TEXT].to_pylist()).most_common(1)[0][0]
    return [Baseline("the commonest sentence", errors_of(table, [commonest] * table.num_rows)[0])]


def transcribed(network: AnyNetwork, encoder: SpeechEncoder, table: pa.Table) -> list[dict[str, Any]]:
    """For each recording {"text": …}."""
    assert isinstance(network, DeepSpeech)
    return [{"text": text} for text in transcripts(network, encoder, table)]
