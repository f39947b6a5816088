"""Metrics against hand-computed values and scikit-learn; intervals, calibration, baselines, slices, comparisons."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn import metrics as reference
from sklearn.datasets import load_diabetes, load_digits
from sklearn.linear_model import LogisticRegression, Ridge

from tunewright.errors import RecipeError, UserError
from tunewright.evaluation.advice import hint
from tunewright.evaluation.baselines import baselines, sample_rows
from tunewright.evaluation.calibration import fit_temperature, reliability
from tunewright.evaluation.intervals import bootstrap, over_seeds, paired_bootstrap, resample_counts
from tunewright.evaluation.metrics import METRICS, Outcome, get_metric
from tunewright.evaluation.paired_comparison import Predictions, compare_predictions
from tunewright.evaluation.slices import confusion, slice_by, worst
from tunewright.runs.metrics_log import LOSS, EpochLine


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Real logits: a logistic regression's on digits that it has not seen."""
    inputs, target = load_digits(return_X_y=True)
    model = LogisticRegression(max_iter=2000).fit(inputs[:900] / 16, target[:900])
    return model.decision_function(inputs[900:] / 16), target[900:]


@pytest.fixture(scope="module")
def diabetes() -> tuple[np.ndarray, np.ndarray]:
    inputs, target = load_diabetes(return_X_y=True)
    return Ridge(0.1).fit(inputs[:300], target[:300]).predict(inputs[300:]), target[300:]


def chances(logits: np.ndarray) -> np.ndarray:
    return np.asarray(torch.softmax(torch.from_numpy(logits), 1))


def test_against_scikit_learn(digits: tuple[np.ndarray, np.ndarray], diabetes: tuple[np.ndarray, np.ndarray]) -> None:
    logits, target = digits
    p, predicted = chances(logits), logits.argmax(1)
    expected = {
        "accuracy": reference.accuracy_score(target, predicted),
        "f1_macro": reference.f1_score(target, predicted, average="macro"),
        "log_loss": reference.log_loss(target, p),
        "roc_auc": np.mean([reference.roc_auc_score(target == k, p[:, k]) for k in range(10)]),
        "pr_auc": np.mean([reference.average_precision_score(target == k, p[:, k]) for k in range(10)]),
        "brier": np.mean([np.sum((p[i] - np.eye(10)[target[i]]) ** 2) for i in range(len(target))]),
    }
    for name, value in expected.items():
        assert METRICS[name].value(logits, target) == pytest.approx(value, abs=1e-9), name
    predictions, truth = diabetes
    assert METRICS["mae"].value(predictions, truth) == pytest.approx(reference.mean_absolute_error(truth, predictions))
    assert METRICS["rmse"].value(predictions, truth) == pytest.approx(
        math.sqrt(reference.mean_squared_error(truth, predictions))
    )
    assert METRICS["r2"].value(predictions, truth) == pytest.approx(reference.r2_score(truth, predictions))


def test_by_hand() -> None:
    logits = np.log(np.array([[0.8, 0.2], [0.6, 0.4], [0.3, 0.7], [0.45, 0.55]]))
    target = np.array([0, 1, 1, 1])
    values = {
        name: metric.value(logits, target) for name, metric in METRICS.items() if "classification" in metric.kinds
    }
    assert values["accuracy"] == 0.75
    assert values["f1_macro"] == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert values["log_loss"] == pytest.approx(-(math.log(0.8) + math.log(0.4) + math.log(0.7) + math.log(0.55)) / 4)
    assert values["brier"] == pytest.approx((2 * 0.2**2 + 2 * 0.6**2 + 2 * 0.3**2 + 2 * 0.45**2) / 4)
    assert values["roc_auc"] == 1.0
    # Bins of a fifteenth: .8 and .7 alone, |1 − .8| and |1 − .7|; .6 and .55 together, |0 − .6 + 1 − .55|.
    assert values["ece"] == pytest.approx((0.2 + 0.3 + 0.15) / 4)


def test_ties_count_half() -> None:
    logits, target = np.array([[0.0, 1.0], [0.0, 1.0], [0.0, 2.0], [0.0, 0.0]]), np.array([0, 1, 1, 0])
    assert METRICS["roc_auc"].value(logits, target) == pytest.approx((0.5 + 1 + 1 + 1) / 4)


@pytest.mark.parametrize("name", METRICS)
def test_weights_are_repeated_rows(
    name: str, digits: tuple[np.ndarray, np.ndarray], diabetes: tuple[np.ndarray, np.ndarray]
) -> None:
    metric = METRICS[name]
    outputs, target = diabetes if metric.kinds == ("regression",) else digits
    if "multilabel" in metric.kinds:
        target = np.eye(10, dtype=np.uint8)[target]
    if metric.kinds == ("tokens",):  # of each text the sum of the losses, how many are right, how many there are
        target = 1 + target
        outputs = np.stack([outputs[:, 0] ** 2, target // 2], axis=1)
    groups = None
    if name == "grouped_auc":  # of two classes, and of somebody
        outputs, target, groups = outputs[:, :2], (target > 4).astype(int), np.arange(len(target)) % 9
    counts = next(resample_counts(len(target), 5, seed=3))
    found = metric.formula(Outcome(outputs, target, groups), counts)
    for row, value in zip(counts.astype(int), found):
        repeated = np.repeat(np.arange(len(target)), row)
        again = Outcome(outputs[repeated], target[repeated], None if groups is None else groups[repeated])
        assert metric.formula(again, np.ones((1, len(repeated))))[0] == pytest.approx(value, rel=1e-9)


def test_no_value_where_there_is_none() -> None:
    one_class = np.zeros(5, dtype=int)
    assert math.isnan(METRICS["roc_auc"].value(np.zeros((5, 2)), one_class))
    assert math.isnan(METRICS["r2"].value(np.arange(5.0), np.ones(5)))
    estimate = bootstrap([METRICS["roc_auc"]], Outcome(np.zeros((5, 2)), one_class), resamples=100, seed=0)["roc_auc"]
    assert estimate.value is None
    with pytest.raises(ValueError, match="not a number"):
        Outcome(np.array([[np.nan, 0.0]]), np.array([0]))
    assert METRICS["accuracy"].value(np.array([[0.0, 1.0]]), np.array([1])) == 1.0


def test_the_interval_covers_the_truth_about_95_times_in_100() -> None:
    generator, hits, trials = np.random.default_rng(0), 0, 300
    for trial in range(trials):
        target = np.zeros(200, dtype=int)
        logits = np.where(generator.random(200)[:, None] < 0.8, [[1.0, 0.0]], [[0.0, 1.0]])
        estimate = bootstrap([METRICS["accuracy"]], Outcome(logits, target), resamples=200, seed=trial)["accuracy"]
        assert estimate.low is not None and estimate.high is not None
        hits += estimate.low <= 0.8 <= estimate.high
    assert 0.91 <= hits / trials <= 0.98


def test_the_bootstrap_is_a_function_of_the_seed(digits: tuple[np.ndarray, np.ndarray]) -> None:
    outcome = Outcome(*digits)
    first, second, other = (
        bootstrap([METRICS["accuracy"]], outcome, resamples=200, seed=seed)["accuracy"] for seed in (1, 1, 2)
    )
    assert first == second != other


def test_over_seeds_by_hand() -> None:
    estimate = over_seeds([0.97, 0.98, 0.99])
    # t(0.975, 2) = 4.3027; s = 0.01; 4.3027 · 0.01 / √3 = 0.02484
    assert estimate.value == pytest.approx(0.98) and estimate.low == pytest.approx(0.98 - 0.024842, abs=1e-5)
    assert over_seeds([0.5]).low is None


def test_paired_comparison(digits: tuple[np.ndarray, np.ndarray]) -> None:
    logits, target = digits
    noise = np.random.default_rng(0).normal(size=logits.shape)
    a, b = Outcome(logits, target), Outcome(logits + 6 * noise, target)
    assert paired_bootstrap(METRICS["accuracy"], a, b, resamples=300, seed=0).verdict == "better"
    assert paired_bootstrap(METRICS["log_loss"], a, b, resamples=300, seed=0).verdict == "better"
    assert paired_bootstrap(METRICS["accuracy"], b, a, resamples=300, seed=0).verdict == "worse"
    assert paired_bootstrap(METRICS["accuracy"], a, a, resamples=300, seed=0).verdict == "no real difference"
    nearly = Outcome(logits + 0.01 * noise, target)
    assert paired_bootstrap(METRICS["accuracy"], a, nearly, resamples=300, seed=0).verdict == "no real difference"


def test_results_on_other_rows_are_not_compared() -> None:
    def made(rows: int) -> Predictions:
        return Predictions(
            name="a",
            data="x",
            kind="regression",
            rows=np.arange(rows),
            target=np.arange(rows) * 1.0,
            outputs=np.arange(rows) * 1.0,
        )

    with pytest.raises(UserError, match="not measured on the same rows"):
        compare_predictions(made(5), made(6), "mae", resamples=100)


@pytest.mark.parametrize("true", [0.5, 1.0, 2.5])
def test_the_temperature_is_found_again(true: float) -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(20_000, 5)) * 2
    p = chances(logits)
    target = (p.cumsum(1) > generator.random(len(p))[:, None]).argmax(1)
    assert fit_temperature(logits * true, target) == pytest.approx(true, rel=0.05)


def test_bins_hold_every_row_once(digits: tuple[np.ndarray, np.ndarray]) -> None:
    found = reliability(*digits)
    assert sum(entry.rows for entry in found) == len(digits[1])
    assert all(entry.low < entry.confidence <= entry.high + 1e-12 for entry in found)


def test_baselines() -> None:
    inputs, target = load_digits(return_X_y=True)
    x, y = torch.tensor(inputs, dtype=torch.float32), torch.tensor(target)
    majority, prior, linear = baselines(
        "classification", y[:1200], x[:1200], y[:1200], x[1200:], outputs=10, name="linear"
    )
    truth = target[1200:]
    assert METRICS["accuracy"].value(linear.outputs, truth) >= 0.93 - 0.04  # the last writers are the hardest
    counts = np.bincount(target[:1200])
    assert (majority.outputs.argmax(1) == counts.argmax()).all()
    assert np.allclose(np.exp(prior.outputs[0]), counts / counts.sum())
    inputs, numbers = load_diabetes(return_X_y=True)
    x, y = torch.tensor(inputs, dtype=torch.float32), torch.tensor(numbers)
    mean, median, ridge = baselines("regression", y[:300], x[:300], y[:300], x[300:], outputs=1, name="linear")
    assert METRICS["r2"].value(mean.outputs, numbers[300:]) < 0.01
    assert median.outputs[0] == np.median(numbers[:300])
    assert METRICS["r2"].value(ridge.outputs, numbers[300:]) > 0.4


def test_the_linear_model_on_mnist_reaches_what_is_known() -> None:
    from pathlib import Path

    from tunewright.data.prepare.prepare import prepare
    from tunewright.data.prepared import column_array
    from tunewright.recipe.schema import Data, Split

    found = prepare(Data(source="mnist", split=Split(valid=0)), seed=0, target_kind="category", base=Path("."))
    column = found.manifest.column("image")

    def part(split: str) -> tuple[torch.Tensor, torch.Tensor]:
        table = found.table(split)
        return torch.tensor(column_array(table, column) / 255, dtype=torch.float32), torch.tensor(
            [int(v) for v in table["label"].to_pylist()]
        )

    (x, y), (x_test, y_test) = part("train"), part("test")
    chosen = sample_rows(len(y), 0, 10_000)
    linear = baselines("classification", y, x[chosen], y[chosen], x_test, outputs=10, name="linear")[-1]
    assert METRICS["accuracy"].value(linear.outputs, y_test.numpy()) >= 0.89


def test_slices_confusion_and_worst(digits: tuple[np.ndarray, np.ndarray]) -> None:
    logits, target = digits
    outcome = Outcome(logits, target)
    parts = slice_by(
        "parity", ["odd" if t % 2 else "even" for t in target], [METRICS["accuracy"]], outcome, resamples=100, seed=0
    )
    assert [part.value for part in parts] == ["even", "odd"] and sum(part.rows for part in parts) == len(target)
    weighted = sum(part.rows * (part.metrics["accuracy"].value or 0) for part in parts) / len(target)
    assert weighted == pytest.approx(METRICS["accuracy"].value(logits, target))
    quarters = slice_by(
        "number", list(np.linspace(0, 1, len(target))), [METRICS["accuracy"]], outcome, resamples=100, seed=0
    )
    assert len(quarters) == 4
    matrix = np.array(confusion(outcome, [str(k) for k in range(10)]).counts)
    assert (matrix == reference.confusion_matrix(target, logits.argmax(1))).all()
    mistakes = worst(outcome, 5)
    assert all(logits[i].argmax() != target[i] for i in mistakes)


def test_unknown_metrics_name_the_nearest() -> None:
    with pytest.raises(RecipeError, match="did you mean accuracy"):
        get_metric("acuracy", "classification")
    with pytest.raises(RecipeError):
        get_metric("rmse", "classification")


def epochs(train: list[float], valid: list[float]) -> list[EpochLine]:
    return [
        EpochLine(epoch=i + 1, step=i + 1, train_loss=t, valid={LOSS: v}, lr=0.1)
        for i, (t, v) in enumerate(zip(train, valid))
    ]


@pytest.mark.parametrize(
    ("train", "valid", "linear", "reached", "advice"),
    [
        ([1.0, 0.5, 0.2, 0.1], [1.0, 0.8, 0.9, 1.1], 0.5, 0.9, "more regularization"),
        ([1.0, 0.8, 0.6, 0.5], [1.0, 0.8, 0.7, 0.6], 0.5, 0.9, "longer training"),
        ([0.4, 0.2, 0.1, 0.1], [0.6, 0.5, 0.5, 0.5], 0.5, 0.9, "more data"),
        ([0.9, 0.8, 0.8, 0.8], [0.9, 0.85, 0.85, 0.85], 0.9, 0.7, "more capacity"),
        ([0.9, 0.8, 0.8, 0.8], [0.9, 0.85, 0.85, 0.85], 0.5, 0.7, "nothing obvious"),
        ([0.9], [0.9], None, None, "unknown"),
    ],
)
def test_the_hint_follows_its_figures(
    train: list[float], valid: list[float], linear: float | None, reached: float | None, advice: str
) -> None:
    found = hint(epochs(train, valid), linear, reached, "accuracy")
    assert found.advice == advice and found.because
