"""kill -9 at any moment of any kind of stage, also after its last step: the same command ends with the same result.

Each run is carried out in a process that is forked from this one. It is killed at random moments, and at each call by
which it changes what is on the disk (a rename, a sync, a new folder, a deletion), wherever that is.
"""

from __future__ import annotations

import json
import os
import random
import re
import resource
import secrets
import shutil
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import test_chat_models
import test_language_modeling
import test_preference_tuning
import torch
from test_speech import RATE, sound

from tiny import texts, tiny_bert
from tunewright.console import silent
from tunewright.files import sha256_file
from tunewright.pipeline.train import train_stage as training
from tunewright.run_recipe import run
from tunewright.runs.folder import read_json
from tunewright.training.checkpoints.async_saver import Saver

SMALL = {"eval": {"resamples": 100}, "hardware": {"threads": 1, "precision": "float32"}}
PICTURES: dict[str, Any] = {
    "task": "image-classification",
    "data": {"source": "digits", "limit": 300, "split": {"valid": 0.2, "test": 0.2}},
    "model": {"layers": [{"conv2d": 4, "kernel": 3}, "batch_norm", "relu", "flatten", {"dropout": 0.2}, {"dense": 10}]},
    "train": {"epochs": 3, "batch_size": 32, "checkpoint_steps": 2},
    **SMALL,
}
# What differs between two undisturbed runs.
TIMES = {"seconds", "examples_per_second", "preparation_seconds", "peak_memory", "real_time_factor"}
TIMES |= {"audio"}  # a stream's random number
# Hashes of what holds times.
TIMES |= {"content_sha256", "metrics.jsonl"}
MEASURED = re.compile(
    r"[\d.,]+ (?=(ms|s|min|h|KiB|MiB|GiB)\b|examples per second)|data:audio/ogg;base64,[\w+/=]+|\b0\.0\d+\b"
)
# The calls by which a process changes what is on the disk.
CALLS = ("replace", "rename", "fsync", "mkdir", "unlink", "rmdir")
PATIENCE = 120


def picture(place: Path) -> dict[str, Any]:
    return PICTURES


def with_seeds(place: Path) -> dict[str, Any]:
    return {**PICTURES, "train": {**PICTURES["train"], "epochs": 1}, "eval": {"resamples": 100, "seeds": 2}}


def private(place: Path) -> dict[str, Any]:
    train = {"epochs": 3, "batch_size": 60, "optimizer": "sgd", "lr": 2.0, "checkpoint_steps": 2}
    return {**PICTURES, "model": {"layers": ["flatten", {"dense": 10}]}, "train": train, "privacy": {"epsilon": 8}}


def lora(place: Path) -> dict[str, Any]:
    tiny_bert(place / "tiny", layers=2)
    texts(place / "reviews.jsonl", 120)
    return {
        "task": "text-classification",
        "data": {"source": "reviews.jsonl"},
        "model": {"backbone": "tiny"},
        "tune": {"adapter": "lora"},
        "train": {"epochs": 2, "batch_size": 8, "lr": 1e-2, "checkpoint_steps": 3},
        **SMALL,
    }


def frozen(place: Path) -> dict[str, Any]:
    return {**lora(place), "tune": {"freeze": "backbone"}}


def few(place: Path) -> dict[str, Any]:
    return {**{key: value for key, value in lora(place).items() if key != "train"}, "tune": {"method": "features"}}


def contrastive(place: Path) -> dict[str, Any]:
    train = {"epochs": 1, "batch_size": 32, "checkpoint_steps": 5}
    return {**lora(place), "tune": {"method": "contrastive"}, "train": train}


def controlled(place: Path) -> dict[str, Any]:
    return {**lora(place), "eval": {"resamples": 100, "controls": ["from_scratch"]}}


def two_stages(place: Path) -> dict[str, Any]:
    finetune = {"finetune": {"tune": {"freeze": "backbone"}, "train": {"epochs": 2}}}
    return {**PICTURES, "stages": ["pretrain", finetune]}


def language(place: Path) -> dict[str, Any]:
    return {**test_language_modeling.recipe_for(place), **SMALL}


def chat(place: Path) -> dict[str, Any]:
    recipe = test_chat_models.recipe_for(place)
    return {**recipe, "train": {**recipe["train"], "epochs": 1, "checkpoint_steps": 20}, **SMALL}


def preference(place: Path) -> dict[str, Any]:
    recipe = test_preference_tuning.recipe_for(place)
    return {**recipe, "train": {**recipe["train"], "epochs": 1, "checkpoint_steps": 4}, **SMALL}


def speech(place: Path) -> dict[str, Any]:
    draw = np.random.default_rng(0)
    lines = ["audio,text"]
    for number in range(40):
        text = "".join(draw.choice(list("abc"), 3))
        soundfile.write(place / f"{number}.wav", sound(text, number), RATE)
        lines.append(f"{number}.wav,{text}")
    (place / "tones.csv").write_text("\n".join(lines) + "\n")
    return {
        "task": "speech-recognition",
        "data": {"source": "tones.csv", "split": {"valid": 0.2, "test": 0.2}},
        "model": {
            "backbone": {"deepspeech": {"channels": 4, "hidden": 16, "layers": 1}},
            "decoding": {"beam": {"width": 4}},
        },
        "train": {"epochs": 3, "batch_seconds": 6, "lr": 8e-3},
        **SMALL,
    }


def recommendation(place: Path) -> dict[str, Any]:
    draw = np.random.default_rng(2)
    kinds = {user: [item for item in range(40) if item % 4 == user % 4] for user in range(40)}
    rows = [f"{user},{item}" for user, items in kinds.items() for item in draw.permutation(items)[:8]]
    (place / "liked.csv").write_text("user,item\n" + "\n".join(rows) + "\n")
    return {
        "task": "item-recommendation",
        "data": {"source": "liked.csv", "split": {"by": "within", "column": "user", "valid": 0.1, "test": 0.2}},
        "model": {"backbone": {"factors": {"width": 8}}},
        "train": {"epochs": 3, "batch_size": 64, "lr": 3e-2},
        **SMALL,
    }


CHEAP: list[Callable[[Path], dict[str, Any]]] = [picture, two_stages]
KINDS = [
    *CHEAP, with_seeds, private, lora, frozen, few, contrastive, controlled, language, chat, preference, speech,
    recommendation,
]  # fmt: skip


@dataclass
class Kind:
    """A recipe of one kind, and how a run of it ends that nobody kills."""

    recipe: dict[str, Any]
    place: Path
    seconds: float = 0.0
    calls: list[str] = field(default_factory=list)
    """What an undisturbed run changes on the disk, in order, as "name target"."""
    content: dict[str, Any] = field(default_factory=dict)

    @property
    def runs(self) -> Path:
        return self.place / "runs"

    @property
    def folder(self) -> Path:
        return self.runs / "killed"

    @property
    def complete(self) -> bool:
        return (self.folder / "run.json").exists() and read_json(self.folder / "run.json", "a run")["complete"]

    def start(self, before: Callable[[], None] = lambda: None) -> int:
        """Carry out the recipe in a forked process; returns its process id."""
        if child := os.fork():
            return child
        code = 1
        try:
            secrets.randbits = lambda bits: 12345  # the secret of a private stage, which is another for each run
            before()
            run({**self.recipe, "name": "killed"}, base=self.place, runs=self.runs, screen=silent())
            code = 0
        except BaseException:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            (self.place / "error.txt").write_text(traceback.format_exc())
        finally:
            os._exit(code)

    def finish(self) -> None:
        """Let the run end, and hold it against the undisturbed one."""
        if not self.complete:
            code = ended(self.start())
            assert code == 0, (self.place / "error.txt").read_text()
        assert self.complete
        found = content(self.folder)
        assert sorted(found) == sorted(self.content)
        assert {name: value for name, value in found.items() if value != self.content[name]} == {}

    def start_anew(self) -> None:
        shutil.rmtree(self.runs, ignore_errors=True)


def ended(child: int) -> int:
    """How a process ended: its exit code, or minus the signal."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    pytest.fail(f"the process was still there after {PATIENCE} seconds")


def content(folder: Path) -> dict[str, Any]:
    """All that a run leaves, by file, without what differs between two undisturbed runs."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or name in (".lock", "log.txt") or path.name == "manifest.json":
            continue
        if path.suffix == ".json":
            found[name] = timeless(json.loads(path.read_text()))
        elif path.suffix == ".jsonl":
            found[name] = [timeless(json.loads(line)) for line in path.read_text().splitlines()]
        elif path.suffix in (".html", ".md"):
            found[name] = MEASURED.sub("…", path.read_text())
        else:
            found[name] = sha256_file(path)
    return found


def timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: timeless(entry) for key, entry in value.items() if key not in TIMES}
    return [timeless(entry) for entry in value] if isinstance(value, list) else value


def noting(record: Path) -> Callable[[], None]:
    """Writes down each call that changes what is on the disk."""
    return lambda: wrap(lambda number, call: record.open("a").write(call + "\n"))


def deadly(number: int) -> Callable[[], None]:
    """Kills the process before the so-many-th call that changes what is on the disk."""

    def strike(at: int, call: str) -> None:
        if at == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return lambda: wrap(strike)


def wrap(told: Callable[[int, str], Any]) -> None:
    count = 0

    def wrapped(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            told(count, f"{name} {Path(str(arguments[1 if name in ('replace', 'rename') else 0])).name}")
            return real(*arguments, **options)

        return call

    for name in CALLS:
        setattr(os, name, wrapped(name, getattr(os, name)))


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Callable[[Path], dict[str, Any]]], Kind]:
    """Makes a kind's undisturbed run, once."""
    known: dict[str, Kind] = {}

    def get(make: Callable[[Path], dict[str, Any]]) -> Kind:
        if make.__name__ not in known:
            torch.set_num_threads(1)
            place = tmp_path_factory.mktemp(make.__name__)
            kind = known[make.__name__] = Kind(make(place), place)
            # In this process, so that what is imported late is there in those that are forked from it.
            run({**kind.recipe, "name": "killed"}, base=place, runs=place / "first", screen=silent())
            began = time.monotonic()
            assert ended(kind.start(noting(place / "calls.txt"))) == 0, (place / "error.txt").read_text()
            kind.seconds = time.monotonic() - began
            kind.calls = (place / "calls.txt").read_text().splitlines()
            kind.content = content(kind.folder)
        kind = known[make.__name__]
        kind.start_anew()
        return kind

    return get


def kill_at_random(kind: Kind, kills: int, seed: int) -> None:
    moments = random.Random(seed)
    struck = attempts = 0
    while struck < kills:
        attempts += 1
        assert attempts < 50, "the kills come too late"
        kind.start_anew()
        for _ in range(4):  # so often in one run at most
            child = kind.start()
            time.sleep(moments.uniform(0, kind.seconds))
            os.kill(child, signal.SIGKILL)
            struck += (code := ended(child)) == -signal.SIGKILL
            assert code in (0, -signal.SIGKILL), (kind.place / "error.txt").read_text()
            if kind.complete or struck >= kills:
                break
        kind.finish()


def kill_after_the_last_step(kind: Kind, kills: int) -> None:
    steps = [index for index, call in enumerate(kind.calls, 1) if call.startswith("replace step-")]
    first = steps[-1] + 1 if steps else 1
    points = np.unique(np.linspace(first, len(kind.calls), kills).round().astype(int)).tolist()
    for point in points:
        kind.start_anew()
        code = ended(kind.start(deadly(point)))
        assert code == -signal.SIGKILL, f"call {point}, {kind.calls[point - 1]}: {code}"
        kind.finish()


@pytest.mark.parametrize("make", CHEAP)
def test_killed_at_a_random_moment(kinds: Any, make: Callable[[Path], dict[str, Any]]) -> None:
    kill_at_random(kinds(make), 2, seed=0)


@pytest.mark.parametrize("make", CHEAP)
def test_killed_after_the_last_step(kinds: Any, make: Callable[[Path], dict[str, Any]]) -> None:
    kill_after_the_last_step(kinds(make), 2)


def test_killed_while_a_thread_writes(kinds: Any) -> None:
    """As on an accelerator, where the training goes on while its checkpoint is written."""

    def beside(then: Callable[[], None]) -> Callable[[], None]:
        def arrange() -> None:
            training.Saver = lambda root, *, beside, together: Saver(root, beside=True, together=together)
            then()

        return arrange

    kind = kinds(picture)
    saves = [index for index, call in enumerate(kind.calls, 1) if call.startswith("replace step-")]
    for number in (saves[2], saves[4] - 3, saves[6] + 1):
        kind.start_anew()
        assert ended(kind.start(beside(deadly(number)))) == -signal.SIGKILL
        kind.finish()


@pytest.mark.slow
@pytest.mark.parametrize("make", KINDS)
def test_killed_twenty_times_at_random(kinds: Any, make: Callable[[Path], dict[str, Any]]) -> None:
    kill_at_random(kinds(make), 20, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("make", KINDS)
def test_killed_at_twenty_points_after_the_last_step(kinds: Any, make: Callable[[Path], dict[str, Any]]) -> None:
    kill_after_the_last_step(kinds(make), 20)
