"""One model divided among processes: each keeps its part of every weight, gradient and optimiser state (FSDP2, `fully_shard`).

A layer's weights are gathered where it is computed and let go again afterwards; what is in no layer of a stack (embeddings, head) is gathered
for the whole of a pass (Zhao et al. 2023, "PyTorch FSDP", section 3). Model files know nothing of it, and neither does the loop: what is
asked of the network is asked through `Sharded`, and the parameters are DTensors whose gradients come added up. Where a network computes in
bfloat16 (autocast), as in one process, the weights of a gpt's layers travel so too, half as many bytes; what is kept, added up and stepped is float32.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from tunewright.data.batches.batch import Batch
from tunewright.models.core.meta_weights import is_meta
from tunewright.models.core.network import Network
from tunewright.training.distributed.dtensors import is_sharded
from tunewright.training.distributed.process_group import ProcessGroup
from tunewright.training.objectives.base import StepObjective

T = TypeVar("T")


class Sharded(nn.Module):
    """The root of a divided network. A function that is given the network finds all of it there, whatever part of it is called."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, ask: Callable[[Network], T]) -> T:
        return ask(self.network)


def shard(
    network: Network,
    team: ProcessGroup,
    *,
    tensor: int = 1,
    offload: bool,
    fill: Callable[[Network], None] | None = None,
) -> tuple[Sharded, ProcessGroup]:
    """Return a divided copy of a network, in every process.

    Collective: every process calls it with a network of the same shape.

    Args:
        fill: gives the divided network this process's part of the weights. None: they are the first process's network's; the others'
            may be without memory, so that the whole is in memory once.
        tensor: so many processes next to each other also divide the layers' computation (`training/distributed/tensor_parallel.py`).
        offload: weights, gradients and optimiser states wait in the processor's memory.

    Returns:
        the network, and this process among those that have other rows than it.
    """
    # They take long to load, and who trains alone needs none of them.
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard

    divided = _on_meta(network)
    for name, value in team.broadcast(network.whole_facts() if team.is_writer else {}).items():
        setattr(divided, name, value)
    meshes = init_device_mesh(team.device.type, (team.size // tensor, tensor), mesh_dim_names=("rows", "tensor"))
    mesh = meshes["rows"]
    policy: dict[str, Any] = {"offload_policy": CPUOffloadPolicy() if offload else OffloadPolicy(), "mesh": mesh}
    if tensor > 1:
        from tunewright.training.distributed.tensor_parallel import divide_layers, other_dimension

        divide_layers(divided, meshes["tensor"])
        policy["shard_placement_fn"] = other_dimension
    travel = MixedPrecisionPolicy(
        param_dtype=divided.communication_dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    for block in divided.shardable_blocks():
        fully_shard(block.module, **policy, mp_policy=travel)
    whole = Sharded(divided)
    fully_shard(whole, **policy)
    for module in whole.modules():
        if isinstance(module, FSDPModule):
            # A step's loss is one mean over all examples: gradients are added up, not averaged.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    home = torch.device("cpu") if offload else team.device
    whole._apply(lambda value: _placed(value, home if is_sharded(value) else team.device))  # pyright: ignore[reportPrivateUsage]
    if fill is not None:
        fill(divided)
    else:
        given = dict(network.state_dict()) if team.is_writer else {}
        set_model_state_dict(divided, given, options=StateDictOptions(full_state_dict=True, broadcast_from_rank0=True))
        for name, buffer in divided.named_buffers():  # those too that no state_dict has
            if team.is_writer:
                buffer.copy_(network.get_buffer(name))
            distributed.broadcast(buffer, 0)
    # Nobody adds to a layer's output in place here, which is what it warns of.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor", UserWarning)
    return whole, replace(team, rank=mesh.get_local_rank(), size=mesh.size(), group=mesh.get_group())


def _on_meta(network: Network) -> Network:
    """Return a copy whose parameters have no memory, tied ones still tied; of the buffers only those that have none here."""
    empty: dict[int, Any] = {}
    for value in network.parameters():
        bare = torch.empty(value.shape, dtype=value.dtype, device="meta")
        empty[id(value)] = nn.Parameter(bare, value.requires_grad)
    for value in network.buffers():
        if is_meta(value):
            empty[id(value)] = torch.empty(value.shape, dtype=value.dtype, device="meta")
    return copy.deepcopy(network, empty)


def _placed(value: Tensor, device: torch.device) -> Tensor:
    return torch.empty_like(value, device=device) if value.is_meta else value.to(device)


def run_sharded(model: nn.Module, ask: Callable[[Any], T]) -> T:
    """Return what the function finds of the network. Of a divided one each process has to ask, and what was gathered is let go
    again."""
    if not isinstance(model, Sharded):
        return ask(model)
    found = model(ask)
    model.reshard()  # pyright: ignore[reportCallIssue]  FSDP gives the root such a method
    return found


@dataclass(frozen=True)
class ShardedObjective:
    """An objective of a divided network: stand-ins count nothing."""

    objective: StepObjective

    def weight(self, batch: Batch) -> float:
        return self.objective.weight(batch) if batch.counts else 0.0

    def loss_sum(self, model: Callable[[Any], Tensor], batch: Batch, epoch: int) -> Tensor:
        loss = model(lambda network: self.objective.loss_sum(network, batch, epoch))
        return loss if batch.counts else loss * 0.0
