"""List the models that a recipe could start from: those of the catalog for its task, folders and hub ids."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from tunewright.errors import ArtifactError, RecipeError
from tunewright.evaluation.metrics import METRICS
from tunewright.evaluation.rank_scores import standardised
from tunewright.models.families import BESIDE
from tunewright.models.hub.catalog import BACKBONES
from tunewright.models.hub.model_facts import PUBLISHED, Published
from tunewright.recipe.changes import Changes, with_changes
from tunewright.recipe.loading import load_recipe
from tunewright.recipe.named import parse_named
from tunewright.recipe.schema import Recipe
from tunewright.recipe.stages import StageRecipe, stage_recipes
from tunewright.runs.folder import Run, read_json
from tunewright.runs.summary.stage import read_summary
from tunewright.tasks.registry import get_task, task_defaults


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Describe a model to start from."""

    name: str
    """Its name on the command line or in the catalog."""
    stage: StageRecipe
    """The recipe's last stage, starting from this model."""
    published: Published | None
    local: bool
    """Whether it can be opened without a download from a hub, or was named by the user."""

    @property
    def key(self) -> str:
        """Return its name in past runs."""
        return starting_model_name(self.stage.recipe, Path("."))


def candidates_for(recipe: Recipe, names: list[str] | None) -> list[Candidate]:
    """Return the candidates of these names; without names, the catalog's for the recipe's task, and the recipe's own.

    Raises:
        RecipeError: the catalog has no model for the task, or a name is neither a folder nor a model.
    """
    stage = stage_recipes(recipe)[-1]
    if names:
        return [_candidate(stage, name, wanted=True) for name in dict.fromkeys(names)]
    purpose = get_task(stage.recipe.task).purpose
    known = [name for name, facts in PUBLISHED.items() if get_task(facts.task).purpose == purpose]
    own = stage.recipe.model.backbone
    if own is not None and stage.recipe.model.weights in (None, "pretrained"):
        known = list(dict.fromkeys([parse_named(own, "model.backbone")[0], *known]))
    if not known:
        raise RecipeError(
            f"the catalog has no pretrained model for {stage.recipe.task}",
            place="task",
            expected=", ".join(sorted({facts.task for facts in PUBLISHED.values()})),
            fix="name the models: --candidates FOLDER --candidates HUB/ID",
        )
    return [_candidate(stage, name, wanted=False) for name in known]


def _candidate(stage: StageRecipe, name: str, *, wanted: bool) -> Candidate:
    here = Path(name).expanduser()
    changes: Changes = {"model.layers": None, "model.backbone": name, "model.weights": None}
    if here.is_dir():
        saved = (here / BESIDE).exists() or _is_own(here)
        place = str(here.resolve())
        changes |= {"model.weights": place, "model.backbone": None} if saved else {"model.backbone": place}
    elif name.startswith((".", "/", "~")):
        raise RecipeError("there is no such folder", place="--candidates", found=name, fix="check the path")
    recipe = with_changes(stage.recipe, changes)
    local = here.is_dir() or "/" not in name
    if local and not here.is_dir() and name not in BACKBONES:
        recipe = with_changes(recipe, {"model.weights": "random"})
    return Candidate(
        name=name, stage=replace(stage, recipe=recipe), published=PUBLISHED.get(name), local=local or wanted
    )


def _is_own(folder: Path) -> bool:
    try:
        return read_json(folder / "config.json", "a model").get("model_type") == "tunewright"
    except ArtifactError:
        return False


def starting_model_name(recipe: Recipe, base: Path) -> str:
    """Return the name of the model that a stage's recipe starts from: the backbone's, or the folder's full path."""
    weights = recipe.model.weights
    if weights not in (None, "pretrained", "random"):
        return str((base / weights).resolve())
    if recipe.model.backbone is None:
        return "layers"
    name, _ = parse_named(recipe.model.backbone, "model.backbone")
    name = str((base / name).resolve()) if (base / name).is_dir() else name
    return f"{name}, random" if weights == "random" else name


def past_scores(runs: Path, task: str) -> dict[str, float]:
    """Return scores of models in past runs by name: standardised over the models on the same data, and averaged over data
    sets. Only data on which several models were fine-tuned counts."""
    reached: dict[tuple[str, str], dict[str, float]] = {}
    for folder in sorted(path.parent for path in runs.glob("*/run.json")):
        if (result := _result(folder, task)) is not None:
            place, name, value = result
            others = reached.setdefault(place, {})
            others[name] = max(value, others.get(name, value))
    found: dict[str, list[float]] = {}
    for others in reached.values():
        if len(others) > 1:
            for name, value in zip(others, standardised(list(others.values()))):
                found.setdefault(name, []).append(float(value))
    return {name: sum(values) / len(values) for name, values in found.items()}


def _result(folder: Path, task: str) -> tuple[tuple[str, str], str, float] | None:
    """Return (data and metric, model, test result) of a run's last stage; None for a run that cannot be read."""
    try:
        run = Run(folder)
        stage = stage_recipes(load_recipe(run.recipe, [], defaults=task_defaults))[-1]
        summary = read_summary(run.stage_folder(stage.name))
        name = starting_model_name(stage.recipe, Path(run.told("base")))
    except (ArtifactError, RecipeError, KeyError, OSError):
        return None
    metric = METRICS[get_task(task).metrics[0]]
    measured = summary.evaluation.metrics.get(metric.name) if summary.evaluation is not None else None
    value = None if measured is None else measured.value
    if summary.task != task or value is None:
        return None
    sign = 1 if metric.greater_is_better else -1
    return (summary.data.fingerprint, metric.name), name, sign * value
