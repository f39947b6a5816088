"""Give benchmarks their folders, an environment for each peer, and the names of machine and versions.

With QUICK=1 in the environment a benchmark runs with its smallest sizes, to see that it still works. The figures mean
nothing: they are written to benchmarks/.work/quick.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import venv
from pathlib import Path

HERE = Path(__file__).parent
REPOSITORY = HERE.parent
QUICK = os.environ.get("QUICK") == "1"
# What is trained or generated, and kept from one start to the next.
WORK = HERE / ".work" / "quick" if QUICK else HERE / ".work"
RESULTS = WORK if QUICK else HERE / "results"
RESULTS.mkdir(parents=True, exist_ok=True)

TORCH = ["torch==2.13.0", "numpy"]
OURS = [["-c", str(REPOSITORY / "constraints.txt"), "--editable", str(REPOSITORY)]]
NAMED = {"tensorflow", "tensorflow_cpu", "tensorflow-cpu", "keras", "torch", "transformers", "accelerate", "tunewright"}


def install(peer: str, steps: list[list[str]]) -> Path:
    """The Python of a peer's own environment; made once.

    Args:
        steps: one `pip install` each; torch first and pinned, so that no other package brings a build of its own.
    """
    folder = HERE / ".envs" / peer
    python = folder / "bin" / "python"
    if not (folder / ".ready").exists():
        print(f"installing {peer}", flush=True)
        venv.create(folder, with_pip=True, clear=True)
        for packages in steps:
            subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        (folder / ".ready").touch()
    return python


def versions(python: Path) -> dict[str, str]:
    """The versions of the libraries that matter in an environment."""
    code = "import json, importlib.metadata as m; print(json.dumps({d.metadata['Name']: d.version for d in m.distributions()}))"
    known = json.loads(subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout)
    return {name: known[name] for name in sorted(NAMED & set(known))}


def processor() -> str:
    """The processor's name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
