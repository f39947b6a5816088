"""CoNLL files: sentences with tags, and what is said of lines that are no token and tag."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from tunewright.data.prepare.prepare import prepare
from tunewright.data.prepared import Prepared
from tunewright.errors import DataError
from tunewright.recipe.schema import Data

# The first sentence of the CoNLL-2003 paper (Tjong Kim Sang and De Meulder 2003, figure 1).
ENGLISH = """-DOCSTART- -X- -X- O

U.N. NNP I-NP I-ORG
official NN I-NP O
Ekeus NNP I-NP I-PER
heads VBZ I-VP O
for IN I-PP O
Baghdad NNP I-NP I-LOC
. . O O

"""


def read(path: Path, **data: object) -> Prepared:
    return prepare(Data(source=str(path), **data), seed=0, target_kind="structure", base=Path("."))


def sentences(prepared: Prepared) -> dict[int, tuple[list[str], list[str]]]:
    tables = [prepared.table(split) for split in prepared.manifest.splits]
    return {row["_row"]: (row["tokens"], row["tags"]) for table in tables for row in table.to_pylist()}


@pytest.mark.parametrize("name", ["a.conll", "a.iob2", "a.conll.gz"])
def test_sentences_of_four_columns(tmp_path: Path, name: str) -> None:
    content = (ENGLISH * 20).encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    prepared = read(tmp_path / name)
    manifest = prepared.manifest
    assert (manifest.format, manifest.target, manifest.input, manifest.used) == ("conll", "tags", ["tokens"], 20)
    first = sentences(prepared)[3]
    assert first[0] == ["U.N.", "official", "Ekeus", "heads", "for", "Baghdad", "."]
    assert first[1] == ["I-ORG", "O", "I-PER", "O", "O", "I-LOC", "O"]
    assert sorted(sentences(prepared))[:2] == [3, 13]


def test_tabs_keep_spaces_inside_tokens_and_the_last_line_needs_no_end(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("New York\tx\tB-LOC\r\n你好\tx\tO\n\n \n" * 30 + "end\tx\tO")
    prepared = read(path, format="conll")
    assert sentences(prepared)[1] == (["New York", "你好"], ["B-LOC", "O"])
    assert prepared.manifest.used == 31 and sentences(prepared)[121] == (["end"], ["O"])


def test_a_sentence_with_a_wrong_line_is_skipped_and_named(tmp_path: Path) -> None:
    path = tmp_path / "t.conll"
    path.write_text("a O\nb O\n\n" * 30 + "c O\nd\ne O\n\nf O extra\n\n")
    (entry,) = read(path).manifest.skipped
    assert entry.count == 2 and "token and tag" in entry.reason
    assert entry.examples == ["line 92: 1 column instead of 2: 'd'", "line 95: 3 columns instead of 2: 'f O extra'"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no sentence"),
        (b"\n\n-DOCSTART- -X- O\n\n", "no sentence"),
        (b"word\nword O\n", "line 1"),
        (b"a O\n\nb \xff O\n", "line 3"),
        (b"a O\n" * 5_000, "line 2001"),
    ],
)
def test_files_that_are_none(tmp_path: Path, content: bytes, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEWRIGHT_LIMIT_STRUCTURE_VALUES", "2000")
    path = tmp_path / "t.conll"
    path.write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        read(path)
    assert "t.conll" in caught.value.message
