"""Differential privacy: the clipped gradient of each family, the noise, the draw, the account, and mistakes that must show."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tiny import texts, tiny_bert
from tiny_networks import make_examples, pretrained_network, tiny_network
from tunewright.console import silent
from tunewright.data.batches.batch import Examples
from tunewright.data.batches.examples import TensorExamples
from tunewright.data.batches.poisson_sampler import NOISE, PoissonBatches, secret_generator
from tunewright.errors import ArtifactError, RecipeError
from tunewright.models.build import build_network, describe_model
from tunewright.models.core.scattering import Scattering
from tunewright.models.hub.adapters import add_adapter
from tunewright.pipeline.strategies.private import users_of
from tunewright.recipe.schema import Model
from tunewright.run_recipe import run
from tunewright.runs.folder import read_json
from tunewright.training.gradients import Position, StepLoss
from tunewright.training.objectives.supervised import SupervisedLoss, cross_entropy
from tunewright.training.privacy.accounting import Account, noise_for, usual_delta
from tunewright.training.privacy.dp_sgd import PrivateGradient, clipped_one_by_one, gradients, quiet, require_told_apart

LOSS = SupervisedLoss(name="cross_entropy", formula=cross_entropy, outputs=(3,))
KEY = 0x5EC2E7


def private(noise: float = 0.0, clip: float = 0.5, expected: int = 6, kind: type = PrivateGradient) -> PrivateGradient:
    return kind(clip_norm=clip, noise_multiplier=noise, expected=expected, key=KEY, before=lambda step: None)


def own(model: dict[str, Any], shape: tuple[int, ...], ids: int = 0) -> tuple[nn.Module, Examples]:
    """A network of ours, and examples of numbers or of ids."""
    described = describe_model(Model(**model, head=[{"dense": "auto"}]), input_shape=shape, outputs=3)
    draw = torch.Generator().manual_seed(0)
    inputs = (
        torch.randint(0, ids, (6, *shape), generator=draw).float() if ids else torch.rand(6, *shape, generator=draw)
    )
    network = build_network(described, seed=0)
    return network, TensorExamples(inputs, torch.arange(6) % 3, torch.arange(1, 7))


def click(name: str) -> Callable[[Path], tuple[nn.Module, Examples]]:
    return lambda _: own({"backbone": {name: {"sizes": [9, 9, 9], "counts": [1, 1, 1]}}}, (3,), ids=9)


def adapted(folder: Path) -> tuple[nn.Module, Examples]:
    network = add_adapter(pretrained_network(folder, "bert"), "lora", seed=0)
    for name, value in network.named_parameters():
        if "lora_B" in name:  # which starts at 0, and would let nothing through to its partner
            nn.init.normal_(value, std=0.1)
    return network, make_examples("bert")


FAMILIES: dict[str, Callable[[Path], tuple[nn.Module, Examples]]] = {
    "dense": lambda _: own({"layers": ["flatten", {"dense": 8, "activation": "relu"}]}, (1, 8, 8)),
    "convolutions": lambda _: own(
        {"layers": [{"conv2d": 4}, {"group_norm": 2}, "relu", {"conv2d": 4}, "layer_norm", "flatten"]}, (1, 8, 8)
    ),
    "embedding": lambda _: own({"layers": [{"embedding": 4, "vocabulary": 9}, "flatten"]}, (5,), ids=9),
    "resnet": lambda _: own({"backbone": {"resnet20": {"norm": "group"}}}, (1, 16, 16)),
    **{name: click(name) for name in ("logistic", "fm", "wide_deep", "deepfm", "dcn_v2", "dlrm")},
    **{
        kind: (lambda _, kind=kind: (tiny_network(kind), make_examples(kind)))
        for kind in ("bert", "roberta", "distilbert", "electra", "modernbert", "albert", "vit", "deit")
    },
    "lora": adapted,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_clipped_sum_is_that_of_one_example_after_the_other(family: str, tmp_path: Path) -> None:
    network, examples = FAMILIES[family](tmp_path)
    if family == "resnet":  # so deep that orders of summation show in single precision
        assert isinstance(examples, TensorExamples)
        network, examples = network.double(), TensorExamples(examples.inputs.double(), examples.target, examples.rows)
    moving = [value for value in network.parameters() if value.requires_grad]
    gradient = private()
    with quiet(network.train()):
        clipped_one_by_one(network, [examples.batch(one) for one in torch.arange(5).split(1)], LOSS, moving, 0.5, 0)
        right = gradients(moving)
        micro = [examples.batch(torch.arange(3)), examples.batch(torch.arange(3, 5))]
        gradient.clipped_sum(network, micro, LOSS, moving, 0)
        found = gradients(moving)
    size = max(float(value.abs().max()) for value in right)
    assert size > 0
    for ours, theirs in zip(found, right, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * size)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: own({"layers": [{"gru": 4}]}, (5, 3)), "broadcast"),
        (lambda: (tiny_network("mpnet"), make_examples("mpnet")), "mixes examples"),
        (lambda: (tiny_network("convnext"), make_examples("convnext")), "drops other numbers"),
        (lambda: (tiny_network("swin"), make_examples("swin")), "buffers"),
        (lambda: (Mixing(), own({"layers": ["flatten"]}, (4,))[1]), "differ by"),
    ],
)
def test_what_cannot_be_told_apart_is_refused(make: Callable[[], tuple[nn.Module, Examples]], reason: str) -> None:
    network, examples = make()
    with pytest.raises(RecipeError, match="cannot be separated") as caught:
        require_told_apart(
            private(),
            network.train(),
            examples.batch(torch.arange(4)),
            [examples.batch(one) for one in torch.arange(4).split(1)],
            LOSS,
            list(network.parameters()),
        )
    assert reason in str(caught.value)


class Mixing(nn.Module):
    """Takes the mean over the batch from each example, as batch norms do."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        found = self.dense(inputs)
        return found - found.mean(0)


# An audit of the mechanism from outside, and mistakes of others that it must find


class NoClipping(PrivateGradient):
    def clipped_sum(self, *given: Any) -> float:
        self.clip_norm, kept = 1e9, self.clip_norm
        try:
            return super().clipped_sum(*given)
        finally:
            self.clip_norm = kept


class NoNoise(PrivateGradient):
    def __call__(self, *given: Any) -> float:
        self.noise_multiplier = 0.0
        return super().__call__(*given)


class HalfNoise(PrivateGradient):
    def __call__(self, *given: Any) -> float:
        self.noise_multiplier, kept = self.noise_multiplier / 2, self.noise_multiplier
        try:
            return super().__call__(*given)
        finally:
            self.noise_multiplier = kept


class ClippedByBatch(PrivateGradient):
    """Clips the sum of the batch, not each example."""

    def clipped_sum(self, model: Any, batches: Any, objective: Any, moving: Any, epoch: int) -> torch.Tensor:
        loss = sum(objective.loss_sum(model, batch, epoch) for batch in batches)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(moving, self.clip_norm * sum(len(batch.ids) for batch in batches))
        return loss.detach()


class NoiseAgain(PrivateGradient):
    """The same noise at each step."""

    def __call__(self, model: Any, batches: Any, objective: Any, parameters: Any, at: Position) -> StepLoss:
        return super().__call__(model, batches, objective, parameters, Position(0, 0))


class WrongRate(PoissonBatches):
    """Draws a third more than it says."""

    def drawn(self, step: int) -> Tensor:
        return torch.from_numpy(
            np.flatnonzero(secret_generator(self.key, 1, step).random(self.units) < 4 / 3 * self.rate)
        )


class Wide(nn.Module):
    """Many weights, whose gradient is that of the inputs times what each class lacks."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(4000, 3, bias=False)
        nn.init.zeros_(self.dense.weight)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.dense(inputs)


def audit(kind: type = PrivateGradient, batches: type = PoissonBatches) -> list[str]:
    """What is wrong with a mechanism, seen from what it gives alone."""
    network, found = Wide(), []
    moving = list(network.parameters())
    draw = torch.Generator().manual_seed(0)
    large = 10 * torch.randn(8, 4000, generator=draw)
    examples = TensorExamples(large, torch.zeros(8, dtype=torch.int64), torch.arange(1, 9))

    def step(ids: list[int], number: int, noise: float) -> Tensor:
        gradient = private(noise, clip=1.0, expected=4, kind=kind)
        gradient(network, [examples.batch(torch.tensor(ids))] if ids else [], LOSS, moving, Position(0, number))
        gradient.remove()
        assert moving[0].grad is not None
        return moving[0].grad.clone() * 4

    one = step([0], 0, 0.0)
    if float(one.norm()) > 1.001:
        found.append("one example moves the sum by more than the clip norm")
    opposite = TensorExamples(
        torch.cat([large[:1], -0.999 * large[:1]]), torch.zeros(2, dtype=torch.int64), torch.arange(1, 3)
    )
    gradient = private(0.0, clip=1.0, expected=4, kind=kind)
    gradient(network, [opposite.batch(torch.arange(2))], LOSS, moving, Position(0, 0))
    gradient.remove()
    if float(moving[0].grad.norm()) * 4 > 1e-3:  # each is clipped to 1, and they point against each other
        found.append("examples are not clipped one by one")
    first, second = (step([0], number, 2.0) - one for number in (3, 4))
    if abs(float(first.std()) / 2.0 - 1) > 0.03 or abs(float(first.mean())) > 0.1:
        found.append("the noise has another deviation")
    if abs(float(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1])) > 0.05:
        found.append("two steps have the same noise")
    many = TensorExamples(torch.zeros(1000, 1), None, torch.arange(1, 1001))
    drawn = batches(examples=many, expected=50, most=50, key=KEY)
    counts = np.array([len(drawn.drawn(number)) for number in range(400)])
    if abs(counts.mean() - 50) > 4 * np.sqrt(47.5 / 400) or abs(counts.var() / 47.5 - 1) > 0.3:
        found.append("another share is drawn than is counted")
    return found


def test_the_audit_finds_nothing_wrong_here() -> None:
    assert audit() == []


@pytest.mark.parametrize(
    ("mistake", "seen"),
    [
        ({"kind": NoClipping}, "more than the clip norm"),
        ({"kind": NoNoise}, "another deviation"),
        ({"kind": HalfNoise}, "another deviation"),
        ({"kind": ClippedByBatch}, "not clipped one by one"),
        ({"kind": NoiseAgain}, "the same noise"),
        ({"batches": WrongRate}, "another share"),
    ],
)
def test_the_audit_finds_each_planted_mistake(mistake: dict[str, Any], seen: str) -> None:
    assert any(seen in problem for problem in audit(**mistake))


def test_an_empty_step_is_noise_alone() -> None:
    network = Wide()
    (weight,) = moving = list(network.parameters())
    assert private(2.0, clip=1.0, expected=4)(network, [], LOSS, moving, Position(0, 1)).total == 0.0
    expected = secret_generator(KEY, NOISE, 1).standard_normal(tuple(weight.shape), dtype="float32") * 2.0 / 4
    torch.testing.assert_close(weight.grad, torch.from_numpy(expected))


def test_each_unit_is_drawn_by_its_own_coin() -> None:
    examples = TensorExamples(torch.zeros(40, 1), None, torch.arange(1, 41))
    batches = PoissonBatches(examples=examples, expected=10, most=4, key=KEY)
    assert batches.rate == 0.25 and batches.steps_per_epoch == 4
    there = np.zeros((2000, 40))
    for step in range(2000):
        there[step, batches.drawn(step).numpy()] = 1
    assert np.abs(there.mean(0) - 0.25).max() < 5 * np.sqrt(0.25 * 0.75 / 2000)
    correlations = np.corrcoef(there.T) - np.eye(40)
    assert np.abs(correlations).max() < 5 / np.sqrt(2000)  # of two units, and so of no three
    (later,) = list(batches.steps(1, start=3))
    assert torch.equal(torch.cat([batch.ids for batch in later]), batches.drawn(7))
    assert all(len(batch.ids) <= 4 for batch in later)


def test_a_user_who_is_drawn_gives_one_example() -> None:
    examples = TensorExamples(torch.zeros(6, 1), None, torch.arange(1, 7))
    users = [torch.tensor([0, 1, 2, 3]), torch.tensor([4]), torch.tensor([5])]
    batches = PoissonBatches(examples=examples, expected=2, most=2, key=KEY, users=users)
    seen: set[int] = set()
    for step in range(200):
        ids = batches.drawn(step).tolist()
        assert sum(index < 4 for index in ids) <= 1
        seen |= set(ids)
    assert seen == set(range(6))


# The account


def test_epsilon_is_that_of_the_published_table_and_of_a_second_way() -> None:
    # MNIST of TensorFlow Privacy's tutorial: noise 1.1, batch 256 of 60,000, 60 epochs, δ 1e-5: ε = 3.0 (Abadi et al.'s
    # moments, with the later conversion 2.92).
    account = Account(noise_multiplier=1.1, rate=256 / 60_000, delta=1e-5)
    steps = 60 * 60_000 // 256
    assert 2.5 < account.epsilon(steps) < 3.05
    assert account.epsilon_by_convolution(steps) <= account.epsilon(steps) + 0.02
    assert account.epsilon(0) == 0 and account.epsilon(10) < account.epsilon(11)


def test_without_a_draw_it_is_the_gaussian_mechanism() -> None:
    # (Balle and Wang 2018, theorem 8): δ(ε) = Φ(1/2σ − εσ) − e^ε Φ(−1/2σ − εσ).
    from scipy.stats import norm

    account = Account(noise_multiplier=2.0, rate=1.0, delta=1e-5)
    epsilon = account.epsilon_by_convolution(1)
    exact = norm.cdf(0.25 - epsilon * 2) - np.exp(epsilon) * norm.cdf(-0.25 - epsilon * 2)
    assert exact <= 1e-5 and account.epsilon(1) >= epsilon - 0.02


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 8.0])
def test_the_noise_is_the_smallest_that_is_enough(epsilon: float) -> None:
    noise = noise_for(epsilon, delta=1e-5, rate=0.01, steps=1000)
    assert Account(noise_multiplier=noise, rate=0.01, delta=1e-5).epsilon(1000) <= epsilon
    assert Account(noise_multiplier=noise * 0.999, rate=0.01, delta=1e-5).epsilon(1000) > epsilon


def test_delta_is_below_one_unit() -> None:
    assert usual_delta(1000) < 1 / 1000 and usual_delta(1) < 1


# Whole stages

DIGITS: dict[str, Any] = {
    "task": "image-classification",
    "data": {"source": "digits"},
    "model": {"layers": ["flatten", {"dense": 10}]},
    "train": {"epochs": 4, "batch_size": 200, "optimizer": "sgd", "lr": 2.0},
    "privacy": {"epsilon": 4},
}


def with_changes(**changes: Any) -> dict[str, Any]:
    return {**DIGITS, **{key: {**DIGITS.get(key, {}), **value} for key, value in changes.items()}}


def test_a_private_stage_learns_and_says_what_it_cost(tmp_path: Path) -> None:
    result = run(DIGITS, runs=tmp_path, console=silent())
    stage = result.stages["pretrain"]
    found = stage.summary["training"]["privacy"]
    assert stage.summary["evaluation"]["metrics"]["accuracy"]["value"] > 0.7
    assert found["epsilon"] <= 4 and found["epsilon_prv"] <= found["epsilon"] + 0.02
    assert found["units"] == stage.summary["data"]["rows"]["train"] and found["delta"] == usual_delta(found["units"])
    book = read_json(stage.folder / "privacy.json", "the book")
    assert book["steps"] == found["steps"] == stage.summary["training"]["steps"]
    assert not (stage.folder / "privacy.key").exists()
    page = (result.folder / "report.html").read_text()
    assert "ε" in page
    assert "differential privacy" in (stage.folder / "model" / "README.md").read_text()


def test_two_runs_have_other_noise(tmp_path: Path) -> None:
    one, two = (run({**DIGITS, "name": name}, runs=tmp_path, console=silent()) for name in ("one", "two"))
    weights = [(r.stages["pretrain"].folder / "model" / "model.safetensors").read_bytes() for r in (one, two)]
    assert weights[0] != weights[1]


def test_it_goes_on_with_the_same_steps_and_the_book_is_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in the middle, after the book of a step was written and before the step was saved."""
    from tunewright.training.privacy import dp_sgd as mechanism

    recipe = with_changes(train={"checkpoint_steps": 3})
    keys = iter([1234567] * 9)
    monkeypatch.setattr("tunewright.pipeline.strategies.private.secrets.randbits", lambda bits: next(keys))
    whole = run({**recipe, "name": "whole"}, runs=tmp_path, console=silent())
    real = mechanism.PrivateGradient.__call__

    def dies(
        self: PrivateGradient, model: Any, batches: Any, objective: Any, parameters: Any, at: Position
    ) -> StepLoss:
        loss = real(self, model, batches, objective, parameters, at)
        if at.step == 10:
            raise KeyboardInterrupt
        return loss

    with monkeypatch.context() as patch:
        patch.setattr(mechanism.PrivateGradient, "__call__", dies)
        with pytest.raises(KeyboardInterrupt):
            run({**recipe, "name": "cut"}, runs=tmp_path, console=silent())
    book = tmp_path / "cut" / "pretrain" / "privacy.json"
    assert read_json(book, "the book")["steps"] == 11  # ten were finished: it can only overstate
    shutil.copytree(tmp_path / "cut", tmp_path / "lost")
    cut = run({**recipe, "name": "cut"}, runs=tmp_path, console=silent())
    bytes_of = [(r.stages["pretrain"].folder / "model" / "model.safetensors").read_bytes() for r in (whole, cut)]
    assert bytes_of[0] == bytes_of[1]
    # Without its secret it cannot go on with the same noise.
    shutil.rmtree(tmp_path / "cut")
    (tmp_path / "lost").rename(tmp_path / "cut")
    (tmp_path / "cut" / "pretrain" / "privacy.key").unlink()
    with pytest.raises(ArtifactError, match="secret"):
        run({**recipe, "name": "cut"}, runs=tmp_path, console=silent())


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"eval": {"seeds": 3}}, "eval.seeds"),
        ({"train": {"class_weights": "balanced"}}, "train.class_weights"),
        ({"train": {"augment": ["mixup"]}}, "train.augment"),
        ({"tune": {"method": "features"}}, "tune.method"),
        ({"hardware": {"gradient_checkpointing": True}}, "hardware.gradient_checkpointing"),
        ({"privacy": {"epsilon": 1e-9}}, "privacy.epsilon"),
        ({"privacy": {"unit": "user"}}, "privacy.unit"),
        ({"train": {"batch_size": 100_000}}, "train.batch_size"),
    ],
)
def test_what_does_not_go_with_privacy(changes: dict[str, Any], place: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        run(with_changes(**changes), runs=tmp_path, console=silent())
    assert caught.value.place == place and caught.value.fix


def test_no_learning_rate_is_looked_for_on_private_rows(tmp_path: Path) -> None:
    from tunewright.commands.lr_find import find_learning_rate

    (tmp_path / "r.yaml").write_text(json.dumps(DIGITS))
    with pytest.raises(RecipeError, match="without privacy"):
        find_learning_rate(tmp_path / "r.yaml", [], console=silent())


def test_batch_norms_give_way(tmp_path: Path) -> None:
    layers = [{"conv2d": 4}, "batch_norm", "relu", "flatten", {"dense": 10}]
    result = run(with_changes(model={"layers": layers}, train={"epochs": 1}), runs=tmp_path, console=silent())
    described = read_json(result.stages["pretrain"].folder / "model" / "config.json", "a model")
    assert "group_norm" in json.dumps(described) and "batch_norm" not in json.dumps(described)


def test_users_are_found(tmp_path: Path) -> None:
    from tunewright.data.prepare.prepare import prepare
    from tunewright.recipe.schema import Data, Recipe

    lines = ["x,who,y"] + [f"{n / 10},u{n % 4},{'a' if n % 2 else 'b'}" for n in range(40)]
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    data = Data(source="rows.csv", target="y", user="who", split={"valid": 0, "test": 0})
    prepared = prepare(data, seed=0, target_kind="category", base=tmp_path)
    rows = torch.tensor(prepared.table("train")["_row"].to_pylist()).flip(0)
    examples = TensorExamples(torch.zeros(40, 1), None, rows)
    users = users_of(Recipe(task="tabular-classification", data=data), prepared, examples)
    assert len(users) == 4 and sum(len(user) for user in users) == 40
    for user in users:
        assert len({(int(row) - 1) % 4 for row in rows[user]}) == 1


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`")
def test_a_private_adapter_is_peft_s(tmp_path: Path) -> None:
    """DP-LoRA: the saved folder, opened by peft, gives the logits that we give."""
    from peft import AutoPeftModelForSequenceClassification
    from transformers import AutoTokenizer

    from tunewright.commands.merge import merge_adapter
    from tunewright.inference.model import load_model
    from tunewright.models.backbone import open_backbone
    from tunewright.pipeline.summary.privacy_lineage import backbone_lineage, read_lineage

    base = tiny_bert(tmp_path / "base")
    texts(tmp_path / "texts.jsonl")
    recipe = {
        "task": "text-classification",
        "data": {"source": "texts.jsonl", "input": "text", "target": "label"},
        "model": {"backbone": str(base)},
        "tune": {"adapter": "lora"},
        "train": {"epochs": 2, "batch_size": 16, "lr": 0.01},
        "privacy": {"epsilon": 8},
        "stages": ["finetune"],
    }
    result = run(recipe, base=tmp_path, runs=tmp_path / "runs", console=silent())
    folder = result.stages["finetune"].folder / "model"
    merge_adapter(folder, tmp_path / "merged", silent())
    assert read_lineage(tmp_path / "merged") == read_lineage(folder)
    # Nobody knows what a folder of weights learned from; of a model of ours its own record says so.
    (promised,) = result.stages["finetune"].summary["privacy"]["guarantees"]
    assert promised["reason"] == "unknown start" and promised["because_of"] == "base"
    assert backbone_lineage(open_backbone(str(tmp_path / "merged"), tmp_path)) == read_lineage(folder)
    some = ["the film was very good", "a bad plot", "not dull"]
    theirs = AutoPeftModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        logits = theirs(**AutoTokenizer.from_pretrained(folder)(some, return_tensors="pt", padding=True)).logits
    ours = [answer["probabilities"] for answer in load_model(folder).predict(some)]
    for row, given in zip(logits.softmax(1), ours, strict=True):
        assert sorted(row.tolist()) == pytest.approx(sorted(given.values()), abs=1e-5)


def test_conversations_are_not_packed(tmp_path: Path) -> None:
    lines = [
        json.dumps(
            {"messages": [{"role": "user", "content": f"{a}+{b}?"}, {"role": "assistant", "content": str(a + b)}]}
        )
        for a in range(8)
        for b in range(8)
    ]
    (tmp_path / "sums.jsonl").write_text("\n".join(lines))
    recipe = {
        "task": "supervised-fine-tuning",
        "data": {"source": "sums.jsonl"},
        "model": {
            "backbone": {"gpt": {"layers": 1, "width": 32, "heads": 2}},
            "tokenizer": {"bpe": {"vocabulary": 280}},
        },
        "train": {"epochs": 1, "batch_size": 8},
        "stages": ["pretrain", {"finetune": {"tune": {"adapter": "lora"}, "privacy": {"epsilon": 8}}}],
    }
    result = run(recipe, base=tmp_path, runs=tmp_path / "runs", console=silent())
    assert "privacy" not in result.stages["pretrain"].summary["training"]
    summary = result.stages["finetune"].summary
    assert summary["training"]["privacy"]["units"] == summary["data"]["rows"]["train"]


# The scattering transform


def test_scattering_moves_little_with_the_picture_and_keeps_its_energy() -> None:
    transform = Scattering((32, 32), 2, 8)
    draw = torch.Generator().manual_seed(0)
    picture = torch.nn.functional.avg_pool2d(torch.rand(1, 1, 96, 96, generator=draw), 3)
    found = transform(picture)
    assert found.shape == (1, 81, 8, 8)
    torch.testing.assert_close(
        transform(torch.full((1, 1, 32, 32), 0.7))[0, 0], torch.full((8, 8), 0.7), atol=1e-4, rtol=0
    )
    assert float(transform(torch.full((1, 1, 32, 32), 0.7))[0, 1:].abs().max()) < 1e-4  # waves have the mean 0
    moved = transform(picture.roll(1, -1))
    pixels = float((picture - picture.roll(1, -1)).norm() / picture.norm())
    assert float((found - moved).norm() / found.norm()) < pixels / 2
    # A turn by a right angle turns the directions of the waves.
    turned = transform(picture.rot90(1, (-2, -1)))
    order = [0, *(1 + (n + 4) % 8 for n in range(8))]
    torch.testing.assert_close(
        turned[0, order][:9].flatten(1).mean(1), found[0, :9].flatten(1).mean(1), rtol=0.05, atol=0.01
    )
