"""Every file that is read back, damaged in turn: it is named in a message, or made anew, and never changes a result in silence.

A finished run, a killed one and their cache are made once for each kind of model. Then one file is harmed at a time, and what
reads it is carried out in a forked process.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from tiny import texts, tiny_bert
from tunewright import run_recipe as running
from tunewright.checksums import CHECKSUMS
from tunewright.commands.compare import compare_runs
from tunewright.commands.evaluate import evaluate_run
from tunewright.commands.export import export
from tunewright.commands.predict import print_predictions
from tunewright.console import silent
from tunewright.errors import ArtifactError, TunewrightError
from tunewright.files import refusal, sha256_file, write_record
from tunewright.models.hub.hf_network import build_transformer, describe_transformer
from tunewright.models.hub.purposes import CAUSAL_LM
from tunewright.models.language.new_encoder import Gpt
from tunewright.pipeline.results.predictions import read_predictions
from tunewright.pipeline.session.precision import set_precision
from tunewright.recipe.loading import recipe_from_dict
from tunewright.report.page import write_report
from tunewright.runs.folder import read_json
from tunewright.tasks.registry import task_defaults

COMMON = {"hardware": {"threads": 1, "precision": "float32"}, "eval": {"resamples": 100}}


def pictures(place: Path) -> dict[str, Any]:
    layers = [{"conv2d": 4}, "batch_norm", "relu", "max_pool", "flatten", {"dense": 10}]
    (place / "given.jsonl").write_text(json.dumps({"image": [[[16 * (x + y)] for x in range(8)] for y in range(8)]}))
    return {
        "task": "image-classification",
        "data": {"source": "digits", "limit": 300, "split": {"valid": 0.1, "test": 0.1}},
        "model": {"layers": layers},
        "stages": ["pretrain", {"finetune": {"tune": {"freeze": "backbone"}}}],
    }


def rows(place: Path) -> dict[str, Any]:
    lines = ["size,colour,price"] + [f"{n},{'red' if n % 3 else 'blue'},{n * 1.5 + n % 3}" for n in range(120)]
    (place / "rows.csv").write_text("\n".join(lines))
    return {"task": "tabular-regression", "data": {"source": "rows.csv", "target": "price"}}


def frozen_texts(place: Path) -> dict[str, Any]:
    texts(place / "texts.jsonl", 600)
    tiny_bert(place / "bert", hidden_size=128, intermediate_size=512)
    return {
        "task": "text-classification",
        "data": {"source": "texts.jsonl"},
        "model": {"backbone": "bert"},
        "tune": {"freeze": "backbone"},
        "train": {"epochs": 4, "batch_size": 64},
    }


def adapter(place: Path) -> dict[str, Any]:
    texts(place / "texts.jsonl")
    tiny_bert(place / "bert")
    return {
        "task": "text-classification",
        "data": {"source": "texts.jsonl"},
        "model": {"backbone": "bert"},
        "tune": {"adapter": "lora"},
    }


def writer(place: Path) -> dict[str, Any]:
    draw = np.random.default_rng(0)
    words = ["red", "old", "cat", "sees", "a"]
    (place / "texts.txt").write_text("\n\n".join(" ".join(draw.choice(words, draw.integers(9, 30))) for _ in range(60)))
    model = {
        "backbone": {"gpt": {"layers": 1, "width": 32, "heads": 2}},
        "tokenizer": {"bpe": {"vocabulary": 270}},
        "max_length": 64,
    }
    return {"task": "language-modeling", "data": {"source": "texts.txt"}, "model": model}


def liked(place: Path) -> dict[str, Any]:
    draw = np.random.default_rng(0)
    lines = ["user,item,time"] + [f"u{user},i{draw.integers(15)},{n}" for user in range(40) for n in range(8)]
    (place / "liked.csv").write_text("\n".join(lines))
    data = {"source": "liked.csv", "split": {"by": "within", "column": "user"}}
    return {"task": "item-recommendation", "data": data, "model": {"backbone": {"factors": {"width": 8}}}}


# Each kind: what makes its recipe, and what is predicted.
KINDS: dict[str, tuple[Callable[[Path], dict[str, Any]], str]] = {
    "pictures": (pictures, "digits"),
    "rows": (rows, "rows.csv"),
    "frozen": (frozen_texts, "texts.jsonl"),
    "adapter": (adapter, "a good film"),
    "writer": (writer, "the red"),
    "liked": (liked, "liked.csv"),
}


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


HARMS: dict[str, Callable[[Path], None]] = {"flip": flip, "cut": cut, "delete": Path.unlink}


@dataclass(frozen=True)
class Outcome:
    """How a forked process ended."""

    code: int
    said: str

    def names(self, path: Path) -> bool:
        """Whether a file is named, or the checkpoint that it belongs to."""
        checkpoint = path.parent.name.startswith(("step-", "best-")) and path.parent.name in self.said
        return path.name in self.said or checkpoint


def carried_out(place: Path, action: Callable[[], object]) -> Outcome:
    """Carry out an action as the command line does, in a process of its own."""
    said = place.with_name("said.txt")
    child = os.fork()
    if child:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return Outcome(code, said.read_text(errors="replace"))
    code = 99
    try:
        handle = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        logging.getLogger().handlers.clear()
        os.chdir(place)
        os.environ["TUNEWRIGHT_CACHE"] = str(place / "cache")
        try:
            action()
            code = 0
        except TunewrightError as error:
            print(error.message)
            code = error.exit_code
        except OSError as error:
            print(refusal(error).message)
            code = refusal(error).exit_code
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def killed_before(name: str, number: int) -> None:
    """Kill this process before the so-many-th call of a function of the run."""
    real, calls = getattr(running, name), iter(range(1, sys.maxsize))

    def deadly(*arguments: Any, **keywords: Any) -> Any:
        if next(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **keywords)

    setattr(running, name, deadly)


@dataclass(frozen=True)
class Workplace:
    """Where everything lies, and what undamaged files give."""

    kind: str
    place: Path
    stage: str
    predicted: str
    outputs: np.ndarray
    report: str
    weights: dict[str, str]

    @property
    def given(self) -> str:
        return KINDS[self.kind][1]

    def restore(self) -> None:
        shutil.rmtree(self.place)
        shutil.copytree(self.place.with_name("pristine"), self.place)

    def files(self, folder: str) -> list[Path]:
        apart = {"log.txt", ".lock", "report.html", "README.md", "said.txt"}
        found = (path for path in (self.place / folder).rglob("*") if path.is_file() and path.name not in apart)
        return sorted(path for path in found if path.stat().st_size > 1)


def weights_of(run_folder: Path) -> dict[str, str]:
    return {
        path.relative_to(run_folder).as_posix(): sha256_file(path) for path in run_folder.glob("*/model/*.safetensors")
    }


def make(kind: str, root: Path) -> Workplace:
    torch.set_num_threads(1)
    place = root / "work"
    place.mkdir()
    recipe = {"train": {"epochs": 2, "batch_size": 32}, **COMMON, **KINDS[kind][0](place)}
    (place / "recipe.yaml").write_text(yaml.safe_dump({"name": "one", **recipe}))
    assert carried_out(place, lambda: running.run("recipe.yaml", runs="runs")).code == 0
    stage = sorted(path.parent.name for path in (place / "runs" / "one").glob("*/model"))[-1]
    stage = "finetune" if (place / "runs" / "one" / "finetune").exists() else stage
    following = {key: value for key, value in recipe.items() if key != "stages"}
    model = {key: value for key, value in following.get("model", {}).items() if key != "backbone"}
    following["model"] = {**model, "weights": f"runs/one/{stage}/model"}
    following["train"] = {"epochs": 1, "batch_size": 64}
    if "adapter" in following.get("tune", {}):  # a model with an adapter gets no second one
        following["tune"] = {"freeze": "backbone"}
    (place / "next.yaml").write_text(yaml.safe_dump({"name": "next", **following}))

    def killed() -> None:
        killed_before("judge_targets", 1)
        running.run("recipe.yaml", runs="killed")

    assert carried_out(place, killed).code == -signal.SIGKILL
    assert not json.loads((place / "killed" / "one" / "run.json").read_bytes())["complete"]
    folder = place / "runs" / "one"
    predicted = carried_out(place, lambda: print_predictions(folder / stage / "model", KINDS[kind][1]))
    assert predicted.code == 0, predicted.said
    assert carried_out(place, lambda: write_report(folder)).code == 0
    report = (folder / "report.html").read_text()
    shutil.copytree(folder, place / "pristine-run")
    shutil.copytree(place, root / "pristine")
    outputs = read_predictions(folder / stage).outputs
    return Workplace(kind, place, stage, predicted.said, outputs, report, weights_of(folder))


@pytest.fixture(scope="module")
def workplaces(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Workplace]]:
    made: dict[str, Workplace] = {}

    def get(kind: str) -> Workplace:
        if kind not in made:
            made[kind] = make(kind, tmp_path_factory.mktemp(kind))
        return made[kind]

    yield get


def judge(found: Outcome, harmed: Path, same: Callable[[], bool]) -> None:
    """Refused with a message that names the file, or the same as without damage."""
    assert found.code != 99 and "Traceback" not in found.said, found.said
    if found.code == 0:
        assert same() or found.names(harmed), f"{harmed} changed the result in silence\n{found.said}"
    else:
        assert found.code in (1, 2) and found.names(harmed), f"{harmed} is not named\n{found.said}"


def resumed(work: Workplace, harmed: Path) -> None:
    """The killed run goes on, and ends with the same weights."""
    found = carried_out(work.place, lambda: print("ENDED", running.run("recipe.yaml", runs="killed").folder))
    assert found.code in (0, 2) and "Traceback" not in found.said, found.said
    if found.code == 2:
        assert found.names(harmed), found.said
        return
    folder = work.place / found.said.split("ENDED ")[-1].strip()
    assert weights_of(folder) == work.weights, f"{harmed} gave other weights\n{found.said}"


def read_by_all(work: Workplace, harmed: Path) -> None:
    """All that reads a finished run."""
    folder = work.place / "runs" / "one"
    model = folder / work.stage / "model"
    if harmed.is_relative_to(model):
        read_model(work, model, harmed)
        return
    # Two reports differ in nothing, whenever they are written.
    found = carried_out(work.place, lambda: write_report(folder))
    judge(found, harmed, lambda: (folder / "report.html").read_text() == work.report)
    found = carried_out(work.place, lambda: compare_runs(folder, work.place / "pristine-run"))
    judge(found, harmed, lambda: True)
    found = carried_out(work.place, lambda: evaluate_run(folder, []))
    judge(found, harmed, lambda: np.array_equal(read_predictions(folder / work.stage).outputs, work.outputs))


def read_model(work: Workplace, model: Path, harmed: Path) -> None:
    """All that reads a saved model. Where its checksums are missing, it is read as a stranger's: with no check."""
    unchecked = harmed.name == CHECKSUMS and not harmed.exists()
    actions = [
        lambda: print_predictions(model, work.given),
        lambda: export(model, "torch", work.place / "out", console=silent()),
        lambda: running.run("next.yaml", runs="runs"),
        lambda: evaluate_run(work.place / "runs" / "one", []),
    ]
    for action in actions:
        found = carried_out(work.place, action)
        assert found.code == (0 if unchecked else 2), f"{harmed}: {found.said}"
        assert unchecked or found.names(harmed), f"{harmed}: {found.said}"


def prepared_anew(work: Workplace, harmed: Path) -> None:
    """The recipe once more, with a harmed cache."""
    found = carried_out(work.place, lambda: running.run("recipe.yaml", runs="again"))
    assert found.code == 0, found.said
    assert weights_of(work.place / "again" / "one") == work.weights, harmed


READERS: dict[str, Callable[[Workplace, Path], None]] = {
    "killed": resumed,
    "runs": read_by_all,
    "cache": prepared_anew,
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("folder", READERS)
def test_every_file(workplaces: Callable[[str], Workplace], kind: str, harm: str, folder: str) -> None:
    work = workplaces(kind)
    work.restore()
    paths = work.files(folder)
    assert len(paths) > 2
    for path in paths:
        work.restore()
        HARMS[harm](path)
        READERS[folder](work, path)


def test_a_flipped_frozen_set_is_computed_anew(workplaces: Callable[[str], Workplace]) -> None:
    work = workplaces("frozen")
    work.restore()
    path = next((work.place / "cache" / "frozen").rglob("*.bin"))
    flip(path)
    found = carried_out(work.place, lambda: running.run("recipe.yaml", runs="again"))
    assert found.code == 0 and "computed again" in found.said and path.name in found.said
    assert weights_of(work.place / "again" / "one") == work.weights


@pytest.mark.parametrize("name", ["train.parquet", "manifest.json"])
@pytest.mark.parametrize("harm", HARMS)
def test_damaged_prepared_data_is_prepared_anew(workplaces: Callable[[str], Workplace], harm: str, name: str) -> None:
    work = workplaces("rows")
    work.restore()
    (path,) = (work.place / "cache" / "prepared").rglob(name)
    HARMS[harm](path)
    found = carried_out(work.place, lambda: running.run("recipe.yaml", runs="again"))
    assert found.code == 0 and "prepared again" in found.said and name in found.said
    assert found.said.count("prepared again") == 1
    assert weights_of(work.place / "again" / "one") == work.weights


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_model_is_refused_by_all_that_reads_it(workplaces: Callable[[str], Workplace], harm: str) -> None:
    work = workplaces("rows")
    model = work.place / "runs" / "one" / work.stage / "model"
    for name in ("model.safetensors", "config.json"):
        work.restore()
        HARMS[harm](model / name)
        found = carried_out(work.place, lambda: print_predictions(model, work.given))
        assert found.code == 2 and name in found.said and "checksums.json" in found.said
        found = carried_out(work.place, lambda: running.run("next.yaml", runs="runs"))
        assert found.code == 2 and name in found.said


def test_a_tokenizer_is_blamed_and_not_the_backbone(workplaces: Callable[[str], Workplace]) -> None:
    work = workplaces("frozen")
    work.restore()
    model = work.place / "runs" / "one" / work.stage / "model"
    (model / "checksums.json").unlink()
    cut(model / "tokenizer.json")
    for action in (
        lambda: print_predictions(model, work.given),
        lambda: running.run("next.yaml", runs="runs"),
    ):
        found = carried_out(work.place, action)
        assert found.code == 2 and f"{work.stage}/model/tokenizer.json" in found.said, found.said
        assert "backbone" not in found.said


def test_the_model_card_may_be_edited(workplaces: Callable[[str], Workplace]) -> None:
    work = workplaces("rows")
    work.restore()
    model = work.place / "runs" / "one" / work.stage / "model"
    (model / "README.md").write_text("my own words")
    found = carried_out(work.place, lambda: print_predictions(model, work.given))
    assert found == Outcome(0, work.predicted)


@pytest.mark.parametrize("harm", HARMS)
def test_the_record_of_an_earlier_run_stops_no_new_one(workplaces: Callable[[str], Workplace], harm: str) -> None:
    work = workplaces("rows")
    work.restore()
    HARMS[harm](work.place / "runs" / "one" / "run.json")
    found = carried_out(work.place, lambda: running.run("recipe.yaml", runs="runs"))
    assert found.code == 0 and weights_of(work.place / "runs" / "one-2") == work.weights, found.said
    assert "run.json" in found.said and "skipped" in found.said


@pytest.mark.parametrize("name", ["summary.json", "model/model.safetensors", "../environment.json", "metrics.jsonl"])
def test_a_killed_run_mends_its_own_files(workplaces: Callable[[str], Workplace], name: str) -> None:
    work = workplaces("rows")
    for harm in HARMS.values():
        work.restore()
        path = work.place / "killed" / "one" / work.stage / name
        harm(path)
        resumed(work, path)


def test_a_changed_recipe_of_a_run_is_not_evaluated(workplaces: Callable[[str], Workplace]) -> None:
    work = workplaces("rows")
    work.restore()
    path = work.place / "runs" / "one" / "recipe.resolved.yaml"
    path.write_text(path.read_text().replace("seed: 0", "seed: 1"))
    found = carried_out(work.place, lambda: evaluate_run(work.place / "runs" / "one", []))
    assert found.code == 2 and path.name in found.said


def test_a_path_that_cannot_be_written_is_a_sentence(workplaces: Callable[[str], Workplace]) -> None:
    work = workplaces("rows")
    for name, said in (("cache", "TUNEWRIGHT_CACHE"), ("elsewhere", "name another folder")):
        work.restore()
        shutil.rmtree(work.place / name, ignore_errors=True)
        (work.place / name).write_text("a file where a folder should be")
        found = carried_out(work.place, lambda: running.run("recipe.yaml", runs="elsewhere"))
        assert found.code == 2 and said in found.said, found.said


def test_a_damaged_file_of_trials_is_named(tmp_path: Path) -> None:
    optuna = pytest.importorskip("optuna")
    from tunewright.tuning.trials import SearchSettings, open_study

    search: Any = SimpleNamespace(folder=tmp_path, greater=True, seed=0, epochs=1, space=[])
    settings = SearchSettings(trials=30, sampler="random", prune=False)
    study = open_study(search, settings)
    for value in range(30):
        study.add_trial(optuna.trial.create_trial(value=float(value)))
    whole = (tmp_path / "study.db").read_bytes()
    for content in (whole[: len(whole) // 2], b"x" * 4096, whole[:3000] + b"\xff" * 3000 + whole[6000:]):
        (tmp_path / "study.db").write_bytes(content)
        with pytest.raises(ArtifactError, match=r"study\.db") as caught:
            open_study(search, settings)
        assert caught.value.exit_code == 2
    (tmp_path / "study.db").write_bytes(whole)
    assert len(open_study(search, settings).trials) == 30


def test_a_record_knows_its_own_content(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    write_record(path, {"a": 1, "b": [0.1, None], "half": "\ud83d", "inner": {2: "ü"}})
    value = read_json(path, "a record")
    assert value == {"a": 1, "b": [0.1, None], "half": "?", "inner": {"2": "ü"}}
    path.write_text(path.read_text().replace('"a": 1', '"a": 2'))
    with pytest.raises(ArtifactError, match="was changed"):
        read_json(path, "a record")
    path.write_text('{"a": 2}')  # without a hash nothing is checked
    assert read_json(path, "a record") == {"a": 2}


def test_a_precision_that_is_lost_is_not_measured_again(tmp_path: Path) -> None:
    network = build_transformer(
        describe_transformer(
            CAUSAL_LM,
            {
                **Gpt(layers=1, width=32, heads=2).config(),
                "vocab_size": 50,
                "bos_token_id": 0,
                "eos_token_id": 0,
                "pad_token_id": 2,
            },
            head=None,
            classes=None,
        ),
        seed=0,
    )
    (tmp_path / "checkpoints" / "step-00000001").mkdir(parents=True)
    recipe = recipe_from_dict({"task": "language-modeling", "data": {"source": "x.txt"}}, [], defaults=task_defaults)
    with pytest.raises(ArtifactError, match=r"precision\.json"):
        set_precision(network, recipe, None, tmp_path, silent())  # pyright: ignore[reportArgumentType]


def test_tokens_beyond_the_vocabulary_are_refused(workplaces: Callable[[str], Workplace]) -> None:
    work = workplaces("frozen")
    work.restore()
    model = work.place / "runs" / "one" / work.stage / "model"
    (model / "checksums.json").unlink()
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["beyond"] = 4711
    (model / "tokenizer.json").write_text(json.dumps(tokenizer))
    found = carried_out(work.place, lambda: print_predictions(model, "a beyond film"))
    assert found.code == 2 and "4,711" in found.said, found.said
