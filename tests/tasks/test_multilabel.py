"""Several labels a row: read from lists, divided text or columns of 0 and 1; learned, measured, reported, used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sklearn import metrics as reference
from sklearn.datasets import make_multilabel_classification
from sklearn.linear_model import LogisticRegression

from tiny import WORDS, tiny_bert
from tunewright.commands.compare import compare_runs
from tunewright.commands.evaluate import evaluate_run
from tunewright.commands.init import write_recipe
from tunewright.console import silent
from tunewright.data.checks.table import check
from tunewright.data.prepare.multilabel import label_matrix
from tunewright.data.prepare.prepare import prepare
from tunewright.data.prepared import Prepared
from tunewright.errors import DataError, RecipeError, UserError
from tunewright.evaluation.baselines import baselines
from tunewright.evaluation.intervals import bootstrap
from tunewright.evaluation.label_thresholds import best_threshold, by_label, tuned_thresholds
from tunewright.evaluation.metrics import METRICS, Outcome, get_metric
from tunewright.evaluation.slices import worst
from tunewright.inference.model import load_model, predict
from tunewright.recipe.schema import Data, Train
from tunewright.report.page import write_report
from tunewright.run_recipe import run
from tunewright.tasks.base.targets import LABELS, LabelsTarget
from tunewright.training.objectives.registry import build_objective
from tunewright.training.objectives.supervised import binary_cross_entropy

# The data.

ROWS: list[list[str]] = [["film", "good"], [], ["book"], ["book", "good"], ["film"], ["good"]] * 10


def read(path: Path, **data: Any) -> Prepared:
    return prepare(Data(source=str(path), **data), seed=0, target_kind="labels", base=path.parent)


def sets(prepared: Prepared) -> dict[int, list[str]]:
    """The labels of each row by its number."""
    tables = [prepared.table(split) for split in prepared.manifest.splits]
    target = prepared.manifest.target or ""
    return {row: names for t in tables for row, names in zip(t["_row"].to_pylist(), t[target].to_pylist())}


EXPECTED = {number: sorted(names) for number, names in enumerate(ROWS, start=1)}


def as_csv(path: Path, sign: str) -> Path:
    path.write_text("text,tags\n" + "".join(f'words {i},"{sign.join(names)}"\n' for i, names in enumerate(ROWS)))
    return path


@pytest.mark.parametrize("sign", ["|", ";", ",", "; "])
def test_divided_text(tmp_path: Path, sign: str) -> None:
    prepared = read(as_csv(tmp_path / "t.csv", sign))
    manifest = prepared.manifest
    assert {row: sorted(names) for row, names in sets(prepared).items()} == EXPECTED
    assert manifest.classes == ["book", "film", "good"] and manifest.target_kind == "labels"
    assert f"divided at {sign.strip()!r}, which 20 of 50 hold" in manifest.target_reason
    assert "10 rows have no label at all" in " ".join(manifest.notes)
    assert manifest.used == 60 and manifest.column("tags").separator == sign.strip()


def test_a_sign_of_the_recipe(tmp_path: Path) -> None:
    prepared = read(as_csv(tmp_path / "t.csv", " and "), separator=" and ")
    assert {row: sorted(names) for row, names in sets(prepared).items()} == EXPECTED
    # A comma inside a name divides nothing where another sign stands in the cells.
    (tmp_path / "c.csv").write_text("text,tags\n" + 'a,"red, dark;big"\nb,"red, dark"\n' * 20)
    assert read(tmp_path / "c.csv").manifest.classes == ["big", "red, dark"]


def test_lists_in_jsonl_and_parquet(tmp_path: Path) -> None:
    lines = [json.dumps({"text": f"words {i}", "tags": names}) for i, names in enumerate(ROWS)]
    (tmp_path / "t.jsonl").write_text(
        "\n".join([*lines, '{"text": "x", "tags": null}', '{"text": "y", "tags": "book"}'])
    )
    found = read(tmp_path / "t.jsonl")
    assert {row: sorted(names) for row, names in sets(found).items()} == EXPECTED
    left_out = {entry.reason: entry.examples[0] for entry in found.manifest.skipped}
    assert "row 61" in left_out["the target 'tags' is missing"]
    assert "line 62" in left_out["one value where most lines hold a list"]
    texts = [f"words {i}" for i in range(len(ROWS))]
    for kind in (pa.list_(pa.string()), pa.large_list(pa.string())):
        pq.write_table(pa.table({"text": texts, "tags": pa.array(ROWS, kind)}), tmp_path / "t.parquet")
        assert {row: sorted(names) for row, names in sets(read(tmp_path / "t.parquet")).items()} == EXPECTED
    numbers = pa.array([[len(name) for name in names] for names in ROWS], pa.list_(pa.int64()))
    pq.write_table(pa.table({"text": texts, "tags": numbers}), tmp_path / "n.parquet")
    assert read(tmp_path / "n.parquet").manifest.classes == ["4"]  # film, book and good have four letters each


def test_lists_of_class_numbers_from_the_hub_get_their_names(tmp_path: Path) -> None:
    import datasets

    names = ["book", "film", "good"]
    features = datasets.Features(
        {"text": datasets.Value("string"), "tags": datasets.Sequence(datasets.ClassLabel(names=names))}
    )
    rows = {"text": [f"w {i}" for i in range(60)], "tags": [[names.index(name) for name in row] for row in ROWS]}
    made = datasets.Dataset.from_dict(rows, features=features)
    made.save_to_disk(tmp_path / "saved")
    made.to_parquet(tmp_path / "t.parquet")
    for path in (tmp_path / "saved", tmp_path / "t.parquet"):
        assert {row: sorted(found) for row, found in sets(read(path)).items()} == EXPECTED


def test_a_column_of_0_and_1_for_each_label(tmp_path: Path) -> None:
    names = ["book", "film", "good"]
    lines = [f"words {i}," + ",".join(str(int(name in row)) for name in names) for i, row in enumerate(ROWS)]
    lines += ["bad,1,2,0", "empty,1,,0"]
    (tmp_path / "t.csv").write_text("text,book,film,good\n" + "\n".join(lines) + "\n")
    found = read(tmp_path / "t.csv", target=names)
    assert {row: sorted(labels) for row, labels in sets(found).items()} == EXPECTED
    assert found.manifest.input == ["text"] and "named in the recipe" in found.manifest.target_reason
    (left_out,) = found.manifest.skipped
    assert left_out.count == 2 and "'film' is neither 0 nor 1" in left_out.reason
    assert "row 61: '2'" in left_out.examples[0] and "row 62: empty" in left_out.examples[1]
    with pytest.raises(DataError, match="did you mean 'film'"):
        read(tmp_path / "t.csv", target=["book", "films"])
    with pytest.raises(DataError, match="text-multilabel-classification"):
        prepare(Data(source=str(tmp_path / "t.csv"), target=names), seed=0, target_kind="category", base=tmp_path)


def test_strata_of_sets_are_none_and_it_is_said(tmp_path: Path) -> None:
    from tunewright.recipe.schema import Split

    path = as_csv(tmp_path / "t.csv", "|")
    asked, plain = read(path, split=Split(by="stratified")).manifest, read(path).manifest
    assert "at random and not stratified" in " ".join(asked.notes) and asked.split_rule == plain.split_rule
    assert "stratified" not in " ".join(plain.notes)


@pytest.mark.parametrize(
    ("content", "data", "said"),
    [
        ("text,tags\n" + "a,one\nb,two\n" * 20, {}, "no cell of the target 'tags' holds several classes"),
        ("text,tags\n" + "a,\nb,\n" * 20, {}, "no cell of the target 'tags' holds several classes"),
        ("text,tags\n" + "a,2020-01-01\nb,2020-01-02\n" * 20, {}, "holds no classes"),
        ("text,tags\n" + "a,one|two\n" * 20, {"target": "tag"}, "did you mean 'tags'"),
    ],
)
def test_what_cannot_be_read_says_why(tmp_path: Path, content: str, data: dict[str, Any], said: str) -> None:
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(DataError, match=said):
        read(tmp_path / "t.csv", **data)


def test_one_label_everywhere_is_too_few(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text,tags\n" + "a,one|one\nb,\n" * 20)
    with pytest.raises(DataError, match="has 1 class"):
        LABELS.fit(read(tmp_path / "t.csv"), None)


def test_lists_are_no_target_of_other_tasks(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text("\n".join(json.dumps({"t": "a b", "tags": row}) for row in ROWS))
    for kind in ("category", "number"):
        with pytest.raises(DataError, match="text-multilabel-classification"):
            prepare(Data(source=str(tmp_path / "t.jsonl"), target="tags"), seed=0, target_kind=kind, base=tmp_path)  # pyright: ignore


def test_the_target_as_a_matrix_and_an_unknown_label() -> None:
    encoder = LabelsTarget(column="tags", classes=["a", "b", "c"])
    lists = pa.chunked_array([pa.array([["c", "a"], []]), pa.array([["b"]])])
    table = pa.table({"tags": lists, "_row": [7, 8, 9]})
    assert encoder.encode(table).tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert encoder.encode(table.slice(1, 1)).tolist() == [[0, 0, 0]]
    assert label_matrix(lists, ["b"]).tolist() == [[0], [0], [1]]
    with pytest.raises(DataError, match="row 9") as caught:
        LabelsTarget(column="tags", classes=["a", "c"]).encode(table)
    assert caught.value.found == "b"


def test_data_check_counts_by_label(tmp_path: Path) -> None:
    findings = {finding.code: finding for finding in check(read(as_csv(tmp_path / "t.csv", "|")))}
    assert "3 classes" in findings["class-balance"].title and "good: 30 rows" in findings["class-balance"].examples
    assert "1.17 labels a row, 2 at most; 10 rows have none" in findings["labels-a-row"].title
    rare = [*ROWS, ["rare", "film"]]
    (tmp_path / "r.jsonl").write_text("\n".join(json.dumps({"t": f"a {i}", "tags": row}) for i, row in enumerate(rare)))
    absent = [finding for finding in check(read(tmp_path / "r.jsonl")) if finding.code == "absent-class"]
    assert len(absent) == 2 and all("rare" in finding.examples for finding in absent)


# The metrics.


@pytest.fixture(scope="module")
def scored() -> tuple[np.ndarray, np.ndarray]:
    """Logits of one regression for each label on rows that it has not seen, and the truth; some rows have no label."""
    inputs, target = make_multilabel_classification(500, 12, n_classes=6, n_labels=2, random_state=0)
    logits = [
        LogisticRegression(max_iter=500).fit(inputs[:250], y[:250]).decision_function(inputs[250:]) for y in target.T
    ]
    return np.stack(logits, axis=1), target[250:].astype(np.uint8)


def test_against_scikit_learn(scored: tuple[np.ndarray, np.ndarray]) -> None:
    logits, target = scored
    assert (target.sum(1) == 0).any()
    chances, chosen = 1 / (1 + np.exp(-logits)), (logits > 0).astype(int)
    expected = {
        "f1_micro": reference.f1_score(target, chosen, average="micro"),
        "f1_macro": reference.f1_score(target, chosen, average="macro"),
        "subset_accuracy": reference.accuracy_score(target, chosen),
        "hamming_loss": reference.hamming_loss(target, chosen),
        "pr_auc": reference.average_precision_score(target, chances, average="macro"),
        "roc_auc": reference.roc_auc_score(target, chances, average="macro"),
        "log_loss": np.mean([reference.log_loss(y, p) for y, p in zip(target.T, chances.T)]),
    }
    for name, value in expected.items():
        assert METRICS[name].value(logits, target) == pytest.approx(value, abs=1e-9), name
    assert {name for name, metric in METRICS.items() if "multilabel" in metric.kinds} == set(expected)


def test_two_labels_are_not_two_classes() -> None:
    logits, target = np.array([[2.0, 1.0], [-1.0, 3.0], [-2.0, -3.0]]), np.array([[1, 1], [0, 1], [1, 0]])
    outcome = Outcome(logits, target)
    assert outcome.chosen.tolist() == [[1, 1], [0, 1], [0, 0]] and outcome.correct.tolist() == [1, 1, 0]
    assert METRICS["roc_auc"].value(logits, target) == pytest.approx((0.5 + 1) / 2)
    assert outcome.losses[2] == pytest.approx((np.log1p(np.exp(2)) + np.log1p(np.exp(-3))) / 2)
    assert worst(outcome, 5) == [2]
    with pytest.raises(RecipeError, match="for multilabel"):
        get_metric("accuracy", "multilabel")


def test_no_value_where_no_label_is_there_or_given() -> None:
    logits, target = np.full((4, 2), -1.0), np.zeros((4, 2), int)
    assert np.isnan(METRICS["f1_micro"].value(logits, target)) and np.isnan(METRICS["f1_macro"].value(logits, target))
    assert METRICS["subset_accuracy"].value(logits, target) == 1
    estimate = bootstrap([METRICS["f1_micro"]], Outcome(logits, target), resamples=100, seed=0)["f1_micro"]
    assert estimate.value is None


def test_label_by_label(scored: tuple[np.ndarray, np.ndarray]) -> None:
    logits, target = scored
    found = by_label(Outcome(logits, target), list("abcdef"))
    precision, recall, f1, rows = reference.precision_recall_fscore_support(target, logits > 0, zero_division=0.0)
    for k, entry in enumerate(found):
        assert (entry.precision or 0, entry.recall, entry.f1, entry.rows) == pytest.approx(
            (precision[k], recall[k], f1[k], rows[k])
        )
        assert entry.average_precision == pytest.approx(reference.average_precision_score(target[:, k], logits[:, k]))
    nothing = by_label(Outcome(np.full((3, 1), -1.0), np.zeros((3, 1), int)), ["a"])[0]
    assert nothing.precision is None and nothing.recall is None and nothing.average_precision is None


def test_the_best_threshold_by_trying_all(scored: tuple[np.ndarray, np.ndarray]) -> None:
    logits, target = scored
    for k in range(6):
        tried = [reference.f1_score(target[:, k], logits[:, k] > cut) for cut in np.unique(logits[:, k])[:-1]]
        found = best_threshold(logits[:, k], target[:, k])
        assert reference.f1_score(target[:, k], logits[:, k] > found) == pytest.approx(max(tried))
    assert best_threshold(np.array([1.0, 2.0]), np.array([0, 0])) == 0
    assert best_threshold(np.array([-2.0, 2.0]), np.array([0, 1])) == 0  # perfect at 1/2 already: nothing moves
    facts = tuned_thresholds(logits, target, Outcome(logits, target), list("abcdef"))
    before, after = facts.f1_macro
    assert before is not None and after is not None and after >= before and set(facts.by_label) == set("abcdef")


def test_baselines(scored: tuple[np.ndarray, np.ndarray]) -> None:
    inputs, target = make_multilabel_classification(300, 12, n_classes=4, random_state=1)
    target[:, 3] = 0  # never there: nothing to fit
    train, test = torch.tensor(inputs[:200], dtype=torch.float32), torch.tensor(inputs[200:], dtype=torch.float32)
    answers = torch.from_numpy(target[:200].astype(np.uint8))
    prior, linear = baselines("multilabel", answers, train, answers, test, outputs=4, name="linear")
    assert 1 / (1 + np.exp(-prior.outputs[0, :3])) == pytest.approx(target[:200, :3].mean(0))
    assert linear.outputs[:, 3] == pytest.approx(prior.outputs[:, 3])
    truth = target[200:]
    assert METRICS["log_loss"].value(linear.outputs, truth) < METRICS["log_loss"].value(prior.outputs, truth)


# The loss.


def test_the_loss_is_torchs_and_weights_count_where_a_label_is_there() -> None:
    logits, target = torch.tensor([[1.0, -2.0], [0.5, 3.0], [-1.0, 0.1]]), torch.tensor([[1, 0], [1, 1], [0, 0]])
    expected = torch.nn.BCEWithLogitsLoss()(logits, target.float())
    assert binary_cross_entropy(logits, target) / 3 == pytest.approx(float(expected), abs=1e-6)
    weights = torch.tensor([5.0, 2.0])
    weighted = torch.nn.BCEWithLogitsLoss(pos_weight=weights, reduction="sum")(logits, target.float()) / 2
    assert float(binary_cross_entropy(logits, target, weights)) == pytest.approx(float(weighted), abs=1e-6)
    smooth = torch.nn.BCEWithLogitsLoss(reduction="sum")(logits, target * 0.8 + 0.1) / 2
    assert float(binary_cross_entropy(logits, target, None, 0.2)) == pytest.approx(float(smooth), abs=1e-6)


def test_objectives_and_weights_for_labels(tmp_path: Path) -> None:
    from tunewright.data.batches.batch import Batch

    prepared = read(as_csv(tmp_path / "t.csv", "|"))
    rows = prepared.rows("train")
    table = prepared.table("train")["tags"].to_pylist()
    counts = [sum(name in row for row in table) for name in ("book", "film", "good")]

    def build(name: str = "binary_cross_entropy", **train: Any) -> Any:
        classes = prepared.manifest.classes
        objective = build_objective(name, Train(**train), classes=classes, prepared=prepared)
        return objective.bind(0, torch.device("cpu"))

    balanced = build(class_weights="balanced")
    assert balanced.class_weights.tolist() == pytest.approx([(rows - count) / count for count in counts])
    named = build(class_weights={"film": 4.0})
    assert named.class_weights.tolist() == [1, 4, 1]
    batch = Batch(torch.zeros(2, 3), torch.tensor([[0, 1, 1], [1, 0, 0]]), torch.arange(2))
    assert named.weight(batch) == pytest.approx((1 + 4 + 1) / 3 + 1) and build().weight(batch) == 2
    assert float(build().loss_sum(lambda x: x, batch, 0)) == pytest.approx(2 * np.log(2))
    with pytest.raises(RecipeError, match="several"):
        build("cross_entropy")
    with pytest.raises(RecipeError, match="another size"):
        build().loss_sum(lambda x: x[:, :2], batch, 0)


# The whole life.

TOPICS = {"film": {"film", "plot"}, "stay": {"room", "warm", "cold"}, "meal": {"food"}}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny BERT, and texts whose labels are the topics that their words name; many have none."""
    folder = tmp_path_factory.mktemp("labels")
    tiny_bert(
        folder / "tiny", layers=1, initializer_range=0.2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    draw = np.random.default_rng(0)
    lines: list[str] = []
    for index in range(600):
        words = [str(draw.choice(WORDS)) for _ in range(int(draw.integers(2, 7)))]
        topics = [topic for topic, known in TOPICS.items() if known & set(words)]
        lines.append(
            json.dumps({"text": " ".join(words), "length": "short" if index % 3 else "long", "topics": topics})
        )
    (folder / "texts.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def done(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    recipe = {
        "name": "topics",
        "task": "text-multilabel-classification",
        "data": {"source": "texts.jsonl", "input": "text", "split": {"valid": 0.2, "test": 0.2}},
        "model": {"backbone": "tiny"},
        "tune": {"freeze": "none"},
        "train": {"epochs": 8, "lr": 3e-3, "batch_size": 16},
        "eval": {"resamples": 100, "slices": ["length"], "target": {"f1_micro": 0.6}},
        "hardware": {"threads": 1, "precision": "float32"},
    }
    return run(recipe, base=place, runs=tmp_path_factory.mktemp("runs"), console=silent())


def test_it_learns_and_is_measured(done: Any) -> None:
    evaluation = done.stages["finetune"].summary["evaluation"]
    metrics = {name: entry["value"] for name, entry in evaluation["metrics"].items()}
    assert list(metrics) == ["f1_micro", "f1_macro", "subset_accuracy", "hamming_loss", "pr_auc", "log_loss"]
    assert metrics["f1_micro"] > 0.9
    assert all(entry["low"] <= entry["value"] <= entry["high"] for entry in evaluation["metrics"].values())
    assert [entry["name"].split(" (")[0] for entry in evaluation["baselines"]] == [
        "label prior",
        "linear model on character n-grams",
    ]
    assert [entry["label"] for entry in evaluation["labels"]] == ["film", "meal", "stay"]
    assert set(evaluation["thresholds"]["by_label"]) == set(TOPICS) and len(evaluation["slices"]) == 2
    assert "confusion" not in evaluation and "calibration" not in evaluation
    assert all(isinstance(mistake["target"], list) for mistake in evaluation["mistakes"])
    assert done.stages["finetune"].summary["training"]["best"]["metric"] == "loss"


def test_the_report_has_a_table_of_labels(done: Any) -> None:
    for lang, heading in (("en", "Results by label"), ("zh", "逐标签结果")):
        page = write_report(done.folder, lang=lang).read_text(encoding="utf-8")
        assert heading in page and "stay" in page
    card = (done.stages["finetune"].folder / "model" / "README.md").read_text()
    assert "any of 3 labels" in card and "micro F1" in card


def test_transformers_opens_it_with_the_right_loss(done: Any) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = done.stages["finetune"].folder / "model"
    opened, tokenizer = (
        AutoModelForSequenceClassification.from_pretrained(folder).eval(),
        AutoTokenizer.from_pretrained(folder),
    )
    assert opened.config.problem_type == "multi_label_classification"
    assert opened.config.id2label == {0: "film", 1: "meal", 2: "stay"}
    batch = tokenizer(["the film was good", "a warm room"], padding=True, return_tensors="pt")
    with torch.no_grad():
        found = opened(**batch, labels=torch.tensor([[1.0, 0, 0], [0, 0, 1.0]]))
    ours = load_model(folder).predict(pa.table({"text": ["the film was good", "a warm room"]}))
    for row, entry in zip(torch.sigmoid(found.logits).tolist(), ours):
        assert list(entry["probabilities"].values()) == pytest.approx(row, abs=1e-5)
    assert [entry["prediction"] for entry in ours] == [["film"], ["stay"]] and "confidence" not in ours[0]
    assert float(found.loss) < 0.3


def test_prediction_from_a_file_and_a_second_measurement(place: Path, done: Any) -> None:
    folder = done.stages["finetune"].folder
    found = predict(folder / "model", place / "texts.jsonl")
    assert len(found) == 600 and sum(entry["prediction"] == [] for entry in found) > 50
    before = done.stages["finetune"].summary["evaluation"]["metrics"]["f1_micro"]
    evaluate_run(done.folder, ["eval.metrics=[f1_micro,roc_auc]"], console=silent())
    again = json.loads((folder / "summary.json").read_text())["evaluation"]["metrics"]
    assert list(again) == ["f1_micro", "roc_auc"] and again["f1_micro"] == before
    differences = compare_runs(done.folder, done.folder, console=silent())
    assert set(differences) == {name for name, metric in METRICS.items() if "multilabel" in metric.kinds}
    assert all(entry.verdict == "no real difference" for entry in differences.values())


def test_features_and_few_shot_leave_labels_alone(place: Path, tmp_path: Path) -> None:
    recipe = {
        "task": "text-multilabel-classification",
        "data": {"source": "texts.jsonl", "input": "text", "limit": 60},
        "model": {"backbone": "tiny"},
        "train": {"epochs": 1, "class_weights": "balanced"},
        "eval": {"resamples": 100},
        "hardware": {"threads": 1, "precision": "float32"},
    }
    result = run(recipe, base=place, runs=tmp_path, console=silent())
    assert "few_shot" not in result.stages["finetune"].summary["training"]
    with pytest.raises(RecipeError, match="one class a row"):
        run({**recipe, "tune": {"method": "features"}}, base=place, runs=tmp_path, console=silent())


def test_init_writes_a_recipe_for_labels_and_asks_for_data(place: Path, tmp_path: Path) -> None:
    from tunewright.recipe.loading import load_recipe
    from tunewright.tasks.registry import task_defaults

    out = tmp_path / "mine.yaml"
    said = write_recipe("text-multilabel-classification", str(place / "texts.jsonl"), out)
    assert "its cells are lists" in said and load_recipe(out, defaults=task_defaults).data.target == "topics"
    with pytest.raises(UserError, match="--data"):
        write_recipe("text-multilabel-classification", None, tmp_path / "other.yaml")
