"""Read YAML as plain data, with the line of every key: safe, bounded, and without the surprises of YAML 1.1.

Values are mappings, sequences, text, numbers, true/false and null. `1e-3` is a number; `yes`, `on` and dates are
text. Tags are refused; aliases, depth and size are bounded.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from tunewright.errors import RecipeError
from tunewright.files import read_bounded
from tunewright.limits import RECIPE_BYTES, RECIPE_DEPTH, RECIPE_VALUES

Path_ = tuple[str | int, ...]
Lines = dict[Path_, int]

_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)\Z")
_FLOAT = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)([eE][-+]?[0-9]+)?\Z")


class _PlainLoader(yaml.SafeLoader):
    """Parse and compose nodes only (values are resolved below); stop at a limit."""

    def __init__(self, stream: str, file: str | None) -> None:
        super().__init__(stream)
        self.file = file
        self.nodes = self.depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Hashable) -> yaml.Node | None:
        self.nodes += 1
        self.depth += 1
        place = _place(self.peek_event().start_mark)  # pyright: ignore[reportUnknownArgumentType]
        _require_values(self.nodes // 2, self.file, place)  # a mapping's keys are nodes too
        _require_depth(self.depth - 1, self.file, place)
        node = super().compose_node(parent, index)  # pyright: ignore
        self.depth -= 1
        return node


def read_yaml_file(path: Path) -> tuple[Any, Lines]:
    """Read a YAML file as plain data, with the line, counted from 1, of each key and list item.

    Raises:
        RecipeError: the file cannot be read or is not plain YAML.
    """
    try:
        raw = read_bounded(path, RECIPE_BYTES, "the recipe is too large", error=RecipeError)
    except FileNotFoundError:
        raise RecipeError(
            "there is no such recipe",
            file=path,
            expected="a YAML file",
            fix="check the path, or write one: tunewright init TASK",
        ) from None
    except OSError as error:
        raise RecipeError(
            f"the recipe cannot be read: {error.strerror}", file=path, expected="a readable file"
        ) from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise RecipeError(
            "the recipe is not UTF-8 text",
            file=path,
            place=f"line {line}",
            found=f"the byte 0x{raw[error.start]:02x}",
            expected="UTF-8",
            fix="save the file as UTF-8",
        ) from None
    return read_yaml(text, str(path))


def read_yaml(text: str, file: str | None = None) -> tuple[Any, Lines]:
    """Read YAML text like `read_yaml_file`; `file` is named in errors."""
    _require_bounded(text, file)
    try:
        node = yaml.compose(text, Loader=partial(_PlainLoader, file=file))  # pyright: ignore
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        found = _line_at(text, mark.line) if mark else None
        raise RecipeError(
            f"this is not YAML: {error.problem or error.context}",
            file=file,
            place=f"line {mark.line + 1}, column {mark.column + 1}" if mark else None,
            found=found or None,
            expected="key: value, indented by spaces",
            fix="check the brackets, quotes and indentation around this line (a tab cannot indent)",
        ) from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        position = getattr(error, "position", None)
        line = text[:position].count("\n") + 1 if isinstance(position, int) else 1
        raise RecipeError(
            "this is not YAML",
            file=file,
            place=f"line {line}",
            found=str(getattr(error, "reason", error)),
            expected="plain text of printable characters, not nested too deep",
            fix="correct this line",
        ) from None
    if node is None:
        return None, {}
    reader = _Reader(file)
    return reader.value(node, (), 0), reader.lines


def _require_bounded(text: str, file: str | None) -> None:
    """Check the number of values and the depth with the fast parser, if installed; syntax errors are reported later."""
    if (loader := getattr(yaml, "CSafeLoader", None)) is None:
        return
    count = depth = 0
    try:
        for event in yaml.parse(text, Loader=loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            count += isinstance(event, yaml.NodeEvent)
            place = _place(event.start_mark)
            _require_values(count // 2, file, place)  # a mapping's keys are counted too
            _require_depth(depth - 1, file, place)
    except (yaml.YAMLError, ValueError):
        return


class _Reader:
    """Convert composed nodes to values, and record their lines."""

    def __init__(self, file: str | None) -> None:
        self.file = file
        self.lines: Lines = {}
        self.nodes = 0

    def value(self, node: yaml.Node, path: Path_, depth: int) -> Any:
        self.nodes += 1
        place = _place(node.start_mark)
        _require_values(self.nodes, self.file, place)
        _require_depth(depth, self.file, place)
        self.lines.setdefault(path, node.start_mark.line + 1)
        if node.tag and not node.tag.startswith("tag:yaml.org,2002:"):
            raise self._error(node, f"tags are not allowed: {node.tag}", "plain values", "remove the tag")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            if node.tag != "tag:yaml.org,2002:seq":
                raise self._error(node, "tags are not allowed", "a plain list", "remove the tag")
            return [self.value(item, (*path, index), depth + 1) for index, item in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode)
        return self._scalar(node)

    def _mapping(self, node: yaml.MappingNode, path: Path_, depth: int) -> dict[str, Any]:
        if node.tag != "tag:yaml.org,2002:map":
            raise self._error(node, "tags are not allowed", "a plain mapping", "remove the tag")
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise self._error(key_node, "a key must be a name", "key: value", "write the key as text")
            key = self._text(key_node)
            if key == "<<" and key_node.style is None:
                raise self._error(key_node, "merge keys are not allowed", "the keys themselves", "write them out")
            if key in result:
                first = self.lines[(*path, key)]
                raise self._error(
                    key_node,
                    f"the key {key!r} is duplicated (first in line {first})",
                    "each key once",
                    "remove one of them",
                )
            self.lines[(*path, key)] = key_node.start_mark.line + 1
            result[key] = self.value(value_node, (*path, key), depth + 1)
        return result

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        text = self._text(node)
        known = ("str", "int", "float", "bool", "null", "timestamp", "merge", "value")
        if node.tag.removeprefix("tag:yaml.org,2002:") not in known:
            raise self._error(node, f"tags are not allowed: {node.tag}", "plain values", "remove the tag")
        if node.style is not None:
            return text
        if text in ("", "~", "null", "Null", "NULL"):
            return None
        if text in ("true", "True", "TRUE"):
            return True
        if text in ("false", "False", "FALSE"):
            return False
        if _INT.match(text) and len(text) < 20:
            return int(text)
        if _FLOAT.match(text):
            if not math.isfinite(number := float(text)):
                raise self._error(
                    node,
                    "the number is too large",
                    "a number below 1.8e308",
                    "write a smaller number, or quotes around text",
                )
            return number
        return text

    def _text(self, node: yaml.ScalarNode) -> str:
        if not node.value.isascii() and any("\ud800" <= character <= "\udfff" for character in node.value):
            raise self._error(
                node, "this is not Unicode text", "characters, not lone surrogates", r"remove the \ud800 to \udfff"
            )
        return node.value

    def _error(self, node: yaml.Node, problem: str, expected: str, fix: str) -> RecipeError:
        return RecipeError(problem, file=self.file, place=_place(node.start_mark), expected=expected, fix=fix)


def _require_values(count: int, file: str | None, place: str) -> None:
    RECIPE_VALUES.require(
        count,
        "the recipe expands to too many values",
        error=RecipeError,
        file=file,
        place=place,
        fix="use fewer aliases",
    )


def _require_depth(depth: int, file: str | None, place: str) -> None:
    RECIPE_DEPTH.require(
        depth, "the recipe is nested too deep", error=RecipeError, file=file, place=place, fix="write it flatter"
    )


def _place(mark: yaml.Mark) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}"


def _line_at(text: str, index: int) -> str:
    lines = text.splitlines()
    return lines[index].strip() if index < len(lines) else ""
