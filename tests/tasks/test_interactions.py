"""Interactions: side tables, the core, last rows, the known future, sequences, features, large tables, an AUC for each user."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import roc_auc_score

from tunewright import load_model
from tunewright.commands.recommend import recommend
from tunewright.console import silent
from tunewright.data.checks.table import check
from tunewright.data.prepare.prepare import prepare
from tunewright.data.prepare.splits import TEST, TRAIN, VALID, within
from tunewright.data.recommendation.column_roles import time_column
from tunewright.errors import ArtifactError, DataError, RecipeError
from tunewright.evaluation.metrics import METRICS, Outcome
from tunewright.models.recommendation.base import RecommenderSpec
from tunewright.models.recommendation.embedding_table import Table
from tunewright.models.recommendation.sasrec import NextItem
from tunewright.recipe.schema import Data, Split
from tunewright.run_recipe import run
from tunewright.tasks.recommendation.interaction_encoder import InteractionEncoder
from tunewright.training.optimizers.registry import build_optimizer
from tunewright.training.optimizers.rowwise_adagrad import RowwiseAdagrad

ITEMS = 20


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Who saw what when: each user goes round the items in steps of 3, or of 7; and what is known of both."""
    folder = tmp_path_factory.mktemp("seen")
    draw = np.random.default_rng(0)
    rows = ["user,item,time"]
    for user in range(80):
        start, step = int(draw.integers(ITEMS)), 3 if user % 2 else 7
        rows += [f"u{user},i{(start + step * number) % ITEMS},{100 * number + user}" for number in range(9)]
    order = [0, *(1 + draw.permutation(len(rows) - 1))]
    (folder / "seen.csv").write_text("\n".join(rows[place] for place in order) + "\n")
    users = "\n".join(f"u{user},{'odd' if user % 2 else 'even'},{20 + user}" for user in range(80))
    (folder / "users.csv").write_text(f"user,kind,age\n{users}\n")
    items = pa.table({"item": [f"i{item}" for item in range(ITEMS)], "colour": ["red", "blue"] * (ITEMS // 2)})
    pq.write_table(items, folder / "items.parquet")
    return folder


def test_tables_of_users_and_items_are_joined(place: Path) -> None:
    data = Data(source="seen.csv", users="users.csv", items="items.parquet", labelled=False)
    prepared = prepare(data, seed=0, target_kind=None, base=place)
    table = prepared.table("train")
    for row in table.slice(0, 20).to_pylist():
        number = int(row["user"][1:])
        assert row["kind"] == ("odd" if number % 2 else "even") and row["age"] == 20 + number
        assert row["colour"] == ["red", "blue"][int(row["item"][1:]) % 2]
    assert [Path(file["path"]).name for file in prepared.manifest.files] == ["seen.csv", "users.csv", "items.parquet"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [("who,kind\nu1,a\n", "no column joins the users"), ("user,kind\nu1,a\nu1,b\n", "several rows")],
)
def test_a_table_that_does_not_join(place: Path, content: str, problem: str) -> None:
    (place / "odd.csv").write_text(content)
    with pytest.raises(DataError, match=problem):
        prepare(Data(source="seen.csv", users="odd.csv", labelled=False), seed=0, target_kind=None, base=place)


def test_the_core_is_what_holds_itself(tmp_path: Path) -> None:
    # c has two of the items, but d, which only c and one other chose, goes first, and then c.
    pairs = ["a,x", "a,y", "b,x", "b,y", "c,x", "c,d", "e,d", "e,z"]
    (tmp_path / "pairs.csv").write_text("user,item\n" + "\n".join(pairs) + "\n")
    data = Data(source="pairs.csv", core=2, labelled=False, split=Split(valid=0, test=0))
    manifest = prepare(data, seed=0, target_kind=None, base=tmp_path)
    kept = {f"{row['user']},{row['item']}" for row in manifest.table("train").to_pylist()}
    assert kept == {"a,x", "a,y", "b,x", "b,y"}
    (left_out,) = manifest.manifest.skipped
    assert left_out.count == 4 and "fewer than 2 interactions" in left_out.reason
    with pytest.raises(DataError, match="no user and no item has 3"):
        prepare(data.model_copy(update={"core": 3}), seed=0, target_kind=None, base=tmp_path)
    (tmp_path / "plain.csv").write_text("a,b\n1,2\n3,4\n")
    with pytest.raises(DataError, match="not seen which columns"):
        prepare(Data(source="plain.csv", core=2, labelled=False), seed=0, target_kind=None, base=tmp_path)


def test_last_rows_are_the_test() -> None:
    groups, times = np.repeat(["a", "b", "c"], [5, 2, 1]), np.array([3, 1, 5, 2, 4, 1, 2, 9])
    rows = np.arange(1, 9)
    assigned = within(Split(by="last", order="t"), 0, groups, rows, times)(pa.table({"_row": rows}))
    assert assigned.tolist() == [TRAIN, TRAIN, TEST, TRAIN, VALID, TRAIN, TEST, TRAIN]


def test_time_is_seen_by_name() -> None:
    assert time_column(Data(source="x"), ["user", "Timestamp"]) == "Timestamp"
    assert time_column(Data(source="x"), ["user", "item"]) is None
    with pytest.raises(DataError, match=r"data\.time"):
        time_column(Data(source="x", time="when"), ["user"])


def test_what_knows_the_future_is_found(place: Path) -> None:
    def codes(**split: Any) -> set[str]:
        data = Data(source="seen.csv", labelled=False, split=Split(valid=0.1, test=0.2, **split))
        return {finding.code for finding in check(prepare(data, seed=0, target_kind=None, base=place))}

    assert "known-future" in codes(by="within") and "known-future" in codes(by="random")
    assert "known-future" not in codes(by="within", order="time") and "known-future" not in codes(
        by="last", order="time"
    )


def recipe_for(backbone: Any, **train: Any) -> dict[str, Any]:
    split = {"by": "last", "order": "time"}
    return {
        "task": "item-recommendation",
        "data": {"source": "seen.csv", "users": "users.csv", "items": "items.parquet", "split": split},
        "model": {"backbone": backbone},
        "train": {"epochs": 40, "batch_size": 16, "lr": 5e-3, **train},
        "eval": {"resamples": 100, "metrics": ["ndcg_at_10", "hit_at_10", "mrr_at_10"]},
    }


def encoder(**changes: Any) -> InteractionEncoder:
    pairs = np.array([[0, 2], [0, 0], [0, 1], [1, 3]])
    facts = {"user": "user", "item": "item", "users": ["a", "b"], "items": ["w", "x", "y", "z"], "time": "time"}
    return InteractionEncoder(**{**facts, "learned": pairs, "known": pairs, "length": 3, **changes})


def test_sequences_by_hand() -> None:
    table = pa.table(
        {"user": ["a", "b", "a", "a"], "item": ["x", "z", "y", "w"], "time": [3.0, 9.0, 1.0, 2.0], "_row": [1, 2, 3, 4]}
    )
    found = encoder().sequences(table)
    # b chose one thing: nothing follows it.
    assert found.inputs.tolist() == [[[0, 3, 1], [0, 1, 2]]] and found.rows.tolist() == [3]
    later = pa.table({"user": ["b", "a"], "item": ["w", "z"], "time": [20.0, 20.0], "_row": [7, 8]})
    found = encoder().sequences(later)
    assert found.inputs.tolist() == [[[3, 1, 2], [0, 0, 4]], [[0, 0, 4], [0, 0, 1]]] and found.rows.tolist() == [8, 7]
    assert encoder().histories(np.array([1, 0]), encoder().known).tolist() == [[0, 0, 4], [3, 1, 2]]
    assert encoder(length=2).histories(np.array([0]), encoder().known).tolist() == [[1, 2]]


@pytest.fixture(scope="module")
def sequential(place: Path) -> Any:
    return run(recipe_for({"sasrec": {"width": 16, "length": 8}}), base=place, runs=place / "runs", console=silent())


def test_what_follows_is_learned(sequential: Any, place: Path) -> None:
    summary = sequential.stages["pretrain"].summary
    found = {name: entry["value"] for name, entry in summary["evaluation"]["metrics"].items()}
    # After two items the next one is certain.
    assert found["mrr_at_10"] > 0.8
    folder = sequential.stages["pretrain"].folder / "model"
    (answer,) = load_model(folder).predict("u3")
    rows = [row.split(",") for row in (place / "seen.csv").read_text().splitlines() if row.startswith("u3,")]
    *known, last = [item for _, item, _ in sorted(rows, key=lambda row: int(row[2]))]
    assert answer["items"][0] == last and not set(known) & set(answer["items"])


def test_it_looks_back_alone_and_at_nothing_in_front() -> None:
    spec = RecommenderSpec({"items": 9, "width": 8, "layers": 2, "heads": 2, "length": 5, "dropout": 0.0})
    network = NextItem(spec, 0).eval()
    items = torch.tensor([[0, 0, 3, 4, 5]])
    other = torch.tensor([[0, 0, 3, 4, 9]])
    with torch.no_grad():
        first, second = (network(torch.stack([entry, entry], 1)) for entry in (items, other))
        assert torch.equal(first[:, :4], second[:, :4]) and not torch.equal(first[:, 4], second[:, 4])
        assert torch.isfinite(network(torch.zeros(1, 2, 5, dtype=torch.int64))).all()


@pytest.mark.parametrize(
    ("backbone", "objective", "problem"),
    [("sasrec", "bpr", "trained on sequences"), ("factors", "next_item", "does not take sequences")],
)
def test_networks_and_objectives_that_do_not_fit(
    place: Path, tmp_path: Path, backbone: str, objective: str, problem: str
) -> None:
    with pytest.raises(RecipeError, match=problem):
        run(recipe_for(backbone, objective=objective, epochs=1), base=place, runs=tmp_path, console=silent())


def test_some_items_stand_for_all(place: Path, tmp_path: Path) -> None:
    recipe = recipe_for({"sasrec": {"width": 16, "length": 8}}, objective={"next_item": {"negatives": 8}})
    done = run(recipe, base=place, runs=tmp_path, console=silent()).stages["pretrain"]
    assert done.summary["evaluation"]["metrics"]["mrr_at_10"]["value"] > 0.6


def test_towers_read_what_is_known_of_both(place: Path, tmp_path: Path) -> None:
    recipe = recipe_for({"two_tower": {"width": 8, "hidden": [16, 8]}}, epochs=3)
    done = run(recipe, base=place, runs=tmp_path, console=silent()).stages["pretrain"]
    facts = load_model(done.folder / "model").network.spec.facts
    assert facts["user_fields"]["counts"] == [1, 1] and facts["item_fields"]["sizes"] == [3]
    network = load_model(done.folder / "model").network
    features = network.get_buffer("item_features")
    assert set(features[:, 0].tolist()) == {1, 2}
    scores: Any = network
    with torch.no_grad():
        before = scores.all_scores(torch.tensor([0]))
        network.get_buffer("user_features")[0, 0] = 3 - network.get_buffer("user_features")[0, 0]
        assert not torch.allclose(before, scores.all_scores(torch.tensor([0])))


def test_a_small_table_serves_many() -> None:
    table = Table(1000, 4, 200)
    every = table()
    assert table.weight.shape == (200, 4) and every.shape == (1000, 4)
    numbers = torch.tensor([[3, 999], [0, 3]])
    torch.testing.assert_close(table(numbers), every[numbers])
    assert len(torch.unique(every.detach(), dim=0)) > 970
    assert Table(10, 4, 50).weight.shape == (10, 4)


@pytest.mark.parametrize("sparse", [False, True])
def test_rows_move_as_in_the_formula(sparse: bool) -> None:
    torch.manual_seed(0)
    table = Table(6, 3, sparse=sparse)
    optimizer = build_optimizer("rowwise_adagrad", [{"params": [table.weight]}], 0.1, 0.0)
    assert isinstance(optimizer, RowwiseAdagrad)
    want, sums = table.weight.detach().clone(), torch.zeros(6)
    for _ in range(3):
        numbers, factor = torch.tensor([1, 4, 1]), torch.randn(3, 3)
        table.weight.grad = None
        (table(numbers) * factor).sum().backward()
        gradient = torch.zeros(6, 3).index_add(0, numbers, factor)
        sums += gradient.square().mean(1)
        want -= 0.1 * gradient / (sums.sqrt() + 1e-10)[:, None]
        optimizer.step()
    torch.testing.assert_close(table.weight.detach(), want)


@pytest.mark.parametrize(
    ("backbone", "train"),
    [
        ({"factors": {"width": 8, "sparse": True}}, {"optimizer": "rowwise_adagrad", "lr": 0.1}),
        ({"two_tower": {"width": 8, "hidden": [8], "rows": 10, "sparse": True}}, {"optimizer": "rowwise_adagrad"}),
        ({"neumf": {"width": 8, "rows": 16}}, {}),
    ],
)
def test_large_tables_train(place: Path, tmp_path: Path, backbone: Any, train: dict[str, Any]) -> None:
    done = run(recipe_for(backbone, **{"epochs": 4, **train}), base=place, runs=tmp_path, console=silent()).stages[
        "pretrain"
    ]
    assert done.summary["evaluation"]["metrics"]["hit_at_10"]["value"] > 0


@pytest.mark.parametrize("train", [{}, {"optimizer": "rowwise_adagrad", "clip_norm": 1.0}])
def test_what_sparse_gradients_do_not_take(place: Path, tmp_path: Path, train: dict[str, Any]) -> None:
    recipe = recipe_for({"factors": {"sparse": True}}, epochs=1, **train)
    with pytest.raises(RecipeError, match="gradients of its rows alone"):
        run(recipe, base=place, runs=tmp_path, console=silent())


def test_items_for_a_user(sequential: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = sequential.stages["pretrain"].folder / "model"
    recommend(folder, "u3", 4)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["1", "2", "3", "4"] and lines[0].split()[1].startswith("i")
    recommend(folder, "nobody", 2)
    assert "the user has no history" in capsys.readouterr().out


def test_only_recommenders_recommend(place: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a,b\n" + "\n".join(f"{row % 7},{'xy'[row % 2]}" for row in range(60)) + "\n")
    recipe = {"task": "tabular-classification", "data": {"source": "rows.csv", "target": "b"}, "train": {"epochs": 1}}
    done = run(recipe, base=tmp_path, runs=tmp_path / "runs", console=silent()).stages["pretrain"]
    with pytest.raises(ArtifactError, match="does not recommend"):
        recommend(done.folder / "model", "u3", 3)


def test_an_auc_for_each_user() -> None:
    draw = np.random.default_rng(0)
    groups, target = draw.integers(0, 7, 300), draw.integers(0, 2, 300)
    target[groups == 3] = 1
    score = np.round(draw.normal(size=300) + target, 1)  # with equal ones
    weights = draw.integers(0, 3, (4, 300)).astype(float)
    outcome = Outcome(np.stack([-score / 2, score / 2], 1), target, groups)
    for row, found in zip(weights, METRICS["grouped_auc"].formula(outcome, weights), strict=True):
        total = parts = 0.0
        for group in range(7):
            here = (groups == group) & (row > 0)
            if len(set(target[here])) == 2:
                size = row[here].sum()
                parts += size * float(roc_auc_score(target[here], score[here], sample_weight=row[here]))
                total += size
        assert found == pytest.approx(parts / total)
    assert np.isnan(METRICS["grouped_auc"].formula(Outcome(outcome.outputs, target), weights)).all()
