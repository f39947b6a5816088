"""What a model gives away: attacks with known answers, a network that learned by heart, and one that was trained with privacy."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tunewright.cli import app
from tunewright.commands.privacy_audit import audit, lines_of
from tunewright.console import silent
from tunewright.errors import ArtifactError, RecipeError
from tunewright.evaluation.membership import attack, audited_epsilon, exposure, likelihood_ratios
from tunewright.run_recipe import run


def test_the_area_is_that_of_sklearn_and_few_others_promise_nothing() -> None:
    draw = np.random.default_rng(0)
    members, others = draw.normal(0.5, 1, 300), draw.normal(0, 1, 400)
    found = attack(members, others)
    truth = np.r_[np.ones(300), np.zeros(400)]
    assert found.auc == pytest.approx(roc_auc_score(truth, np.r_[members, others]))
    assert found.low < found.auc < found.high and found.high - found.low < 0.1
    assert found.found["0.001"] is None and found.found["0.01"] is not None
    assert attack(np.ones(10), np.ones(10)).auc == 0.5


def test_ratios_find_members_where_losses_alone_do_not() -> None:
    """Rows differ more among one another than by being members."""
    draw = np.random.default_rng(0)
    base = draw.normal(0, 10, 400)
    inside = draw.random((8, 400)) < 0.5
    references = base + inside + draw.normal(0, 0.3, (8, 400))
    member = np.arange(400) < 200
    scores = base + member + draw.normal(0, 0.3, 400)
    plain = attack(scores[member], scores[~member])
    ratios = likelihood_ratios(scores, references, inside)
    assert plain.low < 0.6 and attack(ratios[member], ratios[~member]).auc > 0.95


def test_exposure_counts_how_many_are_likelier() -> None:
    others = np.arange(1.0, 1024.0)
    assert exposure(0.5, others) == 10.0
    assert exposure(512.5, others) == pytest.approx(10 - math.log2(513))


def test_the_audited_epsilon_is_the_paper_s() -> None:
    # Without δ it is the binomial test of guesses that are right with probability e^ε / (1 + e^ε).
    from scipy.stats import binom

    found = audited_epsilon(100, 90, 1000, 0.0)
    assert binom.sf(89, 100, 1 / (1 + math.exp(-found))) == pytest.approx(0.05, abs=1e-4)
    assert audited_epsilon(100, 50, 1000, 1e-5) == pytest.approx(0.0, abs=1e-6)
    assert audited_epsilon(100, 90, 1000, 1e-3) < found  # the larger δ may fail, the less is proven
    assert audited_epsilon(1000, 1000, 1000, 1e-5) > 4


@pytest.mark.parametrize("truth", [1.0, 3.0])
def test_it_is_nearly_never_above_the_truth(truth: float) -> None:
    """Guesses about randomised response of ε: the bound holds in at least 95 % of trials."""
    draw = np.random.default_rng(0)
    bounds = [audited_epsilon(200, int(draw.binomial(200, 1 / (1 + math.exp(-truth)))), 200, 0.0) for _ in range(300)]
    assert np.mean(np.array(bounds) > truth) < 0.08 and np.mean(bounds) > truth / 2


BY_HEART: dict[str, Any] = {
    "task": "image-classification",
    "data": {"source": "digits", "limit": 400, "split": {"valid": 0.0, "test": 0.5}},
    "model": {"layers": ["flatten", {"dense": 256, "activation": "relu"}, {"dense": 10}]},
    "train": {"epochs": 60, "batch_size": 32, "lr": 0.005},
}


def test_what_was_learned_by_heart_is_found(tmp_path: Path) -> None:
    trained = run(BY_HEART, runs=tmp_path, console=silent())
    folder = trained.stages["pretrain"].folder / "model"
    found = audit(folder, references=4, one_run=True, console=silent())
    assert sum(found.rows.values()) == 400
    assert found.loss["low"] > 0.5 and found.ratio is not None and found.ratio["auc"] > 0.6
    assert found.one_run is not None and found.one_run["could_show"] > found.one_run["epsilon_at_least"] >= 0
    assert not found.one_run["broken"] and found.claimed is None
    assert any("tells members apart" in line for line in lines_of(found))
    assert found.leaked == [] and any(
        "no test or validation row is in the training" in line for line in lines_of(found)
    )


def test_test_rows_that_were_learned_from_are_named(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    rows = [f"{a:.3f},{b:.3f},{'yes' if a > b else 'no'}" for a, b in draw.normal(size=(150, 2))]
    (tmp_path / "rows.csv").write_text("a,b,label\n" + "\n".join(rows + rows[:30]) + "\n")
    recipe = {"task": "tabular-classification", "data": {"source": "rows.csv"}, "train": {"epochs": 1}}
    trained = run(recipe, base=tmp_path, runs=tmp_path / "runs", console=silent())
    found = audit(trained.stages["pretrain"].folder / "model", console=silent())
    assert {leak["code"] for leak in found.leaked} >= {"test-in-train"}
    assert any(
        line.startswith("leaked: ") and "test rows are exactly in the training" in line for line in lines_of(found)
    )


def test_a_private_model_gives_nothing_away(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "tunewright.pipeline.strategies.private.secrets.randbits", lambda bits: 12345
    )  # the same noise each time
    recipe = {
        **BY_HEART,
        "privacy": {"epsilon": 1},
        "train": {"epochs": 10, "batch_size": 50, "optimizer": "sgd", "lr": 1.0},
    }
    trained = run(recipe, runs=tmp_path, console=silent())
    folder = trained.stages["pretrain"].folder / "model"
    app(["privacy", str(folder), "--one-run", "--json"], standalone_mode=False)
    found = json.loads(capsys.readouterr().out)
    assert abs(found["loss"]["auc"] - 0.5) < 0.08
    assert found["one_run"]["epsilon_at_least"] <= found["claimed"]["epsilon"] and not found["one_run"]["broken"]


@pytest.mark.slow
def test_secrets_and_texts_that_a_language_model_remembers(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    words = ["red", "blue", "old", "new", "cat", "dog", "sees", "finds", "house", "tree", "and", "a", "the", "big"]
    lines = [" ".join(draw.choice(words, 40)) for _ in range(40)]
    (tmp_path / "texts.txt").write_text("\n\n".join(lines))
    recipe = {
        "task": "language-modeling",
        "data": {"source": "texts.txt", "split": {"valid": 0.0, "test": 0.5}},
        "model": {
            "backbone": {"gpt": {"layers": 2, "width": 64, "heads": 2}},
            "tokenizer": {"bpe": {"vocabulary": 280}},
            "max_length": 64,
        },
        "train": {"epochs": 60, "batch_size": 4, "lr": 0.003},
    }
    trained = run(recipe, base=tmp_path, runs=tmp_path / "runs", console=silent())
    folder = trained.stages["pretrain"].folder / "model"
    found = audit(folder, canaries=3, console=silent())
    assert (
        found.extraction is not None
        and found.extraction["train"]["word_for_word"] > found.extraction["test"]["word_for_word"]
    )
    assert found.loss["auc"] > 0.9
    assert found.canaries is not None and found.canaries["mean"] > 5
    assert "verbatim" in "\n".join(lines_of(found))


def test_what_cannot_be_audited(tmp_path: Path) -> None:
    trained = run({**BY_HEART, "train": {"epochs": 1}}, runs=tmp_path, console=silent())
    folder = trained.stages["pretrain"].folder / "model"
    with pytest.raises(RecipeError, match="reference"):
        audit(folder, references=2, console=silent())
    with pytest.raises(RecipeError, match="language model"):
        audit(folder, canaries=2, console=silent())
    moved = tmp_path / "elsewhere"
    folder.rename(moved)
    with pytest.raises(ArtifactError, match="stands in none"):
        audit(moved, console=silent())
