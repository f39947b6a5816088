"""What this machine reaches, measured once in half a minute and kept: products, convolutions, memory, what each operation takes besides."""

from __future__ import annotations

import copy
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, fields, replace
from datetime import date
from functools import partial
from pathlib import Path
from statistics import median_high
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tunewright.files import cache_dir, cache_file, write_record
from tunewright.hardware.machines import GRAMS, Curve, Hardware
from tunewright.hardware.memory_tracer import Tracer
from tunewright.hardware.operator_timing import time_calls
from tunewright.hardware.roofline import besides
from tunewright.runs.folder import read_or_forget

SIDES = (32, 64, 128, 256, 512, 1024, 2048)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# Channels, height and width, and batch, of convolutions of 3 × 3.
PICTURES = ((16, 32, 8), (32, 32, 32), (64, 32, 32), (128, 16, 128))
BYTES = tuple(4**power * 2**12 for power in range(9))  # 4 KiB to 256 MiB
EACH = 0.08
# What would take so many seconds even once is left out: a processor without instructions for bfloat16 is a hundred times slower in it.
LONG = 1.0
DISK = 64 * 2**20
# Of a processor at work, for each of its cores; with what the rest of a server takes (Barroso, Hölzle and Ranganathan 2018, "The
# datacenter as a computer", section 5.3, servers of 200 to 500 W with some 50 cores).
WATTS_EACH_CORE = 8.0
# With less of the processor than this what is measured is the other processes too.
ALONE = 0.85
BUSY = "while other processes took"
# Raised when something else is measured, or kept.
VERSION = 4


def this_machine() -> Hardware | None:
    """What was measured before; None: nothing was."""
    known = read_or_forget(_path(), "a calibration")
    return None if known is None else _as_hardware(known)


def calibrate(say: Callable[[str], None]) -> Hardware:
    """Measure this machine, and keep what was found."""
    alone = _share_of_processor()
    products = {name: _growing(_products(dtype)) for name, dtype in DTYPES.items()}
    say(f"products of matrices: {_rates(products)}")
    convolutions = {name: _growing(_convolutions(dtype)) for name, dtype in DTYPES.items()}
    say(f"convolutions: {_rates(convolutions)}")
    moving = tuple(_in_place(size) for size in BYTES)
    say(f"memory: {moving[-1][1] / 1e9:.1f} GB/s, {max(rate for _, rate in moving) / 1e9:.1f} GB/s near the processor")
    allocating = tuple(_allocation(size) for size in BYTES)
    say(f"memory that is new: {allocating[-1][1] / 1e9:.1f} GB/s")
    writing = _disk()
    say(f"disk: {writing / 1e6:,.0f} MB/s written")
    rough = Hardware(
        name="this machine",
        source="",
        devices=1,
        memory=float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),
        products=products,
        convolutions=convolutions,
        moving=moving,
        allocating=allocating,
        overhead=0.0,
        each_step=0.0,
        together=1.0,
        besides=True,
        watts=WATTS_EACH_CORE * (os.cpu_count() or 1),
        building=1.0,
        grams_per_kwh=GRAMS,
        link=0.0,
        host=0.0,
        usd_per_hour=(0.0, 0.0),
        measured=True,
    )
    each_step, overhead = _overheads(rough)
    found = replace(rough, overhead=overhead, each_step=each_step)
    alone = min(alone, _share_of_processor())
    measured = f"measured here on {date.today().isoformat()}"
    source = measured if alone > ALONE else f"{measured}, {BUSY} {1 - alone:.0%} of the processor"
    found = replace(found, together=_together(found), source=source)
    say(
        f"besides: {1e6 * overhead:.1f} µs for each operation, {1e6 * each_step:.0f} µs for each step; a step takes "
        f"{found.together:.2f} times as long as its operations by themselves"
    )
    write_record(_path(), asdict(found))
    return found


def _as_hardware(known: dict[str, Any]) -> Hardware:
    def curve(points: list[list[float]]) -> Curve:
        return tuple((size, rate) for size, rate in points)

    values = {field.name: known[field.name] for field in fields(Hardware)}
    for name in ("products", "convolutions"):
        values[name] = {kind: curve(points) for kind, points in values[name].items()}
    for name in ("moving", "allocating"):
        values[name] = curve(values[name])
    values["usd_per_hour"] = tuple(values["usd_per_hour"])
    return Hardware(**values)


def _path() -> Path:
    facts = (VERSION, platform.machine(), platform.processor(), torch.backends.cpu.get_cpu_capability())
    known = (*facts, torch.get_num_threads(), torch.__version__, os.cpu_count())
    return cache_file("calibration", known)


def was_busy(machine: Hardware) -> bool:
    """Whether other processes were at work while a machine was measured."""
    return BUSY in machine.source


def _share_of_processor(seconds: float = 0.5) -> float:
    """How much of its threads' time this process gets while all of them multiply matrices."""
    a = torch.ones(1024, 1024)
    torch.mm(a, a)
    began, taken = time.perf_counter(), time.process_time()
    while (passed := time.perf_counter() - began) < seconds:
        torch.mm(a, a)
    return min(1.0, (time.process_time() - taken) / (passed * torch.get_num_threads()))


def _rates(found: dict[str, Curve]) -> str:
    return ", ".join(f"{max(rate for _, rate in curve) / 1e9:,.0f} GFLOP/s in {name}" for name, curve in found.items())


def _median(action: Callable[[], Any]) -> float:
    """Seconds, once it is warm."""
    action()
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < 3 or time.perf_counter() - began < EACH:
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    return median_high(times)


# Floating-point operations, and what carries them out.
Work = tuple[float, Callable[[], Tensor]]


def _growing(works: Iterable[Work]) -> Curve:
    """The rates of works of growing size, up to the last that does not take long."""
    found: list[tuple[float, float]] = []
    for flops, work in works:
        if found and flops / found[-1][1] > LONG:
            break
        found.append((flops, flops / _median(work)))
    return tuple(found)


def _products(dtype: torch.dtype) -> Iterator[Work]:
    for side in SIDES:
        left, right = (torch.ones(side, side, dtype=dtype) for _ in range(2))
        yield 2.0 * side**3, partial(torch.mm, left, right)


def _convolutions(dtype: torch.dtype) -> Iterator[Work]:
    for channels, side, batch in PICTURES:
        inputs = torch.ones(batch, channels, side, side, dtype=dtype)
        weight = torch.ones(channels, channels, 3, 3, dtype=dtype)
        yield 2.0 * batch * side**2 * channels**2 * 9, partial(F.conv2d, inputs, weight, padding=1)


def _in_place(size: int) -> tuple[float, float]:
    """Read, changed and written in its place: twice its bytes."""
    values = torch.ones(size // 4)
    return 2.0 * size, 2.0 * size / _median(lambda: values.mul_(1.0))


def _allocation(size: int) -> tuple[float, float]:
    """What a copy into new memory takes more than one in its place."""
    values = torch.ones(size // 4)
    place = torch.empty_like(values)
    held: list[Tensor] = []

    def fresh() -> None:
        held.append(values.clone())
        if len(held) > max(2, 2**26 // size):
            held.clear()

    more = _median(fresh) - _median(lambda: place.copy_(values))
    return float(size), size / max(more, 1e-7)


def _overheads(rough: Hardware) -> tuple[float, float]:
    """What a step takes besides its operations, and what each operation does: Python, autograd, and finding the kernel.

    From the steps of two networks that have next to nothing to compute, one of one layer and one of forty.
    """
    (small, few), (large, many) = (_idle(layers, rough) for layers in (1, 40))
    each = max(0.0, (large - small) / (many - few))
    return max(0.0, small - few * each), each


def _idle(layers: int, rough: Hardware) -> tuple[float, int]:
    """The seconds of a step without those of its operations by themselves, and how many operations it has."""
    network = nn.Sequential(*(nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.GELU()) for _ in range(layers)))
    seconds, alone, tracer = _step(network, torch.ones(2, 8), rough)
    return seconds - alone, tracer.all_calls().total() + tracer.views


def _together(machine: Hardware) -> float:
    """How much longer operations take one behind the other, each with what the last one left near the processor, than alone."""
    layer = nn.TransformerEncoderLayer(128, 4, 256, batch_first=True, dropout=0.0)
    network = nn.Sequential(*(copy.deepcopy(layer) for _ in range(4)))
    seconds, alone, tracer = _step(network, torch.ones(12, 64, 128), machine)
    return max(1.0, (seconds - besides(tracer, machine)) / alone)


def _step(network: nn.Module, inputs: Tensor, machine: Hardware) -> tuple[float, float, Tracer]:
    """The seconds of a training step, those of its operations by themselves, and the step followed."""
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)

    def step() -> None:
        for parameter in network.parameters():
            parameter.grad = None
        network(inputs).sum().backward()
        optimizer.step()

    step()
    tracer = Tracer()
    with tracer:
        step()
    calls = tracer.all_calls()
    alone = time_calls(calls, tracer.examples, machine).total(calls)
    return _median(step), alone, tracer


def _disk() -> float:
    """Bytes a second, until they are safe."""
    content = bytes(DISK)
    cache_dir().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=cache_dir()) as file:
        started = time.perf_counter()
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        return DISK / (time.perf_counter() - started)
