"""Entry points: what an installed package adds is found by name, and never takes the place of what is built in."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tunewright.errors import ArtifactError
from tunewright.plugins import Registry


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed distribution with three entry points of one group."""
    (tmp_path / "added_things.py").write_text("NEW = 7\n")
    facts = tmp_path / "added_things-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: added-things\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(
        "[tunewright.numbers]\nnew = added_things:NEW\none = added_things:NEW\nbroken = added_things:MISSING\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "added_things", raising=False)


@pytest.mark.usefixtures("package")
def test_a_package_adds_things_and_replaces_none() -> None:
    numbers = Registry("tunewright.numbers", {"one": 1, "two": 2})
    assert list(numbers) == ["one", "two", "new", "broken"] and len(numbers) == 4
    assert (numbers["one"], numbers["new"]) == (1, 7)
    assert "new" in numbers and "three" not in numbers and numbers.get("three") is None


@pytest.mark.usefixtures("package")
def test_a_package_that_cannot_be_loaded_is_named() -> None:
    with pytest.raises(ArtifactError, match="broken") as raised:
        Registry("tunewright.numbers", {})["broken"]
    assert "added-things" in str(raised.value)
