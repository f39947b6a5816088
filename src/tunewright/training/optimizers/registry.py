"""Build optimisers by name, all with decoupled weight decay, and convert their state to plain tensors.

`weight_decay` λ is decoupled for every optimiser: θ ← θ − η λ θ before the step, with η the learning rate of that step
(Loshchilov and Hutter 2017, "Decoupled weight decay regularization", section 2, in PyTorch's convention, where λ is
multiplied by η). What PyTorch's SGD, Adam, Adagrad and RMSprop call weight_decay is the L2 term λ/2 ‖θ‖₂², which adds
λθ to the gradient; it is never used here. A term of the loss is `regularization.l2`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Protocol, runtime_checkable

import torch
from pydantic import Field
from torch import Tensor
from torch.optim import SGD, Adagrad, AdamW, Optimizer, RMSprop

from tunewright.errors import ArtifactError, RecipeError
from tunewright.recipe.named import check_options, choose, parse_named
from tunewright.recipe.schema import Named
from tunewright.training.distributed.dtensors import is_sharded
from tunewright.training.freezing import INSIDE
from tunewright.training.optimizers.adam_8bit import Adam8bit
from tunewright.training.optimizers.groups import Group, Groups
from tunewright.training.optimizers.muon import Muon
from tunewright.training.optimizers.rowwise_adagrad import RowwiseAdagrad
from tunewright.training.optimizers.without_compiler import bare

Decay = Annotated[float, Field(ge=0, lt=1)]
Epsilon = Annotated[float, Field(gt=0, allow_inf_nan=False)]

# Where PyTorch has one kernel for the whole step; elsewhere it has one kernel per operation (foreach).
FUSED_DEVICES = {"cpu", "cuda", "mps"}


def sgd(groups: Groups, lr: float, *, momentum: Decay = 0.0, nesterov: bool = False) -> Optimizer:
    """Update v ← μ v + g, θ ← θ − η v; with Nesterov θ ← θ − η (g + μ v) (Sutskever et al. 2013, section 2, as in PyTorch)."""
    if nesterov and momentum == 0:
        raise RecipeError(
            "nesterov needs a momentum",
            place="train.optimizer.sgd",
            found="nesterov: true without momentum",
            fix="write {sgd: {momentum: 0.9, nesterov: true}}",
        )
    return bare(SGD)(
        groups, lr, momentum=momentum, nesterov=nesterov, fused=_on(groups, FUSED_DEVICES) and _whole(groups)
    )


def adam(groups: Groups, lr: float, *, betas: tuple[Decay, Decay] = (0.9, 0.999), eps: Epsilon = 1e-8) -> Optimizer:
    """Update θ ← θ − η m̂ / (√v̂ + ε) with m, v the running means of g and g², m̂ = m/(1 − β₁ᵗ), v̂ = v/(1 − β₂ᵗ).

    Kingma and Ba 2014, algorithm 1. As weight decay is decoupled in any case, `adam` and `adamw` are the same.
    """
    return bare(AdamW)(groups, lr, betas=betas, eps=eps, weight_decay=0.0, fused=_on(groups, FUSED_DEVICES))


def adagrad(groups: Groups, lr: float, *, eps: Epsilon = 1e-10) -> Optimizer:
    """Update s ← s + g², θ ← θ − η g / (√s + ε) (Duchi, Hazan and Singer 2011, section 1.1, diagonal form)."""
    return bare(Adagrad)(groups, lr, eps=eps, fused=_on(groups, {"cpu"}) and _whole(groups))


def rmsprop(groups: Groups, lr: float, *, alpha: Decay = 0.99, momentum: Decay = 0.0, eps: Epsilon = 1e-8) -> Optimizer:
    """Update s ← α s + (1 − α) g², v ← μ v + g / (√s + ε), θ ← θ − η v (Tieleman and Hinton 2012, lecture 6.5)."""
    return bare(RMSprop)(groups, lr, alpha=alpha, momentum=momentum, eps=eps, foreach=True)


def muon(
    groups: Groups, lr: float, *, momentum: Decay = 0.95, betas: tuple[Decay, Decay] = (0.9, 0.95), eps: Epsilon = 1e-8
) -> Optimizer:
    """Update matrices inside the network with their orthogonalised momentum, the rest with AdamW: see `training/optimizers/muon.py`.

    Raises:
        RecipeError: there is no such matrix, or no other parameter.
    """
    parts: dict[bool, list[Group]] = {True: [], False: []}
    for group in groups:
        for inside, found in parts.items():
            chosen = [value for value, is_inside in zip(group["params"], group[INSIDE]) if is_inside is inside]
            if chosen:
                found.append({**group, "params": chosen, INSIDE: [inside] * len(chosen)})
    if not parts[True] or not parts[False]:
        raise RecipeError(
            "muon updates the matrices between embeddings and head, and AdamW the rest; this network has only one of the two",
            place="train.optimizer",
            found="muon",
            expected="a network with layers between, trained as a whole",
            fix="train.optimizer: adamw",
        )
    return bare(Muon)(parts[True], adam(parts[False], lr, betas=betas, eps=eps), lr, momentum)


def adamw_8bit(
    groups: Groups, lr: float, *, betas: tuple[Decay, Decay] = (0.9, 0.999), eps: Epsilon = 1e-8
) -> Optimizer:
    """Apply AdamW with its moments in 8 bits: see `training/optimizers/adam_8bit.py`."""
    return bare(Adam8bit)(groups, lr, betas, eps)


def rowwise_adagrad(groups: Groups, lr: float, *, eps: Epsilon = 1e-10) -> Optimizer:
    """Apply Adagrad with one accumulator per row, for large tables: see `training/optimizers/rowwise_adagrad.py`."""
    return RowwiseAdagrad(groups, lr, eps)


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": sgd,
    "adam": adam,
    "adamw": adam,
    "adagrad": adagrad,
    "rmsprop": rmsprop,
    "muon": muon,
    "rowwise_adagrad": rowwise_adagrad,
    "adamw_8bit": adamw_8bit,
}
USUAL_LR = {
    "sgd": 1e-2,
    "adam": 1e-3,
    "adamw": 1e-3,
    "adagrad": 1e-2,
    "rmsprop": 1e-3,
    "muon": 1e-3,
    "rowwise_adagrad": 1e-2,
    "adamw_8bit": 1e-3,
}


def default_lr(named: Named) -> float:
    """Return the usual learning rate of an optimiser.

    Raises:
        RecipeError: no such optimiser.
    """
    name, _ = parse_named(named, "train.optimizer")
    return choose(USUAL_LR, name, "train.optimizer")


def build_optimizer(named: Named, groups: Groups, lr: float, weight_decay: float) -> Optimizer:
    """Build the optimiser that the recipe names.

    Args:
        groups: each with `params`, and with its own `lr` where it differs.
        weight_decay: λ of the decoupled weight decay; a parameter without a gradient is not decayed.

    Raises:
        RecipeError: no such optimiser or option, or a value that it cannot have.
    """
    name, given = parse_named(named, "train.optimizer")
    build = choose(OPTIMIZERS, name, "train.optimizer")
    optimizer = build(groups, lr, **check_options(build, given, f"train.optimizer.{name}"))
    if weight_decay > 0:
        if isinstance(optimizer, AdamW | Muon | Adam8bit):
            for group in optimizer.param_groups:
                group["weight_decay"] = weight_decay
        else:
            optimizer.register_step_pre_hook(lambda optimizer, _args, _kwargs: _decay(optimizer, weight_decay))
    return optimizer


def _on(groups: Groups, devices: set[str]) -> bool:
    return all(parameter.device.type in devices for group in groups for parameter in group["params"])


def _whole(groups: Groups) -> bool:
    """Return whether no parameter is sharded: of the fused kernels only AdamW's takes sharded parameters."""
    return not any(is_sharded(parameter) for group in groups for parameter in group["params"])


@torch.no_grad()
def _decay(optimizer: Optimizer, weight_decay: float) -> None:
    """Compute θ ← (1 − η λ) θ for each parameter that the next step updates."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                parameter.mul_(1 - group["lr"] * weight_decay)


def state_tensors(optimizer: Optimizer, names: Sequence[str]) -> dict[str, Tensor]:
    """Return the optimiser's state as a flat dict of tensors, which can be saved without pickle.

    The tensors are not copies; the next step changes them. Learning rates are not part of it: they follow from recipe and step.

    Args:
        names: the parameters' names, group after group.

    Returns:
        "state/NAME/KEY" for each tensor of each parameter's state, step counters included.
    """
    tensors: dict[str, Tensor] = {}
    for name, parameter in zip(names, _parameters(optimizer), strict=True):
        for key, value in optimizer.state.get(parameter, {}).items():
            if value is not None:
                tensors[f"state/{name}/{key}"] = value
    return tensors


def state_bytes(optimizer: Optimizer) -> int:
    """Return the size of an optimiser's state in bytes, once it has updated every parameter."""
    likes = (value for parameter in _parameters(optimizer) for value in _state_like(optimizer, parameter).values())
    return sum(value.numel() * value.element_size() for value in likes)


def load_state_tensors(optimizer: Optimizer, names: Sequence[str], tensors: dict[str, Tensor]) -> None:
    """Restore what `state_tensors` returned, so that the next steps are bit for bit the same.

    The tensors are copied. When an error is raised, the optimiser does not change.

    Raises:
        ArtifactError: the state is not that of this optimiser over these parameters.
    """
    parameters = dict(zip(names, _parameters(optimizer), strict=True))
    found: dict[str, dict[str, Tensor]] = {name: {} for name in parameters}
    for entry in tensors:
        name, _, key = entry.removeprefix("state/").rpartition("/")
        if not entry.startswith("state/") or name not in parameters:
            raise _mismatch("it has an entry that belongs to no trained parameter", found=entry)
        found[name][key] = tensors[entry]
    for name, state in found.items():
        likes = _state_like(optimizer, parameters[name])
        # Only Adagrad has a state before its first step; in the others a parameter without an update has none.
        if set(state) != set(likes) and (state or isinstance(optimizer, Adagrad)):
            raise _mismatch(f"{name}: another optimiser's", found=_list(state), expected=_list(likes))
        for key, value in state.items():
            like = likes[key]
            if value.shape != like.shape or value.dtype != like.dtype:
                raise _mismatch(f"{name}: {key} is of another shape or type", found=_form(value), expected=_form(like))

    for name, parameter in parameters.items():
        optimizer.state.pop(parameter, None)
        if state := found[name]:
            likes = _state_like(optimizer, parameter)
            # Laid out like the parameter; PyTorch needs step counters on the CPU, unless the step is fused.
            device = parameter.device if optimizer.defaults.get("fused") else "cpu"
            optimizer.state[parameter] = {
                key: value.to(device, copy=True) if key == "step" else torch.empty_like(likes[key]).copy_(value)
                for key, value in state.items()
            }


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


@runtime_checkable
class OwnState(Protocol):
    """Describe an optimiser that says itself what its state is."""

    def state_like(self, parameter: Tensor) -> dict[str, Tensor]: ...


# The state of PyTorch's optimisers, besides the momentum.
STATE: dict[type[Optimizer], tuple[str, ...]] = {
    SGD: (),
    AdamW: ("step", "exp_avg", "exp_avg_sq"),
    Adagrad: ("step", "sum"),
    RMSprop: ("step", "square_avg"),
}


def _state_like(optimizer: Optimizer, parameter: Tensor) -> dict[str, Tensor]:
    """Return tensors of the shape and type of a parameter's state, once it was updated."""
    if isinstance(optimizer, OwnState):
        return optimizer.state_like(parameter)
    names = next(names for kind, names in STATE.items() if isinstance(optimizer, kind))
    momentum = ("momentum_buffer",) if optimizer.defaults.get("momentum") else ()
    return {name: torch.zeros(()) if name == "step" else parameter for name in (*names, *momentum)}


def _list(keys: Iterable[str]) -> str:
    return ", ".join(sorted(keys)) or "nothing"


def _form(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _mismatch(problem: str, *, found: str | None = None, expected: str | None = None) -> ArtifactError:
    return ArtifactError(
        f"the optimiser's state does not fit: {problem}",
        found=found,
        expected=expected,
        fix="start a new run: the recipe or the network has changed since the checkpoint",
    )
