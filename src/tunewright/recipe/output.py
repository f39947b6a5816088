"""Write the recipe with every default filled in, and its JSON Schema for editors."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel

from tunewright.recipe.schema import Recipe


def resolved_yaml(recipe: Recipe, given: dict[str, Any]) -> str:
    """Return the whole recipe as YAML, block by block, with `# default` after every line that the user did not write.

    Args:
        given: the recipe as the user wrote it.
    """
    lines: list[str] = []
    for name in type(recipe).model_fields:
        lines += _entry(name, getattr(recipe, name), given.get(name), 0)
    return "\n".join(lines) + "\n"


def json_schema() -> dict[str, Any]:
    """Return the recipe's JSON Schema (2020-12), with a description of each key."""
    schema = Recipe.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Tunewright recipe", **schema}


def _entry(name: str, value: Any, given: Any, depth: int) -> list[str]:
    indent = "  " * depth
    if isinstance(value, BaseModel):
        inner = given if isinstance(given, dict) else {}
        lines = [f"{indent}{name}:"]
        for field in type(value).model_fields:
            lines += _entry(field, getattr(value, field), inner.get(field), depth + 1)
        return lines
    # JSON is YAML: one line per value, without quoting rules of our own.
    line = (
        f"{indent}{name}: {json.dumps(value, ensure_ascii=False, default=lambda block: block.model_dump(mode='json'))}"
    )
    return [line if given is not None else f"{line}  # default"]
