"""The loop, freezing and its certificate, accumulation, selection, divergence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tunewright.console import silent
from tunewright.data.batches.examples import Ragged, TensorExamples, TokenExamples, few_lengths
from tunewright.data.batches.sampler import Batches
from tunewright.errors import Diverged, RecipeError
from tunewright.files import sha256_file
from tunewright.models.build import build_network, describe_model
from tunewright.models.core.network import SequentialNetwork
from tunewright.models.saved_model import load_network
from tunewright.recipe.schema import Model, Train, Tune, Unfreeze
from tunewright.run_recipe import RunResult, run
from tunewright.runs.folder import read_json
from tunewright.runs.metrics_log import read_metrics
from tunewright.training import freezing
from tunewright.training.freeze_certificate import certify, fingerprint
from tunewright.training.gradients import ExactGradient
from tunewright.training.loop import Callbacks, LoopConfig, train
from tunewright.training.objectives.supervised import SupervisedLoss, mse
from tunewright.training.optimizers.registry import build_optimizer
from tunewright.training.optimizers.step_in_backward import step_in_backward
from tunewright.training.state import State
from tunewright.training.step import TrainModule

LAYERS: list[Any] = [
    {"conv2d": 4},
    "batch_norm",
    "relu",
    {"conv2d": 4},
    "batch_norm",
    "relu",
    "global_pool",
    {"dropout": 0.3},
    {"dense": 10},
]


def network(layers: list[Any] | None = None, shape: tuple[int, ...] = (1, 8, 8)) -> SequentialNetwork:
    return build_network(describe_model(Model(layers=layers or LAYERS), input_shape=shape, outputs=10), seed=0)


def moves(tune: Tune) -> dict[str, int | None]:
    return {m.block.name: m.from_epoch for m in freezing.resolve_trainable(network(), tune)}


@pytest.mark.parametrize(
    ("freeze", "frozen"),
    [
        ("none", 0),
        ("backbone", 8),
        (1, 1),
        (2, 2),
        (3, 4),
        (0.5, 2),
        (0.0, 0),
        (1.0, 5),
        ("0_conv2d", 1),
        (["0_conv2d", "3_conv2d"], 2),
        ("re:norm", 2),
    ],
)
def test_freeze_is_resolved_against_the_blocks(freeze: Any, frozen: int) -> None:
    assert sum(start is None for start in moves(Tune(freeze=freeze)).values()) == frozen


@pytest.mark.parametrize("freeze", ["embeddings", "conv7", "re:xyz", "re:(", 9, -1, 1.5, ["0_conv2d", "nothing"]])
def test_freeze_that_matches_nothing_is_an_error(freeze: Any) -> None:
    with pytest.raises(RecipeError) as caught:
        moves(Tune(freeze=freeze))
    assert "tune.freeze" in caught.value.message


def test_gradual_unfreezing_goes_from_the_head_down() -> None:
    found = moves(Tune(freeze="backbone", unfreeze=[Unfreeze(epoch=2, layers=1), Unfreeze(epoch=4, layers=3)]))
    assert (
        found["4_batch_norm"] == 1
        and found["3_conv2d"] == 3
        and found["1_batch_norm"] == 3
        and found["0_conv2d"] is None
    )
    with pytest.raises(RecipeError, match="unfreeze asks for 9"):
        moves(Tune(freeze="backbone", unfreeze=[Unfreeze(epoch=2, layers=9)]))


def test_learning_rates_by_block() -> None:
    found = freezing.resolve_trainable(network(), Tune(layer_lr_decay=0.5, head_lr_multiplier=10))
    rates = {m.block.name: m.lr_multiplier for m in found}
    assert rates["8_dense" if "8_dense" in rates else "0_dense"] == 10
    # Activations and pooling have nothing to learn and are no step in depth.
    learning = ["0_conv2d", "1_batch_norm", "3_conv2d", "4_batch_norm"]
    assert [rates[name] for name in learning] == [0.5**k for k in (4, 3, 2, 1)]
    groups = freezing.parameter_groups(found, lr=1.0)
    held = [id(p) for group in groups for p in group["params"]]
    assert len(held) == len(set(held)) == len(list(network().parameters()))


def test_nothing_left_to_train() -> None:
    built = build_network(
        describe_model(Model(layers=["flatten", {"dense": 10}], head=["relu"]), input_shape=(3,), outputs=10), seed=0
    )
    with pytest.raises(RecipeError, match="nothing is left to train"):
        freezing.parameter_groups(freezing.resolve_trainable(built, Tune(freeze="backbone")), 1.0)


def test_a_frozen_block_keeps_its_statistics_and_drops_nothing() -> None:
    built = network()
    movements = freezing.resolve_trainable(built, Tune(freeze="backbone"))
    before = fingerprint(built)
    freezing.start_epoch(movements, 0)
    optimizer = torch.optim.SGD([p for p in built.parameters() if p.requires_grad], 0.1)
    inputs = torch.rand(16, 1, 8, 8)
    assert torch.equal(built.backbone(inputs), built.backbone(inputs))  # dropout is off
    nn.functional.cross_entropy(built(inputs), torch.arange(16) % 10).backward()
    optimizer.step()
    certificate = certify(movements, before, fingerprint(built), epochs=1)
    assert certificate.passed and all(block.changed == 2 for block in certificate.trained)


@pytest.mark.parametrize(
    "tensor",
    ["backbone.0_conv2d.weight", "backbone.1_batch_norm.running_mean", "backbone.1_batch_norm.num_batches_tracked"],
)
def test_the_certificate_fails_on_a_single_altered_value(tensor: str) -> None:
    built = network()
    movements = freezing.resolve_trainable(built, Tune(freeze="backbone"))
    before = fingerprint(built)
    with torch.no_grad():
        built.state_dict()[tensor].view(-1)[0] += 1
    certificate = certify(movements, before, fingerprint(built), epochs=1)
    assert not certificate.passed
    assert any(tensor in line for line in certificate.warnings)
    assert any("did not change" in line for line in certificate.warnings)  # the head was never trained


def linear_run(accumulate: int, batch_size: int, clip: float | None = None) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    examples = TensorExamples(
        torch.randn(50, 4, generator=generator), torch.randn(50, generator=generator), torch.arange(1, 51)
    )
    model = nn.Linear(4, 1)
    with torch.no_grad():
        model.weight.fill_(0.1)
        model.bias.zero_()
    optimizer = build_optimizer("sgd", [{"params": list(model.parameters()), "lr": 0.1, "base_lr": 0.1}], 0.1, 0.0)
    around = Callbacks(
        start_epoch=lambda e: None,
        log_step=lambda *a: None,
        end_epoch=lambda *a: None,
        save=lambda s: None,
        should_stop=lambda: False,
    )
    batches = Batches(examples=examples, batch_size=batch_size, accumulate=accumulate, seed=1)
    train(
        TrainModule(
            model=model,
            objective=SupervisedLoss(name="mse", formula=mse, outputs=(1,)),
            optimizer=optimizer,
            gradient=ExactGradient(),
            clip_norm=clip,
        ),
        batches,
        lambda step: 1.0,
        State(),
        LoopConfig(epochs=3),
        around,
    )
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


@pytest.mark.parametrize("clip", [None, 0.05])
def test_accumulation_over_uneven_batches_equals_one_large_batch(clip: float | None) -> None:
    # 50 examples: a step of 3 × 6 = 18 leaves batches of 6, 6 and 2 in the last step.
    assert torch.allclose(linear_run(3, 6, clip), linear_run(1, 18, clip), atol=1e-6)
    assert not torch.allclose(linear_run(1, 18, 0.05), linear_run(1, 18, None))


def test_each_example_once_an_epoch_in_another_order() -> None:
    examples = TensorExamples(torch.zeros(37, 1), None, torch.arange(37))
    batches = Batches(examples=examples, batch_size=5, accumulate=2, seed=0)
    first, second = ([int(i) for step in batches.steps(e) for b in step for i in b.ids] for e in (0, 1))
    assert sorted(first) == sorted(second) == list(range(37)) and first != second
    assert len(list(batches.steps(0))) == batches.steps_per_epoch == 4
    rest = [int(i) for step in batches.steps(0, start=2) for b in step for i in b.ids]
    assert rest == first[20:]


def recipe(**changes: Any) -> dict[str, Any]:
    base = {
        "name": "small",
        "task": "image-classification",
        "data": {"source": "digits"},
        "model": {"layers": ["flatten", {"dense": 16, "activation": "relu"}, {"dense": "auto"}]},
        "train": {"epochs": 2},
        "eval": {"resamples": 100},
    }
    return {**base, **changes}


def carry_out(tmp_path: Path, **changes: Any) -> RunResult:
    return run(recipe(**changes), runs=tmp_path, console=silent())


def weights(result: RunResult, stage: str = "pretrain") -> str:
    return sha256_file(result.stages[stage].folder / "model" / "model.safetensors")


def test_the_same_recipe_gives_the_same_weights(tmp_path: Path) -> None:
    model = {"layers": [{"conv2d": 4}, "batch_norm", "relu", "flatten", {"dropout": 0.5}, {"dense": "auto"}]}
    first, second, other = (
        weights(carry_out(tmp_path / str(i), model=model, seed=seed)) for i, seed in enumerate((0, 0, 1))
    )
    assert first == second != other


@pytest.mark.parametrize(
    "optimizer", ["sgd", {"sgd": {"momentum": 0.9, "nesterov": True}}, "adam", "adamw", "adagrad", "rmsprop"]
)
@pytest.mark.parametrize("schedule", ["cosine"])
def test_every_optimiser_learns_the_digits(tmp_path: Path, optimizer: Any, schedule: str) -> None:
    result = carry_out(
        tmp_path,
        train={
            "epochs": 3,
            "optimizer": optimizer,
            "schedule": schedule,
            "warmup": 0.1,
            "lr": 0.1 if "sgd" in str(optimizer) and "momentum" not in str(optimizer) else None,
        },
    )
    losses = [
        entry["train_loss"]
        for entry in read_metrics(result.stages["pretrain"].folder / "metrics.jsonl")
        if entry["kind"] == "epoch"
    ]
    assert losses[-1] < 0.9 * losses[0]


def test_regularisation_and_clipping_shrink_the_weights(tmp_path: Path) -> None:
    def size(**train: Any) -> float:
        result = carry_out(tmp_path / str(train), train={"epochs": 2, "optimizer": "sgd", "lr": 0.1, **train})
        model = load_network(result.stages["pretrain"].folder / "model").network
        return sum(float(p.detach().abs().sum()) for p in model.parameters())

    plain = size()
    for regularization in ({"l1": 0.001}, {"l2": 0.01}, {"weight_decay": 0.1}):
        assert size(regularization=regularization) < plain
    assert size(clip_norm=0.01) != plain


def test_the_best_weights_are_chosen_on_validation_and_it_stops_early(tmp_path: Path) -> None:
    result = carry_out(tmp_path, train={"epochs": 30, "lr": 0.05, "early_stopping": {"patience": 2}, "select": "loss"})
    folder = result.stages["pretrain"].folder
    epochs = [entry for entry in read_metrics(folder / "metrics.jsonl") if entry["kind"] == "epoch"]
    summary = result.stages["pretrain"].summary["training"]
    assert summary["stopped"] == "early stopping" and len(epochs) < 30
    best = min(epochs, key=lambda entry: entry["valid"]["loss"])
    assert summary["best"]["epoch"] == best["epoch"] == epochs[-1]["epoch"] - 2


def test_an_exploding_loss_stops_before_anything_bad_is_saved(tmp_path: Path) -> None:
    with pytest.raises(Diverged) as caught:
        carry_out(tmp_path, train={"epochs": 5, "optimizer": "sgd", "lr": 1e6, "checkpoint_steps": 1})
    assert "step" in caught.value.message and "rows" in caught.value.message and caught.value.exit_code == 1
    for path in (tmp_path / "small" / "pretrain" / "checkpoints").glob("*/model.safetensors"):
        from safetensors.torch import load_file

        assert all(torch.isfinite(value).all() for value in load_file(path).values())


def test_a_number_that_overflows_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("x,y\n" + "".join(f"{i % 7},{1e30 if i == 50 else i % 5}\n" for i in range(100)))
    with pytest.raises(Diverged, match="rows"):
        run(
            {
                "task": "tabular-regression",
                "data": {"source": str(path), "split": {"valid": 0, "test": 0}},
                "train": {"epochs": 40, "optimizer": "sgd", "lr": 1e3},
            },
            runs=tmp_path / "runs",
            console=silent(),
        )


def test_class_weights_and_smoothing_run(tmp_path: Path) -> None:
    result = carry_out(
        tmp_path, train={"epochs": 1, "class_weights": "balanced", "label_smoothing": 0.1, "objective": "cross_entropy"}
    )
    assert result.stages["pretrain"].summary["training"]["objective"] == "cross_entropy"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train": {"optimizer": "adamm"}}, "did you mean adam"),
        ({"train": {"optimizer": {"adam": {"momentum": 0.9}}}}, "option"),
        ({"train": {"schedule": "cosin"}}, "did you mean cosine"),
        ({"train": {"objective": "mse"}}, "mse"),
        ({"train": {"objective": "huber"}}, "objective"),
        ({"train": {"select": "auc"}}, "select"),
        ({"train": {"class_weights": {"eleven": 2.0}}}, "class"),
        ({"train": {"warmup": 100_000}}, "warm-up"),
        ({"tune": {"freeze": "nothing"}}, "tune.freeze"),
        ({"model": {"layers": ["flatten", {"dense": 7}]}}, "the data needs"),
        ({"model": {"weights": "nowhere"}}, "missing"),
        ({"hardware": {"device": "cuda"}}, "device"),
        ({"eval": {"metrics": ["acuracy"]}}, "did you mean accuracy"),
        ({"eval": {"slices": ["colour"]}}, "no column"),
        ({"data": {"source": "digits", "target": "lable"}}, "no column"),
        ({"task": "tabular-classification"}, "no input column"),
    ],
)
def test_a_recipe_that_does_not_fit_says_why(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    from tunewright.errors import UserError

    with pytest.raises(UserError) as caught:
        carry_out(tmp_path, **changes)
    assert said in caught.value.message and caught.value.exit_code == 2


def test_train_settings_are_plain_numbers() -> None:
    assert Train().batch_size == 32 and read_json is not None


@pytest.mark.parametrize(
    "optimizer", ["adamw", {"sgd": {"momentum": 0.9}}, "adagrad", {"rmsprop": {"momentum": 0.5}}], ids=str
)
def test_steps_in_the_backward_pass_are_the_same_steps(optimizer: Any, tmp_path: Path) -> None:
    """Bit for bit, with decay and with layers that thaw; no gradient is left after the backward pass."""
    recipe: dict[str, Any] = {
        "task": "image-classification",
        "data": {"source": "digits", "limit": 300},
        "model": {"layers": ["flatten", {"dense": 24, "activation": "relu"}, {"dense": 10}]},
        "tune": {"freeze": "backbone", "unfreeze": [{"epoch": 2, "layers": "all"}]},
        "train": {"epochs": 3, "optimizer": optimizer, "regularization": {"weight_decay": 0.01}},
        "eval": {"resamples": 100},
    }
    models: list[bytes] = []
    for at_once in (False, True):
        done = run(
            {**recipe, "hardware": {"optimizer_in_backward": at_once}}, runs=tmp_path / str(at_once), console=silent()
        )
        models.append((done.stages["pretrain"].folder / "model" / "model.safetensors").read_bytes())
    assert models[0] == models[1]


def test_a_gradient_is_gone_when_its_step_is_taken() -> None:
    layers = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 1))
    optimizer = build_optimizer("adam", [{"params": list(layers.parameters())}], 0.1, 0.0)
    step_in_backward(optimizer)
    before = [value.clone() for value in layers.parameters()]
    layers(torch.ones(4, 8)).sum().backward()
    assert all(value.grad is None for value in layers.parameters())
    assert all(not torch.equal(a, b) for a, b in zip(before, layers.parameters()))
    optimizer.param_groups[0]["lr"] = 0.0  # a rate that is set later holds
    before = [value.clone() for value in layers.parameters()]
    layers(torch.ones(4, 8)).sum().backward()
    assert all(torch.equal(a, b) for a, b in zip(before, layers.parameters()))


@pytest.mark.parametrize(
    "change", ["train.clip_norm=1", "train.accumulate=2", "train.regularization.l2=0.1", "train.optimizer=muon"]
)
def test_what_needs_all_gradients_takes_no_steps_in_the_backward_pass(change: str, tmp_path: Path) -> None:
    recipe = {"task": "image-classification", "data": {"source": "digits", "limit": 300}}
    overrides = ["hardware.optimizer_in_backward=true", change]
    with pytest.raises(RecipeError, match="one gradient at a time") as caught:
        run(recipe, overrides=overrides, runs=tmp_path, console=silent())
    assert change.split("=")[0] in str(caught.value)


def test_texts_are_padded_to_few_lengths() -> None:
    lengths = torch.arange(1, 301)
    few = few_lengths(lengths)
    assert len(few.unique()) == 256 // 8 + 3, "multiples of 8 up to 256, then 272, 288 and the longest"
    assert bool((few >= lengths).all()) and bool((few <= (lengths + 7).clamp(min=lengths * 17 // 16)).all())
    assert int(few.max()) == 300, "a network may read no more"


def test_a_batch_of_texts_says_where_they_end() -> None:
    starts = torch.tensor([0, 3, 12, 30])
    tokens = Ragged(torch.arange(1, 31, dtype=torch.int32), starts)
    texts = TokenExamples(tokens, tokens, None, torch.arange(1, 4), padding=99)
    found = texts.batch(torch.tensor([1, 0])).named
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        "input_ids": (2, 16),
        "attention_mask": (2, 16),
        "token_type_ids": (2, 16),
    }
    assert found["attention_mask"].sum(1).tolist() == [9, 3]
    assert found["input_ids"][1].tolist() == [1, 2, 3] + [99] * 13
    assert found["token_type_ids"][0].tolist() == [*range(4, 13)] + [0] * 7
