"""The gradient of a step with differential privacy (DP-SGD, Abadi et al. 2016, algorithm 1).

    each unit's own gradient, cut to the norm C → their sum + noise of standard deviation σC → divided by the expected batch

Dividing by the batch that was really drawn would tell how large it was. The units' norms come from Opacus's hooks without their
gradients being held at once ("ghost clipping", Li et al. 2022, section 4). The clipped sum then takes a second backward pass,
from the outputs on, in which what each unit's output sends back is multiplied by that unit's factor.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from tunewright.data.batches.batch import Batch
from tunewright.data.batches.poisson_sampler import NOISE, secret_generator
from tunewright.errors import RecipeError
from tunewright.models.core.meta_weights import is_meta
from tunewright.training.gradients import Position, StepLoss, as_float, batch_totals
from tunewright.training.objectives.base import StepObjective

if TYPE_CHECKING:
    from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import GradSampleHooksFastGradientClipping

# A sum of clipped gradients by hooks may differ from that of one unit after the other by this share of itself.
SAME = 1e-3
NORM = "_norm_sample"


@dataclass(kw_only=True)
class PrivateGradient:
    """Puts into each parameter's `grad` what DP-SGD says.

    clip_norm: C, the norm that a unit's gradient has at most.
    noise_multiplier: σ; 0: no noise, for tests alone.
    expected: units in a step on average.
    """

    clip_norm: float
    noise_multiplier: float
    expected: int
    key: int
    before: Callable[[int], None]
    """Is told each step before its noise is drawn."""
    _attached: Hooks | None = field(default=None, init=False)
    _ghost: bool = field(default=True, init=False)

    rank: int | None = field(default=None, init=False)

    def __call__(
        self,
        model: nn.Module,
        batches: Sequence[Batch],
        objective: StepObjective,
        parameters: list[nn.Parameter],
        at: Position,
    ) -> StepLoss:
        """Returns the units' losses, which are not private; a step may have no unit at all."""
        self.before(at.step)
        moving = [value for value in parameters if value.requires_grad]
        total = self.clipped_sum(model, batches, objective, moving, at.epoch)
        self._add_noise(moving, at.step)
        weight, examples = batch_totals(batches, objective)
        return StepLoss(total=as_float(total), weight=weight or 1.0, examples=examples)

    def _add_noise(self, moving: list[nn.Parameter], step: int) -> None:
        """Add the step's noise to the clipped sum and divide by the expected number of units; a network without memory gets none."""
        generator = secret_generator(self.key, NOISE, step)
        spread = self.noise_multiplier * self.clip_norm
        for value in moving:
            if is_meta(value):
                continue
            noise = torch.from_numpy(generator.standard_normal(tuple(value.shape), dtype="float32"))
            total = torch.zeros_like(value) if value.grad is None else value.grad
            value.grad = total.add_(noise.to(value.device), alpha=spread).div_(self.expected)

    def clipped_sum(
        self,
        model: nn.Module,
        batches: Sequence[Batch],
        objective: StepObjective,
        moving: list[nn.Parameter],
        epoch: int,
    ) -> Tensor:
        """Leaves Σ_units g · min(1, C / ‖g‖) in the parameters' `grad`; returns the sum of the losses, a scalar."""
        loss_sum = torch.zeros(())
        kept: list[Tensor | None] = [None] * len(moving)
        for batch in batches:
            try:
                loss = self._hooks(model, moving).backward(model, batch, objective, moving, self.clip_norm, epoch)
            except NotImplementedError:  # a layer that is gone through twice: then its gradients have to be held
                self.remove()
                self._ghost = False
                loss = self._hooks(model, moving).backward(model, batch, objective, moving, self.clip_norm, epoch)
            loss_sum = loss_sum + loss
            for place, value in enumerate(moving):  # a micro-batch's first pass leaves gradients that are not clipped
                if value.grad is not None:
                    before = kept[place]
                    kept[place] = value.grad if before is None else before.add_(value.grad)
                    value.grad = None
        for value, total in zip(moving, kept):
            value.grad = total
        return loss_sum

    def _hooks(self, model: nn.Module, moving: list[nn.Parameter]) -> Hooks:
        """Return what listens to the weights that move in this epoch."""
        now = [id(value) for value in moving]
        if self._attached is None or self._attached.moving != now:
            self.remove()
            self._attached = Hooks(model, now, ghost=self._ghost)
        return self._attached

    def remove(self) -> None:
        """Take the hooks off the network."""
        if self._attached is not None:
            self._attached.remove()
            self._attached = None


class Hooks:
    """What listens to a network while it computes the norms of units' gradients."""

    def __init__(self, model: nn.Module, moving: list[int], *, ghost: bool) -> None:
        from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import GradSampleHooksFastGradientClipping

        self.model, self.moving = model, moving
        GradSampleHooksFastGradientClipping.GRAD_SAMPLERS[nn.LayerNorm] = layer_norm_gradients
        _require_repeatable(model, set(GradSampleHooksFastGradientClipping.GRAD_SAMPLERS))
        try:
            self.norms: GradSampleHooksFastGradientClipping = GradSampleHooksFastGradientClipping(
                model, loss_reduction="sum", strict=False, use_ghost_clipping=ghost
            )
        except (NotImplementedError, RuntimeError, ValueError) as error:
            raise untold(str(error)) from error
        self.units = 0
        self.output: tuple[Tensor, Tensor] | None = None
        self.handles = [model.register_forward_hook(self._cut)]
        self.handles += [
            module.register_forward_pre_hook(self._spread)
            for module in model.modules()
            if isinstance(module, nn.Embedding)
        ]

    def backward(
        self,
        model: nn.Module,
        batch: Batch,
        objective: StepObjective,
        moving: list[nn.Parameter],
        clip_norm: float,
        epoch: int,
    ) -> Tensor:
        """Leaves the clipped sum of a micro-batch in `grad`; returns the sum of its losses, a scalar."""
        for value in moving:
            value.grad = None
            vars(value).pop(NORM, None)
        self.norms.enable_hooks()
        self.units = len(batch.ids)
        loss = objective.loss_sum(model, batch, epoch)
        self.units = 0  # validation goes by unheard
        if self.output is None:
            raise untold("the objective does not go through the network's outputs")
        (outputs, leaf), self.output = self.output, None
        if len(outputs) != len(batch.ids):
            raise untold(f"{len(batch.ids)} examples give {len(outputs)} outputs")
        loss.backward()
        assert leaf.grad is not None
        try:
            with first_layers_may_listen():
                outputs.backward(leaf.grad, retain_graph=True)
        except (RuntimeError, ValueError, TypeError, AttributeError, IndexError) as error:
            if isinstance(error, NotImplementedError):
                raise
            raise untold(str(error)) from error
        squares = torch.zeros(len(batch.ids), device=outputs.device)
        for value in moving:
            norm = vars(value).pop(NORM, None)
            if norm is None and value.grad is not None:
                raise untold(f"a weight of the shape {list(value.shape)} is used by no layer that can be listened to")
            if norm is not None:
                if norm.shape != squares.shape:
                    raise untold(f"a layer mixes examples: {len(norm)} norms for {len(squares)}")
                squares += norm.square()
            value.grad = None
        factors = (clip_norm / squares.sqrt().clamp(min=1e-12)).clamp(max=1.0)
        self.norms.disable_hooks()
        with first_layers_may_listen():
            outputs.backward(leaf.grad * factors.reshape(-1, *[1] * (leaf.dim() - 1)).to(leaf.dtype))
        return loss.detach()

    def _cut(self, _model: nn.Module, _inputs: Any, output: Tensor) -> Tensor | None:
        """Gives the objective the outputs as if nothing were before them, so that what it sends back stops here."""
        if self.units == 0 or not output.requires_grad:
            return None
        leaf = output.detach().requires_grad_()
        self.output = (output, leaf)
        return leaf

    def _spread(self, _module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Positions that are looked up once for all examples are looked up for each, so that each has a gradient."""
        numbers = inputs[0]
        if self.units == 0:
            return None
        if numbers.dim() == 2 and numbers.shape[0] == 1:
            numbers = numbers.expand(self.units, -1)
        return (numbers.contiguous(), *inputs[1:])

    def remove(self) -> None:
        self.norms.remove_hooks()
        for handle in self.handles:
            handle.remove()
        # What a pass that failed has left behind would be taken for the next one's.
        for module in self.model.modules():
            for name in ("activations", "max_batch_len"):
                vars(module).pop(name, None)
        for value in self.model.parameters():
            for name in ("grad_sample", "_forward_counter", "_current_grad_sample", NORM):
                vars(value).pop(name, None)


def gradients(values: Sequence[nn.Parameter]) -> list[Tensor]:
    """Return each parameter's `grad`, zeros where there is none."""
    found: list[Tensor | None] = [value.grad for value in values]
    return [torch.zeros_like(value) if grad is None else grad for value, grad in zip(values, found)]


def layer_norm_gradients(
    layer: nn.LayerNorm, activations: list[Tensor], backprops: Tensor
) -> dict[nn.Parameter, Tensor]:
    """Return each example's gradient of a layer norm's weights, [B, *shape]; Opacus's own expects a bias, which newer encoders
    lack."""
    over = tuple(range(1, backprops.dim() - len(layer.normalized_shape)))

    def summed(values: Tensor) -> Tensor:
        return values.sum(over) if over else values

    found: dict[nn.Parameter, Tensor] = {}
    if layer.weight.requires_grad:
        normal = nn.functional.layer_norm(activations[0], layer.normalized_shape, eps=layer.eps)
        found[layer.weight] = summed(normal * backprops)
    for name, bias in layer.named_parameters():
        if name == "bias" and bias.requires_grad:
            found[bias] = summed(backprops)
    return found


def _require_repeatable(model: nn.Module, listened: set[type[nn.Module]]) -> None:
    """Raises RecipeError where a part that is computed again for its gradients would draw other random numbers then."""
    for name, module in model.named_modules():
        own = [value for value in module.parameters(recurse=False) if value.requires_grad]
        if not own or type(module) in listened:
            continue
        for inner, part in module.named_modules():
            rate = getattr(part, "p", 0) or getattr(part, "drop_prob", 0)
            if part is not module and "drop" in type(part).__name__.lower() and rate:
                raise untold(f"{name} is computed twice, and its {inner} drops other numbers the second time")


def clipped_one_by_one(
    model: nn.Module,
    batches: Sequence[Batch],
    objective: StepObjective,
    moving: list[nn.Parameter],
    clip_norm: float,
    epoch: int,
) -> None:
    """The same clipped sum as `PrivateGradient.clipped_sum`, each example's gradient by itself: slow, and surely right.

    Args:
        batches: of one example each.
    """
    totals = [torch.zeros_like(value) for value in moving]
    for batch in batches:
        found = torch.autograd.grad(objective.loss_sum(model, batch, epoch), moving, materialize_grads=True)
        norm = torch.stack([part.norm() for part in found]).norm()
        factor = (clip_norm / norm.clamp(min=1e-12)).clamp(max=1.0)
        for total, part in zip(totals, found):
            total += part * factor
    for value, total in zip(moving, totals):
        value.grad = total


def require_told_apart(
    gradient: PrivateGradient,
    model: nn.Module,
    together: Batch,
    single: Sequence[Batch],
    objective: StepObjective,
    parameters: list[nn.Parameter],
) -> None:
    """See on a few real examples that their gradients are told apart rightly in this network, before anything is learned.

    Args:
        together: the examples in one batch.
        single: each in a batch of its own.

    Raises:
        RecipeError: they are not.
    """
    moving = [value for value in parameters if value.requires_grad]
    # In double precision: a deep network at its start makes percents of the differences between orders of summation.
    together, single = _double(together), [_double(batch) for batch in single]
    with quiet(model), _doubled(model):
        clipped_one_by_one(model, single, objective, moving, gradient.clip_norm, 0)
        right = gradients(moving)
        gradient.clipped_sum(model, [together], objective, moving, 0)
        found = gradients(moving)
        gradient.remove()
    size = max((float(value.norm()) for value in right), default=0.0)
    away = max((float((a - b).norm()) for a, b in zip(found, right)), default=0.0)
    for value in parameters:
        value.grad = None
    if not away <= SAME * size:
        raise untold(
            f"the clipped gradients of {len(single)} examples differ by {away:.3g} of {size:.3g} from what they are"
        )


@contextmanager
def _doubled(model: nn.Module) -> Generator[None]:
    """The network in double precision for a while; its weights come back as they were."""
    kinds = {value.dtype for value in model.parameters()}
    model.double()
    try:
        yield
    finally:
        model.to(kinds.pop() if len(kinds) == 1 else torch.float32)


def _double(batch: Batch) -> Batch:
    def doubled(value: Any) -> Any:
        return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value

    return Batch(tree_map(doubled, batch.inputs), doubled(batch.target), batch.ids)


@contextmanager
def first_layers_may_listen() -> Generator[None]:
    """PyTorch warns that a hook on a layer whose inputs need no gradient sees the gradient of its outputs alone: all we want."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Full backward hook is firing")
        # Opacus takes whole numbers that are looked up for a mixed precision.
        warnings.filterwarnings("ignore", message="In CPU autocast, but the target dtype is not supported")
        yield


@contextmanager
def quiet(model: nn.Module) -> Generator[None]:
    """Nothing random happens in the network for a while; layers with weights still listen, as they do while training."""
    modes = [(module, module.training) for module in model.modules()]
    for module, mode in modes:
        module.training = mode and next(module.parameters(recurse=False), None) is not None
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def untold(reason: str) -> RecipeError:
    """Why a network cannot be trained with privacy."""
    return RecipeError(
        "this network's gradients cannot be separated by example, so they cannot be clipped per example",
        place="privacy",
        found=reason,
        expected="layers that treat each example by itself, each weight in one layer",
        fix="freeze what cannot be (tune.freeze), train an adapter (tune.adapter: lora), or choose another model",
    )
