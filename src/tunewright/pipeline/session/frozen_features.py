"""Compute the output of frozen blocks once and keep it, where that is exact and pays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tunewright.console import Console
from tunewright.data.batches.batch import Batch, Examples
from tunewright.data.batches.feature_cache import Behind, Form, KeptExamples, content_hash, find_kept, keep, kept_bytes
from tunewright.data.batches.sampler import EVALUATION_BATCH, in_order
from tunewright.models.core.meta_weights import has_meta_weights
from tunewright.models.core.network import Network, evaluating
from tunewright.models.frozen_prefix import AfterPrefix, Prefix, as_inputs, cut, frozen_blocks, outputs_of
from tunewright.models.layer_table import LayerRow
from tunewright.pipeline.build.parts import StageParts
from tunewright.training.freezing import TrainablePlan, never_moves

# Floating-point operations that must be saved, in all and as a share of a forward pass, for the work to pay.
WORTH = 1e10
SHARE = 0.2
# The first examples, on which the cut network is held against the whole one; the tolerance is that of rounding.
TRIED = 8
TOLERANCE = {False: 1e-4, True: 0.1}


@dataclass(frozen=True)
class FrozenPart:
    """A network whose first blocks need to be computed only once for each example."""

    network: Network
    prefix: Prefix
    key: str

    @property
    def titles(self) -> set[str]:
        """The blocks whose output is kept."""
        return {block.title for block in self.prefix.blocks}

    @property
    def model(self) -> nn.Module:
        """The rest of the network, which takes the batches of `examples`."""
        return AfterPrefix(self.network, self.prefix)

    def examples(self, examples: Examples, name: str, console: Console) -> Examples:
        """Return the examples with the output of the frozen blocks; unchanged where the disk has no room for it."""
        starts = None
        if examples.lengths is not None:
            starts = torch.zeros(len(examples) + 1, dtype=torch.int64)
            torch.cumsum(examples.lengths, 0, out=starts[1:])
        forms = [
            Form(shape=slot.kept_shape, dtype=slot.dtype, by_token=slot.by_token and slot.keep == "all")
            for slot in self.prefix.slots
        ]
        key = f"{self.key[:32]}-{content_hash(examples)[:32]}"
        found = find_kept(key, forms, starts, len(examples))
        if found is None:
            with console.counting(f"frozen blocks of {name}") as progress:
                try:
                    found = keep(key, forms, starts, len(examples), self._compute(examples, progress))
                except OSError as error:
                    console.warning(f"the frozen blocks are computed each time: the cache cannot be written ({error})")
                    return examples
            size = kept_bytes(forms, len(examples), int(starts[-1]) if starts is not None else 0)
            if found is None:
                console.warning(
                    f"the frozen blocks are computed each time: the disk has no room for {size / 2**30:.1f} GiB"
                )
                return examples
            console.info(
                f"frozen blocks computed once for {len(examples):,} {name} examples, {size / 2**20:,.0f} MiB kept"
            )
        first = examples.batch(torch.arange(1)).inputs
        plain = tuple(first.shape[1:]) if isinstance(first, Tensor) else None
        return KeptExamples(examples, found, plain, as_inputs, next(self.network.parameters()).device)

    def _compute(self, examples: Examples, progress: Callable[[int], None]) -> Iterator[tuple[Tensor, list[Tensor]]]:
        done = 0
        with evaluating(self.network), torch.inference_mode():
            for batch in in_order(examples, EVALUATION_BATCH):
                yield batch.ids, outputs_of(self.network, self.prefix, batch.inputs)
                done += len(batch.ids)
                progress(done)


@dataclass(frozen=True)
class ComputedExamples(Behind):
    """Examples whose frozen features are computed for each batch: for a plan, which needs a few."""

    network: Network
    prefix: Prefix

    def to(self, device: torch.device) -> ComputedExamples:
        return self

    def batch(self, ids: Tensor, epoch: int | None = None) -> Batch:
        batch = self.examples.batch(ids, epoch)
        with evaluating(self.network), torch.no_grad():
            kept = outputs_of(self.network, self.prefix, batch.inputs)
        inputs = batch.inputs
        if isinstance(inputs, Tensor):
            inputs = torch.zeros(()).expand(inputs.shape)
        return Batch(as_inputs(inputs, kept), batch.target, ids)


def frozen_part(
    parts: StageParts, plans: list[TrainablePlan], examples: Examples, layers: Callable[[], list[LayerRow]]
) -> FrozenPart | None:
    """Return the part of the network that stays frozen in this stage, where keeping its output is exact and pays; else None.

    Args:
        examples: the training examples, on the network's device.
        layers: makes the network's layer table.
    """
    network, recipe = parts.network, parts.recipe
    if not recipe.hardware.prefix_cache or recipe.train.epochs < 2 or examples.augmented:
        return None
    if not parts.objective.supervised:
        return None
    still = {plan.block.title for plan in plans if never_moves(plan)}
    blocks = frozen_blocks(network, still)
    titles = {block.title for block in blocks}
    rows = layers()
    saved = sum(row.flops for row in rows if row.block in titles)
    whole = sum(row.flops for row in rows)
    if saved * len(examples) * (recipe.train.epochs - 1) < WORTH or saved < SHARE * whole:
        return None
    first = examples.batch(torch.arange(min(TRIED, len(examples)))).inputs
    prefix = cut(network, blocks, first, TOLERANCE[network.reduced])
    if prefix is None:
        return None
    return FrozenPart(network, prefix, "" if has_meta_weights(network) else prefix.fingerprint(network))
