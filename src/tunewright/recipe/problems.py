"""Explain the mistakes of a recipe: one entry each, with its line and the closest valid key."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from tunewright.errors import RecipeError, shorten
from tunewright.recipe.schema import Recipe
from tunewright.recipe.yaml_text import Lines

# The most mistakes that a message lists, and that are read for it.
MOST_LISTED, MOST_READ = 20, 200


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Describe one mistake."""

    path: tuple[str | int, ...]
    line: int | None
    text: str
    found: Any
    expected: str
    fix: str | None

    def below(self, prefix: str) -> Problem:
        """Return the same mistake inside another block."""
        return replace(self, path=(prefix, *self.path))

    @property
    def dotted(self) -> str:
        return ".".join(map(str, self.path))


def collect(error: ValidationError, value: Any, lines: Lines) -> list[Problem]:
    """Convert pydantic's errors to problems, in the order of the lines; the branches of a union become one problem."""
    problems: dict[tuple[str | int, ...], Problem] = {}
    for entry in error.errors(include_url=False)[:MOST_READ]:
        path, found = _locate(entry["loc"], value)
        missing = entry["type"] == "missing"
        unknown = entry["type"] == "extra_forbidden"
        key = (*path, str(entry["loc"][-1])) if missing and path[-1:] != entry["loc"][-1:] else path
        if key in problems and not unknown:
            # Another branch of the same union: the field's description replaces both.
            known = problems[key]
            problems[key] = replace(known, expected=_describe(path), text="the value does not fit")
            continue
        line = _line(lines, key)
        if missing:
            problems[key] = Problem(
                path=key,
                line=line,
                text=f"{key[-1]} is missing",
                found=None,
                expected=_describe(key),
                fix=_missing_fix(key),
            )
        elif unknown:
            problems[key] = _unknown_key(key, line)
        else:
            text, expected = _sentence(entry)
            problems[key] = Problem(
                path=key,
                line=line,
                text=text,
                found="nothing" if found is None else found,
                expected=expected or _describe(path),
                fix=entry.get("ctx", {}).get("fix"),
            )
    return sorted(problems.values(), key=lambda problem: (problem.line or 0, problem.dotted))


def explain(problems: list[Problem], file: str | None, lines: Lines | None = None) -> RecipeError:
    """Return one error for all problems; a single one keeps its parts, several are listed."""
    if lines is not None:
        problems = [replace(problem, line=_line(lines, problem.path)) for problem in problems]
    if len(problems) == 1:
        problem = problems[0]
        return RecipeError(
            problem.text,
            file=file,
            place=_place(problem),
            found=problem.found,
            expected=problem.expected,
            fix=problem.fix,
        )
    listed: list[str] = []
    for problem in problems[:MOST_LISTED]:
        listed.append(f"\n  {_place(problem)}: {problem.text}")
        for label, text in (("found", problem.found), ("expected", problem.expected), ("fix", problem.fix)):
            if text:
                listed.append(f"    {label + ':':<9} {shorten(text)}")
    if len(problems) > MOST_LISTED:
        listed.append(f"\n  and {len(problems) - MOST_LISTED:,} more")
    count = f"{len(problems):,}" if len(problems) < MOST_READ else f"{MOST_READ:,} or more"
    return RecipeError(f"the recipe has {count} mistakes" + "\n".join(["", *listed]).rstrip(), file=file)


def _place(problem: Problem) -> str:
    return f"line {problem.line}, {problem.dotted}" if problem.line else problem.dotted


def _locate(loc: tuple[str | int, ...], value: Any) -> tuple[tuple[str | int, ...], Any]:
    """Return the part of a pydantic location that exists in the data (it also names union branches), and the value there."""
    path: list[str | int] = []
    for step in loc:
        entries: dict[Any, Any] = {}
        if isinstance(value, list):
            entries = dict(enumerate(value))
        elif isinstance(value, dict):
            entries = value
        if step in entries:
            value = entries[step]
        elif isinstance(value, dict) and _is_field(tuple(path), step):
            value = None
        else:
            break
        path.append(step)
    return tuple(path), value


def _is_field(path: tuple[str | int, ...], step: str | int) -> bool:
    model = _model_at(path)
    return model is not None and step in model.model_fields


def _model_at(path: Iterable[str | int]) -> type[BaseModel] | None:
    """Return the block of the schema that a path leads to."""
    model: type[BaseModel] | None = Recipe
    for step in path:
        if isinstance(step, int):
            continue
        if model is None or step not in model.model_fields:
            return None
        model = _block_of(model.model_fields[str(step)].annotation)
    return model


def _block_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, types.UnionType, list):
        return next((block for part in get_args(annotation) if (block := _block_of(part))), None)
    return None


def _unknown_key(path: tuple[str | int, ...], line: int | None) -> Problem:
    *parents, key = path
    block = _model_at(parents) or Recipe
    known = list(block.model_fields)
    near = difflib.get_close_matches(str(key), known, n=1)
    if near:
        fix = f"did you mean {near[0]}?"
    else:
        # A valid key in the wrong block is the most frequent mistake.
        elsewhere = [name for name in _all_keys() if name.rpartition(".")[2] == str(key)]
        similar = difflib.get_close_matches(str(key), [name.rpartition(".")[2] for name in _all_keys()], n=1)
        elsewhere = elsewhere or [name for name in _all_keys() if similar and name.rpartition(".")[2] == similar[0]]
        fix = f"did you mean {elsewhere[0]}?" if elsewhere else "remove it, or correct its name"
    return Problem(
        path=path, line=line, text=f"there is no key {key!r} here", found=key, expected=", ".join(known), fix=fix
    )


def _all_keys(block: type[BaseModel] = Recipe, prefix: str = "") -> list[str]:
    names: list[str] = []
    for name, field in block.model_fields.items():
        names.append(f"{prefix}{name}")
        inner = _block_of(field.annotation)
        if inner is not None:
            names += _all_keys(inner, f"{prefix}{name}.")
    return names


def _describe(path: tuple[str | int, ...]) -> str:
    """Describe the allowed values at a path, by the schema's description."""
    names = [step for step in path if not isinstance(step, int)]
    block = _model_at(names[:-1]) if names else None
    if block is None or not names or names[-1] not in block.model_fields:
        return "another kind of value"
    field = block.model_fields[str(names[-1])]
    return " ".join((field.description or str(field.annotation)).split())


def _missing_fix(path: tuple[str | int, ...]) -> str:
    examples = {
        "task": "task: image-classification",
        "data": "data: {source: PATH}",
        "source": "source: PATH",
        "epoch": "epoch: 2",
        "layers": "layers: 2",
    }
    return f"add {examples.get(str(path[-1]), f'{path[-1]}: …')}"


def _sentence(entry: Any) -> tuple[str, str | None]:
    """Convert a pydantic error type to a sentence and the expected value."""
    context = entry.get("ctx", {})
    kind: str = entry["type"]
    limits = {
        "greater_than": f"a number above {context.get('gt')}",
        "greater_than_equal": f"a number of at least {context.get('ge')}",
        "less_than": f"a number below {context.get('lt')}",
        "less_than_equal": f"a number of at most {context.get('le')}",
    }
    if kind in limits:
        return "the number is out of range", limits[kind]
    if kind == "limit":
        return "this is above the limit", context["expected"]
    if kind == "path":
        return "this cannot be the path of a file", context["expected"]
    if kind in ("literal_error", "enum"):
        return "the value is not one of those allowed", str(context.get("expected"))
    if kind.startswith(("int_", "int")):
        return "this is not a whole number", "a whole number"
    if kind.startswith(("float_", "float", "finite")):
        return "this is not a number", "a number"
    if kind.startswith("bool"):
        return "this is neither true nor false", "true or false"
    if kind == "string_pattern_mismatch":
        return (
            "the name has characters that are not allowed in a folder name",
            "letters, digits, dots, dashes and underscores",
        )
    if kind.startswith("string"):
        return "this is not text", None
    if kind in ("model_type", "model_attributes_type", "dict_type", "mapping_type"):
        return "a block of keys was expected here", "key: value, one per line"
    if kind in ("list_type", "tuple_type"):
        return "a list was expected here", None
    if kind in ("too_long", "too_short", "missing_argument"):
        return "the list has another length", None
    return "the value does not fit", None


def _line(lines: Lines, path: tuple[str | int, ...]) -> int | None:
    """Return the line of a path, or of the closest block around it."""
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return 1 if () in lines else None
