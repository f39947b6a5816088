"""What a step would run on: this machine, as it was measured, or another one, by its makers' figures.

Rates are what is reached and not what a data sheet promises: `EFFICIENCY` says how much of that a long product of matrices
usually gets, `MEMORY_EFFICIENCY` the same of memory. A file of one's own has the same fields as `KNOWN`:

    name: our server
    devices: 4
    memory_gib: 48
    tflops: {float32: 91, bfloat16: 181}
    gigabytes_per_second: 864
    watts: 300
    usd_per_hour: [1.0, 2.0]
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tunewright.errors import RecipeError
from tunewright.recipe.named import suggest
from tunewright.recipe.yaml_text import read_yaml_file

# Long products of matrices in training reach about half of what a data sheet says: 50 % in nanochat's speedrun on H100, 38 to 43 %
# in Llama 3's pretraining (Grattafiori et al. 2024, table 4).
EFFICIENCY = 0.5
MEMORY_EFFICIENCY = 0.8
# The mean of the data centres that Uptime Institute asked in 2024; and of the world's electricity in 2024 (Ember 2025, "Global
# electricity review").
BUILDING = 1.56
GRAMS = 473.0
# A kernel that is launched takes so long at least.
LAUNCH = 5e-6

# Sizes of an operation (its floating-point operations, or its bytes) with the rate a second that it reaches, rising in size.
Curve = tuple[tuple[float, float], ...]


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """What a step would run on."""

    name: str
    source: str
    """Where the figures come from, with a date."""
    devices: int
    memory: float
    """Bytes, of one device."""
    products: dict[str, Curve]
    """By number type: floating-point operations a second of products of matrices."""
    convolutions: dict[str, Curve]
    moving: Curve
    """Bytes read and written a second by operations that do little else."""
    allocating: Curve
    """Bytes a second at which memory is found that was not there before; empty: at once."""
    overhead: float
    """Seconds that each operation takes besides, or at least."""
    each_step: float
    """Seconds that a step takes besides all that."""
    together: float
    """How much longer operations take in a step than each by itself."""
    besides: bool
    """Whether it takes them besides (a processor), or at least (a card, which computes while the next one is prepared)."""
    watts: float
    """At work, of one device."""
    building: float
    """What a building takes for each watt of its machines (power usage effectiveness)."""
    grams_per_kwh: float
    """Of carbon dioxide, for the electricity."""
    link: float
    """Bytes a second between its devices, each way; 0: they do not talk."""
    host: float
    """Bytes a second between a device and the processor's memory, each way; 0: it is the same."""
    usd_per_hour: tuple[float, float]
    """Of one device, the least and the most."""
    measured: bool = False


class Described(BaseModel):
    """A machine as a person writes it down."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    devices: Annotated[int, Field(ge=1, le=100_000)] = 1
    memory_gib: Annotated[float, Field(gt=0)]
    tflops: dict[str, Annotated[float, Field(gt=0)]]
    gigabytes_per_second: Annotated[float, Field(gt=0)]
    watts: Annotated[float, Field(ge=0)] = 0.0
    link_gigabytes_per_second: Annotated[float, Field(ge=0)] = 0.0
    host_gigabytes_per_second: Annotated[float, Field(ge=0)] = 0.0
    building: Annotated[float, Field(ge=1)] = BUILDING
    grams_per_kwh: Annotated[float, Field(ge=0)] = GRAMS
    usd_per_hour: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]] = (0.0, 0.0)
    source: str = "a file of yours"


_PRICES = "rents in May 2026, from the cheapest to the dearest offer (mercatus-ai.com, cloud GPU pricing)"


def _nvidia(
    name: str,
    memory: float,
    tflops: tuple[float, float],
    speeds: tuple[float, float, float],
    watts: float,
    rent: tuple[float, float],
    sheet: str,
) -> Described:
    """Describe a GPU by its data sheet.

    Args:
        memory: GiB.
        tflops: in float32, and in bfloat16 or float16.
        speeds: gigabytes a second of the memory, of the link between GPUs and of PCIe with 16 lanes, each way.
        watts: at work.
        rent: dollars an hour, the least and the most.
        sheet: which data sheet, with its year.
    """
    (float32, half), (speed, link, host) = tflops, speeds
    source = f"NVIDIA's data sheet of {sheet}" + (f"; {_PRICES}" if rent != (0.0, 0.0) else "; no rent is known")
    return Described(
        name=name,
        memory_gib=memory,
        tflops={"float32": float32, "bfloat16": half, "float16": half},
        gigabytes_per_second=speed,
        link_gigabytes_per_second=link,
        host_gigabytes_per_second=host,
        watts=watts,
        usd_per_hour=rent,
        source=source,
    )


# Dense figures, without sparsity. Memory in GiB: what a program finds there.
KNOWN: dict[str, Described] = {
    entry.name: entry
    for entry in (
        _nvidia("t4", 14.6, (8.1, 65), (320, 16, 16), 70, (0.0, 0.0), "T4, 2019"),
        _nvidia("v100", 31.7, (15.7, 125), (900, 150, 16), 300, (0.0, 0.0), "V100 SXM2, 2020"),
        _nvidia("l4", 22.0, (30.3, 121), (300, 32, 32), 72, (0.0, 0.0), "L4, 2023"),
        _nvidia("rtx-4090", 23.5, (82.6, 165), (1008, 32, 32), 450, (0.0, 0.0), "the Ada architecture, 2022"),
        _nvidia("a100-40gb", 39.4, (19.5, 312), (1555, 300, 32), 400, (0.0, 0.0), "A100, 2021"),
        _nvidia("a100-80gb", 79.2, (19.5, 312), (2039, 300, 32), 400, (0.8, 3.0), "A100, 2021"),
        _nvidia("h100", 79.2, (67, 989), (3350, 450, 64), 700, (1.99, 5.0), "H100 SXM, 2023"),
        _nvidia("h200", 140.0, (67, 989), (4800, 450, 64), 700, (2.5, 7.0), "H200 SXM, 2024"),
        Described(
            name="laptop",
            memory_gib=16,
            tflops={"float32": 0.4},
            gigabytes_per_second=50,
            watts=45,
            building=1.0,
            source="a processor of eight cores with AVX2 at 3 GHz: 8 × 3 × 32 float32 operations a second, half of them; two channels of "
            "DDR5; no measurement",
        ),
    )
}


def find_hardware(name: str, base: Path) -> Hardware:
    """A machine by its name, such as h100 or 8xh100, or by a file.

    Args:
        base: the folder from which a file's path counts.

    Raises:
        RecipeError: there is none of that name, or the file does not describe one.
    """
    if name.endswith((".yaml", ".yml")):
        return _as_hardware(_read(base / name))
    several = re.fullmatch(r"(\d+)x(.+)", name)
    count, plain = (int(several[1]), several[2]) if several else (1, name)
    if plain not in KNOWN or count < 1:
        raise RecipeError(
            "there is no machine of this name",
            place="--on",
            found=name,
            expected=f"{', '.join(KNOWN)}, several as 8xh100, or a file such as my-hardware.yaml",
            fix=suggest(plain, KNOWN),
        )
    return _as_hardware(KNOWN[plain].model_copy(update={"devices": count, "name": name}))


def card_here() -> Hardware | None:
    """The card of this machine by its maker's figures, with the memory that it says it has; None: it has none that is known."""
    if not torch.cuda.is_available():
        return None
    said = torch.cuda.get_device_name(0).lower().replace(" ", "-")
    # The longest name that is part of what the card says of itself: a100-80gb before a100.
    names = sorted(KNOWN, key=len, reverse=True)
    name = next((known for known in names if all(part in said for part in known.split("-"))), None)
    if name is None:
        return None
    return replace(_as_hardware(KNOWN[name]), memory=float(torch.cuda.get_device_properties(0).total_memory))


def _read(path: Path) -> Described:
    if not path.is_file():
        raise RecipeError("there is no such file", file=path, place="--on", fix="check the path")
    values, _ = read_yaml_file(path)
    try:
        return Described(**values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise RecipeError(
            f"this does not describe a machine: {first['msg']}",
            file=path,
            place=place,
            found=first.get("input"),
            expected=f"the fields {', '.join(Described.model_fields)}",
            fix="see docs/planning.md for one that does",
        ) from None
    except TypeError:
        raise RecipeError("this does not describe a machine", file=path, expected="name: …, memory_gib: …") from None


def _as_hardware(described: Described) -> Hardware:
    rates = {name: ((1.0, EFFICIENCY * value * 1e12),) for name, value in described.tflops.items()}
    return Hardware(
        name=described.name,
        source=described.source,
        devices=described.devices,
        memory=described.memory_gib * 2**30,
        products=rates,
        convolutions=rates,
        moving=((1.0, MEMORY_EFFICIENCY * described.gigabytes_per_second * 1e9),),
        allocating=(),
        overhead=LAUNCH,
        each_step=0.0,
        together=1.0,
        besides=False,
        watts=described.watts,
        building=described.building,
        grams_per_kwh=described.grams_per_kwh,
        link=EFFICIENCY * described.link_gigabytes_per_second * 1e9,
        host=EFFICIENCY * described.host_gigabytes_per_second * 1e9,
        usd_per_hour=described.usd_per_hour,
    )


def scaled(hardware: Hardware, factor: float) -> Hardware:
    """The same machine, so many times as slow: what past runs have taught."""

    def slower(curve: Curve) -> Curve:
        return tuple((size, rate / factor) for size, rate in curve)

    return replace(
        hardware,
        products={name: slower(curve) for name, curve in hardware.products.items()},
        convolutions={name: slower(curve) for name, curve in hardware.convolutions.items()},
        moving=slower(hardware.moving),
        overhead=hardware.overhead * factor,
    )
