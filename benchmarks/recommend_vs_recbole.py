"""MovieLens 100k: Tunewright and RecBole on the same split; items ranked and clicks foretold.

    python benchmarks/recommend_vs_recbole.py [--seed 2020]

The data is prepared and divided once by Tunewright (a tenth of each user's rows as validation, a tenth as test; for clicks at
random, three stars left out) and handed to RecBole 1.2.1 as files for each part. Items: BPR with 64 numbers a vector, batches of
2,048, learning rate 1e-3, at most 300 epochs, stopped after ten without a better validation result; all items ranked. Clicks:
embeddings of 16, at most 200 epochs, stopped likewise. RecBole runs in an environment of its own. Writes
benchmarks/results/recommend_vs_recbole.{json,md}.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from environments import HERE, QUICK, REPOSITORY, RESULTS, install, processor

import tunewright
from tunewright.console import silent
from tunewright.data.batches.sampler import Batches

EXAMPLES = REPOSITORY / "examples" / "movielens"
RECBOLE = [
    ["torch==2.13.0", "numpy<2", "pandas<2.3", "scipy<1.14"],
    ["--no-deps", "recbole==1.2.1"],
    [
        "colorlog==4.7.2",
        "colorama==0.4.4",
        "tqdm",
        "scikit_learn",
        "pyyaml",
        "tensorboard",
        "tabulate",
        "texttable",
        "psutil",
        "thop",
        "plotly",
    ],
    ["ray==2.44.1"],
]
ITEMS = {"BPR": "factors", "NeuMF": "neumf"}
CLOSED = {"ItemKNN": "item neighbours", "EASE": "EASE", "Pop": "popularity"}
PATIENT = [
    "train.epochs=1" if QUICK else "train.epochs=200",
    "train.batch_size=2048",
    "train.early_stopping.patience=10",
]
CLICKS = {"LR": "logistic", "FM": "fm", "WideDeep": "wide_deep", "DeepFM": "deepfm", "DCNV2": "dcn_v2", None: "dlrm"}


def prepared(recipe: Path, seed: int, folder: Path) -> Path:
    code = "from tunewright.cli import main; main()"
    command = [sys.executable, "-c", code, "data", "prepare", recipe, f"seed={seed}", "--out", folder]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def write_atomic(data: Path, out: Path, name: str, columns: dict[str, str]) -> None:
    """NAME.train.inter and so on, as RecBole reads a set that is divided already."""
    out.mkdir(parents=True)
    for part in ("train", "valid", "test"):
        table = pa.concat_tables(pq.read_table(file) for file in sorted(data.glob(f"{part}*.parquet")))
        lines = ["\t".join(f"{column}:{kind}" for column, kind in columns.items())]
        cells = [table[column].to_pylist() for column in columns]
        lines += ["\t".join(_cell(cell) for cell in row) for row in zip(*cells, strict=True)]
        (out / f"{name}.{part}.inter").write_text("\n".join(lines) + "\n")


def _cell(cell: Any) -> str:
    if isinstance(cell, list):
        return " ".join(cell)
    return {"yes": "1", "no": "0", None: ""}.get(cell, str(cell))


def recbole(model: str, folder: Path, kind: str, seed: int) -> dict[str, Any]:
    python = install("recbole", RECBOLE)
    command = [python, HERE / "peers" / "recbole_run.py", model, folder, kind, str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    if done.returncode:
        sys.exit(f"{model} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


EPOCHS: list[float] = []
_steps = Batches.steps


def timed(self: Batches, epoch: int, *, start: int = 0) -> Iterator[Any]:
    """All steps of an epoch, without its validation and checkpoint, as RecBole's training of an epoch is timed."""
    began = time.perf_counter()
    yield from _steps(self, epoch, start=start)
    EPOCHS.append(time.perf_counter() - began)


Batches.steps = timed


def ours(recipe: Path, seed: int, overrides: list[str]) -> dict[str, Any]:
    EPOCHS.clear()
    found = tunewright.run(recipe, overrides=[f"seed={seed}", *overrides], runs=tempfile.mkdtemp(), console=silent())
    return next(iter(found.stages.values())).summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=2020)
    seed = parser.parse_args().seed
    place = Path(tempfile.mkdtemp(prefix="recommend-"))
    pairs = {"user_id": "token", "item_id": "token"}
    items, clicks = EXAMPLES / "items.yaml", EXAMPLES / "clicks.yaml"
    write_atomic(prepared(items, seed, place / "items-data"), place / "items", "items", pairs)
    about = {"age": "token", "gender": "token", "occupation": "token", "release_year": "token", "class": "token_seq"}
    rated = {**pairs, "rating": "float", **about}
    write_atomic(prepared(clicks, seed, place / "clicks-data"), place / "clicks", "clicks", rated)
    result: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "seed": seed,
        "items": {},
        "clicks": {},
    }
    for theirs, name in ITEMS.items():
        peer = recbole(theirs, place, "items", seed)
        summary = ours(items, seed, [f"model.backbone={name}"])
        result["items"][theirs] = {"recbole": peer, "tunewright": figures(summary)}
        print(theirs, result["items"][theirs], flush=True)
        if name == "factors":
            baselines = {entry["name"]: entry["metrics"] for entry in summary["evaluation"]["baselines"]}
    for theirs, name in CLOSED.items():
        peer = recbole(theirs, place, "items", seed)
        result["items"][theirs] = {"recbole": peer, "tunewright": {"metrics": baselines[name]}}
        print(theirs, result["items"][theirs], flush=True)
    for theirs, name in CLICKS.items():
        entry: dict[str, Any] = {"tunewright": figures(ours(clicks, seed, [f"model.backbone={name}", *PATIENT]))}
        if theirs is not None:
            entry["recbole"] = recbole(theirs, place, "clicks", seed)
        result["clicks"][name] = entry
        print(name, entry, flush=True)
    lines = report(result)
    (RESULTS / "recommend_vs_recbole.json").write_text(json.dumps(result, indent=2) + "\n")
    (RESULTS / "recommend_vs_recbole.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def figures(summary: dict[str, Any]) -> dict[str, Any]:
    training = summary["training"]
    return {
        "metrics": summary["evaluation"]["metrics"],
        "epoch_seconds": float(np.median(EPOCHS)),
        "epochs": training["epochs_run"],
        "seconds": training["seconds"],
    }


def report(result: dict[str, Any]) -> list[str]:
    def ci(entry: dict[str, float | None]) -> str:
        low, high = entry["low"], entry["high"]
        return f"{entry['value']:.4f}" + (f" [{low:.4f}, {high:.4f}]" if low is not None and high is not None else "")

    def seconds(entry: dict[str, Any]) -> str:
        return f"{entry['epoch_seconds']:.2f}" if entry.get("epoch_seconds") else "–"

    lines = [
        "# MovieLens 100k: Tunewright and RecBole 1.2.1 on the same split",
        "",
        f"{result['date']}, {result['processor']}, {result['cores']} cores, seed {result['seed']}; ours with 95 % intervals.",
        "",
        "Items, all ranked:",
        "",
        "| | recall@10, ours | RecBole | NDCG@10, ours | RecBole | epoch, s, ours | RecBole |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, entry in result["items"].items():
        metrics, peer = entry["tunewright"]["metrics"], entry["recbole"]
        lines.append(
            f"| {name} | {ci(metrics['recall_at_10'])} | {peer['metrics']['recall@10']:.4f} | {ci(metrics['ndcg_at_10'])} "
            f"| {peer['metrics']['ndcg@10']:.4f} | {seconds(entry['tunewright'])} | {seconds(peer)} |"
        )
    lines += ["", "Clicks:", "", "| | AUC, ours | RecBole | log loss, ours | RecBole | epoch, s, ours | RecBole |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for name, entry in result["clicks"].items():
        metrics, peer = entry["tunewright"]["metrics"], entry.get("recbole")
        auc, loss = (f"{peer['metrics'][key]:.4f}" if peer else "–" for key in ("auc", "logloss"))
        theirs = seconds(peer) if peer else "–"
        lines.append(
            f"| {name} | {ci(metrics['roc_auc'])} | {auc} | {ci(metrics['log_loss'])} | {loss} "
            f"| {seconds(entry['tunewright'])} | {theirs} |"
        )
    ratios = [
        entry["recbole"]["epoch_seconds"] / entry["tunewright"]["epoch_seconds"]
        for part in ("items", "clicks")
        for entry in result[part].values()
        if entry.get("recbole", {}).get("epoch_seconds") and entry["tunewright"].get("epoch_seconds")
    ]
    return [
        *lines,
        "",
        f"An epoch is {min(ratios):.1f} to {max(ratios):.1f} times as fast, median {np.median(ratios):.1f}.",
    ]


if __name__ == "__main__":
    main()
