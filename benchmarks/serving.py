"""The service under load: 10,000 strange requests, 50 clients at once with and without batching, and OpenAI's own client.

    python benchmarks/serving.py MODEL_OF_TEXTS CHAT_MODEL [seconds]

The server is a process of its own; its memory is what the system says of it. A batch of 1 is the same server with room for one row in a pass.
"""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from environments import QUICK, RESULTS, install, processor

CLIENTS, FUZZED = (4, 600) if QUICK else (50, 10_000)
TEXT = "The room was warm and quiet, the bed good, and breakfast better than what we had hoped for after the long way here."


@contextmanager
def server(folder: str, rows: int = 1024):
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    code = (
        "from pathlib import Path; from tunewright.serving.app import make_app; from tunewright.serving.request_limits import Limits; "
        "from tunewright.serving.listening import listen; from tunewright.inference.model import load_model; "
        f"limits = Limits(rows={rows}); app = make_app(load_model(Path({folder!r})), name='it', limits=limits); "
        f"listen(app, host='127.0.0.1', port={port}, limits=limits, begin_stop=app.state.begin_stop)"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    address = f"http://127.0.0.1:{port}"
    while True:
        try:
            httpx.get(f"{address}/health")
            break
        except httpx.TransportError:
            time.sleep(0.2)
    try:
        yield address, process
    finally:
        process.terminate()
        process.wait()


def memory(process: subprocess.Popen[Any]) -> float:
    """MiB that the process holds."""
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def fuzzed(address: str, process: subprocess.Popen[Any]) -> dict[str, Any]:
    draw = random.Random(0)
    strange: list[Any] = [
        None,
        True,
        -1,
        1e308,
        "",
        "x" * 5000,
        "\x00",
        "/etc/passwd",
        "hub:a/b",
        [],
        {},
        [[]],
        {"text": None},
        {"text": 3},
        {"": ""},
        "good",
    ]
    paths = [
        "/predict",
        "/v1/embeddings",
        "/v1/completions",
        "/v1/chat/completions",
        "/",
        "/health",
        "/metrics",
        "/nowhere",
        "/docs",
    ]
    statuses: dict[str, int] = {}
    with httpx.Client(base_url=address, timeout=60) as client:
        started = []
        for number in range(FUZZED):
            body: Any = draw.choice(
                [
                    {"inputs": draw.choice(strange)},
                    {"inputs": [draw.choice(strange) for _ in range(3)]},
                    {"input": draw.choice(strange)},
                    draw.choice(strange),
                ]
            )
            content = (
                json.dumps(body).encode()
                if number % 4
                else bytes(draw.randrange(256) for _ in range(draw.randrange(300)))
            )
            kind = draw.choice(
                ["application/json", "image/png", "audio/wav", "text/plain", "", "application/json; charset=x"]
            )
            method = draw.choice(["POST", "POST", "POST", "GET", "PUT", "DELETE"])
            answer = client.request(method, draw.choice(paths), content=content, headers={"Content-Type": kind})
            statuses[f"{answer.status_code // 100}xx"] = statuses.get(f"{answer.status_code // 100}xx", 0) + 1
            if number in (500, FUZZED - 1):
                started.append(memory(process))
    return {"requests": FUZZED, "statuses": statuses, "memory_growth_mib": started[1] - started[0]}


def loaded(address: str, seconds: float) -> dict[str, Any]:
    """Fifty clients that each ask again as soon as they are answered."""
    times: list[float] = []
    errors: list[int] = []
    until = time.monotonic() + seconds

    def ask() -> None:
        with httpx.Client(base_url=address, timeout=60) as client:
            while time.monotonic() < until:
                began = time.perf_counter()
                answer = client.post("/predict", json={"inputs": [TEXT]})
                times.append(1000 * (time.perf_counter() - began))
                if answer.status_code != 200:
                    errors.append(answer.status_code)

    threads = [threading.Thread(target=ask) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {
        "requests": len(times),
        "errors": len(errors),
        "per_second": len(times) / seconds,
        "p50_ms": float(np.percentile(times, 50)),
        "p99_ms": float(np.percentile(times, 99)),
    }


def openai_client(address: str) -> str:
    """What OpenAI's own library makes of it, in an environment of its own."""
    python = install("openai", [["openai"]])
    code = (
        "from openai import OpenAI\n"
        f"client = OpenAI(base_url='{address}/v1', api_key='none')\n"
        "name = client.models.list().data[0].id\n"
        "turns = [{'role': 'user', 'content': '3+4?'}]\n"
        "whole = client.chat.completions.create(model=name, messages=turns, temperature=0, max_tokens=8).choices[0].message.content\n"
        "parts = client.chat.completions.create(model=name, messages=turns, temperature=0, max_tokens=8, stream=True)\n"
        "streamed = ''.join(part.choices[0].delta.content or '' for part in parts)\n"
        "assert streamed == whole, (streamed, whole)\n"
        "client.completions.create(model=name, prompt='3+', max_tokens=4)\n"
        "import openai; print(openai.__version__, repr(whole))\n"
    )
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def main() -> None:
    texts, chat = sys.argv[1], sys.argv[2]
    seconds = float(sys.argv[3]) if len(sys.argv) > 3 else 2 if QUICK else 120
    found: dict[str, Any] = {"machine": processor(), "seconds": seconds}
    with server(chat) as (address, _):
        found["openai"] = openai_client(address)
    with server(texts) as (address, process):
        found["fuzz"] = fuzzed(address, process)
        found["batches"] = loaded(address, seconds)
        print(found, flush=True)
    with server(texts, rows=1) as (address, _):
        found["single"] = loaded(address, seconds)
    found["gain"] = found["batches"]["per_second"] / found["single"]["per_second"]
    (RESULTS / "serving.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
