"""What an attack is: hostile files in a folder of their own, and the command that a victim would type there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Scene:
    """Where an attack takes place."""

    folder: Path
    """The victim's working folder; the attack may write files here, and Tunewright may too."""
    secret: Path
    """A file outside of the folder that must not be read: its content is looked for everywhere afterwards."""
    trace: Path
    """A payload that runs creates this file."""


@dataclass(frozen=True)
class Attempt:
    """One try.

    prepare: writes the hostile files into the scene and returns the words of the command line.
    fresh: start a new interpreter, as a person would; otherwise a fork of one that has imported everything.
    """

    kind: str
    name: str
    prepare: Callable[[Scene], list[str]]
    fresh: bool = False
