"""Train one stage: from its recipe to `model/`, `metrics.jsonl` and `summary.json` in its folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tunewright.data.batching import Batches, Examples
from tunewright.errors import Diverged, RecipeError, RunFailed, Stopped
from tunewright.evaluation.metrics import METRICS
from tunewright.files import write_json
from tunewright.models.describe import LayerRow, layer_table
from tunewright.models.dropout import quicken_dropout
from tunewright.models.narrow import narrow_last_layer
from tunewright.models.saved import save_model
from tunewright.models.tables import has_sparse_gradients
from tunewright.recipe.named import parse_named
from tunewright.recipe.schema import Recipe
from tunewright.runs import MetricsLog
from tunewright.stages.console import Screen
from tunewright.stages.ingredients import Ingredients, is_stochastic
from tunewright.stages.job import StageJob
from tunewright.stages.memory import save_memory
from tunewright.stages.precision import set_precision
from tunewright.stages.prefix import frozen_part
from tunewright.stages.stopping import stop_requests
from tunewright.stages.summary import (
    describe_data,
    describe_network,
    describe_opening,
    describe_source,
    describe_training,
)
from tunewright.stages.texts import describe_texts
from tunewright.stages.validation import selection_metric, validator
from tunewright.tasks.preference_pairs import PreferenceExamples
from tunewright.tasks.recordings import SpeechExamples
from tunewright.training import freezing
from tunewright.training.checkpoint import Checkpoint, load_best, load_newest, save_best, save_checkpoint
from tunewright.training.loop import Best, Settings, State, Surroundings, train
from tunewright.training.optim import build_optimizer, load_state_tensors, state_tensors
from tunewright.training.regularization import penalty
from tunewright.training.schedule import learning_rate_factor


def train_ingredients(
    job: StageJob, ingredients: Ingredients, screen: Screen, finish: Callable[..., None] | None = None
) -> None:
    """Train by gradients, going on from the newest good checkpoint; leaves model/ and, last of all, summary.json.

    Args:
        finish: what ends the stage, with the arguments of `finish_stage`, in its place.

    Raises:
        UserError: recipe, data and source do not fit together.
        Diverged: the loss or the weights are not finite any more.
        Stopped: a stop was asked for; a checkpoint was written.
    """
    began = time.perf_counter()
    recipe, train_settings = job.recipe, job.recipe.train
    network = ingredients.network.to(device := choose_device(recipe))
    train_examples = ingredients.examples("train")
    assert train_examples is not None  # prepare refuses data without a training row
    texts = describe_texts(ingredients, train_examples, screen)
    train_examples, valid_examples = train_examples.to(device), ingredients.examples("valid")
    movements = freezing.resolve_movement(network, ingredients.tune)
    quicken_dropout(network)
    narrow_last_layer(network)
    precision = set_precision(network, recipe, train_examples, job.folder, screen)
    recomputes = save_memory(network, recipe, train_examples, screen)
    train_examples = referred(ingredients, train_examples, device, screen)
    valid_examples = None if valid_examples is None else referred(ingredients, valid_examples, device, screen)
    layers = layer_table(network)
    model: nn.Module = network
    computed = layers
    if (frozen := frozen_part(ingredients, movements, train_examples, layers)) is not None:
        model = frozen.model
        computed = [row for row in layers if row.block not in frozen.titles]
        train_examples = frozen.examples(train_examples, "training", screen)
        valid_examples = (
            None if valid_examples is None else frozen.examples(valid_examples.to(device), "validation", screen)
        )
    batches = training_batches(recipe, train_examples)
    total_steps = train_settings.epochs * batches.steps_per_epoch

    lr = ingredients.lr
    before = freezing.fingerprint(network)
    groups = freezing.parameter_groups(movements, lr)
    optimizer = training_optimizer(recipe, network, groups, lr)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    parameter_names = [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]

    checkpoints = job.folder / "checkpoints"
    state = State()
    if (found := load_newest(checkpoints, screen.warn)) is not None:
        freezing.load_moving(network, movements, found.model)
        load_state_tensors(optimizer, parameter_names, found.optimizer)
        state = State.from_json(found.state)
        screen.say(f"{job.stage.name}: going on after step {state.step:,} of {total_steps:,}")

    validate = validator(ingredients, valid_examples, device)
    selection = Selection(
        metric=selection_metric(ingredients),
        patience=train_settings.early_stopping.patience if train_settings.early_stopping else None,
    )
    log_every = max(1, batches.steps_per_epoch // 20)

    with (
        closing(MetricsLog(job.folder / "metrics.jsonl", step=state.step)) as metrics_log,
        screen.training(job.stage.name, train_settings.epochs, total_steps, state.step) as report_step,
        stop_requests() as should_stop,
    ):

        def log_step(state: State, loss: float, rate: float) -> None:
            if state.step % log_every == 0:
                entry = {"kind": "step", "step": state.step, "epoch": state.epoch + 1, "loss": loss, "lr": rate}
                metrics_log.append(entry)
            report_step(state.epoch + 1, state.step, loss, state.examples, state.seconds)

        def end_epoch(state: State, train_loss: float) -> None:
            require_finite(network, state)
            valid = validate(model) if validate else None
            if valid is not None:
                selection.update(
                    state, valid, lambda: save_best(checkpoints, state.step, freezing.moving_state(network, movements))
                )
            rate = max(group["lr"] for group in optimizer.param_groups)
            speed = state.examples / state.seconds
            metrics_log.append(
                {
                    "kind": "epoch",
                    "epoch": state.epoch,
                    "step": state.step,
                    "train_loss": train_loss,
                    "valid": valid,
                    "lr": rate,
                    "seconds": state.seconds,
                    "examples_per_second": speed,
                }
            )
            if (sample := written_sample(ingredients)) is not None:
                metrics_log.append({"kind": "sample", "epoch": state.epoch, "step": state.step, "text": sample})
            shown = "".join(f"  valid {name} {value:.4f}" for name, value in (valid or {}).items())
            screen.say(
                f"{job.stage.name}  epoch {state.epoch}/{train_settings.epochs}  train loss {train_loss:.4f}{shown}"
                f"  {speed:,.0f} examples/s"
            )

        def save(state: State) -> None:
            require_finite(network, state)
            tensors = state_tensors(optimizer, parameter_names)
            checkpoint = Checkpoint(
                step=state.step,
                model=freezing.moving_state(network, movements),
                optimizer=tensors,
                state=state.to_json(),
            )
            save_checkpoint(checkpoints, checkpoint)

        preparation = time.perf_counter() - began
        with (
            small_numbers_as_zero(),
            threads(recipe.hardware.threads or suitable_threads(computed, train_settings.batch_size)),
        ):
            train(
                model,
                batches,
                ingredients.objective.bind(recipe.seed, device),
                optimizer,
                learning_rate_factor(train_settings.schedule, train_settings.warmup, total_steps),
                penalty_of(optimizer, recipe),
                state,
                Settings(
                    epochs=train_settings.epochs,
                    seed=recipe.seed,
                    clip_norm=train_settings.clip_norm,
                    save_every=train_settings.checkpoint_steps,
                    stochastic=is_stochastic(network),
                ),
                Surroundings(
                    start_epoch=lambda epoch: freezing.start_epoch(movements, epoch),
                    log_step=log_step,
                    end_epoch=end_epoch,
                    save=save,
                    should_stop=should_stop,
                ),
            )
    if state.finished is None:
        raise Stopped(
            f"{job.stage.name} was stopped after step {state.step:,} of {total_steps:,}; a checkpoint was written",
            file=checkpoints,
            fix="run the same command again: it goes on from there",
        )
    means = {
        "preparation_seconds": preparation,
        "precision": precision,
        "gradient_checkpointing": recomputes,
        "frozen_part_kept": frozen is not None,
    }
    (finish or finish_stage)(job, ingredients, state, movements, before, lr, means, texts, screen)


def referred(ingredients: Ingredients, examples: Examples, device: torch.device, screen: Screen) -> Examples:
    """The examples with what the network says of them before it learns, where the objective asks for it.

    Nothing is learned yet, also not in a training that goes on: a checkpoint is loaded afterwards.
    """
    refer = ingredients.objective.refer
    if refer is None or not isinstance(examples, PreferenceExamples):
        return examples
    screen.say(
        f"{ingredients.objective.name}: the reference is the network as it is now, computed once for {len(examples):,} pairs"
    )
    return examples.with_reference(refer(ingredients.network, examples.to(device)))


def written_sample(ingredients: Ingredients) -> str | None:
    """What the network makes by itself, where its task has such a thing."""
    examination = ingredients.task.examination
    if examination is None or examination.sample is None:
        return None
    return examination.sample(ingredients.network, ingredients.preprocessor.inputs)


def finish_stage(
    job: StageJob,
    ingredients: Ingredients,
    state: State,
    movements: list[freezing.Movement],
    before: dict[str, str],
    lr: float | None,
    means: dict[str, Any],
    texts: dict[str, Any] | None,
    screen: Screen,
) -> None:
    """Save the best weights, check the freeze certificate, write the summary.

    Raises:
        RunFailed: something that was to stay frozen has changed.
    """
    network = ingredients.network
    if state.best is not None:
        freezing.load_moving(network, movements, load_best(job.folder / "checkpoints", state.best.folder))
    network.requires_grad_(True).eval()
    ingredients.preprocessor.inputs.write(job.folder / "model")
    made_from = describe_source(job)
    extra = {"preprocessor": ingredients.preprocessor.to_json(), "made_from": made_from}
    save_model(job.folder / "model", network, extra)
    chosen_epoch = state.best.epoch if state.best else state.epoch
    certificate = freezing.certify(movements, before, network, chosen_epoch)
    show_certificate(job.stage.name, certificate, screen)
    summary = {
        "stage": job.stage.name,
        "kind": job.stage.kind,
        "task": job.recipe.task,
        "seed": job.recipe.seed,
        "data": describe_data(ingredients.prepared),
        "model": {
            **describe_network(ingredients, movements, chosen_epoch, lr),
            "opening": describe_opening(network, made_from),
        },
        "training": {**describe_training(ingredients, state, lr, selection_metric(ingredients)), **means},
        "certificate": certificate,
        **({"texts": texts} if texts is not None else {}),
    }
    write_json(job.folder / "summary.json", summary)


def show_certificate(stage: str, certificate: dict[str, Any], screen: Screen) -> None:
    """One line on what stayed and what moved; RunFailed when something frozen has moved."""
    if not certificate["passed"]:
        raise RunFailed(
            f"{stage}: the freeze certificate failed",
            found="; ".join(certificate["warnings"][:3]),
            expected="every frozen tensor bit-identical to its source",
            fix="this is a mistake in the model's code, not in your recipe: please report it",
        )
    frozen, trained = certificate["frozen"], certificate["trained"]
    if frozen:
        tensors = sum(entry["tensors"] for entry in frozen)
        moved = sum(entry["changed"] for entry in trained)
        screen.say(
            f"{stage}  freeze certificate passed: {tensors} frozen tensors identical, {moved} trained ones changed"
        )
    for warning in certificate["warnings"]:
        screen.warn(warning)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Keeps the best weights by one validation metric, and stops early when it no longer improves."""

    metric: str
    patience: int | None

    def update(self, state: State, valid: dict[str, float], keep: Callable[[], str]) -> None:
        value = valid.get(self.metric)
        if value is not None and self._is_better(value, state.best):
            state.best = Best(epoch=state.epoch, step=state.step, value=value, folder=keep())
            state.epochs_since_best = 0
            return
        state.epochs_since_best += 1
        if self.patience is not None and state.epochs_since_best >= self.patience:
            state.finished = "early stopping"

    def _is_better(self, value: float, best: Best | None) -> bool:
        greater = self.metric != "loss" and METRICS[self.metric].greater_is_better
        return best is None or (value > best.value if greater else value < best.value)


def choose_device(recipe: Recipe) -> torch.device:
    """The recipe's device; `auto` takes an accelerator where there is one.

    Raises:
        RecipeError: the recipe asks for a device that this machine does not have.
    """
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    wanted = recipe.hardware.device
    if wanted == "auto":
        return torch.device(next(name for name in ("cuda", "mps", "cpu") if available[name]))
    if not available[wanted]:
        raise RecipeError(
            f"this machine has no {wanted} device that torch can use",
            place="hardware.device",
            found=wanted,
            expected=", ".join(name for name, there in available.items() if there),
            fix="hardware.device: auto",
        )
    return torch.device(wanted)


# Below so many floating-point operations a step, a second thread waits longer for its start than it saves.
SMALL_STEP = 1e8


def suitable_threads(layers: list[LayerRow], batch_size: int) -> int:
    """CPU threads for these layers: one for few. A rule and no measurement, so that a run can be repeated exactly."""
    # The backward pass costs about twice the forward pass.
    flops = 3 * batch_size * sum(row.flops for row in layers)
    return 1 if flops < SMALL_STEP else torch.get_num_threads()


@contextmanager
def threads(count: int) -> Generator[None]:
    """Use so many CPU threads, and go back to what was set before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def small_numbers_as_zero() -> Generator[None]:
    """Numbers below 1e-38 count as zero: processors are many times slower with them.

    Adam's running means of a weight without a gradient (a pixel that is always black) decay into that range.
    """
    supported = torch.set_flush_denormal(True)
    try:
        yield
    finally:
        if supported:
            torch.set_flush_denormal(False)


def penalty_of(optimizer: Optimizer, recipe: Recipe) -> Callable[[], Tensor] | None:
    """The regularisation term of the loss, over every parameter that is trained; None when it is zero."""
    terms = recipe.train.regularization
    if terms.l1 == 0 and terms.l2 == 0:
        return None
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return lambda: penalty([value for value in parameters if value.requires_grad], l1=terms.l1, l2=terms.l2)


def require_finite(network: nn.Module, state: State) -> None:
    """Refuse to save weights that are not finite.

    Raises:
        Diverged: names the tensors.
    """
    broken = [name for name, value in network.state_dict().items() if not torch.isfinite(value).all()]
    if broken:
        raise Diverged(
            "the weights are not finite",
            place=f"after epoch {state.epoch}, step {state.step}",
            found=", ".join(broken[:5]),
            fix="lower train.lr or set train.clip_norm: 1.0; the last good checkpoint is kept",
        )


def training_batches(recipe: Recipe, examples: Examples) -> Batches:
    """How a stage's epochs are cut up."""
    return Batches(
        examples=examples,
        batch_size=recipe.train.batch_size,
        accumulate=recipe.train.accumulate,
        seed=recipe.seed,
        most=longest_batch(recipe, examples),
    )


def training_optimizer(recipe: Recipe, network: nn.Module, groups: list[dict[str, Any]], lr: float) -> Optimizer:
    """The optimiser that a stage's recipe names, once it is seen to fit the network's gradients."""
    _require_rows(network, recipe)
    return build_optimizer(recipe.train.optimizer, groups, lr, recipe.train.regularization.weight_decay)


def _require_rows(network: nn.Module, recipe: Recipe) -> None:
    """Raises RecipeError when gradients of rows meet what wants whole ones."""
    if not has_sparse_gradients(network):
        return
    train = recipe.train
    name, _ = parse_named(train.optimizer, "train.optimizer")
    wrong = {
        "train.optimizer": name if name != "rowwise_adagrad" else None,
        "train.clip_norm": train.clip_norm,
        "train.regularization": "l1 or l2" if train.regularization.l1 or train.regularization.l2 else None,
    }
    for place, found in wrong.items():
        if found is not None:
            raise RecipeError(
                "a sparse table gives gradients of its rows alone",
                place=place,
                found=found,
                expected="optimizer: rowwise_adagrad, and neither clip_norm nor a penalty",
                fix="train.optimizer: rowwise_adagrad" if place == "train.optimizer" else f"leave {place} out",
            )


def longest_batch(recipe: Recipe, examples: Examples) -> int | None:
    """What `train.batch_seconds` asks for, in hundredths of a second, the unit of recordings' lengths.

    Raises:
        RecipeError: the examples are no recordings.
    """
    seconds = recipe.train.batch_seconds
    if seconds is None:
        return None
    if not isinstance(examples, SpeechExamples):
        raise RecipeError(
            "only recordings are gathered by seconds",
            place="train.batch_seconds",
            found=recipe.task,
            expected="task: speech-recognition",
            fix="write train.batch_size",
        )
    return round(100 * seconds)
