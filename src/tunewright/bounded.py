"""Run untrusted input through a function in a child process with limits on memory and time.

A chat template, or a tokenizer's regular expressions, may never end, fill the memory or crash. Such a failure ends the child and
nothing else. Arguments and results are JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

from tunewright.files import cache_file, write_json
from tunewright.limits import TRIAL_BYTES, TRIAL_SECONDS

# One thread each: every thread of a library takes memory from the limit.
ONE_THREAD = {
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}


class TrialFailed(Exception):
    """Report why a trial failed."""


def try_bounded(function: Callable[[Any], Any], given: Any) -> Any:
    """Call a module's function with `given` in a child process, and return its result.

    Args:
        function: its argument and result are JSON values.

    Raises:
        TrialFailed: it raised an error, crashed, or took more memory or time than TRIAL_BYTES and TRIAL_SECONDS.
    """
    seconds, size = TRIAL_SECONDS.value, TRIAL_BYTES.value
    command = [sys.executable, "-P", "-m", "tunewright.bounded", function.__module__, function.__name__]
    try:
        done = subprocess.run(
            [*command, str(seconds), str(size)],
            input=json.dumps(given).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **ONE_THREAD},
            timeout=2 * seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TrialFailed(f"it took more than {2 * seconds} seconds") from None
    try:
        found = json.loads(done.stdout)
    except ValueError:
        raise TrialFailed(
            f"it crashed, or took more than {seconds} seconds or {size / 2**30:.3g} GiB (exit {done.returncode})"
        ) from None
    if "error" in found:
        raise TrialFailed(found["error"])
    return found["result"]


def try_once(function: Callable[[Any], Any], given: Any, content: bytes) -> None:
    """Call `try_bounded` unless the cache records a successful trial of the same content.

    Raises:
        TrialFailed: as for `try_bounded`.
    """
    name = f"{function.__module__}.{function.__name__}"
    known = cache_file("trials", [name, TRIAL_SECONDS.value, TRIAL_BYTES.value, hashlib.sha256(content).hexdigest()])
    if not known.exists():
        try_bounded(function, given)
        write_json(known, {"tried": name})


def _main(module: str, name: str, seconds: int, size: int) -> None:
    """Run in the child: set the limits, call the function, print its result to standard output."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    if not module.startswith("tunewright."):
        raise ValueError(module)
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # keep output of libraries out of the result
    try:
        found = {"result": getattr(import_module(module), name)(json.load(sys.stdin))}
    except MemoryError:
        found = {"error": f"it took more than {size / 2**30:.3g} GiB"}
    except BaseException as error:  # a panic of a Rust library is not an Exception
        found = {"error": (str(error).strip() or type(error).__name__).splitlines()[0][:500]}
    json.dump(found, answer)
    answer.close()


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
