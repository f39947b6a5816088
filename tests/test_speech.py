"""Speech: sound read and resampled, features against the library's, CTC by brute force, a network that learns tones."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile
import torch
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

from tunewright import load_model
from tunewright.data.audio import RATE, read_audio
from tunewright.data.batching import Batch
from tunewright.data.log_mel import BANDS, HOP, LOWEST, POINTS, WINDOW, log_mel, mel_bands
from tunewright.data.prepare import prepare
from tunewright.errors import DataError
from tunewright.evaluation.metrics import METRICS
from tunewright.models.deepspeech import DeepSpeech, build_speech, describe_speech
from tunewright.recipe.schema import Data
from tunewright.stages.console import silent
from tunewright.stages.run import run
from tunewright.tasks.recordings import SpeechEncoder, SpeechExamples, _fits
from tunewright.tasks.transcription import collapsed, errors_of
from tunewright.training.ctc import NO_LETTER, FromTranscripts

TONES = {"a": 400, "b": 900, "c": 1800, "d": 3500}


def sound(text: str, seed: int, rate: int = RATE) -> np.ndarray:
    """A tone for each letter, silence for a blank."""
    draw = np.random.default_rng(seed)
    parts = [np.zeros(rate // 20)]
    for letter in text:
        time = np.arange(int(rate * draw.uniform(0.1, 0.16))) / rate
        tone = 0.4 * np.sin(2 * math.pi * TONES.get(letter, 0) * draw.uniform(0.96, 1.04) * time)
        parts += [tone * np.hanning(len(time)), np.zeros(rate // 50)]
    samples = np.concatenate(parts)
    return samples + draw.normal(0, 0.005, len(samples))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tones")
    draw = np.random.default_rng(0)
    for table, letters in (("abc", "abc"), ("abcd", "abcd")):
        lines = ["audio,text,speaker"]
        for number in range(160):
            text = " ".join("".join(draw.choice(list(letters), draw.integers(1, 4))) for _ in range(2))
            name = f"{table}{number}.wav"
            soundfile.write(folder / name, sound(text, number), RATE)
            lines.append(f"{name},{text.upper() if number % 2 else text},s{number % 40}")
        (folder / f"{table}.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_sound_of_any_rate_and_channels(tmp_path: Path) -> None:
    time = np.arange(8000 * 2) / 8000
    tone = 0.5 * np.sin(2 * math.pi * 1000 * time)
    soundfile.write(tmp_path / "x.wav", np.stack([tone, tone], axis=1), 8000)
    soundfile.write(tmp_path / "x.flac", np.stack([tone, -tone], axis=1), 8000)
    samples = read_audio(tmp_path / "x.wav")
    assert samples.dtype == np.int16 and len(samples) == 2 * RATE
    strongest = np.abs(np.fft.rfft(samples)).argmax() / 2
    assert strongest == 1000 and abs(np.abs(samples[1000:-1000]).max() / 32768 - 0.5) < 0.01
    assert np.abs(read_audio(tmp_path / "x.flac")).max() <= 1  # the two channels cancel out


@pytest.mark.parametrize(("content", "problem"), [(b"no sound", "cannot be read"), (b"", "cannot be read")])
def test_what_is_no_sound(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "x.wav").write_bytes(content)
    with pytest.raises(ValueError, match=problem):
        read_audio(tmp_path / "x.wav")


def test_features_are_the_librarys() -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, 5000)
    filters = mel_filter_bank(POINTS // 2 + 1, BANDS, LOWEST, RATE / 2, RATE, norm=None, mel_scale="htk")
    assert np.abs(filters.T - mel_bands().numpy()).max() < 1e-5
    wanted = spectrogram(
        np.pad(samples, POINTS // 2),
        window_function(WINDOW, "hann"),
        frame_length=WINDOW,
        hop_length=HOP,
        fft_length=POINTS,
        power=2.0,
        center=False,
        mel_filters=filters,
        mel_floor=1e-10,
        log_mel="log",
    ).T
    found = log_mel(torch.from_numpy(samples))
    assert found.shape == (1 + 5000 // HOP, BANDS)
    # The library sets its window at the beginning of the 512 points, torch in their middle: by 56 samples apart.
    shifted = spectrogram(
        np.pad(samples, (POINTS // 2 - (POINTS - WINDOW) // 2, POINTS)),
        window_function(WINDOW, "hann"),
        frame_length=WINDOW,
        hop_length=HOP,
        fft_length=POINTS,
        power=2.0,
        center=False,
        mel_filters=filters,
        mel_floor=1e-10,
        log_mel="log",
    ).T[: len(found)]
    normed = (shifted - shifted.mean(0)) / (shifted.std(0) + 1e-5)
    assert np.abs(found.numpy() - normed).max() < 1e-3 and wanted.shape[1] == BANDS


def small(outputs: int = 4, **options: Any) -> DeepSpeech:
    facts = {"channels": 4, "hidden": 24, "layers": 2, **options}
    return build_speech(describe_speech({"deepspeech": facts}, bands=BANDS, outputs=outputs), seed=0)


@pytest.mark.parametrize("options", [{}, {"cell": "lstm"}, {"ahead": 3}])
def test_a_recording_does_not_depend_on_its_batch(options: dict[str, Any]) -> None:
    network = small(**options).eval()
    short, long = torch.randn(57, BANDS), torch.randn(120, BANDS)
    both = {
        "features": torch.nn.utils.rnn.pad_sequence([short, long], batch_first=True),
        "lengths": torch.tensor([57, 120]),
    }
    with torch.no_grad():
        together = network(both)
        alone = network({"features": short[None], "lengths": torch.tensor([57])})
    assert together.shape == (2, 60, 4) and network.moments(torch.tensor([57])).tolist() == [29]
    if options.get("ahead"):
        # The last moments look at what is behind the recording: nothing, or the padding's.
        torch.testing.assert_close(together[0, :26], alone[0, :26])
    else:
        torch.testing.assert_close(together[0, :29], alone[0])


def test_reading_forwards_sees_only_so_far_ahead() -> None:
    network = small(ahead=2).eval()
    first = torch.randn(1, 100, BANDS)
    other = first.clone()
    other[:, 80:] = torch.randn(1, 20, BANDS)
    lengths = torch.tensor([100])
    with torch.no_grad():
        outputs = [network({"features": entry, "lengths": lengths}) for entry in (first, other)]
    # Moment 40 of the output stands for 80 of the input; two ahead, and the convolutions' reach of 5 + 2 · 5.
    assert torch.equal(outputs[0][:, :30], outputs[1][:, :30])
    assert not torch.allclose(outputs[0][:, 40:], outputs[1][:, 40:])


def test_the_loss_is_the_sum_over_all_ways() -> None:
    network = small(outputs=3)
    features = torch.randn(1, 8, BANDS)
    lengths = torch.tensor([8])
    with torch.no_grad():
        chances = network({"features": features, "lengths": lengths})[0].exp()
    letters = [1, 2]
    ways = sum(
        math.prod(float(chances[moment, letter]) for moment, letter in enumerate(way))
        for way in itertools.product(range(3), repeat=4)
        if collapsed(torch.tensor(way)) == letters
    )
    batch = Batch({"features": features, "lengths": lengths}, torch.tensor([[*letters, NO_LETTER]]), torch.tensor([0]))
    objective = FromTranscripts()
    assert objective.weight(batch) == 2
    assert objective.loss_sum(network, batch, 0).item() == pytest.approx(-math.log(ways), rel=1e-4)


def test_repetitions_and_blanks_are_taken_away() -> None:
    assert collapsed(torch.tensor([0, 1, 1, 0, 1, 2, 2, 0])) == [1, 1, 2]
    assert _fits(torch.tensor([1, 1, 2]), 8) and not _fits(torch.tensor([1, 1, 2]), 6)


def test_errors_by_hand() -> None:
    table = pa.table({"text": ["One two  three", "four", "five six"]})
    outputs, target = errors_of(table, ["one tw three three", "", "five six"])
    assert outputs.tolist() == [[2, 3, 5, 11], [1, 1, 4, 4], [0, 2, 0, 7]] and target.tolist() == [3, 1, 2]
    assert METRICS["wer"].value(outputs, target) == pytest.approx(3 / 6)
    assert METRICS["cer"].value(outputs, target) == pytest.approx(9 / 22)


def test_stripes_depend_on_epoch_and_recording() -> None:
    features = [torch.ones(100, BANDS) for _ in range(2)]
    examples = SpeechExamples(features=features, letters=None, rows=torch.arange(2))
    ids = torch.arange(2)
    first, again, later = (examples.batch(ids, epoch).named["features"] for epoch in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, later) and not torch.equal(first[0], first[1])
    assert (examples.batch(ids).named["features"] == 1).all() and (first == 0).float().mean() < 0.5


def recipe_for(**changes: Any) -> dict[str, Any]:
    recipe: dict[str, Any] = {
        "task": "speech-recognition",
        "data": {"source": "abc.csv", "split": {"by": "group", "column": "speaker", "valid": 0.15, "test": 0.2}},
        "model": {"backbone": {"deepspeech": {"channels": 4, "hidden": 48, "layers": 1}}},
        "train": {"epochs": 18, "batch_size": 8, "lr": 8e-3},
        "eval": {"resamples": 100},
    }
    return {**recipe, **changes}


@pytest.fixture(scope="module")
def trained(place: Path) -> Any:
    return run(recipe_for(), base=place, runs=place / "runs", screen=silent())


def test_it_learns_what_tones_say(trained: Any, place: Path) -> None:
    summary = trained.stages["pretrain"].summary
    evaluation = summary["evaluation"]
    found = {name: entry["value"] for name, entry in evaluation["metrics"].items()}
    assert found["wer"] < 0.6 and found["cer"] < 0.3 and evaluation["baselines"][0]["metrics"]["wer"]["value"] > 0.7
    assert summary["texts"]["letters"] == 4 and summary["training"]["best"]["metric"] == "wer"
    model = load_model(trained.stages["pretrain"].folder / "model")
    (answer,) = model.predict(str(place / "abc3.wav"))
    assert set(answer["text"]) <= set("abc ") and answer["text"]
    assert "word error rate" in trained.report.read_text()


def test_other_letters_get_a_new_head_and_the_frozen_part_stays(trained: Any, place: Path) -> None:
    weights = str(trained.stages["pretrain"].folder / "model")
    recipe = recipe_for(
        model={"weights": weights},
        train={"epochs": 2, "batch_size": 8, "lr": 3e-3},
        stages=[
            {
                "finetune": {
                    "data": {
                        "source": "abcd.csv",
                        "split": {"by": "group", "column": "speaker", "valid": 0.15, "test": 0.2},
                    },
                    "tune": {"freeze": ["conv1", "conv2"]},
                }
            }
        ],
    )
    done = run(recipe, base=place, runs=place / "runs", screen=silent()).stages["finetune"]
    before, after = load_model(weights).network.state_dict(), load_model(done.folder / "model").network.state_dict()
    for name, value in before.items():
        same = value.shape == after[name].shape and torch.equal(value, after[name])
        assert same == name.startswith("conv"), name
    encoder = load_model(done.folder / "model").preprocessor.inputs
    assert isinstance(encoder, SpeechEncoder) and encoder.letters == [" ", "a", "b", "c", "d"]


def test_what_cannot_be_heard_is_counted(place: Path) -> None:
    lines = (place / "abc.csv").read_text().splitlines()
    (place / "broken.wav").write_bytes(b"not a sound")
    (place / "some.csv").write_text("\n".join([*lines[:40], "nowhere.wav,a,s1", "broken.wav,a,s1", ",a,s1"]))
    manifest = prepare(
        Data(source="some.csv", format="speech", labelled=False), seed=0, target_kind=None, base=place
    ).manifest
    (left_out,) = manifest.left_out
    assert (manifest.used, left_out.count) == (39, 3) and "no such file" in left_out.examples[0]


@pytest.mark.parametrize(
    ("table", "problem"),
    [("file,text\na.wav,a\n", "no column `audio`"), ("audio,said\nabc1.wav,a\nabc2.wav,b\n", "columns audio and text")],
)
def test_what_is_no_table_of_recordings(place: Path, tmp_path: Path, table: str, problem: str) -> None:
    (place / "odd.csv").write_text(table)
    data = {"source": "odd.csv", "split": {"valid": 0, "test": 0}}
    with pytest.raises(DataError, match=problem):
        run(recipe_for(data=data), base=place, runs=tmp_path / "runs", screen=silent())
