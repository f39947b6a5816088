"""Objectives: closed forms, PyTorch, gradients, accumulation over uneven micro-batches, and self-supervision."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tunewright.data.batches.batch import Batch
from tunewright.data.manifest import Manifest
from tunewright.data.prepared import Prepared
from tunewright.errors import DataError, RecipeError
from tunewright.random import uniform
from tunewright.recipe.schema import Train
from tunewright.training.objectives.class_weights import class_weights, count_classes
from tunewright.training.objectives.corruption import add_noise, mask
from tunewright.training.objectives.registry import OBJECTIVES, build_objective
from tunewright.training.objectives.supervised import binary_cross_entropy, cross_entropy, mae, mse

CPU = torch.device("cpu")
CLASSES = ["a", "b", "c"]


def prepared(target: list[str] | None = None, kind: str | None = "category") -> Prepared:
    """Write a prepared data set of training rows with a target."""
    target = target or CLASSES
    folder = Path(os.environ["TUNEWRIGHT_CACHE"]) / "test_objectives" / "-".join(target)
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"y": target, "_row": range(len(target))}), folder / "train.parquet")
    facts = {"fingerprint": "", "source": "data.csv", "format": "csv", "files": [], "columns": [], "input": []}
    about = {"target": None if kind is None else "y", "target_kind": kind, "target_reason": "", "classes": None}
    splits = {"train": {"rows": len(target), "file": "train.parquet"}}
    return Prepared(folder, Manifest(**facts, **about, read=len(target), used=len(target), splits=splits))


def build(named, *, classes: list[str] | None = None, data=None, **train):
    data = data or prepared(kind="category" if classes else "number")
    return build_objective(named, Train(**train), classes=classes, prepared=data)


def bound(named, seed: int = 0, **settings):
    return build(named, **settings).bind(seed, CPU)


def batch(inputs: Tensor, target: Tensor | None = None, first: int = 0) -> Batch:
    return Batch(inputs, target, torch.arange(first, first + len(inputs)))


# Formulas


def test_mse_and_mae_by_hand() -> None:
    outputs, target = torch.tensor([[1.0], [-2.0], [0.5]]), torch.tensor([0.0, 1.0, 0.5])
    assert mse(outputs, target).item() == pytest.approx(1 + 9)
    assert mae(outputs, target).item() == pytest.approx(1 + 3)
    assert mse(outputs[:, 0], target).item() == pytest.approx(10)


def test_cross_entropy_by_hand() -> None:
    """softmax(ln 1, ln 2, ln 5) = (1/8, 2/8, 5/8)."""
    logits = torch.tensor([[1.0, 2.0, 5.0]]).log()
    assert cross_entropy(logits, torch.tensor([2])).item() == pytest.approx(-math.log(5 / 8))
    smoothed = -(0.9 * math.log(5 / 8) + 0.1 / 3 * math.log(1 / 8 * 2 / 8 * 5 / 8))
    assert cross_entropy(logits, torch.tensor([2]), None, 0.1).item() == pytest.approx(smoothed)
    weights = torch.tensor([1.0, 2.0, 4.0])
    assert cross_entropy(logits, torch.tensor([2]), weights).item() == pytest.approx(-4 * math.log(5 / 8))
    both = -(0.9 * 4 * math.log(5 / 8) + 0.1 / 3 * (math.log(1 / 8) + 2 * math.log(2 / 8) + 4 * math.log(5 / 8)))
    assert cross_entropy(logits, torch.tensor([2]), weights, 0.1).item() == pytest.approx(both)


def test_binary_cross_entropy_by_hand() -> None:
    """σ(ln 3) = 3/4."""
    logit = torch.tensor([[math.log(3)], [math.log(3)]])
    target = torch.tensor([1, 0])
    assert binary_cross_entropy(logit, target).item() == pytest.approx(-math.log(3 / 4) - math.log(1 / 4))
    smoothed = -(0.95 * math.log(3 / 4) + 0.05 * math.log(1 / 4)) - (0.05 * math.log(3 / 4) + 0.95 * math.log(1 / 4))
    assert binary_cross_entropy(logit, target, None, 0.1).item() == pytest.approx(smoothed)
    weighted = -5 * math.log(3 / 4) - 2 * math.log(1 / 4)
    assert binary_cross_entropy(logit, target, torch.tensor([2.0, 5.0])).item() == pytest.approx(weighted)


@pytest.mark.parametrize("weights", [None, torch.tensor([0.3, 2.5], dtype=torch.float64)])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_binary_cross_entropy_is_that_of_the_logits_0_and_z(weights, smoothing: float) -> None:
    torch.manual_seed(0)
    logit = torch.randn(20, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, 2, (20,))
    pair = torch.stack((torch.zeros_like(logit), logit), dim=1)
    expected = cross_entropy(pair, target, weights, smoothing)
    shifted = pair + torch.randn(20, 1, dtype=torch.float64)
    for outputs in (logit, logit[:, None], pair, shifted):
        torch.testing.assert_close(binary_cross_entropy(outputs, target, weights, smoothing), expected)
    (gradient,) = torch.autograd.grad(binary_cross_entropy(logit, target, weights, smoothing), logit)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, logit)[0])


@pytest.mark.parametrize("reduced", [True, False])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_and_weight_equal_pytorchs_mean(reduced: bool, smoothing: float) -> None:
    torch.manual_seed(0)
    weights = {"a": 0.2, "b": 3.0} if reduced else None
    objective = bound("cross_entropy", classes=CLASSES, class_weights=weights, label_smoothing=smoothing)
    logits, target = torch.randn(17, 3), torch.randint(0, 3, (17,))
    examples = batch(logits, target)
    mean = objective.loss_sum(nn.Identity(), examples, 0) / objective.weight(examples)
    tensor = torch.tensor([0.2, 3.0, 1.0]) if reduced else None
    expected = nn.CrossEntropyLoss(weight=tensor, label_smoothing=smoothing)(logits, target)
    torch.testing.assert_close(mean, expected)
    if not reduced:
        assert objective.weight(examples) == 17


def test_binary_cross_entropy_equals_pytorchs_mean() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(17, 1), torch.randint(0, 2, (17,))
    objective = bound("binary_cross_entropy", classes=["no", "yes"])
    examples = batch(logits, target)
    mean = objective.loss_sum(nn.Identity(), examples, 0) / objective.weight(examples)
    torch.testing.assert_close(mean, nn.BCEWithLogitsLoss()(logits[:, 0], target.float()))


@pytest.mark.parametrize(("name", "loss"), [("mse", nn.MSELoss()), ("mae", nn.L1Loss())])
def test_number_losses_equal_pytorchs_mean(name: str, loss: nn.Module) -> None:
    torch.manual_seed(0)
    outputs, target = torch.randn(17, 1), torch.randn(17)
    objective = bound(name)
    examples = batch(outputs, target)
    mean = objective.loss_sum(nn.Identity(), examples, 0) / objective.weight(examples)
    torch.testing.assert_close(mean, loss(outputs[:, 0], target))


@pytest.mark.parametrize(
    ("formula", "outputs", "classes"), [(mse, 1, 0), (mae, 1, 0), (cross_entropy, 4, 4), (binary_cross_entropy, 1, 2)]
)
def test_gradients(formula, outputs: int, classes: int) -> None:
    torch.manual_seed(0)
    z = torch.randn(5, outputs, dtype=torch.float64, requires_grad=True)
    if not classes:
        target = torch.randn(5, dtype=torch.float64)
        assert torch.autograd.gradcheck(lambda z: formula(z, target), z)
        return
    target = torch.randint(0, classes, (5,))
    weights = torch.rand(classes, dtype=torch.float64) + 0.5
    assert torch.autograd.gradcheck(lambda z: formula(z, target, weights, 0.1), z)


@pytest.mark.parametrize("formula", [cross_entropy, binary_cross_entropy])
def test_stable_for_huge_logits(formula) -> None:
    """A sigmoid or softmax before the logarithm would give inf or NaN here."""
    logits = torch.tensor([[0.0, 1000.0], [0.0, -1000.0]], requires_grad=True)
    wrong, right = torch.tensor([0, 1]), torch.tensor([1, 0])
    loss = formula(logits, wrong)
    loss.backward()
    assert loss.item() == 2000 and bool(logits.grad.isfinite().all())
    assert formula(logits, right).item() == 0


# Accumulation


def flat_gradient(model: nn.Module) -> Tensor:
    return torch.cat([parameter.grad.reshape(-1) for parameter in model.parameters()])


@pytest.mark.parametrize("named", list(OBJECTIVES))
def test_uneven_micro_batches_equal_one_batch(named: str) -> None:
    torch.manual_seed(0)
    numbers, pictures = named in ("mse", "mae"), named in ("masked", "denoising")
    inputs = torch.rand(13, 1, 8, 8, dtype=torch.float64)
    classes = None if numbers else ["a", "b"] if named == "binary_cross_entropy" else CLASSES
    target = torch.randn(13).double() if numbers else torch.randint(0, len(classes or CLASSES), (13,))
    sizes = {"mse": 1, "mae": 1, "cross_entropy": 3, "binary_cross_entropy": 1}
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, sizes.get(named, 64))).double()
    settings = {} if numbers or pictures else {"class_weights": {"a": 5.0}, "label_smoothing": 0.1}
    objective = bound(named, classes=classes, **settings)
    if hasattr(objective, "class_weights") and objective.class_weights is not None:
        # The weights follow the network's type only in this test, to compare in double precision.
        object.__setattr__(objective, "class_weights", objective.class_weights.double())

    def gradient(parts: list[Batch]) -> Tensor:
        model.zero_grad()
        weight = sum(objective.weight(part) for part in parts)
        for part in parts:
            (objective.loss_sum(model, part, 3) / weight).backward()
        return flat_gradient(model)

    whole = gradient([batch(inputs, target)])
    cuts = [(0, 1), (1, 6), (6, 13)]
    parts = [batch(inputs[a:b], target[a:b], first=a) for a, b in cuts]
    torch.testing.assert_close(gradient(parts), whole)
    assert whole.abs().max() > 0


# Class weights


def test_balanced_weights() -> None:
    weights = class_weights("balanced", CLASSES, lambda: [1, 2, 3])
    torch.testing.assert_close(weights, torch.tensor([2.0, 1.0, 2 / 3]))
    data = prepared(["a", "b", "b", "c", "c", "c"])
    assert count_classes(data, CLASSES) == [1, 2, 3]
    objective = bound("cross_entropy", classes=CLASSES, data=data, class_weights="balanced")
    torch.testing.assert_close(objective.class_weights, weights)
    target = torch.tensor([0, 1, 1, 2, 2, 2])
    assert objective.weight(batch(torch.zeros(6, 3), target)) == pytest.approx(6), "over all data as without weights"


def test_weights_by_name() -> None:
    assert class_weights(None, CLASSES, lambda: [1, 1, 1]) is None
    torch.testing.assert_close(class_weights({"c": 3}, CLASSES, list), torch.tensor([1.0, 1.0, 3.0]))


@pytest.mark.parametrize(
    ("setting", "counts", "place", "words"),
    [
        ({"d": 1.0}, [1, 1, 1], "train.class_weights", "no such class"),
        ({"a": 0.0}, [1, 1, 1], "train.class_weights.a", "above 0"),
        ({"a": float("inf")}, [1, 1, 1], "train.class_weights.a", "above 0"),
        ({"a": float("nan")}, [1, 1, 1], "train.class_weights.a", "above 0"),
        ("balanced", [1, 0, 1], "train.class_weights", "'b' has no training row"),
    ],
)
def test_bad_weights(setting, counts: list[int], place: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words) as caught:
        class_weights(setting, CLASSES, lambda: counts)
    assert caught.value.place == place and caught.value.fix


# Self-supervision


def test_masked_hides_half_of_the_patches_of_each_image() -> None:
    images = torch.rand(50, 3, 28, 20) + 0.1
    corrupted, hidden = mask(images, torch.arange(50), 0, 0, ratio=0.5, patch=None)
    assert torch.equal(corrupted, torch.where(hidden, 0, images))
    patches = hidden.reshape(50, 3, 7, 4, 5, 4).permute(0, 2, 4, 1, 3, 5).reshape(50, 35, 48)
    assert bool((patches.all(2) | ~patches.any(2)).all()), "a patch of 4 × 4 is hidden whole, in all channels"
    assert patches.all(2).sum(1).tolist() == [18] * 50, "exactly round(0.5 · 35)"
    assert len({tuple(row.tolist()) for row in patches.all(2)}) == 50
    # Each patch is hidden in about half of the images: 4 deviations of a share of 50.
    assert bool(((patches.all(2).float().mean(0) - 18 / 35).abs() < 4 * math.sqrt(0.25 / 50)).all())


@pytest.mark.parametrize(("size", "side"), [((28, 28), 4), ((8, 8), 4), ((9, 6), 3), ((6, 10), 2), ((5, 7), 1)])
def test_the_default_patch_is_the_largest_up_to_4_that_divides(size: tuple[int, int], side: int) -> None:
    _, hidden = mask(torch.ones(1, 1, *size), torch.tensor([0]), 0, 0, ratio=0.3, patch=None)
    patches = size[0] * size[1] // side**2
    assert int(hidden.sum()) == round(0.3 * patches) * side**2


def test_masked_hides_entries_of_rows() -> None:
    rows = torch.randn(40, 10)
    corrupted, hidden = mask(rows, torch.arange(40), 0, 0, ratio=0.3, patch=None)
    assert hidden.sum(1).tolist() == [3] * 40
    # Golden, as in test_random: the entries with the smallest numbers are hidden.
    numbers = uniform(0, "masked", 0, np.arange(40), 10)
    assert torch.equal(hidden, torch.from_numpy(numbers <= np.sort(numbers)[:, 2:3]))
    assert torch.equal(corrupted[~hidden], rows[~hidden]) and bool((corrupted[hidden] == 0).all())
    for ratio, count in ((0.01, 1), (0.99, 9)):
        _, hidden = mask(rows, torch.arange(40), 0, 0, ratio=ratio, patch=None)
        assert hidden.sum(1).tolist() == [count] * 40, "never none, never all"


@pytest.mark.parametrize("shape", [(1, 8, 8), (12,)])
@pytest.mark.parametrize("kind", ["masked", "denoising"])
def test_corruption_depends_on_seed_epoch_and_example_only(kind: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    inputs = torch.randn(20, *shape)

    def corrupt(ids: Tensor, epoch: int = 1, seed: int = 5) -> Tensor:
        if kind == "masked":
            return mask(inputs[ids], ids, epoch, seed, ratio=0.5, patch=None)[0]
        return add_noise(inputs[ids], ids, epoch, seed, std=0.3)

    everything = torch.arange(20)
    whole = corrupt(everything)
    order = torch.randperm(20)
    assert torch.equal(corrupt(order), whole[order])
    assert torch.equal(corrupt(torch.tensor([7])), whole[[7]])
    assert not torch.equal(corrupt(everything, epoch=2), whole)
    assert not torch.equal(corrupt(everything, seed=6), whole)


def test_noise_has_the_standard_deviation_asked_for() -> None:
    inputs = torch.rand(200, 3, 10, 10)
    noise = add_noise(inputs, torch.arange(200), 0, 0, std=0.3) - inputs
    assert abs(noise.mean().item()) < 4 * 0.3 / math.sqrt(noise.numel())
    assert abs(noise.std().item() / 0.3 - 1) < 4 / math.sqrt(2 * noise.numel())
    assert noise.dtype == torch.float32 and noise.shape == inputs.shape


def test_masked_loss_is_the_mean_square_of_hidden_entries_only() -> None:
    inputs = torch.rand(6, 1, 8, 8)
    objective = bound({"masked": {"ratio": 0.25, "patch": 2}}, seed=3)
    _, hidden = mask(inputs, torch.arange(6), 4, 3, ratio=0.25, patch=2)
    for model in (nn.Identity(), nn.Flatten()):
        # The identity gives back 0 for what was hidden, so the error there is the input itself.
        assert objective.loss_sum(model, batch(inputs), 4).item() / 6 == pytest.approx(
            (inputs[hidden] ** 2).mean().item(), rel=1e-5
        )
    weights = nn.Parameter(torch.full((64,), 2.0))
    objective.loss_sum(lambda x: x.flatten(1) + weights, batch(inputs[:1]), 4).backward()
    assert torch.equal(weights.grad != 0, hidden[0].reshape(-1)), "what is seen has no part in the loss"


def test_denoising_loss_is_the_mean_square_of_all_entries() -> None:
    inputs = torch.rand(6, 1, 8, 8)
    objective = bound({"denoising": {"std": 0.5}}, seed=3)
    noise = add_noise(inputs, torch.arange(6), 4, 3, std=0.5) - inputs
    loss = objective.loss_sum(nn.Flatten(), batch(inputs), 4).item() / objective.weight(batch(inputs))
    assert loss == pytest.approx((noise**2).mean().item(), rel=1e-5)


@pytest.mark.parametrize("named", ["masked", "denoising"])
def test_an_autoencoder_learns_from_it(named: str) -> None:
    """Rows of rank 2: a narrow network learns them and beats always answering with the mean."""
    torch.manual_seed(0)
    rows = torch.randn(256, 2) @ torch.randn(2, 12)
    rows = (rows - rows.mean(0)) / rows.std(0)
    model = nn.Sequential(nn.Linear(12, 32), nn.Tanh(), nn.Linear(32, 12))
    objective = bound(named)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for epoch in range(150):
        optimizer.zero_grad()
        loss = objective.loss_sum(model, batch(rows), epoch) / objective.weight(batch(rows))
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.3, "the rows have variance 1"


# Recipes


def test_names_and_kinds() -> None:
    selves = ["denoising", "masked"]
    assert sorted(OBJECTIVES) == sorted(["binary_cross_entropy", "cross_entropy", "mae", "mse", *selves])
    assert build("mse").supervised and build("mse").name == "mse"
    unlabelled = prepared(kind=None)
    objective = build({"masked": {"ratio": 0.75}}, data=unlabelled)
    assert objective.name == "masked" and not objective.supervised


@pytest.mark.parametrize(
    ("named", "settings", "place", "fix"),
    [
        ("cross_entrpy", {"classes": CLASSES}, "train.objective", "did you mean cross_entropy?"),
        ({"masked": {"ration": 0.5}}, {}, "train.objective.masked.ration", "did you mean ratio?"),
        ({"masked": {"ratio": 1.0}}, {}, "train.objective.masked.ratio", None),
        ({"masked": {"patch": 0}}, {}, "train.objective.masked.patch", None),
        ({"denoising": {"std": 0}}, {}, "train.objective.denoising.std", None),
        ({"mse": {"reduction": "sum"}}, {}, "train.objective.mse.reduction", "write only mse"),
        ("mse", {"classes": CLASSES}, "train.objective", None),
        ("cross_entropy", {}, "train.objective", None),
        ("binary_cross_entropy", {"classes": CLASSES}, "train.objective", "write train.objective: cross_entropy"),
        ("mae", {"class_weights": "balanced"}, "train.class_weights", None),
        ("masked", {"label_smoothing": 0.1}, "train.label_smoothing", None),
        ("cross_entropy", {"classes": CLASSES, "class_weights": {"x": 1.0}}, "train.class_weights", None),
    ],
)
def test_bad_recipes(named, settings, place: str, fix: str | None) -> None:
    with pytest.raises(RecipeError) as caught:
        build(named, **settings)
    assert caught.value.place == place
    assert caught.value.fix
    assert fix is None or caught.value.fix == fix


def test_labels_that_are_not_there() -> None:
    with pytest.raises(DataError, match="learns from labels, the data has none"):
        build("cross_entropy", data=prepared(kind=None))


@pytest.mark.parametrize(
    ("named", "classes", "outputs"),
    [("cross_entropy", CLASSES, 4), ("cross_entropy", CLASSES, 2), ("mse", None, 2), ("masked", None, 63)],
)
def test_a_network_of_another_size(named: str, classes, outputs: int) -> None:
    objective = bound(named, classes=classes)
    target = torch.tensor([0, 1]) if classes else torch.tensor([0.0, 1.0])
    with pytest.raises(RecipeError) as caught:
        objective.loss_sum(lambda inputs: torch.zeros(2, outputs), batch(torch.rand(2, 64), target), 0)
    assert caught.value.place == "model.head"
    assert caught.value.found == f"{outputs} outputs"


@pytest.mark.parametrize(
    ("shape", "patch", "place"),
    [
        ((1, 28, 28), 5, "train.objective.masked.patch"),
        ((1, 28, 28), 28, "train.objective.masked"),
        ((10,), 2, "train.objective.masked.patch"),
        ((1,), None, "train.objective.masked"),
    ],
)
def test_inputs_that_cannot_be_masked(shape: tuple[int, ...], patch: int | None, place: str) -> None:
    with pytest.raises(RecipeError) as caught:
        mask(torch.rand(2, *shape), torch.arange(2), 0, 0, ratio=0.5, patch=patch)
    assert caught.value.place == place and caught.value.fix


def test_the_global_generators_are_left_alone() -> None:
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    images = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for named in ("masked", "denoising"):
        bound(named).loss_sum(nn.Identity(), batch(images), 0)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)


def test_a_column_of_outputs_is_not_broadcast() -> None:
    """A column [B, 1] against [B] must not broadcast to [B, B], the classical silent error."""
    outputs, target = torch.randn(9, 1), torch.randn(9)
    torch.testing.assert_close(mse(outputs, target), F.mse_loss(outputs[:, 0], target, reduction="sum"))


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a distribution that adds an objective."""
    (tmp_path / "added_objectives.py").write_text(
        """
from torch.nn import functional as F
from tunewright.training.objectives.base import NamedObjective, Objective
from tunewright.training.objectives.supervised import SupervisedLoss


def build(labels, *, delta: float = 1.0):
    def formula(outputs, target, class_weights, smoothing):
        return F.huber_loss(outputs.reshape(target.shape), target, reduction="sum", delta=delta)

    loss = SupervisedLoss(name="huber", formula=formula, outputs=(1,))
    return Objective(name="huber", supervised=True, bind=lambda seed, device: loss)


HUBER = NamedObjective(name="huber", target="numbers", build=build)
"""
    )
    facts = tmp_path / "added_objectives-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: added-objectives\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[tunewright.objectives]\nhuber = added_objectives:HUBER\n")
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("package")
def test_an_objective_of_an_installed_package_is_built_checked_and_listed_like_ours() -> None:
    objective = bound({"huber": {"delta": 2.0}})
    rows, target = torch.tensor([[3.0], [0.5]]), torch.zeros(2)
    assert objective.loss_sum(lambda inputs: inputs, batch(rows, target), 0).item() == pytest.approx(
        2 * (3 - 1) + 0.125
    )
    with pytest.raises(RecipeError, match=r"train\.objective\.huber\.delta"):
        build({"huber": {"delta": "far"}})
    with pytest.raises(RecipeError) as raised:
        build("huber", classes=CLASSES)
    assert "does not fit a target of classes" in str(raised.value)
    with pytest.raises(RecipeError) as raised:
        build("cross_entropy")
    assert "huber" in str(raised.value)
