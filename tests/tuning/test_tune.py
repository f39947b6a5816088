"""The search for settings: what it may change, trials that are let go, a search that is killed, and the winner on test rows."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from small_recipes import RECIPES
from tunewright.cli import app
from tunewright.commands.tune import tune
from tunewright.console import silent
from tunewright.errors import RecipeError
from tunewright.recipe.search_space import choices
from tunewright.tuning import trials as tuning
from tunewright.tuning.trials import SearchSettings

RECIPE: dict[str, Any] = {
    "task": "image-classification",
    "data": {"source": "digits", "limit": 600},
    "model": {"layers": ["flatten", {"dense": 10}]},
    "train": {"epochs": 4, "batch_size": 64, "lr": 1e-4, "optimizer": "adam"},
    "search": {"train.lr": {"log": [1e-5, 1e-1]}, "train.optimizer": ["adam", {"sgd": {"momentum": 0.9}}]},
}


def written(place: Path, **changes: Any) -> Path:
    path = place / "recipe.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, "name": "small", **changes}))
    return path


def test_what_is_searched_for() -> None:
    found = choices({"a.b": [1, 2], "c.d": {"log": [1e-3, 1]}, "e.f": {"whole": [1, 4]}, "g.h": {"even": [0, 0.5]}})
    assert [choice.kind for choice in found] == ["one_of", "log", "whole", "even"]
    assert found[0].override(2) == "a.b=2" and found[0].override("none") == "a.b=none"
    assert found[0].override({"sgd": {}}) == 'a.b={"sgd": {}}'


@pytest.mark.parametrize(
    "search",
    [
        {},
        {"train.lr": [1e-3]},
        {"train.lr": {"log": [0, 1]}},
        {"train.lr": {"log": [1, 0.1]}},
        {"train.lr": {"normal": [0, 1]}},
        {"train.epochs": {"whole": [1.5, 3]}},
        {"train.lr": 0.1},
    ],
)
def test_what_is_no_search(search: dict[str, Any]) -> None:
    with pytest.raises(RecipeError) as caught:
        choices(search)
    assert caught.value.fix


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"search": {"data.limit": [100, 200]}}, "search.data.limit"),
        ({"search": {"train.lrr": [1, 2]}}, None),
        ({"data": {"source": "digits", "split": {"valid": 0.0}}}, "data.split.valid"),
        ({"privacy": {"epsilon": 3}}, "search"),
    ],
)
def test_what_cannot_be_searched(changes: dict[str, Any], place: str | None, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        tune(written(tmp_path, **changes), [], SearchSettings(trials=1), runs=tmp_path / "runs", console=silent())
    assert place is None or caught.value.place == place
    with pytest.raises(RecipeError, match="no such sampler"):
        tuning.parse_sampler("tea")


def test_it_finds_what_is_better_and_tests_it(tmp_path: Path) -> None:
    recipe = written(tmp_path)
    found = tune(recipe, [], SearchSettings(trials=10), seeds=3, runs=tmp_path / "runs", console=silent())
    (folder,) = (tmp_path / "runs").iterdir()
    # The recipe as it is comes first, and is far from the best.
    assert found.trials[0].params == {"train.lr": 1e-4, "train.optimizer": "adam"}
    best = next(trial for trial in found.trials if trial.number == found.best)
    assert best.value is not None and best.value >= max(
        t.value for t in found.trials if t.value is not None and t.state == "complete"
    )
    assert any(trial.state == "pruned" for trial in found.trials)
    assert found.held is not None and "better" in found.held["sentence"] and len(found.held["tuned"]) == 3
    assert set(found.importance) == {"train.lr", "train.optimizer"} and math.isclose(sum(found.importance.values()), 1)
    page = (folder / "tuning.html").read_text()
    assert "polyline" in page and "<script" not in page and found.command.split()[1] in page
    assert not list((folder / "trials").iterdir())  # what trials trained is gone
    # The overrides make the tuned recipe.
    overrides = (folder / "overrides.txt").read_text().splitlines()
    assert len(overrides) == 2 and overrides[0].startswith("train.lr=")
    # The same command once more: nothing is left to be done, and nothing is done twice.
    again = tune(recipe, [], SearchSettings(trials=10), seeds=3, runs=tmp_path / "runs", console=silent())
    assert [trial.number for trial in again.trials] == [trial.number for trial in found.trials]
    assert again.held is not None and again.held["tuned"] == found.held["tuned"]


def test_no_trial_sees_a_test_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tunewright.data.prepared import Prepared

    seen: list[str] = []
    real = Prepared.table

    def table(self: Prepared, split: str, columns: list[str] | None = None) -> Any:
        seen.append(split)
        return real(self, split, columns)

    monkeypatch.setattr(Prepared, "table", table)
    tune(written(tmp_path), [], SearchSettings(trials=2), seeds=0, runs=tmp_path / "runs", console=silent())
    assert "train" in seen and "test" not in seen


@pytest.mark.parametrize("name", ["writer", "factors", "conformer", "rows"])
def test_each_kind_of_task_has_something_to_be_held_against(name: str, tmp_path: Path) -> None:
    recipe = {"train": {"epochs": 1, "batch_size": 16}, **RECIPES[name](tmp_path), "search": {"train.lr": [1e-3, 1e-2]}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    found = tune(
        tmp_path / "recipe.yaml",
        [],
        SearchSettings(trials=2, sampler="grid"),
        seeds=0,
        runs=tmp_path / "runs",
        console=silent(),
    )
    values = {trial.number: trial.value for trial in found.trials if trial.value is not None}
    chosen = max if found.greater else min
    assert len(values) == 2 and values[found.best] == chosen(values.values())
    assert found.greater == (name in ("factors",))


def test_a_grid_ends(tmp_path: Path) -> None:
    recipe = written(tmp_path, search={"train.lr": [1e-3, 1e-2], "train.batch_size": [32, 64]})
    found = tune(
        recipe,
        [],
        SearchSettings(trials=50, sampler="grid", prune=False),
        seeds=0,
        runs=tmp_path / "runs",
        console=silent(),
    )
    tried = {
        (trial.params["train.lr"], trial.params["train.batch_size"])
        for trial in found.trials
        if trial.state == "complete"
    }
    assert tried == {(a, b) for a in (1e-3, 1e-2) for b in (32, 64)}
    with pytest.raises(RecipeError, match="lists of values"):
        tune(
            written(tmp_path),
            [],
            SearchSettings(trials=2, sampler="grid"),
            seeds=0,
            runs=tmp_path / "runs",
            console=silent(),
        )


def test_what_diverges_is_let_go(tmp_path: Path) -> None:
    recipe = written(tmp_path, search={"train.lr": [1e-3, 1e8]}, train={"epochs": 2, "optimizer": "sgd"})
    found = tune(
        recipe,
        [],
        SearchSettings(trials=4, sampler="random", prune=False),
        seeds=0,
        runs=tmp_path / "runs",
        console=silent(),
    )
    states = {trial.params["train.lr"]: trial.state for trial in found.trials}
    assert states.get(1e-3) == "complete" and states.get(1e8, "pruned") == "pruned"


def test_killed_it_goes_on_and_loses_nothing(tmp_path: Path) -> None:
    recipe = written(tmp_path, train={"epochs": 40, "batch_size": 8, "lr": 1e-3})
    words = ["tune", str(recipe), "--trials=4", "--no-prune", "--seeds=0", f"--runs={tmp_path / 'runs'}"]
    process = subprocess.Popen(
        [sys.executable, "-c", "from tunewright.cli import main; main()", *words],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("plan: about ")
    first = process.stdout.readline()
    assert first.startswith("trial 0")
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    found = tune(recipe, [], SearchSettings(trials=4, prune=False), seeds=0, runs=tmp_path / "runs", console=silent())
    done = [trial for trial in found.trials if trial.state == "complete"]
    assert len(done) == 4 and done[0].number == 0 and done[0].value == pytest.approx(float(first.split()[-1]), abs=1e-4)
    cut = [trial for trial in found.trials if trial.state == "fail"]
    # What had been chosen for it when it was cut short is tried again.
    assert all(any(trial.params.items() <= other.params.items() for other in done) for trial in cut)


def test_two_processes_share_the_trials(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = written(tmp_path)
    app(
        ["tune", str(recipe), "--trials=6", "--workers=2", "--seeds=0", f"--runs={tmp_path / 'runs'}"],
        standalone_mode=False,
    )
    assert "best of" in capsys.readouterr().out
    (folder,) = (tmp_path / "runs").iterdir()
    assert (folder / "study.db").exists() and not (folder / "held.json").exists()
