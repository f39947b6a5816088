"""Formats of installed packages: read by `data.format` or by FORMAT:NAME, listed in errors, and never in the place of ours."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tunewright.data.prepare.prepare import prepare
from tunewright.data.prepared import Prepared
from tunewright.data.sources.open import BUILTIN, SOURCES, locate
from tunewright.errors import ArtifactError, DataError, RecipeError
from tunewright.recipe.loading import recipe_from_dict
from tunewright.recipe.schema import FORMATS, Data
from tunewright.tasks.registry import task_defaults

MODULE = """
import pyarrow as pa

from tunewright.data.source import Source, from_arrays
from tunewright.data.sources.open import SourceFormat


def read(request):
    if request.by_scheme:
        count, content = int(request.name), request.name
        lines = [f"{i},{'ab'[i % 2]}" for i in range(count)]
        files = []
    else:
        lines, content, files = request.path.read_text().split(), None, [request.path]
    x, label = zip(*(line.split(",") for line in lines))
    columns = {"x": pa.array(x), "label": pa.array(label)}
    return Source(format="pairs", parts={"all": from_arrays(columns)}, files=files, content=content, target="label")


def read_nameless(request):
    return Source(format="nameless", parts={"all": from_arrays({"x": pa.array(["1"])})})


PAIRS = SourceFormat(read=read, folders=False, names=True)
NAMELESS = SourceFormat(read=read_nameless)
"""


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed distribution with formats of its own, one named as ours is."""
    installed = tmp_path / "site"
    facts = installed / "added_formats-1.0.dist-info"
    facts.mkdir(parents=True)
    (installed / "added_formats.py").write_text(MODULE)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: added-formats\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(
        "[tunewright.sources]\npairs = added_formats:PAIRS\ncsv = added_formats:PAIRS\n"
        "nameless = added_formats:NAMELESS\nbroken = added_formats:MISSING\n"
    )
    monkeypatch.syspath_prepend(str(installed))
    monkeypatch.delitem(sys.modules, "added_formats", raising=False)
    monkeypatch.setattr(SOURCES, "_loaded", {})


def read(source: str, base: Path = Path("."), **data: object) -> Prepared:
    return prepare(Data(source=source, **data), seed=0, target_kind="category", base=base)


def test_a_file_of_a_packages_format(tmp_path: Path) -> None:
    path = tmp_path / "data.pairs"
    path.write_text("\n".join(f"{i},{'ab'[i % 2]}" for i in range(60)))
    manifest = read("data.pairs", tmp_path, format="pairs").manifest
    assert (manifest.format, manifest.used, manifest.classes) == ("pairs", 60, ["a", "b"])
    # What the file holds is noticed, although only the package knows which files it reads.
    path.write_text("\n".join(f"{i},{'xyz'[i % 3]}" for i in range(90)))
    assert read("data.pairs", tmp_path, format="pairs").manifest.classes == ["x", "y", "z"]
    assert locate(Data(source="data.pairs", format="pairs"), tmp_path) is None


def test_a_name_of_a_packages_service() -> None:
    assert read("pairs:80").manifest.used == 80
    assert locate(Data(source="pairs:80"), Path(".")) is None


def test_ours_are_not_replaced_and_all_are_listed(tmp_path: Path) -> None:
    assert SOURCES["csv"] is BUILTIN["csv"]
    (tmp_path / "data.xyz").write_text("x,label\n1,a\n")
    with pytest.raises(RecipeError, match="pears") as unknown:
        recipe_from_dict(
            {"task": "tabular-classification", "data": {"source": "x", "format": "pears"}}, defaults=task_defaults
        )
    assert "conll" in unknown.value.message and "did you mean pairs" in unknown.value.message
    with pytest.raises(DataError, match="pairs") as unseen:
        read("data.xyz", tmp_path)
    assert "data.format" in unseen.value.message
    with pytest.raises(DataError, match="pairs:NAME"):
        read("nothing", tmp_path)


def test_what_a_package_does_wrong_is_said(tmp_path: Path) -> None:
    (tmp_path / "data.xyz").write_text("1")
    with pytest.raises(ArtifactError, match="added-formats"):
        read("data.xyz", tmp_path, format="broken")
    with pytest.raises(ArtifactError, match="hash of the content"):
        read("data.xyz", tmp_path, format="nameless")
    with pytest.raises(DataError, match="pairs data is not a folder"):
        read(".", tmp_path, format="pairs")


def test_the_recipe_knows_the_formats_that_can_be_read() -> None:
    assert tuple(BUILTIN) == FORMATS
