"""The generation service under load: 64 clients that stream, a third of which leave in mid-stream, and texts at once or in turn.

    python benchmarks/serving_streams.py [--seconds 120]

Four figures are held against their bounds: no request hangs; /health answers within 100 ms throughout; memory grows by less than
100 MB; and 8 requests at once are given at least 3 times the tokens per second of 8 one after the other. The server is `tunewright
serve` with a small gpt that is made on the spot; the clients, and the one that asks for /health, are processes of their own on the
same machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from environments import QUICK, RESULTS, processor

CLIENTS, AT_ONCE, LONGEST_TEXT = (8, 4, 32) if QUICK else (64, 8, 128)
HEALTH_MS, GROWTH_MB, GAIN = 100.0, 100.0, 3.0
# Seconds after which a request counts as hung, and between two questions for /health.
HUNG, PAUSE = 60.0, 0.05
WORDS = [
    "red",
    "old",
    "cat",
    "sees",
    "a",
    "small",
    "house",
    "near",
    "the",
    "river",
    "and",
    "then",
    "it",
    "goes",
    "home",
]
RECIPE: dict[str, Any] = {
    "task": "language-modeling",
    "data": {"source": "texts.txt"},
    "model": {
        "backbone": {"gpt": {"layers": 4, "width": 128, "heads": 4}},
        "tokenizer": {"bpe": {"vocabulary": 1000}},
        "max_length": 256,
    },
    "train": {"epochs": 1, "batch_size": 16},
    "eval": {"resamples": 100},
}


def small_gpt(place: Path) -> Path:
    """A model that writes; how well does not matter."""
    from tunewright.console import silent
    from tunewright.run_recipe import run

    draw = np.random.default_rng(0)
    made_up = ["".join(draw.choice(list("abcdefghijklmnopqrstuvwxyz"), draw.integers(2, 9))) for _ in range(2000)]
    texts = [" ".join(draw.choice([*WORDS, *made_up], draw.integers(20, 60))) for _ in range(400)]
    (place / "texts.txt").write_text("\n\n".join(texts))
    result = run(RECIPE, base=place, runs=place / "runs", console=silent())
    return list(result.stages.values())[-1].folder / "model"


@contextmanager
def server(folder: Path):
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    command = [sys.executable, "-m", "tunewright", "serve", str(folder), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while True:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/ready", timeout=2).status_code == 200:
                break
        except httpx.TransportError:
            pass
        if process.poll() is not None or time.monotonic() > until:
            raise SystemExit("the service did not start")
        time.sleep(0.2)
    try:
        yield port, process
    finally:
        process.terminate()
        process.wait(30)


def memory(process: subprocess.Popen[Any]) -> float:
    """MB that the process holds."""
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


async def one_stream(port: int, number: int, draw: random.Random) -> str:
    """What became of one request: "finished", "left", or what was wrong."""
    leaves = number % 3 == 0
    body = {
        "prompt": " ".join(draw.choices(WORDS, k=draw.randint(1, 60))),
        "max_tokens": draw.randint(16, LONGEST_TEXT),
        "temperature": draw.choice([0, 0.8]),
        "seed": draw.randrange(1000),
        "stream": True,
    }
    content = json.dumps(body).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(head.encode() + content)
        found = b""
        pieces = 0
        while part := await reader.read(2**16):
            found = (found + part)[-4000:] if pieces else found + part
            pieces += part.count(b"data: ")
            if leaves and pieces >= 5:
                return "left"
        if b"data: [DONE]" in found:
            return "finished"
        return f"ended with {found[:12]!r} … {found[-120:]!r}"
    finally:
        writer.close()


async def load(port: int, seconds: float) -> dict[str, int]:
    """64 clients that ask again and again, and what became of their requests."""
    until = time.monotonic() + seconds
    outcomes: dict[str, int] = {}

    async def client(number: int) -> None:
        draw = random.Random(number)
        while time.monotonic() < until:
            try:
                outcome = await asyncio.wait_for(one_stream(port, number, draw), HUNG)
            except TimeoutError:
                outcome = "hung"
            except OSError as error:
                outcome = type(error).__name__
            outcomes[outcome] = outcomes.get(outcome, 0) + 1

    await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    return outcomes


def probe(port: int, seconds: float) -> list[float]:
    """Milliseconds until /health answered, each time it was asked."""
    until = time.monotonic() + seconds
    times: list[float] = []
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=HUNG) as client:
        while time.monotonic() < until:
            began = time.perf_counter()
            client.get("/health").raise_for_status()
            times.append(1000 * (time.perf_counter() - began))
            time.sleep(PAUSE)
    return times


def in_process(kind: str, port: int, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--seconds", str(seconds), "--part", kind, "--port", str(port)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def under_load(port: int, process: subprocess.Popen[Any], seconds: float) -> dict[str, Any]:
    """All clients and the one that asks for /health, and the server's memory before and after."""
    warm = in_process("load", port, 5)
    warm.communicate()
    before = memory(process)
    prober, clients = in_process("probe", port, seconds), in_process("load", port, seconds)
    grown = [before]
    while clients.poll() is None:
        time.sleep(1)
        grown.append(memory(process))
    times = json.loads(prober.communicate()[0])
    outcomes = json.loads(clients.communicate()[0])
    return {
        "outcomes": outcomes,
        "health_questions": len(times),
        "health_p50_ms": float(np.percentile(times, 50)),
        "health_p99_ms": float(np.percentile(times, 99)),
        "health_max_ms": max(times),
        "memory_mb": before,
        "memory_growth_mb": max(grown) - before,
    }


def throughput(port: int) -> dict[str, float]:
    """Tokens per second of 8 requests one after the other, and of 8 at once; medians of three rounds."""
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=HUNG)  # making one costs as much as many tokens

    def ask(number: int) -> int:
        body = {"prompt": "the old cat", "max_tokens": LONGEST_TEXT, "temperature": 0.8, "seed": number}
        answer = client.post("/v1/completions", json=body)
        return answer.raise_for_status().json()["usage"]["completion_tokens"]

    found: dict[str, list[float]] = {"in_turn": [], "at_once": []}
    with client, ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in range(3):
            for kind, mapped in (("in_turn", map), ("at_once", pool.map)):
                began = time.perf_counter()
                tokens = sum(mapped(ask, range(AT_ONCE)))
                found[kind].append(tokens / (time.perf_counter() - began))
    medians = {f"{kind}_tokens_per_second": statistics.median(rates) for kind, rates in found.items()}
    return {**medians, "gain": medians["at_once_tokens_per_second"] / medians["in_turn_tokens_per_second"]}


def judged(found: dict[str, Any]) -> dict[str, bool]:
    """Which of the four figures are within their bounds."""
    outcomes = found["load"]["outcomes"]
    return {
        "no hang": outcomes.keys() <= {"finished", "left"} and found["ready_after"],
        f"/health within {HEALTH_MS:g} ms": found["load"]["health_max_ms"] < HEALTH_MS,
        f"memory growth under {GROWTH_MB:g} MB": found["load"]["memory_growth_mb"] < GROWTH_MB,
        f"8 at once at least {GAIN:g} times as fast": found["throughput"]["gain"] >= GAIN,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=3 if QUICK else 120)
    parser.add_argument("--model", type=Path, help="a saved language model in place of the small gpt")
    parser.add_argument("--part", choices=["load", "probe"])
    parser.add_argument("--port", type=int)
    given = parser.parse_args()
    if given.part:
        part = (
            asyncio.run(load(given.port, given.seconds)) if given.part == "load" else probe(given.port, given.seconds)
        )
        print(json.dumps(part))
        return
    found: dict[str, Any] = {"machine": processor(), "cores": os.cpu_count(), "seconds": given.seconds}
    with tempfile.TemporaryDirectory() as place, server(given.model or small_gpt(Path(place))) as (port, process):
        found["throughput"] = throughput(port)
        found["load"] = under_load(port, process, given.seconds)
        time.sleep(1)
        found["ready_after"] = httpx.get(f"http://127.0.0.1:{port}/ready", timeout=5).status_code == 200
    found["passed"] = judged(found)
    (RESULTS / "serving_streams.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))
    for name, passed in found["passed"].items():
        print(f"{'pass' if passed else 'FAIL'}: {name}")
    sys.exit(0 if QUICK or all(found["passed"].values()) else 1)


if __name__ == "__main__":
    main()
