"""One installed package adds a source, a task, a model, an objective and a metric, as CONTRIBUTING says; a recipe uses them all."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import tunewright
from tunewright.console import silent
from tunewright.data.sources.open import SOURCES
from tunewright.evaluation.metrics import METRICS
from tunewright.models.build import MODELS
from tunewright.run_recipe import run
from tunewright.tasks.registry import TASKS
from tunewright.training.objectives.registry import OBJECTIVES

MODULE = '''
import numpy as np
import pyarrow as pa
from torch.nn import functional as F

from tunewright.data.source import Source, from_arrays
from tunewright.data.sources.open import SourceFormat
from tunewright.evaluation.metrics import Metric
from tunewright.evaluation.metrics.base import weighted_mean
from tunewright.runs.summary.facts import Title
from tunewright.tasks.base.evaluation import NumberEvaluation
from tunewright.tasks.base.targets import NUMBER
from tunewright.tasks.base.task import About, Architecture, Task
from tunewright.tasks.table.modality import TABLE
from tunewright.training.objectives.base import NamedObjective, Objective
from tunewright.training.objectives.supervised import SupervisedLoss


def line(request):
    """Return rows of y = 2x, as many as the name says."""
    x = np.linspace(-1, 1, int(request.name))
    rows = from_arrays({"x": pa.array(map(str, x)), "y": pa.array(map(str, 2 * x))})
    return Source(format="line", parts={"all": rows}, content=request.name, target="y")


def narrow(shape, *, width: int = 4):
    return [("first", {"dense": width, "activation": "tanh"})]


def huber(labels, *, delta: float = 1.0):
    def formula(outputs, target, class_weights, smoothing):
        return F.huber_loss(outputs.reshape(target.shape), target, reduction="sum", delta=delta)

    loss = SupervisedLoss(name="huber", formula=formula, outputs=(1,))
    return Objective(name="huber", supervised=True, bind=lambda seed, device: loss)


def bias(outcome, weights):
    """Compute the mean of prediction minus target."""
    return weighted_mean(outcome.outputs - outcome.target, weights)


LINE = SourceFormat(read=line, files=False, folders=False, names=True)
HUBER = NamedObjective(name="huber", target="numbers", build=huber)
BIAS = Metric(
    name="bias", title=Title(en="bias", zh="偏差"), kinds=("regression",), greater_is_better=False, formula=bias
)
TASK = Task(
    name="robust-regression",
    summary="which number goes with a row that may be wrong",
    about=About(en="robust regression", zh="稳健回归", hub_task="tabular-regression"),
    inputs=TABLE,
    target=NUMBER,
    network=Architecture(default={"backbone": {"narrow": {"width": 8}}, "head": [{"dense": "auto"}]}),
    metrics=("rmse", "bias"),
    evaluation=NumberEvaluation(),
    defaults={"train": {"epochs": 20, "lr": 0.01, "objective": {"huber": {"delta": 0.5}}}},
)
'''
ENTRY_POINTS = """
[tunewright.sources]
line = added_package:LINE
[tunewright.tasks]
robust-regression = added_package:TASK
[tunewright.models]
narrow = added_package:narrow
[tunewright.objectives]
huber = added_package:HUBER
[tunewright.metrics]
bias = added_package:BIAS
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a distribution with something in each group."""
    installed = tmp_path / "site"
    facts = installed / "added_package-1.0.dist-info"
    facts.mkdir(parents=True)
    (installed / "added_package.py").write_text(MODULE)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: added-package\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(installed))
    monkeypatch.delitem(sys.modules, "added_package", raising=False)
    for registry in (SOURCES, TASKS, MODELS, OBJECTIVES, METRICS):
        monkeypatch.setattr(registry, "_loaded", {})


@pytest.mark.usefixtures("package")
def test_a_recipe_uses_all_that_a_package_adds(tmp_path: Path) -> None:
    recipe = {"task": "robust-regression", "data": {"source": "line:300"}}
    (stage,) = run(recipe, runs=tmp_path / "runs", console=silent()).stages.values()
    model = tunewright.load_model(stage.folder / "model")
    predicted = np.array([row["prediction"] for row in model.predict(pa.table({"x": [-0.5, 0.5]}))])
    np.testing.assert_allclose(predicted, [-1, 1], atol=0.3)
    metrics = stage.summary["evaluation"]["metrics"]
    assert list(metrics) == ["rmse", "bias"] and abs(metrics["bias"]["value"]) < 0.2
    assert "robust regression" in (stage.folder / "model" / "README.md").read_text()
