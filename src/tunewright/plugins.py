"""Look up built-in objects by name, and those that other packages add through entry points."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from tunewright.errors import ArtifactError

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """Map names to objects: the built-in ones first, then those of installed packages.

    An entry point is loaded when its name is looked up, not before. A built-in name cannot be replaced.

    Args:
        group: the group of entry points, such as `tunewright.tasks`.
        builtin: the objects of Tunewright itself.
    """

    def __init__(self, group: str, builtin: Mapping[str, T]) -> None:
        self.group = group
        self.builtin = dict(builtin)
        self._loaded: dict[str, T] = {}

    def add(self, name: str, thing: T) -> None:
        """Add a thing for this process, such as what a task's own file defines; a name that is known stays as it is."""
        self.builtin.setdefault(name, thing)

    def _added(self) -> dict[str, EntryPoint]:
        return {entry.name: entry for entry in entry_points(group=self.group) if entry.name not in self.builtin}

    def __getitem__(self, name: str) -> T:
        """Return the object of this name.

        Raises:
            KeyError: there is none.
            ArtifactError: the package that adds it cannot be imported.
        """
        if name in self.builtin:
            return self.builtin[name]
        if name not in self._loaded:
            entry = self._added()[name]
            try:
                self._loaded[name] = entry.load()
            except Exception as error:  # a package may raise anything when it is imported
                raise ArtifactError(
                    f"the package that adds {name} to {self.group} cannot be loaded: {type(error).__name__}: {error}",
                    found=entry.value,
                    expected="a package that imports without an error",
                    fix=f"update or uninstall {entry.dist.name if entry.dist else 'the package'}",
                ) from error
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        yield from self.builtin
        yield from self._added()

    def __len__(self) -> int:
        return len(self.builtin) + len(self._added())

    def __contains__(self, name: object) -> bool:
        return name in self.builtin or name in self._added()
