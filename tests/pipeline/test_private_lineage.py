"""What differential privacy promises over all that a model comes from, held against Opacus' own accountants."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from opacus.accountants import PRVAccountant, RDPAccountant
from rich.console import Console as RichConsole

from tunewright.console import Console
from tunewright.errors import ArtifactError, RecipeError
from tunewright.pipeline.summary.privacy_lineage import LINEAGE, NOT_COVERED, promise, read_lineage
from tunewright.report.promises import promises, statistics
from tunewright.report.translations import Words
from tunewright.run_recipe import RunResult, run
from tunewright.runs.folder import read_json
from tunewright.runs.summary.training import PrivacySummary
from tunewright.training.privacy.accounting import ORDERS, Steps, composed_epsilon, convolved_epsilon, noise_for
from tunewright.training.privacy.lineage import Learned, Lineage, Spent, Statistic

DELTA = 1e-5


def by_opacus(history: list[tuple[float, float, int]], delta: float, kind: type = RDPAccountant) -> float:
    accountant = kind()
    accountant.history = history
    return float(
        accountant.get_epsilon(delta, alphas=ORDERS) if kind is RDPAccountant else accountant.get_epsilon(delta)
    )


def steps(noise: float = 1.2, rate: float = 0.01, taken: int = 1000) -> Steps:
    return Steps(noise_multiplier=noise, rate=rate, steps=taken)


def learned(
    stage: str,
    *,
    data: str = "one",
    content: str | None = None,
    spent: Steps | None = None,
    unit: Any = "example",
    **more: Any,
) -> Learned:
    private = None if spent is None else Spent(steps=spent, delta=DELTA, unit=unit)
    return Learned(
        stage=stage, source=f"{data}.csv", data=data, content=content or f"files of {data}", spent=private, **more
    )


# How costs add up


@pytest.mark.parametrize(
    "history",
    [
        [(1.2, 0.01, 1000), (1.2, 0.01, 1000)],
        [(1.2, 0.01, 1000), (0.9, 0.05, 200), (2.0, 0.5, 30)],
        [(4.0, 1.0, 5)],
    ],
)
def test_composition_is_that_of_opacus(history: list[tuple[float, float, int]]) -> None:
    taken = [steps(*part) for part in history]
    assert composed_epsilon(taken, DELTA) == pytest.approx(by_opacus(history, DELTA), rel=1e-12)
    if all(rate < 1 for _, rate, _ in history):
        assert convolved_epsilon(taken, DELTA) == pytest.approx(by_opacus(history, DELTA, PRVAccountant), rel=1e-9)


def test_two_stages_of_epsilon_2_are_more_than_2_and_less_than_4() -> None:
    noise = noise_for(2.0, delta=1000**-1.1, rate=0.1, steps=100)
    twice = composed_epsilon([steps(noise, 0.1, 100)] * 2, 1000**-1.1)
    assert twice == pytest.approx(by_opacus([(noise, 0.1, 200)], 1000**-1.1), rel=1e-12)
    assert 2.5 < twice < 3.2


def test_nothing_taken_costs_nothing() -> None:
    assert composed_epsilon([], DELTA) == composed_epsilon([steps(taken=0)], DELTA) == convolved_epsilon([], DELTA) == 0


# Which stages are counted together


def test_stages_on_the_same_rows_add_up() -> None:
    lineage = Lineage(stages=[learned("first", spent=steps()), learned("second", spent=steps(0.9, 0.05, 200))])
    (found,) = lineage.guarantees()
    history = [(1.2, 0.01, 1000), (0.9, 0.05, 200)]
    assert found.epsilon == pytest.approx(by_opacus(history, DELTA)) and found.stages == ["first", "second"]
    assert found.epsilon_prv == pytest.approx(by_opacus(history, DELTA, PRVAccountant))
    assert found.epsilon > max(by_opacus([part], DELTA) for part in history)


def test_the_smallest_delta_holds_for_all() -> None:
    other = Spent(steps=steps(), delta=1e-7, unit="example")
    stages = [learned("first", spent=steps()), Learned(**{**vars(learned("second")), "spent": other})]
    assert Lineage(stages=stages).guarantees()[0].delta == 1e-7


def test_other_rows_add_up_unless_they_are_promised_to_be_apart() -> None:
    first = learned("first", data="one", spent=steps())
    alone = by_opacus([(1.2, 0.01, 1000)], DELTA)
    unknown = Lineage(stages=[first, learned("second", data="two", spent=steps())]).guarantees()
    assert [found.epsilon > alone for found in unknown] == [True, True]  # pyright: ignore[reportOptionalOperand]
    apart = Lineage(stages=[first, learned("second", data="two", spent=steps(), disjoint=True)]).guarantees()
    assert [found.epsilon for found in apart] == [pytest.approx(alone)] * 2
    assert [found.source for found in apart] == ["two.csv", "one.csv"]


@pytest.mark.parametrize("same", [{"data": "one"}, {"data": "other split", "content": "files of one"}])
def test_a_promise_that_is_known_to_be_wrong_counts_for_nothing(same: dict[str, str]) -> None:
    first = learned("first", spent=steps())
    (found, *_) = Lineage(stages=[first, learned("second", spent=steps(), disjoint=True, **same)]).guarantees()
    assert found.stages == ["first", "second"]


@pytest.mark.parametrize("order", [["open", "private"], ["private", "open"]])
def test_a_stage_without_privacy_leaves_no_guarantee(order: list[str]) -> None:
    stages = [learned(name, spent=steps() if name == "private" else None) for name in order]
    (found,) = Lineage(stages=stages).guarantees()
    assert found.epsilon is None and found.reason == "without privacy" and found.because_of == "open"


def test_public_rows_before_leave_the_guarantee_of_private_ones() -> None:
    stages = [learned("open", data="public"), learned("private", data="mine", spent=steps(), disjoint=True)]
    (found,) = Lineage(stages=stages).guarantees()
    assert found.epsilon == pytest.approx(by_opacus([(1.2, 0.01, 1000)], DELTA)) and found.stages == ["private"]


def test_an_unknown_start_leaves_no_guarantee_unless_the_rows_are_promised_to_be_apart() -> None:
    (found,) = Lineage(stages=[learned("private", spent=steps())], unknown=["weights"]).guarantees()
    assert found.epsilon is None and found.reason == "unknown start"
    (found,) = Lineage(stages=[learned("private", spent=steps(), disjoint=True)], unknown=["weights"]).guarantees()
    assert found.epsilon is not None


def test_users_and_examples_are_no_common_unit() -> None:
    stages = [learned("first", spent=steps(), unit="user"), learned("second", spent=steps())]
    found = Lineage(stages=stages).guarantees()
    assert {entry.reason for entry in found} == {"other units"} and len(found) == 2


def promised(lineage: Lineage) -> PrivacySummary:
    found = promise(lineage)
    assert found is not None
    return found


def test_published_weights_are_named() -> None:
    lineage = Lineage(stages=[learned("private", spent=steps())], public=["google/bert"])
    found = promised(lineage)
    for language in ("en", "zh"):
        assert "google/bert" in promises(Words(language), found)[-1]
    assert promise(Lineage(stages=[learned("open")])) is None


def test_every_promise_is_said_in_both_languages() -> None:
    kept = [
        Statistic(column="city", kind="categories", count=3, single=1),
        Statistic(column="home", kind="categories", count=4, single=2, unit="user"),
        Statistic(column="age", kind="mean and deviation", count=2),
    ]
    own = learned("second", spent=steps(), statistics=kept)
    lineages = [
        Lineage(stages=[learned("first", spent=steps()), own]),
        Lineage(stages=[learned("first"), own]),
        Lineage(stages=[learned("first", spent=steps(), unit="user"), own]),
        Lineage(stages=[own], unknown=["weights"]),
    ]
    for language in ("en", "zh"):
        words = Words(language)
        said = [promises(words, promised(lineage)) for lineage in lineages]
        assert "first, second" in said[0][0] and "ε = " in said[0][0]
        assert all("ε = " not in line for lines in said[1:] for line in lines) and all(said)
        assert "weights" in said[3][0]
        named = statistics(words, kept)
        assert [column in line for column, line in zip(("city", "home", "age"), named, strict=True)] == [True] * 3
        assert all(words.known(note) != note or language == "en" for note in NOT_COVERED)
    assert statistics(Words("en"), promised(lineages[0]).statistics)[1].endswith(
        "4 categories, 2 of them of a single user"
    )


def test_a_lineage_comes_back_from_json() -> None:
    kept = [Statistic(column="city", kind="categories", count=3, single=1)]
    lineage = Lineage(stages=[learned("a", spent=steps(), statistics=kept), learned("b")], unknown=["x"], public=["y"])
    assert Lineage.from_json(json.loads(json.dumps(lineage.to_json()))) == lineage


# Whole runs


def table(folder: Path, name: str = "rows.csv", shift: int = 0) -> None:
    rows = [f"{n % 7 + shift},{n % 3},{'yes' if n % 7 > 3 else 'no'}" for n in range(120)]
    (folder / name).write_text("\n".join(["a,b,y", *rows]))


def recipe(name: str, stages: list[Any], **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "task": "tabular-classification",
        "data": {"source": "rows.csv", "target": "y"},
        "model": {"layers": [{"dense": 4, "activation": "relu"}, {"dense": 2}]},
        "train": {"epochs": 2, "batch_size": 20, "optimizer": "sgd", "lr": 0.5},
        "eval": {"resamples": 100},
        "hardware": {"threads": 1},
        "stages": stages,
        **more,
    }


PRIVATE = {"privacy": {"epsilon": 2}}


def carry_out(given: dict[str, Any], base: Path) -> tuple[RunResult, str]:
    """The run, and what was printed."""
    written = io.StringIO()
    found = run(given, base=base, runs=base / "runs", console=Console(rich=RichConsole(file=written, width=10_000)))
    return found, " ".join(written.getvalue().split())


def card(result: RunResult, stage: str) -> str:
    return (result.stages[stage].folder / "model" / "README.md").read_text()


def test_two_private_stages_say_what_they_cost_together(tmp_path: Path) -> None:
    table(tmp_path)
    result, shown = carry_out(recipe("two", [{"pretrain": PRIVATE}, {"finetune": PRIVATE}]), tmp_path)
    accounts = [result.stages[name].summary["training"]["privacy"] for name in ("pretrain", "finetune")]
    history = [(part["noise_multiplier"], part["rate"], part["steps"]) for part in accounts]
    together = by_opacus(history, accounts[0]["delta"])
    (found,) = result.stages["finetune"].summary["privacy"]["guarantees"]
    assert found["epsilon"] == pytest.approx(together) and together > 2.3
    assert all(part["epsilon"] <= 2 for part in accounts)
    assert f"ε = {together:.3g}" in shown and "what these spend adds up" in shown
    assert shown.index("what these spend adds up") < shown.index("pretrain epoch 1/2")
    assert "data.disjoint" not in shown  # of the same file it would be wrong
    assert f"ε = {together:.3g}" in card(result, "finetune") and "ε = 2 " not in card(result, "finetune")
    assert f"ε = {together:.3g}" in (result.folder / "report.html").read_text()
    # The model's folder alone knows, wherever it is copied to.
    shutil.copytree(result.stages["finetune"].folder / "model", tmp_path / "elsewhere" / "copied")
    given = recipe("third", [{"finetune": {**PRIVATE, "model": {"weights": "elsewhere/copied"}}}])
    third, _ = carry_out(given, tmp_path)
    (after,) = third.stages["finetune"].summary["privacy"]["guarantees"]
    assert after["stages"] == ["pretrain", "finetune", "finetune"] and after["epsilon"] > together


def test_a_stage_without_privacy_before_is_said_before_anything_is_trained(tmp_path: Path) -> None:
    table(tmp_path)
    result, shown = carry_out(recipe("open", ["pretrain", {"finetune": PRIVATE}]), tmp_path)
    assert shown.index("have no guarantee, whatever ε is") < shown.index("pretrain epoch 1/2")
    (found,) = result.stages["finetune"].summary["privacy"]["guarantees"]
    assert found["epsilon"] is None and found["because_of"] == "pretrain"
    assert "No privacy guarantee" in card(result, "finetune") and "ε =" not in card(result, "finetune")
    page = (result.folder / "report.html").read_text()
    assert "No privacy guarantee" in page and "differential privacy with ε" not in page
    assert "rivacy" not in card(result, "pretrain") and "privacy" not in result.stages["pretrain"].summary


def test_a_stage_without_privacy_afterwards_takes_the_guarantee_away(tmp_path: Path) -> None:
    table(tmp_path)
    result, shown = carry_out(recipe("after", [{"pretrain": PRIVATE}, "finetune"]), tmp_path)
    assert result.stages["pretrain"].summary["privacy"]["guarantees"][0]["epsilon"] <= 2
    (found,) = result.stages["finetune"].summary["privacy"]["guarantees"]
    assert found["epsilon"] is None and found["because_of"] == "finetune"
    assert "No privacy guarantee" in card(result, "finetune") and "have no guarantee" in shown


def test_public_data_first_and_the_promise_that_it_is_apart(tmp_path: Path) -> None:
    table(tmp_path)
    table(tmp_path, "public.csv", shift=1)
    public = {"pretrain": {"data": {"source": "public.csv"}}}
    apart = {"finetune": {**PRIVATE, "data": {"disjoint": True}}}
    result, shown = carry_out(recipe("apart", [public, apart]), tmp_path)
    (found,) = result.stages["finetune"].summary["privacy"]["guarantees"]
    assert found["epsilon"] <= 2 and found["stages"] == ["finetune"] and "no guarantee" not in shown
    assert "ε = 2" in card(result, "finetune").replace("1.99", "2")


def test_a_start_without_a_record_is_unknown(tmp_path: Path) -> None:
    table(tmp_path)
    first, _ = carry_out(recipe("first", ["pretrain"]), tmp_path)
    folder = first.stages["pretrain"].folder / "model"
    config = read_json(folder / "config.json", "a model")
    del config[LINEAGE]
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "checksums.json").unlink()
    assert read_lineage(folder).unknown
    given = recipe("next", [{"finetune": {**PRIVATE, "model": {"weights": str(folder)}}}])
    result, shown = carry_out(given, tmp_path)
    (found,) = result.stages["finetune"].summary["privacy"]["guarantees"]
    assert found["epsilon"] is None and found["reason"] == "unknown start" and "no guarantee" in shown
    (folder / "config.json").write_text(json.dumps({**config, LINEAGE: {"stages": [{"stage": 1}]}}))
    with pytest.raises(ArtifactError, match="damaged"):
        read_lineage(folder)


def test_no_stage_is_repeated_with_other_seeds(tmp_path: Path) -> None:
    """The run's number of seeds counts, whatever a private stage's own block says; and it is known before anything is trained."""
    table(tmp_path)
    stages = ["pretrain", {"finetune": {**PRIVATE, "eval": {"seeds": 1}}}]
    with pytest.raises(RecipeError) as caught:
        carry_out(recipe("seeds", stages, eval={"seeds": 3}), tmp_path)
    assert caught.value.place == "eval.seeds"
    assert not (tmp_path / "runs").exists()
