"""A run from which nothing can come is stopped with the reason; one that merely begins slowly, or has arrived, is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tunewright.data.batches.examples import TensorExamples
from tunewright.data.batches.sampler import Batches
from tunewright.errors import NothingLearned
from tunewright.models.hub.hf_network import build_transformer, describe_transformer
from tunewright.models.hub.purposes import IMAGE_CLASSIFICATION
from tunewright.training.gradients import ExactGradient
from tunewright.training.loop import Callbacks, LoopConfig, train
from tunewright.training.objectives.base import LossSum
from tunewright.training.objectives.supervised import SupervisedLoss, cross_entropy, mse
from tunewright.training.sanity_checks import SAME, weights_digest
from tunewright.training.state import State
from tunewright.training.step import TrainModule


def run(
    model: nn.Module,
    *,
    lr: float = 0.1,
    epochs: int = 3,
    rows: int = 40,
    batch_size: int = 8,
    factor: Callable[[int], float] = lambda step: 1.0,
    formula: LossSum = cross_entropy,
    penalty: Callable[[], Tensor] | None = None,
    start_epoch: Callable[[int], None] = lambda epoch: None,
    parameters: list[nn.Parameter] | None = None,
    state: State | None = None,
    optimizer: Any = None,
    save: Callable[[State], None] = lambda state: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> State:
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randn(rows, 4, generator=draw)
    target = (inputs[:, 0] > 0).long() if formula is cross_entropy else inputs[:, 0] * 2
    values = parameters or list(model.parameters())
    optimizer = optimizer or torch.optim.SGD([{"params": values, "lr": lr}], lr)
    for group in optimizer.param_groups:
        group["base_lr"] = lr
    return train(
        TrainModule(
            model=model,
            objective=SupervisedLoss(name="loss", formula=formula, outputs=(1, 2)),
            optimizer=optimizer,
            gradient=ExactGradient(),
            penalty=penalty,
        ),
        Batches(examples=TensorExamples(inputs, target, torch.arange(rows)), batch_size=batch_size, seed=0),
        factor,
        state or State(),
        LoopConfig(epochs=epochs),
        Callbacks(
            start_epoch=start_epoch,
            log_step=lambda state, loss, rate: None,
            end_epoch=lambda state, loss: None,
            save=save,
            should_stop=should_stop,
        ),
    )


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


class Cut(nn.Module):
    """A network whose trained part the loss does not see."""

    def __init__(self, *, whole: bool) -> None:
        super().__init__()
        self.net = net()
        self.whole = whole
        self.zero = nn.Parameter(torch.zeros(()))

    def forward(self, inputs: Tensor) -> Tensor:
        found = self.net(inputs).detach()
        return found if self.whole else found + 0 * self.zero


def test_a_loss_that_depends_on_nothing_trained_stops_the_run() -> None:
    with pytest.raises(NothingLearned, match="does not depend") as caught:
        run(Cut(whole=True))
    assert "epoch 1, step 1" in caught.value.message and caught.value.exit_code == 1


def test_gradients_that_are_all_empty_stop_the_run() -> None:
    cut = Cut(whole=False)
    with pytest.raises(NothingLearned, match="no gradient reaches") as caught:
        run(cut)
    assert "4 of 5 tensors without a gradient" in caught.value.message and "step 3" in caught.value.message
    # A penalty moves the weights in any case: the loss of the examples is what counts.
    with pytest.raises(NothingLearned, match="no gradient reaches"):
        run(Cut(whole=False), penalty=lambda: sum((p**2).sum() for p in cut.net.parameters()) + cut.zero)  # type: ignore[arg-type, return-value]


def test_a_dead_activation_above_all_that_is_trained_stops_the_run() -> None:
    model = net()
    with torch.no_grad():
        model[0].bias.fill_(-1e4)  # type: ignore[operator]
    model[2].requires_grad_(False)
    with pytest.raises(NothingLearned, match="others' are zero"):
        run(model, parameters=list(model[0].parameters()))
    model[2].requires_grad_(True)
    run(model, epochs=1)  # with the last layer trained something is learned: its biases


class Unmoved(torch.optim.SGD):
    """An optimiser that forgets to step."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        pass


def test_weights_that_do_not_move_stop_the_run() -> None:
    model = net()
    with pytest.raises(NothingLearned, match="no weight has changed"):
        run(model, optimizer=Unmoved(model.parameters(), 0.1))
    # A learning rate whose steps are lost in the weights' rounding.
    with torch.no_grad():
        for value in (model := net()).parameters():
            value.fill_(1.0)
    with pytest.raises(NothingLearned, match="1e-20"):
        run(model, lr=1e-20)


class Deaf(nn.Module):
    """Its outputs depend on its weights, yet on no input; and the weights turn in a circle."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(1, 2))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.value.expand(len(inputs), 2)


def same_for_all(outputs: Tensor, target: Tensor, weights: Tensor | None, smoothing: float) -> Tensor:
    return (outputs.sum() * 1.0).sin() * 0 + outputs.sum() - outputs.sum().detach() + 2.0 * len(target)


def test_a_loss_that_never_changes_stops_the_run() -> None:
    with pytest.raises(NothingLearned, match="exactly 2 in each of the first") as caught:
        run(Deaf(), formula=same_for_all, epochs=100)
    assert "step 100" in caught.value.message and SAME == 100


def test_a_loss_that_stands_still_later_ends_the_run_and_is_no_failure() -> None:
    calls = 0

    def falls_then_stands(outputs: Tensor, target: Tensor, weights: Any, smoothing: float) -> Tensor:
        nonlocal calls
        calls += 1
        loss = same_for_all(outputs, target, None, 0.0)
        return loss * (3.0 if calls < 10 else 1.0)

    state = run(Deaf(), formula=falls_then_stands, epochs=100)
    assert state.finished is not None and "exactly 2 for 100 steps" in state.finished
    assert state.step == 110  # at the end of the epoch


def test_weights_that_have_arrived_end_the_run_and_are_no_failure() -> None:
    """Full batches, a least-squares problem with a remainder: gradient descent comes to rest at a loss above zero."""
    torch.manual_seed(0)
    model = nn.Linear(4, 1)

    def noisy(outputs: Tensor, target: Tensor, weights: Any, smoothing: float) -> Tensor:
        return mse(outputs, target + (1000 * target).sin())

    state = run(model, formula=noisy, batch_size=40, epochs=5000, lr=0.3)
    assert state.finished is not None and state.epoch < 5000
    assert "no weight changed" in state.finished or "nothing more is learned" in state.finished


def test_a_run_that_arrives_at_a_loss_of_zero_is_no_failure() -> None:
    torch.manual_seed(0)
    state = run(nn.Linear(4, 1), formula=mse, batch_size=40, epochs=3000, lr=0.2)
    assert state.finished == "all epochs done" or "no weight changed" in str(state.finished)


@pytest.mark.parametrize(
    ("factor", "lr"),
    [
        (lambda step: 0.0 if step == 0 else 1.0, 0.1),
        (lambda step: min(1.0, step / 10_000), 1e-6),  # a long warm-up, whose first steps move next to nothing
        (lambda step: max(0.0, 1 - step / 10), 0.1),  # a schedule that ends at zero before the run does
        (lambda step: 10.0**-step, 0.1),
    ],
)
def test_a_slow_start_and_a_slow_end_are_no_failure(factor: Any, lr: float) -> None:
    model = net()
    with torch.no_grad():
        for value in model.parameters():
            value.fill_(1.0)
    assert run(model, factor=factor, lr=lr).finished == "all epochs done"


def test_what_thaws_later_is_waited_for() -> None:
    """The first epochs move nothing that is left to learn; then the rest of the network thaws."""
    model = net()

    def start_epoch(epoch: int) -> None:
        model[0].requires_grad_(epoch >= 2)

    def no_longer(outputs: Tensor, target: Tensor, weights: Any, smoothing: float) -> Tensor:
        return mse(outputs[:, 0], target) * (0.0 if 1 <= epoch_now() < 2 else 1.0) + float(len(target))

    seen = [0]

    def epoch_now() -> int:
        return seen[0]

    def both(epoch: int) -> None:
        seen[0] = epoch
        start_epoch(epoch)

    state = run(model, formula=no_longer, start_epoch=both, epochs=4)
    assert state.finished == "all epochs done" and state.epoch == 4


def test_lora_whose_a_has_no_gradient_at_first_is_no_failure() -> None:
    """B is zero at the start, so that A's gradient is: some tensor has one, and that is what counts."""
    a, b = nn.Parameter(torch.randn(2, 4)), nn.Parameter(torch.zeros(2, 2))

    class Low(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return inputs @ a.T @ b.T

    run(Low(), parameters=[a, b], epochs=1, rows=8)
    assert float(b.detach().abs().sum()) > 0


def test_the_digest_sees_the_smallest_change() -> None:
    values = [
        torch.randn(7, 3),
        torch.zeros(()),
        torch.randn(5, dtype=torch.float64),
        torch.ones(2, dtype=torch.bfloat16),
    ]
    known = weights_digest(values)
    assert weights_digest([value.clone() for value in values]) == known
    for value in values:
        changed = [other.clone() for other in values]
        position = next(index for index, other in enumerate(values) if other is value)
        flat = changed[position].view(-1)
        flat[0] = torch.nextafter(flat[0], torch.full_like(flat[0], 9.0)) if flat.dtype != torch.bfloat16 else 1.0078125
        assert weights_digest(changed) != known


def test_a_stopped_run_that_goes_on_ends_alike() -> None:
    """When a run ends by itself does not depend on where it was stopped before."""

    def noisy(outputs: Tensor, target: Tensor, weights: Any, smoothing: float) -> Tensor:
        return mse(outputs, target + (1000 * target).sin())

    def fresh() -> nn.Linear:
        torch.manual_seed(0)
        return nn.Linear(4, 1)

    def options(epochs: int) -> dict[str, Any]:
        return {"formula": noisy, "batch_size": 40, "epochs": epochs, "lr": 0.3}

    whole = run(fresh(), **options(3000))
    saved: list[tuple[dict[str, Any], dict[str, Tensor]]] = []
    model = fresh()

    def save(state: State) -> None:
        if state.epoch == 20:
            saved.append((state.to_json(), {name: value.clone() for name, value in model.state_dict().items()}))

    run(model, **options(3000), save=save, should_stop=lambda: bool(saved))
    other = nn.Linear(4, 1)
    other.load_state_dict(saved[0][1])
    again = run(other, **options(3000), state=State.from_json(saved[0][0]))
    assert (again.finished, again.step, again.epoch) == (whole.finished, whole.step, whole.epoch)


def test_a_pretrained_network_comes_to_life_under_a_warm_up() -> None:
    config = {
        "model_type": "vit",
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "image_size": 8,
        "patch_size": 4,
        "num_channels": 1,
    }
    network = build_transformer(
        describe_transformer(IMAGE_CLASSIFICATION, config, head=None, classes=["a", "b"]), seed=0
    )

    class AsImages(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return network(inputs[:, :1, None, None].expand(-1, 1, 8, 8))

    state = run(AsImages(), parameters=list(network.parameters()), factor=lambda step: step / 100, lr=1e-4, epochs=1)
    assert state.finished == "all epochs done"
