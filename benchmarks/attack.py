"""Attack Tunewright with hostile recipes, data files, models, folders and requests, and count what got through.

    python benchmarks/attack.py [--only recipe,data,model,folder,request] [--match TEXT] [--most N]

Each try on the command line is a process with a working folder of its own, a secret file beside it and a payload that leaves a trace
when it runs. It may end with exit code 0 (what was asked is harmless), or with a refusal (exit 1, 2 or 130, or a status of 4xx or 503).
Everything else is a fault:

    execution   the payload's trace exists
    escape      the secret's content stands in the output, in an answer or in a file that was written; or a file outside was changed
    traceback   the output holds one, or the process died of a signal, or a request got a status of 500
    memory      the process, with those that it started, held more than 2 GiB
    time        it took more than 30 s

All traffic goes to 127.0.0.1, one request after the other. The results are written beside the other benchmarks'.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import httpx
from attacks import data, folders, models, recipes
from attacks import requests as hostile
from attacks.attempt import Attempt, Scene
from environments import QUICK, RESULTS, processor

MOST_SECONDS, MOST_BYTES = 30.0, 2 * 2**30
# What ends a try, so that the machine survives it.
LAST_SECONDS, LAST_BYTES = 60, 10 * 2**30
COMMAND = Path(sys.executable).with_name("tunewright")


@dataclass
class Outcome:
    """How one try ended."""

    kind: str
    name: str
    ended: int
    """The exit code, minus the signal, or the HTTP status; 0 for a connection that was closed without an answer."""
    seconds: float
    bytes: int
    """At the peak; of the server's process for requests."""
    faults: list[str] = field(default_factory=list)
    said: str = ""


def scene_in(root: Path, number: int) -> Scene:
    place = root / str(number)
    (place / "work").mkdir(parents=True)
    return Scene(folder=place / "work", secret=root / "secret", trace=place / "trace")


def attack(attempt: Attempt, scene: Scene, token: str) -> Outcome:
    """One try on the command line."""
    words = prepared(attempt, scene)
    before = outside(scene)
    log = scene.folder.parent / "output"
    began = time.perf_counter()
    child = start(words, scene, log, fresh=attempt.fresh)
    _, status, usage = os.wait4(child, 0)
    seconds = time.perf_counter() - began
    code = os.waitstatus_to_exitcode(status)
    said = log.read_bytes()
    found = Outcome(
        attempt.kind, attempt.name, code, seconds, usage.ru_maxrss * 1024, said=said[-600:].decode(errors="replace")
    )
    if scene.trace.exists():
        found.faults.append("execution")
    if token.encode() in said or holds(scene.folder, token) or outside(scene) != before:
        found.faults.append("escape")
    if b"Traceback (most recent call last)" in said or code < 0 or code not in (0, 1, 2, 130):
        found.faults.append("traceback")
    judge_cost(found)
    return found


def prepared(attempt: Attempt, scene: Scene) -> list[str]:
    """Write the hostile files, in a process of its own: what that takes must not count as the victim's."""
    words = scene.folder.parent / "words"
    if not (child := os.fork()):
        code = 1
        try:
            words.write_text(json.dumps(attempt.prepare(scene)))
            code = 0
        finally:
            os._exit(code)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        raise RuntimeError(f"{attempt.kind}: {attempt.name} could not be prepared")
    found = json.loads(words.read_text())
    words.unlink()
    return found


def judge_cost(found: Outcome) -> None:
    if found.bytes > MOST_BYTES:
        found.faults.append("memory")
    if found.seconds > MOST_SECONDS:
        found.faults.append("time")


def start(words: list[str], scene: Scene, log: Path, *, fresh: bool) -> int:
    """Start the command in the scene's folder; its process id."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        os.chdir(scene.folder)
        output = os.open(log, os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        resource.setrlimit(resource.RLIMIT_AS, (LAST_BYTES, LAST_BYTES))
        signal.alarm(LAST_SECONDS)
        if fresh:
            os.execv(COMMAND, [str(COMMAND), *words])
        code = called(words)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def called(words: list[str]) -> int:
    """The command line's exit code, in this process."""
    from tunewright.cli import main

    sys.argv = ["tunewright", *words]
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0


def outside(scene: Scene) -> list[tuple[str, int]]:
    """What stands beside the working folder, with its size."""
    root = scene.secret.parent
    known = [
        path
        for path in root.iterdir()
        if not path.name.isdigit() and path.name not in ("sound", "cache", "runs", "server.log")
    ]
    beside = [path for path in scene.folder.parent.iterdir() if path.name not in ("work", "output", "trace")]
    return sorted((str(path), path.lstat().st_size) for path in known + beside)


def holds(folder: Path, token: str) -> bool:
    """Whether a file that was written holds the secret; links to it, which the attack made, do not count."""
    files = [path for path in folder.rglob("*") if not path.is_symlink() and path.is_file()]
    return any(token.encode() in path.read_bytes() for path in files if path.stat().st_size < 2**28)


def command_line(root: Path, token: str, wanted: Callable[[str, str], bool]) -> Iterator[Outcome]:
    """All tries on the command line."""
    every = [*recipes.attempts(), *data.attempts(), *models.attempts(), *folders.attempts()]
    for number, attempt in enumerate(every):
        if not wanted(attempt.kind, attempt.name):
            continue
        scene = scene_in(root, number)
        yield attack(attempt, scene, token)
        shutil.rmtree(scene.folder.parent, ignore_errors=True)


@contextmanager
def served(root: Path) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A small language model behind `tunewright serve`: port and process."""
    from tunewright.console import silent
    from tunewright.run_recipe import run

    (root / "corpus.txt").write_text("to be or not to be that is the question\n" * 400)
    recipe = {
        "name": "served",
        "task": "language-modeling",
        "data": {"source": str(root / "corpus.txt")},
        "model": {
            "backbone": {"gpt": {"layers": 2, "heads": 2, "width": 32, "context": 64}},
            "tokenizer": "characters",
        },
        "train": {"epochs": 1},
        "eval": {"resamples": 100},
        "hardware": {"threads": 1},
    }
    child = os.fork()
    if not child:
        run(recipe, runs=root / "runs", console=silent())
        os._exit(0)
    os.waitpid(child, 0)
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    words = [str(COMMAND), "serve", str(root / "runs" / "served" / "pretrain" / "model"), "--port", str(port)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=(root / "server.log").open("wb"))
    try:
        for _ in range(600):
            try:
                httpx.get(f"http://127.0.0.1:{port}/health")
                break
            except httpx.TransportError:
                time.sleep(0.1)
        yield port, process
    finally:
        process.terminate()
        process.wait(30)


def peak(process: subprocess.Popen[bytes]) -> int:
    """Bytes that a process has held at most."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def over_http(root: Path, token: str, wanted: Callable[[str, str], bool]) -> Iterator[Outcome]:
    """All requests, one after the other; after each the service has to say that it is alive."""
    chosen = [request for request in hostile.requests() if wanted("request", request.name)]
    if not chosen:
        return
    with (
        served(root) as (port, process),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=LAST_SECONDS) as client,
    ):
        for request in chosen:
            began = time.perf_counter()
            status, answer = sent(client, port, request)
            found = Outcome(
                "request",
                request.name,
                status,
                time.perf_counter() - began,
                peak(process),
                said=answer[:300].decode(errors="replace"),
            )
            if token.encode() in answer or b"root:x:0" in answer:
                found.faults.append("escape")
            if status >= 500 and status != 503:
                found.faults.append("traceback")
            try:
                if client.get("/health").status_code != 200:
                    found.faults.append("traceback")
            except httpx.TransportError:
                found.faults.append("traceback")
            judge_cost(found)
            yield found
    said = (root / "server.log").read_bytes()
    if b"Traceback (most recent call last)" in said:
        yield Outcome(
            "request", "the service's own log", -1, 0.0, 0, ["traceback"], said[-600:].decode(errors="replace")
        )


def sent(client: httpx.Client, port: int, request: hostile.Request) -> tuple[int, bytes]:
    """Status and body; status 0 where the connection was closed without an answer."""
    if request.raw is not None:
        try:
            answer = hostile.send_raw("127.0.0.1", port, request.raw("127.0.0.1", port), LAST_SECONDS)
        except TimeoutError:
            return 599, b""
        first = answer.split(b"\r\n", 1)[0].split()
        return (int(first[1]) if len(first) > 1 and first[1].isdigit() else 0), answer
    headers = [*request.headers, *([("Content-Type", request.kind)] if request.kind else [])]
    try:
        answer = client.request(request.method, request.path, content=request.body, headers=headers)
    except httpx.TimeoutException:
        return 599, b""
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return 0, b""
    return answer.status_code, answer.content


def main() -> None:
    """Run every try, print what got through and a table, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="recipe,data,model,folder,request")
    parser.add_argument("--match", default="")
    parser.add_argument("--most", type=int, help="tries of each kind", default=2 if QUICK else None)
    options = parser.parse_args()
    kinds = options.only.split(",")

    chosen: Counter[str] = Counter()

    def wanted(kind: str, name: str) -> bool:
        if kind not in kinds or options.match not in name or chosen[kind] == options.most:
            return False
        chosen[kind] += 1
        return True

    import torch

    torch.set_num_threads(1)
    root = Path(tempfile.mkdtemp(prefix="tunewright-attack-"))
    token = f"secret-{secrets.token_hex(16)}"
    (root / "secret").write_text(f"{token}\n")
    # Pillow would start Ghostscript for a file that says it is EPS: whatever it starts leaves the trace.
    program = root / "programs" / "gs"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\ntouch ../trace\n")
    program.chmod(0o755)
    os.environ["PATH"] = f"{program.parent}:{os.environ['PATH']}"
    os.environ |= {"TUNEWRIGHT_CACHE": str(root / "cache"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    preload()
    found: list[Outcome] = []
    try:
        for outcomes in (command_line, over_http):
            for outcome in outcomes(root, token, wanted):
                found.append(outcome)
                if outcome.faults:
                    print(described(outcome), flush=True)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    print(table(found))
    if (
        kinds == ["recipe", "data", "model", "folder", "request"]
        and not options.match
        and (QUICK or options.most is None)
    ):
        written = {
            "machine": processor(),
            "limits": {"seconds": MOST_SECONDS, "bytes": MOST_BYTES},
            "tries": [{**asdict(one), "said": ""} for one in found],
        }
        (RESULTS / "attack.json").write_text(json.dumps(written, indent=1) + "\n")
        (RESULTS / "attack.md").write_text(table(found))
    sys.exit(any(one.faults for one in found))


def described(one: Outcome) -> str:
    """A line for what got through, and the end of what was said."""
    cost = f"{one.seconds:.1f} s, {one.bytes >> 20} MiB"
    return f"{', '.join(one.faults).upper():<20} {one.kind}: {one.name} ({one.ended}, {cost})\n    {one.said[-400:]!r}"


def preload() -> None:
    """Import what the commands need, once for all forks."""
    modules = (
        "run_recipe",
        "planning.plan",
        "inference.model",
        "models.hub.hf_files",
        "models.hub.adapters",
        "tasks.registry",
    )
    for name in ("soundfile", *(f"tunewright.{module}" for module in modules)):
        importlib.import_module(name)


def table(found: list[Outcome]) -> str:
    """By kind: tries, refusals, what got through, the peak of memory and the longest time."""
    columns = [
        "kind",
        "tries",
        "refused",
        "harmless",
        "executions",
        "escapes",
        "tracebacks",
        "over 2 GiB",
        "over 30 s",
        "peak MiB",
        "longest s",
    ]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for kind in [*dict.fromkeys(one.kind for one in found), "all"]:
        some = [one for one in found if kind in (one.kind, "all")]
        faults = Counter(fault for one in some for fault in one.faults)
        harmless = sum(one.ended == 0 if one.kind != "request" else 200 <= one.ended < 300 for one in some)
        numbers = [
            len(some),
            len(some) - harmless,
            harmless,
            *(faults[name] for name in ("execution", "escape", "traceback", "memory", "time")),
        ]
        peaks = [
            max((one.bytes for one in some), default=0) >> 20,
            f"{max((one.seconds for one in some), default=0):.1f}",
        ]
        lines.append("| " + " | ".join(map(str, [kind, *numbers, *peaks])) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
