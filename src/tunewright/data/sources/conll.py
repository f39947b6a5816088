"""CoNLL files: a token and its tag a line, a blank line after each sentence, as CoNLL-2003 has named entities.

The first column is the token and the last one its tag; columns between them, such as parts of speech, are not read. Columns are
divided by tabs where the first line has one, and by spaces otherwise. Lines that begin with -DOCSTART- divide documents.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pyarrow as pa

from tunewright.data.manifest import Column, Rejects
from tunewright.data.source import BATCH_ROWS, ROW, Source
from tunewright.data.sources.text import text_lines
from tunewright.data.structure import STRING, Form, arrow_type
from tunewright.errors import DataError, shorten
from tunewright.limits import STRUCTURE_VALUES

TOKENS, TAGS = "tokens", "tags"
FORM: Form = [STRING]
DOCUMENT = "-DOCSTART-"
# Tokens in one batch: sentences may be long.
BATCH_TOKENS = 1_000_000


@dataclass
class _Sentence:
    first: int
    """The line of its first token: the sentence's row number."""
    tokens: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    problem: str | None = None
    """The first line that cannot be read, and why."""


def read_conll(path: Path) -> Source:
    """Read a CoNLL file, gzipped or not, with columns `tokens` and `tags`, lists of texts; a row's number is that of its first
    line.

    Raises:
        DataError: it holds no sentence, or a line is not UTF-8 text.
    """
    if next(_sentences(path), None) is None:
        raise DataError(
            "the file holds no sentence",
            file=path,
            expected="lines such as `Berlin B-LOC`, with a blank line after each sentence",
            fix="check the file",
        )
    known = {name: Column(name=name, kind="structure", form=FORM) for name in (TOKENS, TAGS)}
    return Source(format="conll", parts={"all": partial(_batches, path)}, files=[path], known=known, target=TAGS)


def _batches(path: Path, rejects: Rejects) -> Iterator[pa.Table]:
    held: list[_Sentence] = []
    size = 0
    for sentence in _sentences(path):
        if sentence.problem is not None:
            rejects.add(
                "a sentence with a line that is no token and tag",
                sentence.problem,
                f"correct these lines in {path.name}: a token and its tag, in as many columns as the first line has",
            )
            continue
        held.append(sentence)
        size += len(sentence.tokens)
        if len(held) == BATCH_ROWS or size > BATCH_TOKENS:
            yield _table(held)
            held, size = [], 0
    yield _table(held)


def _table(sentences: list[_Sentence]) -> pa.Table:
    kind = arrow_type(FORM)
    return pa.table(
        {
            TOKENS: pa.array([sentence.tokens for sentence in sentences], kind),
            TAGS: pa.array([sentence.tags for sentence in sentences], kind),
            ROW: pa.array([sentence.first for sentence in sentences], pa.int64()),
        }
    )


def _sentences(path: Path) -> Iterator[_Sentence]:
    """
    Raises:
        DataError: a line is not UTF-8 text, the first one has no tag, or a sentence has more tokens than a cell may hold.
    """
    most = STRUCTURE_VALUES.value
    columns: _Columns | None = None
    current: _Sentence | None = None
    for number, line in text_lines(path):
        if not line.strip() or line.startswith(DOCUMENT):
            if current is not None:
                yield current
            current = None
            continue
        columns = columns or _columns(line, path, number)
        current = current or _Sentence(number)
        try:
            token, tag = columns.read(line)
        except ValueError as error:
            current.problem = current.problem or f"line {number}: {error}: {shorten(line, 60)!r}"
            continue
        current.tokens.append(token)
        current.tags.append(tag)
        if len(current.tokens) > most:
            fix = "put a blank line after each sentence"
            STRUCTURE_VALUES.require(
                len(current.tokens), "a sentence has too many tokens", file=path, place=f"line {number}", fix=fix
            )
    if current is not None:
        yield current


@dataclass(frozen=True)
class _Columns:
    """How a line is divided."""

    count: int
    tabs: bool

    def read(self, line: str) -> tuple[str, str]:
        """Token and tag. Raises ValueError for a line of other columns."""
        cells = [cell.strip() for cell in line.split("\t")] if self.tabs else line.split()
        if len(cells) != self.count:
            raise ValueError(f"{len(cells)} column{'s' if len(cells) != 1 else ''} instead of {self.count}")
        if not cells[0] or not cells[-1]:
            raise ValueError("an empty column")
        return cells[0], cells[-1]


def _columns(line: str, path: Path, number: int) -> _Columns:
    """Return how the first line is divided. Raises DataError when it has one column."""
    tabs = "\t" in line
    count = line.count("\t") + 1 if tabs else len(line.split())
    if count < 2:
        raise DataError(
            "the token has no tag",
            file=path,
            place=f"line {number}",
            found=shorten(line, 60),
            expected="a token and its tag, divided by spaces or a tab",
            fix="check the file; for plain text: data.format: text",
        )
    return _Columns(count=count, tabs=tabs)
