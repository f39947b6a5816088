"""Leave out of a corpus what is not worth learning from: by rules, near duplicates, and what the evaluation texts hold.

The rows stream through twice, once to see which texts are alike and which are the evaluation's, once to leave rows out; each
that is left out is counted under its reason, and three are named.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tunewright.data import splits
from tunewright.data.columns import Rejects
from tunewright.data.near_texts import NearTexts, Passages
from tunewright.data.sources.base import ROW
from tunewright.data.text_rules import LIMITS, broken_rule
from tunewright.errors import RecipeError, shorten
from tunewright.recipe.named import suggest
from tunewright.recipe.schema import Clean

# A table and the split of each of its rows.
Divided = tuple[pa.Table, np.ndarray]


@dataclass
class Cleaning:
    """What was found in a first pass, and the place in the second."""

    clean: Clean
    column: str
    first: dict[int, int] = field(default_factory=dict)
    """The places of texts that are nearly the same as an earlier one, with the row number of the first of their kind."""
    passages: Passages = field(default_factory=Passages)
    place: int = 0

    def keep(self, table: pa.Table, assigned: np.ndarray, rejects: Rejects) -> Divided:
        """The rows that stay, in the second pass."""
        keep = np.ones(table.num_rows, bool)
        rows = table[ROW].to_pylist()
        for index, text in enumerate(_texts(table, self.column)):
            reason = self._reason(text, self.place + index, int(assigned[index]))
            if reason is not None:
                keep[index] = False
                said, detail, fix = reason
                rejects.add(said, f"row {rows[index]}: {detail or shorten(text, 40)!r}", fix)
        self.place += table.num_rows
        return table.filter(pa.array(keep)), assigned[keep]

    def _reason(self, text: str, place: int, split: int) -> tuple[str, str, str] | None:
        """Why a text is left out: what is said of all such, more about this one, and how to have it otherwise."""
        if (broken := broken_rule(text, self.clean.rules, self.clean.limits)) is not None:
            name = broken.split(":")[0].split(", ")[1]
            return broken, "", f"data.clean.limits: {{{name}: null}} switches this rule off, a number changes it"
        if place in self.first:
            fix = "data.clean.near_duplicates: false keeps them"
            return "nearly the same as an earlier text", f"as row {self.first[place]}: {shorten(text, 30)}", fix
        if split == splits.TRAIN and self.clean.contamination and self.passages.in_text(text):
            fix = "data.clean.contamination: false keeps them, and the result looks better than it is"
            return "a run of 13 words of a validation or test text stands in it", "", fix
        return None


def look_at(clean: Clean, column: str, divided: Iterable[Divided]) -> Cleaning:
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
    found = Cleaning(clean, column)
    near = NearTexts() if clean.near_duplicates else None
    rows: list[np.ndarray] = []
    place = 0
    for table, assigned in divided if clean.near_duplicates or clean.contamination else ():
        rows.append(np.asarray(table[ROW]))
        for index, text in enumerate(_texts(table, column)):
            if broken_rule(text, clean.rules, clean.limits) is not None:
                continue
            if near is not None:
                near.add(place + index, text)
            if clean.contamination and assigned[index] != splits.TRAIN:
                found.passages.add(text)
        place += table.num_rows
    if near is not None:
        numbers = np.concatenate([np.empty(0, np.int64), *rows])
        found.first = {one: int(numbers[other]) for one, other in near.repeated().items()}
    found.passages.close()
    return found


def _texts(table: pa.Table, column: str) -> list[str]:
    return pc.fill_null(table[column].cast(pa.string()), "").to_pylist()
