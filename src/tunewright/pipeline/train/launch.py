"""Run one recipe with several processes: the first one runs it, and the others join each training.

`tunewright run` starts `hardware.devices` processes on this machine; torchrun starts them on several machines. The first one reads,
prepares, measures and writes as it would alone. Before it trains it broadcasts the stage, and the others build the same from the same files.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from tunewright.console import silent
from tunewright.errors import RecipeError, RunFailed, Stopped
from tunewright.pipeline.build.parts import build_parts
from tunewright.pipeline.read_recipe import read_recipe
from tunewright.pipeline.strategies.stage_order import StageOrder
from tunewright.pipeline.train.train_stage import train_stage
from tunewright.training.distributed.process_group import ProcessGroup, join, leave

# Seconds between polls of the started processes; and how long they have to end once one has failed.
LOOK, LAST_SECONDS = 0.1, 10
# Words in the errors of torch's backends when a peer is gone.
LOST = ("Connection closed", "Connection reset", "NCCL", "gloo", "remote worker", "Broken pipe")


def follow(group: ProcessGroup) -> None:
    """Train along with the first process, stage by stage, until it is done."""
    while (found := group.broadcast(None)) is not None:
        order = StageOrder.from_json(found)
        job = order.job(group)
        origin = job.origin(order.weights)
        parts = build_parts(job.recipe, job.prepared, origin, job.backbone, silent(), weights=order.weights)
        with suppress(Stopped):  # the first process says so
            train_stage(job, parts, silent())


def started_by_torchrun() -> bool:
    return "WORLD_SIZE" in os.environ


def start_here(path: Path, overrides: list[str], words: Sequence[str]) -> int | None:
    """Start a recipe's processes on this machine and wait for them; the exit code, or None where one process is enough.

    Raises:
        RecipeError: the recipe wants several machines, which torchrun has to start.
    """
    if started_by_torchrun():
        return None
    hardware = read_recipe(path, overrides, None)[0].hardware
    if hardware.devices * hardware.nodes < 2:
        return None
    if hardware.nodes > 1:
        raise RecipeError(
            "processes on several machines are started by torchrun",
            place="hardware.nodes",
            found=hardware.nodes,
            fix=f"on each of them: torchrun --nnodes {hardware.nodes} --nproc-per-node {hardware.devices} --rdzv-backend c10d "
            "--rdzv-endpoint FIRST_MACHINE:29400 --no-python tunewright run RECIPE",
        )
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    processes = [_process(rank, hardware.devices, port, words) for rank in range(hardware.devices)]
    before = {
        number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT,)
    }  # they receive Ctrl-C themselves
    signal.signal(signal.SIGTERM, lambda number, frame: [process.terminate() for process in processes] and None)
    try:
        return _waited(processes)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _process(rank: int, size: int, port: int, words: Sequence[str]) -> subprocess.Popen[bytes]:
    # As torchrun does: processes that share the processor must not each want all of it.
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // size)))
    told = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": size,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "OMP_NUM_THREADS": threads,
    }
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "tunewright", *words],
        env={**os.environ, **{key: str(value) for key, value in told.items()}},
    )


def _waited(processes: list[subprocess.Popen[bytes]]) -> int:
    """Wait for the first process and return its exit code; where another one fails, end all: the next run resumes from the newest checkpoint."""
    while processes[0].poll() is None:
        if any(process.poll() not in (None, 0) for process in processes):
            break
        time.sleep(LOOK)
    if processes[0].poll() not in (None, 0):  # it has reported why; the others would only report that they lost it
        for process in processes[1:]:
            process.kill()
    failed = next((process.returncode for process in processes if process.poll() not in (None, 0)), None)
    until = time.monotonic() + LAST_SECONDS
    for process in processes:
        try:
            process.wait(
                max(0.0, until - time.monotonic()) if failed is not None or process is not processes[0] else None
            )
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    code = processes[0].returncode
    return code if code > 0 else 1 if failed is not None or code < 0 else 0


def carried_out(first: Callable[[ProcessGroup | None], object]) -> None:
    """Run `first(group)` in the first process of the group that torchrun started, and follow in the others; alone, run `first(None)`."""
    group = join() if started_by_torchrun() else None
    if group is None:
        first(None)
        return
    # A failed process ends at once, and its group with it: no process waits for one that will never come.
    try:
        if group.is_writer:
            first(group)
            group.broadcast(None)
        else:
            follow(group)
        leave(group)
    except RuntimeError as error:
        if not any(word in str(error) for word in LOST):
            raise
        raise RunFailed(
            f"process {group.rank} of {group.size} lost another one and ends",
            found=str(error).splitlines()[0],
            fix="run the same command again: it resumes from the newest checkpoint, with any number of processes",
        ) from None
