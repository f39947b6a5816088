"""Remove texts from a corpus: those that break a quality rule, near duplicates, and texts that contain evaluation texts.

The rows stream through twice, once to find near duplicates and the passages of evaluation texts, once to skip rows; each
skipped row is counted under its reason, and three are named.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tunewright.data.manifest import Rejects
from tunewright.data.prepare import splits
from tunewright.data.prepare.executor import Engine, worked
from tunewright.data.source import ROW
from tunewright.data.text.near_duplicates import NearTexts, Passages, bands, passages_of
from tunewright.data.text.quality_filters import LIMITS, broken_rule
from tunewright.errors import RecipeError, shorten
from tunewright.recipe.named import suggest
from tunewright.recipe.schema import Clean

# A table and the split of each of its rows.
Divided = tuple[pa.Table, np.ndarray]


# The MinHash bands of a text, and its passages if it is in validation or test; None where they are not needed.
Marks = tuple[np.ndarray | None, np.ndarray | None]


@dataclass
class Cleaning:
    """What the first pass found, for the second."""

    clean: Clean
    column: str
    engine: Engine
    first: dict[int, int] = field(default_factory=dict)
    """The places of texts that are nearly the same as an earlier one, with the row number of the first of their kind."""
    passages: Passages = field(default_factory=Passages)

    def kept(self, divided: Iterable[Divided], rejects: Rejects) -> Iterator[Divided]:
        """The rows that stay: the second pass."""
        place = 0
        for (table, assigned), reasons in worked(
            self.engine, _reasons, (self.clean, self.column, self.passages), divided
        ):
            keep = np.ones(table.num_rows, bool)
            rows = table[ROW].to_pylist()
            for index, (broken, copied) in enumerate(reasons):
                if broken is None and place + index not in self.first and not copied:
                    continue
                keep[index] = False
                text = shorten(table[self.column][index].as_py() or "", 40)
                reason, detail, fix = self._reason(broken, place + index, text)
                rejects.add(reason, f"row {rows[index]}: {detail or text!r}", fix)
            place += table.num_rows
            yield table.filter(pa.array(keep)), assigned[keep]

    def _reason(self, broken: str | None, place: int, text: str) -> tuple[str, str, str]:
        """Why a text is skipped: the reason, details of this text, and the setting that keeps it."""
        if broken is not None:
            name = broken.split(":")[0].split(", ")[1]
            return broken, "", f"data.clean.limits: {{{name}: null}} switches this rule off, a number changes it"
        if place in self.first:
            fix = "data.clean.near_duplicates: false keeps them"
            return "nearly the same as an earlier text", f"as row {self.first[place]}: {shorten(text, 30)}", fix
        fix = "data.clean.contamination: false keeps them, and the result looks better than it is"
        return "it contains 13 consecutive words of a validation or test text", "", fix


def find_repeats(clean: Clean, column: str, divided: Iterable[Divided], engine: Engine) -> Cleaning:
    """The first pass.

    Args:
        column: the one with the texts.
        divided: all rows that could be used, as the second pass will bring them.

    Raises:
        RecipeError: a limit for a rule that there is not.
    """
    for name in clean.limits:
        if name not in LIMITS:
            raise RecipeError(
                "there is no such rule",
                place="data.clean.limits",
                found=name,
                expected=", ".join(LIMITS),
                fix=suggest(name, LIMITS),
            )
    found = Cleaning(clean, column, engine)
    rows: list[np.ndarray] = [np.empty(0, np.int64)]
    place = 0
    needed = divided if clean.near_duplicates or clean.contamination else ()
    with closing(NearTexts()) as near:
        for (table, _), marks in worked(engine, _marks, (clean, column), needed):
            rows.append(np.asarray(table[ROW]))
            for index, (key, passages) in enumerate(marks):
                if key is not None:
                    near.add(place + index, key)
                if passages is not None:
                    found.passages.add(passages)
            place += table.num_rows
        numbers = np.concatenate(rows)
        found.first = {one: int(numbers[other]) for one, other in near.repeated().items()}
    found.passages.close()
    return found


def _marks(shared: tuple[Clean, str], piece: Divided) -> list[Marks]:
    clean, column = shared
    table, assigned = piece
    found: list[Marks] = []
    for text, split in zip(_texts(table, column), assigned, strict=True):
        whole = broken_rule(text, clean.rules, clean.limits) is None
        evaluated = clean.contamination and split != splits.TRAIN
        found.append(
            (
                bands(text) if whole and clean.near_duplicates else None,
                passages_of(text) if whole and evaluated else None,
            )
        )
    return found


def _reasons(shared: tuple[Clean, str, Passages], piece: Divided) -> list[tuple[str | None, bool]]:
    """Of each text the rule that it breaks, and whether it holds a passage that it must not."""
    clean, column, passages = shared
    table, assigned = piece
    found: list[tuple[str | None, bool]] = []
    for text, split in zip(_texts(table, column), assigned, strict=True):
        broken = broken_rule(text, clean.rules, clean.limits)
        trained = broken is None and clean.contamination and split == splits.TRAIN
        found.append((broken, trained and passages.in_text(text)))
    return found


def _texts(table: pa.Table, column: str) -> list[str]:
    return pc.fill_null(table[column].cast(pa.string()), "").to_pylist()
