"""How well speech is recognised: the words and letters that have to be changed, which, when they were said, and how fast."""

from __future__ import annotations

import base64
import io
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from tunewright.data.audio.decode import RATE
from tunewright.data.audio.transcript_text import spoken, spoken_words, stands_alone
from tunewright.data.batches.sampler import EVALUATION_BATCH, in_order
from tunewright.data.prepared import Prepared
from tunewright.data.sources.speech import AUDIO
from tunewright.evaluation.baselines import Baseline
from tunewright.evaluation.decoding import beam_search, greedy, moments_of
from tunewright.evaluation.metrics import Outcome
from tunewright.models.core.network import Network, evaluating
from tunewright.models.speech.base import Recogniser
from tunewright.models.speech.whisper import Whisper
from tunewright.runs.summary.evaluation import SpeechConfusion, SpeechMistake, SpeechSummary, TaskFindings
from tunewright.tasks.base.encoders import Encoders
from tunewright.tasks.base.evaluation import Evaluation, Measured
from tunewright.tasks.speech.encoder import TEXT, SpeechEncoder, SpeechExamples

# So many confusions and mistakes are shown; of a mistake so much sound can be played.
CONFUSIONS, MISTAKES, MOST_SECONDS = 20, 12, 8
# Recordings that are dictated at once, and tokens of one at most.
DICTATED, MOST_TOKENS = 16, 224


@dataclass(frozen=True)
class Heard:
    """The transcript of a recording."""

    letters: list[int]
    without_words: list[int]
    """The same without the language model."""
    log_probabilities: np.ndarray | None
    """[S, K], see `evaluation/decoding.py`; None where it was dictated, and nobody knows when."""


def listen(network: Recogniser, encoder: SpeechEncoder, table: pa.Table) -> Iterator[tuple[int, Heard]]:
    """Yield each row's place in a table, and its transcript; in no certain order."""
    examples = encoder.heard(table)
    if isinstance(network, Whisper):
        yield from _dictated(network, examples)
        return
    with evaluating(network), torch.inference_mode():
        for batch in in_order(examples.to(next(network.parameters()).device), EVALUATION_BATCH):
            found = network(batch.inputs).cpu().numpy()
            moments = network.moments(batch.named["lengths"]).cpu()
            for place, one, length in zip(batch.ids.tolist(), found, moments.tolist(), strict=True):
                sure = greedy(one[:length])
                best = sure if encoder.beam is None else beam_search(one[:length], encoder.letters, encoder.beam)
                yield place, Heard(best, sure, one[:length])


def _dictated(network: Whisper, examples: SpeechExamples) -> Iterator[tuple[int, Heard]]:
    with evaluating(network), torch.inference_mode():
        for ids in torch.arange(len(examples)).split(DICTATED):
            batch = examples.to(next(network.parameters()).device).batch(ids)
            for place, written in zip(ids.tolist(), network.dictate(batch.named, MOST_TOKENS), strict=True):
                yield place, Heard(written, written, None)


def transcription_outputs(
    network: Network, before: Network | None, encoder: SpeechEncoder, table: pa.Table
) -> Measured:
    """Return what the "transcripts" metrics want, for each recording: see `errors_of`."""
    assert isinstance(network, Recogniser)
    said = [""] * table.num_rows
    for place, heard in listen(network, encoder, table):
        said[place] = encoder.read(heard.letters)
    return errors_of(table, said)


def errors_of(table: pa.Table, heard: list[str]) -> Measured:
    """Return [N, 4]: the words that have to be changed, put in or taken out, the words there are, and the same of letters without
    blanks between words; and [N], the words there are."""
    outputs = np.zeros((table.num_rows, 4))
    for row, (text, found) in enumerate(zip(table[TEXT].to_pylist(), heard, strict=True)):
        wanted = spoken(text or "")
        words, letters = spoken_words(wanted), list(wanted.replace(" ", ""))
        outputs[row] = [
            _changes(words, spoken_words(found)),
            len(words),
            _changes(letters, list(found.replace(" ", ""))),
            len(letters),
        ]
    return outputs, outputs[:, 1].astype(np.int64)


def _changes(wanted: list[str], found: list[str]) -> int:
    if not wanted:
        return len(found)
    import jiwer  # when it is needed: it takes a tenth of a second

    counted = jiwer.process_words(" ".join(wanted), " ".join(found))
    return counted.substitutions + counted.deletions + counted.insertions


def transcription_baselines(encoder: SpeechEncoder, train: pa.Table, table: pa.Table) -> list[Baseline]:
    """Return the metrics of always predicting the most frequent sentence."""
    commonest = Counter(spoken(text or "") for text in train[TEXT].to_pylist()).most_common(1)[0][0]
    return [Baseline("the commonest sentence", errors_of(table, [commonest] * table.num_rows)[0])]


def listened(network: Network, encoder: SpeechEncoder, table: pa.Table) -> TaskFindings:
    """Return how fast speech was recognised, the most frequent confusions, and the recordings with most wrong words."""
    assert isinstance(network, Recogniser)
    began = time.perf_counter()
    heard = dict(listen(network, encoder, table))
    worked = time.perf_counter() - began
    said = [encoder.read(heard[place].letters) for place in range(table.num_rows)]
    errors, words = errors_of(table, said)
    plain, _ = errors_of(table, [encoder.read(heard[place].without_words) for place in range(table.num_rows)])
    wrong = np.argsort(-errors[:, 0], kind="stable")[:MISTAKES].tolist()
    seconds = sum(len(cell.as_py()) for cell in table[AUDIO]) / 2 / RATE
    mistakes = [
        SpeechMistake(
            row=table["_row"][place].as_py(),
            said=table[TEXT][place].as_py() or "",
            heard=said[place],
            wrong_words=int(errors[place, 0]),
            audio=_playable(table[AUDIO][place].as_py()),
        )
        for place in wrong
        if errors[place, 0]
    ]
    return TaskFindings(
        speech=SpeechSummary(
            seconds=seconds,
            real_time_factor=worked / seconds,
            searched=encoder.beam is not None,
            wer_without_search=float(plain[:, 0].sum() / max(1, words.sum())),
            confusions=confusions(table, said),
            mistakes=mistakes,
        )
    )


def confusions(table: pa.Table, heard: list[str]) -> list[SpeechConfusion]:
    """Return what is most often mistaken for what; nothing said, or nothing recognised, is an empty text."""
    import jiwer

    counted: Counter[tuple[str, str]] = Counter()
    for text, found in zip(table[TEXT].to_pylist(), heard, strict=True):
        wanted, got = spoken_words(spoken(text or "")), spoken_words(found)
        if not wanted:
            continue
        for part in jiwer.process_words(" ".join(wanted), " ".join(got)).alignments[0]:
            said, there = wanted[part.ref_start_idx : part.ref_end_idx], got[part.hyp_start_idx : part.hyp_end_idx]
            if part.type == "substitute":
                counted.update(zip(said, there, strict=True))
            elif part.type == "delete":
                counted.update((word, "") for word in said)
            elif part.type == "insert":
                counted.update(("", word) for word in there)
    ranked = sorted(counted.items(), key=lambda entry: (-entry[1], entry[0]))[:CONFUSIONS]
    return [SpeechConfusion(said=said, heard=there, count=count) for (said, there), count in ranked]


def _playable(cell: bytes) -> str:
    """Return the beginning of a recording as a data URI, small: Ogg Vorbis, in halves of the rate."""
    import soundfile

    samples = np.frombuffer(cell, np.int16)[: MOST_SECONDS * RATE]
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, RATE, format="OGG", subtype="VORBIS")
    return "data:audio/ogg;base64," + base64.b64encode(buffer.getvalue()).decode()


def transcribed(network: Network, encoder: SpeechEncoder, table: pa.Table) -> list[dict[str, Any]]:
    """For each recording {"text": …, "words": [{"word", "start", "end"}]}, in seconds."""
    assert isinstance(network, Recogniser)
    found: list[dict[str, Any]] = [{}] * table.num_rows
    for place, heard in listen(network, encoder, table):
        seconds = len(table[AUDIO][place].as_py()) / 2 / RATE
        found[place] = {"text": encoder.read(heard.letters), "words": timed(heard, encoder, seconds)}
    return found


def timed(heard: Heard, encoder: SpeechEncoder, seconds: float) -> list[dict[str, Any]]:
    """Return each word with its first and last moment in seconds, on the likeliest way to stretch the letters."""
    if not heard.letters or heard.log_probabilities is None:
        return []
    each = seconds / len(heard.log_probabilities)
    words: list[dict[str, Any]] = []
    grows = False
    for number, (start, end) in zip(heard.letters, moments_of(heard.log_probabilities, heard.letters), strict=True):
        letter = encoder.letters[number - 1]
        if letter == " ":
            grows = False
        elif grows and not stands_alone(letter):
            words[-1] = {**words[-1], "word": words[-1]["word"] + letter, "end": round(end * each, 2)}
        else:
            words.append({"word": letter, "start": round(start * each, 2), "end": round(end * each, 2)})
            grows = not stands_alone(letter)
    return words


class TranscriptEvaluation(Evaluation):
    """What is said is written down."""

    kind = "transcripts"
    select = "wer"
    zero_shot = "wer"

    def outputs(self, network: Network, before: Network | None, preprocessor: Encoders, table: pa.Table) -> Measured:
        return transcription_outputs(network, before, preprocessor.inputs_as(SpeechEncoder), table)

    def predictions(self, network: Network, preprocessor: Encoders, table: pa.Table) -> list[dict[str, Any]]:
        return transcribed(network, preprocessor.inputs_as(SpeechEncoder), table)

    def baselines(self, preprocessor: Encoders, prepared: Prepared, table: pa.Table, seed: int) -> list[Baseline]:
        train = self.sampled(preprocessor, prepared, seed)
        return transcription_baselines(preprocessor.inputs_as(SpeechEncoder), train, table)

    def facts(
        self, network: Network, preprocessor: Encoders, prepared: Prepared, table: pa.Table, outcome: Outcome
    ) -> TaskFindings:
        return listened(network, preprocessor.inputs_as(SpeechEncoder), table)
