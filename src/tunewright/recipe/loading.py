"""Load and validate a recipe: fill in defaults, apply overrides, and report every mistake with its line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tunewright.errors import RecipeError, shorten
from tunewright.limits import RECIPE_BYTES, RECIPE_DEPTH
from tunewright.recipe.problems import collect, explain
from tunewright.recipe.schema import Recipe
from tunewright.recipe.yaml_text import Lines, read_yaml, read_yaml_file

Defaults = Callable[[str], Mapping[str, Any]]

# Components chosen by name are replaced as a whole: an override `optimizer: sgd` must not inherit adam's options.
REPLACED = {
    "optimizer",
    "objective",
    "schedule",
    "backbone",
    "layers",
    "head",
    "class_weights",
    "stages",
    "tokenizer",
    "decoding",
}
# Keys that a stage with its own task takes from the recipe.
OF_THE_RUN = ("name", "seed", "hardware", "track")
OF_THE_DATA = ("source", "format", "input", "split", "resize", "limit")
OF_THE_BACKBONE = ("backbone", "weights", "max_length", "tokenizer")
KINDS = ("pretrain", "finetune")


def load_recipe(path: Path, overrides: Iterable[str] = (), *, defaults: Defaults) -> Recipe:
    """Load the recipe of a file.

    Args:
        overrides: changes by dotted name, "train.lr=1e-4".
        defaults: a task's default recipe by the task's name; raises RecipeError for an unknown task.

    Raises:
        RecipeError: names the file, each wrong line, what was expected and the closest valid key.
    """
    value, lines = read_yaml_file(path)
    if not isinstance(value, dict):
        raise RecipeError(
            "the recipe is empty" if value is None else "the recipe is not a mapping",
            file=path,
            place="line 1",
            found=value,
            expected="keys such as task: and data:",
            fix="tunewright init TASK writes one",
        )
    return _validate(value, lines, list(overrides), defaults, str(path))


def recipe_from_dict(value: dict[str, Any], overrides: Iterable[str] = (), *, defaults: Defaults) -> Recipe:
    """Load the recipe of a dict.

    Raises:
        RecipeError: as for `load_recipe`, with dotted names in place of lines.
    """
    return _validate(value, {}, list(overrides), defaults, None)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge `over` into `base`, block by block; lists and components chosen by name are replaced as a whole."""
    result = dict(base)
    for key, value in over.items():
        known = result.get(key)
        if isinstance(value, Mapping) and isinstance(known, Mapping) and key not in REPLACED:
            result[key] = merge(known, value)
        else:
            result[key] = value
    return result


def merge_stage(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge a stage's changes into the recipe. A stage with its own source starts with an empty data block; one with its
    own task has been completed by `_own_task`."""
    if "task" in over:
        base = {key: value for key, value in base.items() if key in OF_THE_RUN}
    data = over.get("data")
    if isinstance(data, Mapping) and "source" in data:
        base = {**base, "data": {}}
    return merge(base, over)


def _validate(
    value: dict[str, Any], lines: Lines, overrides: list[str], defaults: Defaults, file: str | None
) -> Recipe:
    for override in overrides:
        value, lines = apply_override(value, lines, override)
    known = _known(value.get("task"), defaults, lines, ("task",), file)
    try:
        recipe = Recipe.model_validate(merge(known, value))
    except ValidationError as error:
        raise explain(collect(error, value, lines), file) from None
    return recipe.model_copy(update={"stages": _checked_stages(recipe, value, known, lines, defaults, file)})


def _own_task(value: Mapping[str, Any], over: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Return the base of a stage with its own task: that task's defaults, and the recipe's data and backbone."""
    data = {key: entry for key, entry in value.get("data", {}).items() if key in OF_THE_DATA}
    model = {key: entry for key, entry in (value.get("model") or {}).items() if key in OF_THE_BACKBONE}
    run = {key: entry for key, entry in value.items() if key in OF_THE_RUN}
    if isinstance(evaluation := value.get("eval"), Mapping) and "resamples" in evaluation:
        run["eval"] = {"resamples": evaluation["resamples"]}
    base = merge({key: entry for key, entry in known.items() if key != "stages"}, {**run, "model": model})
    own = over.get("data")
    if isinstance(own, Mapping) and "source" in own:
        return base
    return merge(base, {"data": data})


def _checked_stages(
    recipe: Recipe,
    value: dict[str, Any],
    known: Mapping[str, Any],
    lines: Lines,
    defaults: Defaults,
    file: str | None,
) -> list[str | dict[str, Any]]:
    """Return the validated stages; those with their own task are completed.

    Each stage must be a valid recipe now, before the previous stage is trained.
    """
    base = {key: entry for key, entry in merge(known, value).items() if key != "stages"}
    found: list[str | dict[str, Any]] = []
    for index, stage in enumerate(recipe.stages):
        where: tuple[str | int, ...] = ("stages", index)
        kind, over = (stage, None) if isinstance(stage, str) else next(iter(stage.items()), ("", None))
        if kind not in KINDS or (isinstance(stage, dict) and len(stage) != 1):
            raise explain([_stage_problem(where, kind)], file, lines)
        if over is None:
            found.append(stage)
            continue
        if not isinstance(over, dict):
            raise explain([_stage_problem((*where, kind), over, "a mapping of changes")], file, lines)
        forbidden = [key for key in over if key in ("stages", *OF_THE_RUN)]
        if forbidden:
            raise explain(
                [_stage_problem((*where, kind, forbidden[0]), forbidden[0], "task, data, model, tune, train or eval")],
                file,
                lines,
            )
        try:
            if "task" not in over:
                Recipe.model_validate(merge_stage(base, over))
                found.append(stage)
                continue
            begin = _own_task(value, over, _known(over["task"], defaults, lines, (*where, kind, "task"), file))
            whole = Recipe.model_validate(merge(begin, over))
            found.append({kind: whole.model_dump(mode="json", exclude={"stages", *OF_THE_RUN})})
        except ValidationError as error:
            shifted = {path[3:]: line for path, line in lines.items() if path[:3] == (*where, kind)}
            problems = collect(error, over, {**{p: n for p, n in lines.items() if p[:1] != ("stages",)}, **shifted})
            raise explain([problem.below(f"stages.{index}.{kind}") for problem in problems], file) from None
    return found


def _known(
    task: Any, defaults: Defaults, lines: Lines, path: tuple[str | int, ...], file: str | None
) -> Mapping[str, Any]:
    """Return a task's default recipe; nothing if the task is not a name, which the schema reports."""
    if not isinstance(task, str):
        return {}
    try:
        return defaults(task)
    except RecipeError as error:
        dotted = ".".join(map(str, path))
        place = f"line {lines[path]}, {dotted}" if path in lines else dotted
        raise RecipeError(
            error.problem, file=file, place=place, found=error.found, expected=error.expected, fix=error.fix
        ) from None


def _stage_problem(
    path: tuple[str | int, ...], found: Any, expected: str = "pretrain, finetune, or {finetune: {changes}}"
) -> Any:
    from tunewright.recipe.problems import Problem

    return Problem(path=path, line=None, text="this is not a stage", found=found, expected=expected, fix=None)


def apply_override(value: dict[str, Any], lines: Lines, override: str) -> tuple[dict[str, Any], Lines]:
    """Return a copy of the recipe with one override applied, and the lines without those of the changed values."""
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise RecipeError(
            "the override is not of the form key=value",
            place=f"override {shorten(override)!r}",
            found=override,
            expected="a dotted name, = and a value, such as train.lr=1e-4",
        )
    _require_short(override, parts)
    try:
        new, _ = read_yaml(text)
    except RecipeError as error:
        raise RecipeError(
            error.problem, place=f"override {shorten(override)!r}", found=text, expected=error.expected, fix=error.fix
        ) from None

    def put(current: Any, remaining: list[str]) -> Any:
        if not remaining:
            return new
        step, rest = remaining[0], remaining[1:]
        if isinstance(current, list):
            if not _is_number(step) or int(step) >= len(current):
                raise RecipeError(
                    f"the list before {step!r} has {len(current)} entries",
                    place=f"override {shorten(override)!r}",
                    found=step,
                    expected=f"a number from 0 to {len(current) - 1}" if current else "a list with entries",
                )
            return [put(item, rest) if index == int(step) else item for index, item in enumerate(current)]
        if isinstance(current, str):
            current = {current: {}}  # names such as `stages.1.train.lr` reach into an entry that was a plain name
            return {key: put(entry, remaining[1:] if key == step else remaining) for key, entry in current.items()}
        inner = current if isinstance(current, dict) else {}
        return {**inner, step: put(inner.get(step), rest)}

    changed = put(value, parts)
    prefix: tuple[str | int, ...] = tuple(int(part) if _is_number(part) else part for part in parts)
    return changed, {path: line for path, line in lines.items() if path[: len(prefix)] != prefix}


def _require_short(override: str, parts: list[str]) -> None:
    """Check that an override is within the limits of a recipe."""
    place = f"override {shorten(override)!r}"
    RECIPE_BYTES.require(
        len(override.encode(errors="replace")), "the override is too long", error=RecipeError, place=place
    )
    RECIPE_DEPTH.require(len(parts), "the override reaches too deep", error=RecipeError, place=place)


def _is_number(part: str) -> bool:
    """Return whether a part of a dotted name is an index of a list."""
    return part.isascii() and part.isdigit() and len(part) < 10
