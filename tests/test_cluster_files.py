"""The files for clusters are well formed, and run what there is."""

from __future__ import annotations

import ast
import subprocess

import yaml

from repository import REPOSITORY

CLUSTER = REPOSITORY / "examples" / "cluster"


def test_the_script_for_slurm_is_one() -> None:
    path = CLUSTER / "slurm.sh"
    assert subprocess.run(["bash", "-n", str(path)]).returncode == 0
    assert "--no-python tunewright run" in path.read_text()


def test_the_job_for_kubernetes_is_one() -> None:
    job = yaml.safe_load((CLUSTER / "kubernetes.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("trainer.kubeflow.org/v1alpha1", "TrainJob")
    trainer = job["spec"]["trainer"]
    assert trainer["command"][:4] == ["torchrun", "--no-python", "tunewright", "run"]
    assert trainer["numNodes"] >= 1 and trainer["numProcPerNode"] >= 1


def test_the_script_for_ray_names_what_is_there() -> None:
    from tunewright import run_recipe as run
    from tunewright.pipeline.train import launch as together

    tree = ast.parse((CLUSTER / "ray_train.py").read_text())
    named = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tunewright")
        for alias in node.names
    }
    assert named == {"run", "carried_out"} and hasattr(run, "run") and hasattr(together, "carried_out")
