"""A group of processes that train one model: collective operations on numbers, gradients and JSON values.

In data parallelism each process takes a part of every batch, and the gradients are summed. The loss of a step is still one weighted mean
over the whole batch, so the same recipe takes the same steps with any number of processes, up to the order of summation (and up to
dropout, which each process draws for itself). Processes are started by torchrun or by `tunewright run`.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn

from tunewright.training.distributed.dtensors import is_sharded

# How long one process waits for another, which may be preparing data or measuring.
PATIENCE = timedelta(hours=6)
# Gradients are summed in buckets of so many values: one by one, each would wait for the interconnect.
PIECE = 2**24


@dataclass(frozen=True, kw_only=True)
class ProcessGroup:
    """This process among all that train together.

    rank: its number, from 0; only the first process writes files and prints.
    """

    rank: int
    size: int
    device: torch.device
    group: distributed.ProcessGroup | None = None
    """The group of torch.distributed; None: the default group of all processes."""

    @property
    def is_writer(self) -> bool:
        return self.rank == 0

    def all_reduce_sum(self, *values: float) -> list[float]:
        """Return the sums over all processes."""
        found = torch.tensor(values, dtype=torch.float64)
        self.all_reduce(found)
        return found.tolist()

    def all_reduce(self, numbers: Tensor) -> None:
        """Replace every value by its sum over all processes."""
        there = numbers.to(self.device)
        distributed.all_reduce(there, group=self.group)
        if there is not numbers:
            numbers.copy_(there)

    def barrier(self) -> None:
        """Wait until all processes have come here."""
        distributed.barrier(self.group)

    def new_group(self) -> ProcessGroup:
        """Return a second group of the same processes, in CPU memory, through which another thread can communicate. Collective."""
        return replace(self, device=torch.device("cpu"), group=distributed.new_group(backend="gloo"))

    def any(self, flag: bool) -> bool:
        """Return whether the flag is true in any process."""
        return self.all_reduce_sum(float(flag))[0] > 0

    def all_reduce_gradients(self, parameters: list[nn.Parameter]) -> None:
        """Replace every gradient by its sum over all processes; a process without examples of the batch adds zeros.

        Gradients of sharded parameters are already summed.
        """
        moving = [value for value in parameters if value.requires_grad and not is_sharded(value)]
        for value in moving:
            if value.grad is None:
                value.grad = torch.zeros_like(value)
        held: list[Tensor] = []
        for value in moving:
            assert value.grad is not None
            held.append(value.grad)
            if sum(grad.numel() for grad in held) >= PIECE:
                self._sum(held)
                held = []
        self._sum(held)

    def _sum(self, grads: list[Tensor]) -> None:
        if not grads:
            return
        flat = torch.cat([grad.flatten() for grad in grads])
        distributed.all_reduce(flat, group=self.group)
        for grad, part in zip(grads, flat.split([grad.numel() for grad in grads])):
            grad.copy_(part.view_as(grad))

    def broadcast(self, value: Any) -> Any:
        """Return the first process's value, sent as JSON; the value of the others is ignored."""
        raw = json.dumps(value).encode() if self.is_writer else b""
        length = torch.tensor([len(raw)], device=self.device)
        distributed.broadcast(length, 0, group=self.group)
        content = torch.empty(int(length), dtype=torch.uint8, device=self.device)
        if self.is_writer:
            content.copy_(torch.frombuffer(bytearray(raw), dtype=torch.uint8))
        distributed.broadcast(content, 0, group=self.group)
        return value if self.is_writer else json.loads(bytes(content.cpu().numpy()))


def join() -> ProcessGroup | None:
    """Join the processes that torchrun's environment variables describe; None: this process is alone."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size < 2:
        return None
    cuda = torch.cuda.is_available()
    place = int(os.environ.get("LOCAL_RANK", "0"))
    if cuda:
        torch.cuda.set_device(place)
    # Offloaded tensors are summed in CPU memory. The launcher may have initialised the group already.
    if not distributed.is_initialized():
        distributed.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=PATIENCE)
    device = torch.device("cuda", place) if cuda else torch.device("cpu")
    return ProcessGroup(rank=int(os.environ["RANK"]), size=size, device=device)


def leave(group: ProcessGroup) -> None:
    """Leave the group, when all processes have come here."""
    group.barrier()  # no process leaves while another still receives
    distributed.destroy_process_group()
