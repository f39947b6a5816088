"""Build networks of every architecture in architectures.py, examples for them, and train them for a few steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from architectures import config_of, make_backbone, make_inputs, purpose_of
from tunewright.data.batches.batch import Examples
from tunewright.data.batches.examples import Ragged, TensorExamples, TokenExamples
from tunewright.data.batches.sampler import Batches
from tunewright.models.backbone import open_backbone, weights_folder
from tunewright.models.core.network import evaluating
from tunewright.models.hub.hf_files import load_backbone
from tunewright.models.hub.hf_network import Transformer, build_transformer, describe_transformer
from tunewright.recipe.schema import Tune
from tunewright.runs.summary.model import CertificateSummary
from tunewright.training import freezing
from tunewright.training.freeze_certificate import certify, fingerprint
from tunewright.training.gradients import ExactGradient
from tunewright.training.loop import Callbacks, LoopConfig, train
from tunewright.training.objectives.supervised import SupervisedLoss, cross_entropy
from tunewright.training.optimizers.registry import build_optimizer
from tunewright.training.state import State
from tunewright.training.step import TrainModule

CLASSES = ["bad", "good", "none of both"]


def tiny_network(kind: str, **options: Any) -> Transformer:
    """Build a classifier with random weights."""
    described = describe_transformer(purpose_of(kind), config_of(kind), head=options.get("head"), classes=CLASSES)
    return build_transformer(described, seed=1)


def pretrained_network(folder: Path, kind: str, *, head: Any = None, classes: list[str] = CLASSES) -> Transformer:
    """Save a backbone to the folder and open it as a recipe does, with a new head."""
    backbone = open_backbone(str(make_backbone(folder, kind)), Path("/"))
    described = describe_transformer(purpose_of(kind), backbone.config, head=head, classes=classes)
    described = replace(described, base=backbone.name, base_fingerprint=backbone.fingerprint)
    return load_backbone(weights_folder(backbone), described, seed=1).network


def make_examples(kind: str, count: int = 24) -> Examples:
    """Return examples that the architecture reads, with classes in turn."""
    inputs, target = make_inputs(kind, count), torch.arange(count) % len(CLASSES)
    rows = torch.arange(1, count + 1)
    if isinstance(inputs, Tensor):
        return TensorExamples(inputs, target, rows)
    lengths = inputs["attention_mask"].sum(1)
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    values = torch.cat([ids[:length] for ids, length in zip(inputs["input_ids"], lengths)])
    return TokenExamples(Ragged(values.int(), starts), None, target, rows, padding=0)


def train_network(
    network: Transformer, kind: str, tune: Tune, *, epochs: int = 1, lr: float = 0.01
) -> CertificateSummary:
    """Train with the real loop, three steps an epoch; return the freeze certificate."""
    movements = freezing.resolve_trainable(network, tune)
    before = fingerprint(network)
    optimizer = build_optimizer("adamw", freezing.parameter_groups(movements, lr), lr, 0.0)
    train(
        TrainModule(
            model=network,
            objective=SupervisedLoss(name="cross_entropy", formula=cross_entropy, outputs=(len(CLASSES),)),
            optimizer=optimizer,
            gradient=ExactGradient(),
            seed=0,
        ),
        Batches(examples=make_examples(kind), batch_size=8, seed=0),
        lambda step: 1.0,
        State(),
        LoopConfig(epochs=epochs),
        Callbacks(
            start_epoch=lambda epoch: freezing.start_epoch(movements, epoch),
            log_step=lambda state, loss, rate: None,
            end_epoch=lambda state, loss: None,
            save=lambda state: None,
            should_stop=lambda: False,
        ),
    )
    freezing.release(network)
    return certify(movements, before, fingerprint(network), epochs)


def logits_of(network: nn.Module, kind: str) -> Tensor:
    """Return the logits of make_inputs(kind), without dropout."""
    with evaluating(network), torch.no_grad():
        return network(make_inputs(kind))


def same_logits(first: Tensor, second: Tensor) -> bool:
    """Compare logits up to the last bit: in some kernels the order of summation depends on memory alignment."""
    return torch.allclose(first, second, rtol=1e-6, atol=1e-6 * float(second.abs().max()))
