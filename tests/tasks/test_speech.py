"""Speech: sound read and resampled, features against the library's, CTC by brute force, a network that learns tones."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import scipy.signal
import soundfile
import torch
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

from tones import speak
from tunewright import load_model
from tunewright.commands.predict import print_predictions
from tunewright.console import silent
from tunewright.data.audio.augmentation import build_sound_changes
from tunewright.data.audio.decode import RATE, read_audio
from tunewright.data.audio.log_mel import (
    BANDS,
    COEFFICIENTS,
    HOP,
    LOWEST,
    POINTS,
    WINDOW,
    _energies,
    log_mel,
    mel_bands,
    mfcc,
)
from tunewright.data.audio.whisper_mel import whisper_mel
from tunewright.data.batches.batch import Batch
from tunewright.data.batches.sampler import Batches
from tunewright.data.checks.table import check
from tunewright.data.prepare.prepare import prepare
from tunewright.errors import DataError, RecipeError
from tunewright.evaluation.metrics import METRICS
from tunewright.models.speech.base import Recogniser, SpeechSpec
from tunewright.models.speech.registry import build_speech, describe_speech
from tunewright.models.speech.whisper import Whisper
from tunewright.recipe.schema import Data, Split
from tunewright.run_recipe import run
from tunewright.runs.metrics_log import read_metrics
from tunewright.tasks.speech.encoder import SpeechEncoder, SpeechExamples
from tunewright.tasks.speech.evaluation import errors_of
from tunewright.training.objectives.ctc import NO_LETTER, CTCLoss
from tunewright.training.objectives.seq2seq import beginnings


def sound_of(path: Path) -> np.ndarray:
    return soundfile.read(path)[0]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tones")
    draw = np.random.default_rng(0)
    for table, letters in (("abc", "abc"), ("abcd", "abcd")):
        lines = ["audio,text,speaker"]
        for number in range(160):
            text = " ".join("".join(draw.choice(list(letters), draw.integers(1, 4))) for _ in range(2))
            name = f"{table}{number}.wav"
            soundfile.write(folder / name, speak(text, number), RATE)
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


def small(outputs: int = 4, **options: Any) -> Recogniser:
    facts = {"channels": 4, "hidden": 24, "layers": 2, **options}
    return build_speech(
        SpeechSpec({**describe_speech({"deepspeech": facts}), "width": BANDS, "outputs": outputs}), seed=0
    )


# WavLM's attention gives torch masks of two types.
@pytest.mark.filterwarnings("ignore:Support for mismatched")
@pytest.mark.parametrize(
    ("named", "shape"),
    [
        ({"conformer": {"hidden": 32, "layers": 2}}, (57, BANDS)),
        ({"conformer": {"hidden": 32, "layers": 2, "moment": 4, "features": "mfcc"}}, (57, COEFFICIENTS)),
        ({"wav2vec2": {"layers": 1, "width": 32, "heads": 2, "conv": 16}}, (9000,)),
        ({"hubert": {"layers": 1, "width": 32, "heads": 2, "conv": 16}}, (9000,)),
        ({"wavlm": {"layers": 1, "width": 32, "heads": 2, "conv": 16}}, (9000,)),
    ],
)
def test_every_network_hears_a_recording_alike_in_any_batch(named: Any, shape: tuple[int, ...]) -> None:
    facts = describe_speech(named)
    network = build_speech(
        SpeechSpec({**facts, "width": shape[1] if len(shape) > 1 else 1, "outputs": 5}), seed=0
    ).eval()
    torch.manual_seed(0)
    short, long = torch.randn(shape), torch.randn(2 * shape[0] + 10, *shape[1:])
    lengths = torch.tensor([len(short), len(long)])
    both = torch.nn.utils.rnn.pad_sequence([short, long], batch_first=True)
    with torch.no_grad():
        together = network({"features": both, "lengths": lengths})
        alone = network({"features": short[None], "lengths": lengths[:1]})
        network(network.example())
    moments = network.moments(lengths)
    assert together.shape[1] == moments[1] and alone.shape[1] == moments[0] <= -(-len(short) // facts["moment"])
    torch.testing.assert_close(together[0, : moments[0]], alone[0], atol=1e-4, rtol=1e-4)
    inside = [name for block in network.blocks() for name in block.parameters()]
    assert sorted(inside) == sorted(name for name, _ in network.named_parameters())


def test_whisper_hears_as_the_library_does() -> None:
    from transformers import WhisperFeatureExtractor

    samples = np.random.default_rng(0).normal(0, 0.1, 40_077).astype(np.float32)
    wanted = WhisperFeatureExtractor()(samples, sampling_rate=RATE, return_tensors="np").input_features[0].T
    found = whisper_mel(torch.from_numpy(samples)).numpy()
    assert np.abs(wanted[: len(found)] - found).max() < 1e-5
    # Behind it there is what the network puts there itself: silence.
    assert np.abs(wanted[len(found) :] - (found.max() - 2)).max() < 1e-5


def test_what_is_dictated_reads_the_right_tokens() -> None:
    read, wanted = beginnings(torch.tensor([[5, 6, 7], [5, NO_LETTER, NO_LETTER]]), [1, 2], 0)
    assert read.tolist() == [[1, 2, 5, 6, 7], [1, 2, 5, 0, 0]]
    n = NO_LETTER
    assert wanted.tolist() == [[n, 5, 6, 7, 0], [n, 5, 0, n, n]]


def small_whisper(**marks: Any) -> Whisper:
    facts = {
        **describe_speech({"whisper": {"layers": 1, "width": 16, "heads": 2, "seconds": 2}}),
        "width": 80,
        "outputs": 6,
    }
    facts["config"] = {
        **facts["config"],
        "vocab_size": 6,
        "pad_token_id": 0,
        "eos_token_id": 0,
        "bos_token_id": 5,
        "dropout": 0.0,
    }
    facts["config"]["decoder_start_token_id"] = 5
    network = build_speech(SpeechSpec({**facts, "start": [5], "end": 0, "words": 5, **marks}), seed=3).eval()
    assert isinstance(network, Whisper)
    return network


def test_whisper_writes_what_is_likeliest_each_time() -> None:
    network = small_whisper()
    torch.manual_seed(0)
    inputs = {"features": torch.randn(3, 90, 80), "lengths": torch.tensor([90, 40, 70])}
    with torch.no_grad():
        network.body.decoder.embed_tokens.weight.normal_()[0] = 0
        written = network.dictate(inputs, 12)
        for row, tokens in enumerate(written):
            length = int(inputs["lengths"][row])
            alone = {
                "features": inputs["features"][row : row + 1, :length],
                "lengths": inputs["lengths"][row : row + 1],
            }
            read = [5]
            while len(read) <= 12:
                logits = network({**alone, "tokens": torch.tensor([read])})[0, -1]
                best = int(logits[:5].argmax())
                if best == 0:
                    break
                read.append(best)
            assert read[1:] == tokens
    inside = [name for block in network.blocks() for name in block.parameters()]
    assert sorted(inside) == sorted(name for name, _ in network.named_parameters())
    assert sum(map(len, written)) > 0


def test_whisper_learns_letters(place: Path, tmp_path: Path) -> None:
    recipe = recipe_for(
        model={"backbone": {"whisper": {"layers": 1, "width": 32, "heads": 2, "seconds": 2}}},
        train={"epochs": 3, "batch_size": 16, "lr": 3e-3},
    )
    done = run(recipe, base=place, runs=tmp_path / "runs", console=silent()).stages["pretrain"]
    losses = [
        entry["valid"]["loss"] for entry in read_metrics(done.folder / "metrics.jsonl") if entry["kind"] == "epoch"
    ]
    assert losses[-1] < losses[0] and done.summary["training"]["objective"] == "dictation"
    (answer,) = load_model(done.folder / "model").predict(str(place / "abc3.wav"))
    assert set(answer["text"]) <= set("abc ") and answer["words"] == []
    recipe["model"]["decoding"] = {"beam": {}}
    with pytest.raises(RecipeError, match="no search to configure"):
        run(recipe, base=place, runs=tmp_path / "runs", console=silent())


def test_a_whisper_s_folder_keeps_its_tokenizer(place: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, WhisperConfig, WhisperForConditionalGeneration

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: number for number, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    marks = ["<|startoftranscript|>", "<|notimestamps|>"]
    whole = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|endoftext|>", additional_special_tokens=marks
    )
    folder = tmp_path / "whisper"
    whole.save_pretrained(folder)
    sizes = {
        "encoder_layers": 1,
        "decoder_layers": 1,
        "d_model": 16,
        "max_source_positions": 100,
        "max_target_positions": 60,
    }
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    ends = {"pad_token_id": 256, "bos_token_id": 256, "eos_token_id": 256, "decoder_start_token_id": 257}
    library = WhisperForConditionalGeneration(WhisperConfig(vocab_size=259, **sizes, **heads, **ends))
    library.save_pretrained(folder)
    recipe = recipe_for(
        model={"backbone": str(folder)}, tune={"freeze": "backbone"}, train={"epochs": 1, "batch_size": 16}
    )
    recipe["data"]["limit"] = 60
    done = run(recipe, base=place, runs=tmp_path / "runs", console=silent()).stages["pretrain"]
    network = load_model(done.folder / "model").network
    assert isinstance(network, Whisper)
    state = network.state_dict()
    for name, value in library.model.state_dict().items():
        assert torch.equal(state[f"body.{name}"], value) == name.startswith("encoder"), name
    assert (network.facts["start"], network.facts["end"], network.facts["words"]) == ([257, 258], 256, 256)
    load_model(done.folder / "model").predict(str(place / "abc3.wav"))


def test_a_library_s_folder_gives_its_weights(place: Path, tmp_path: Path) -> None:
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    sizes = describe_speech({"wav2vec2": {"layers": 2, "width": 32, "heads": 2, "conv": 16}})["config"]
    library = Wav2Vec2Model(Wav2Vec2Config(**{name: value for name, value in sizes.items() if name != "model_type"}))
    library.save_pretrained(tmp_path / "heard")
    recipe = recipe_for(
        model={"backbone": str(tmp_path / "heard")},
        tune={"freeze": "backbone"},
        train={"epochs": 1, "batch_size": 16},
    )
    recipe["data"]["limit"] = 60
    done = run(recipe, base=place, runs=tmp_path / "runs", console=silent()).stages["pretrain"]
    state = load_model(done.folder / "model").network.state_dict()
    for name, value in library.state_dict().items():
        if name != "masked_spec_embed":
            assert torch.equal(state[f"body.{name}"], value), name
    recipe["model"] = {"backbone": "minilm"}
    with pytest.raises(RecipeError, match="not a speech model"):
        run(recipe, base=place, runs=tmp_path / "runs", console=silent())


def test_cepstral_coefficients_are_a_cosine_transform() -> None:
    from scipy.fft import dct

    samples = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, 8000))
    wanted = dct(_energies(samples).numpy(), type=2, norm="ortho", axis=1)[:, :COEFFICIENTS]
    normed = (wanted - wanted.mean(0)) / (wanted.std(0) + 1e-5)
    assert np.abs(mfcc(samples).numpy() - normed).max() < 1e-3


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"model": {"decoding": "greedy"}}, "has no decoder"),
        ({"train": {"batch_seconds": 3}}, "only recordings"),
    ],
)
def test_what_is_for_speech_alone(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    (tmp_path / "rows.csv").write_text("a,b\n" + "\n".join(f"{row % 7},{'xy'[row % 2]}" for row in range(60)) + "\n")
    recipe = {"task": "tabular-classification", "data": {"source": "rows.csv", "target": "b"}, **changes}
    with pytest.raises(RecipeError, match=problem):
        run(recipe, base=tmp_path, runs=tmp_path / "runs", console=silent())


def test_batches_by_seconds() -> None:
    draw = np.random.default_rng(0)
    sounds = [torch.zeros(int(RATE * seconds), dtype=torch.int16) for seconds in [*draw.uniform(0.5, 6, 200), 30.0]]
    examples = SpeechExamples(sounds=sounds, reads="log_mel", letters=None, rows=torch.arange(201))
    batches = Batches(examples=examples, batch_size=1, seed=0, most=1200)
    orders: list[list[list[int]]] = []
    for epoch in range(2):
        ids = [entry.tolist() for entry in batches._batches(epoch)]
        assert len(ids) == batches.steps_per_epoch and sorted(index for entry in ids for index in entry) == list(
            range(201)
        )
        padded = [len(entry) * int(examples.lengths[entry].max()) for entry in ids]
        assert all(size <= 1200 or len(entry) == 1 for size, entry in zip(padded, ids, strict=True))
        assert sum(padded) < 1.15 * int(examples.lengths.sum())
        orders.append(ids)
    assert orders[0] != orders[1]


def test_what_is_wrong_with_recordings_is_found(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    lines = ["audio,text,speaker"]
    for number in range(30):
        samples, text, voice = draw.normal(0, 0.1, 2 * RATE), "ten letters", f"v{number % 15}"
        if number == 3:
            samples = samples * 100
        if number == 5:
            samples = samples * 1e-5
        if number == 7:
            text = "word " * 40
        if number == 9:
            text = "a"
        if number == 11:
            samples = scipy.signal.resample_poly(draw.normal(0, 0.1, RATE), 2, 1)
        if number == 13:
            text = ""
        soundfile.write(tmp_path / f"{number}.wav", np.clip(samples, -1, 1), RATE)
        lines.append(f"{number}.wav,{text},{voice}")
    (tmp_path / "all.csv").write_text("\n".join(lines) + "\n")
    data = Data(source="all.csv", format="speech", labelled=False, split=Split(by="random", valid=0.2, test=0.2))
    prepared = prepare(data, seed=0, target_kind=None, base=tmp_path)
    found = {finding.code: finding for finding in check(prepared)}
    assert {
        code: found[code].examples[0].split()[1] for code in found if "recordings" in code or "letters" in code
    } == {
        "clipped-recordings": "4",
        "silent-recordings": "6",
        "narrow-recordings": "12",
        "recordings-without-words": "14",
        "too-many-letters": "8",
        "too-few-letters": "10",
    }
    assert found["shared-speakers"].count > 1
    by_voice = prepare(
        data.model_copy(update={"split": Split(valid=0.2, test=0.2)}), seed=0, target_kind=None, base=tmp_path
    )
    assert "shared-speakers" not in {finding.code for finding in check(by_voice)}


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
        if [letter for letter, _ in itertools.groupby(way) if letter] == letters
    )
    batch = Batch({"features": features, "lengths": lengths}, torch.tensor([[*letters, NO_LETTER]]), torch.tensor([0]))
    objective = CTCLoss()
    assert objective.weight(batch) == 2
    assert objective.loss_sum(network, batch, 0).item() == pytest.approx(-math.log(ways), rel=1e-4)


def test_what_is_too_short_for_its_letters() -> None:
    encoder = SpeechEncoder(letters=["a", "b"])
    letters = torch.tensor([1, 1, 2])
    assert encoder.fits(letters, 0.08) and not encoder.fits(letters, 0.06)


def test_errors_by_hand() -> None:
    table = pa.table({"text": ["One two  three", "four", "five six"]})
    outputs, target = errors_of(table, ["one tw three three", "", "five six"])
    assert outputs.tolist() == [[2, 3, 5, 11], [1, 1, 4, 4], [0, 2, 0, 7]] and target.tolist() == [3, 1, 2]
    assert METRICS["wer"].value(outputs, target) == pytest.approx(3 / 6)
    assert METRICS["cer"].value(outputs, target) == pytest.approx(9 / 22)


@pytest.mark.parametrize(
    "steps", [["stripes"], [{"noise": 10}], [{"speed": 0.1}], ["gain", "noise", "speed", "stripes"]]
)
def test_changes_depend_on_epoch_and_recording(steps: list[Any]) -> None:
    sounds = [torch.from_numpy((3000 * np.random.default_rng(0).normal(size=16_000)).astype(np.int16))] * 2
    examples = SpeechExamples(
        sounds=sounds,
        reads="log_mel",
        letters=None,
        rows=torch.arange(2),
        augmentation=build_sound_changes(steps, seed=0),
    )
    ids = torch.arange(2)
    first, again, later = (examples.batch(ids, epoch).named["features"] for epoch in (0, 0, 1))
    assert torch.equal(first, again)
    assert first.shape != later.shape or not torch.equal(first, later)
    assert not torch.equal(first[0], first[1])
    plain = examples.batch(ids).named["features"]
    assert torch.equal(plain[0], plain[1]) and torch.equal(plain[0], log_mel(sounds[0].float() / 32768))
    if steps == ["stripes"]:
        assert 0 < (first == 0).float().mean() < 0.5


def recipe_for(**changes: Any) -> dict[str, Any]:
    recipe: dict[str, Any] = {
        "task": "speech-recognition",
        "data": {"source": "abc.csv", "split": {"valid": 0.15, "test": 0.2}},
        "model": {
            "backbone": {"deepspeech": {"channels": 4, "hidden": 48, "layers": 1}},
            "decoding": {"beam": {"width": 4}},
        },
        "train": {"epochs": 9, "batch_seconds": 12, "lr": 8e-3, "augment": [{"stripes": {"bands": 1, "width": 0.1}}]},
        "eval": {"resamples": 100},
    }
    return {**recipe, **changes}


@pytest.fixture(scope="module")
def trained(place: Path) -> Any:
    return run(recipe_for(), base=place, runs=place / "runs", console=silent())


def test_it_learns_what_tones_say(trained: Any, place: Path) -> None:
    summary = trained.stages["pretrain"].summary
    evaluation = summary["evaluation"]
    found = {name: entry["value"] for name, entry in evaluation["metrics"].items()}
    assert found["wer"] < 0.6 and found["cer"] < 0.3 and evaluation["baselines"][0]["metrics"]["wer"]["value"] > 0.7
    assert summary["texts"]["letters"] == 4 and summary["training"]["best"]["metric"] == "wer"
    model = load_model(trained.stages["pretrain"].folder / "model")
    (answer,) = model.predict(str(place / "abc3.wav"))
    assert set(answer["text"]) <= set("abc ") and answer["text"]
    assert answer["text"].split() == [entry["word"] for entry in answer["words"]]
    times = [time for entry in answer["words"] for time in (entry["start"], entry["end"])]
    assert times == sorted(times) and times[-1] <= len(sound_of(place / "abc3.wav")) / RATE + 0.01
    heard = evaluation["speech"]
    assert 0 < heard["real_time_factor"] < 10 and heard["confusions"] and heard["searched"]
    page = trained.report.read_text()
    assert "word error rate" in page and "data:audio/ogg;base64," in page and "real-time factor" in page
    # Nobody said so, and no voice is on both sides.
    assert "by 'speaker'" in summary["data"]["split_rule"]


def test_subtitles_of_a_recording(trained: Any, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = trained.stages["pretrain"].folder / "model"
    print_predictions(folder, str(place / "abc3.wav"), "srt")
    assert capsys.readouterr().out.startswith("1\n00:00:0")
    with pytest.raises(DataError, match="subtitles belong to one recording"):
        print_predictions(folder, str(place / "abc.csv"), "vtt")


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
    done = run(recipe, base=place, runs=place / "runs", console=silent()).stages["finetune"]
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
    (left_out,) = manifest.skipped
    assert (manifest.used, left_out.count) == (39, 3) and "no such file" in left_out.examples[0]


@pytest.mark.parametrize(
    ("table", "problem"),
    [("file,text\na.wav,a\n", "no column `audio`"), ("audio,said\nabc1.wav,a\nabc2.wav,b\n", "columns audio and text")],
)
def test_what_is_no_table_of_recordings(place: Path, tmp_path: Path, table: str, problem: str) -> None:
    (place / "odd.csv").write_text(table)
    data = {"source": "odd.csv", "split": {"valid": 0, "test": 0}}
    with pytest.raises(DataError, match=problem):
        run(recipe_for(data=data), base=place, runs=tmp_path / "runs", console=silent())
