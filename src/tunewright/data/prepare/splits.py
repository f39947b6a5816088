"""Which row belongs to which split: a function of the seed and the row's number, class, group or time alone.

So rows can be assigned while they stream past, and the same data is always divided in the same way.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tunewright.random import mix, uniform
from tunewright.recipe.schema import Split

TRAIN, VALID, TEST = 0, 1, 2
NAMES = ("train", "valid", "test")

# Within each run of so many rows of a stratum, each split gets its exact share, in random places.
BLOCK = 20

Assign = Callable[[pa.Table], np.ndarray]


@dataclass
class Strata:
    """Assigns rows in random places, with exact proportions within each stratum: one stratum, or one for each class."""

    seed: int
    valid: float
    test: float
    column: str | None
    _counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def __call__(self, table: pa.Table) -> np.ndarray:
        if self.column is None:
            return self._draw("", table.num_rows)
        splits = np.zeros(table.num_rows, dtype=np.int8)
        encoded = pc.dictionary_encode(table[self.column].combine_chunks())
        indices = encoded.indices.to_numpy(zero_copy_only=False)
        for index, value in enumerate(encoded.dictionary.to_pylist()):
            where = np.flatnonzero(indices == index)
            splits[where] = self._draw(str(value), len(where))
        return splits

    def _draw(self, stratum: str, count: int) -> np.ndarray:
        start = self._counts[stratum]
        self._counts[stratum] += count
        first, last = start // BLOCK, (start + count - 1) // BLOCK
        blocks = np.arange(first, last + 1)
        ranks = uniform(self.seed, f"split:{stratum}", 0, blocks, BLOCK).argsort(1).argsort(1)
        test = _share(blocks, self.test)
        held = _share(blocks, self.test + self.valid)
        splits = np.where(ranks < test[:, None], TEST, np.where(ranks < held[:, None], VALID, TRAIN)).astype(np.int8)
        return splits.reshape(-1)[start - first * BLOCK :][:count]


def _share(blocks: np.ndarray, fraction: float) -> np.ndarray:
    """How many of each block's rows a fraction amounts to, so that the sums over blocks stay within one row of exact."""
    edges = np.floor(np.stack([blocks, blocks + 1]) * BLOCK * fraction + 0.5)
    return (edges[1] - edges[0]).astype(np.int64)


@dataclass(frozen=True)
class ByGroup:
    """A group, such as a patient or a speaker, is never divided: its name alone decides."""

    seed: int
    valid: float
    test: float
    column: str

    def __call__(self, table: pa.Table) -> np.ndarray:
        encoded = pc.dictionary_encode(table[self.column].combine_chunks().cast(pa.string()), null_encoding="encode")
        drawn = np.array([self._draw(value) for value in encoded.dictionary.to_pylist()], dtype=np.int8)
        return drawn[encoded.indices.to_numpy(zero_copy_only=False)]

    def _draw(self, group: str | None) -> int:
        digest = hashlib.blake2b(f"{mix(self.seed, 'group')}:{group}".encode(), digest_size=8).digest()
        share = int.from_bytes(digest, "little") / 2**64
        return TEST if share < self.test else VALID if share < self.test + self.valid else TRAIN


@dataclass(frozen=True)
class ByTime:
    """The latest rows are the test, those before them the validation; equal times stay together."""

    column: str
    valid_from: object
    test_from: object

    def __call__(self, table: pa.Table) -> np.ndarray:
        values = time_values(table[self.column])
        splits = np.full(table.num_rows, TRAIN, dtype=np.int8)
        if self.valid_from is not None:
            splits[values >= self.valid_from] = VALID
        if self.test_from is not None:
            splits[values >= self.test_from] = TEST
        return splits


@dataclass(frozen=True)
class Within:
    """Each group's rows are divided in proportion; the row's number says where it goes."""

    rows: np.ndarray
    """[N] int64, rising."""
    splits: np.ndarray

    def __call__(self, table: pa.Table) -> np.ndarray:
        return self.splits[np.searchsorted(self.rows, np.asarray(table["_row"]))]


def within(split: Split, seed: int, groups: np.ndarray, rows: np.ndarray, times: np.ndarray | None) -> Within:
    """Divide the rows of each group, at random or by time.

    `by: last`: the last row is the test, the one before it the validation, where one is left to learn from. Otherwise of n rows
    ⌊n · share⌋ are the test and likewise the validation, and one where that is none, so long as one is left to learn from (as
    RecBole's ratio split has it).

    Args:
        groups: [N], any values; rows: [N] int64; times: [N], None: at random.
    """
    _, group = np.unique(groups, return_inverse=True)
    drawn = uniform(seed, "split:within", 0, rows, 1)[:, 0]
    order = np.lexsort((drawn, group)) if times is None else np.lexsort((drawn, times, group))
    sizes = np.bincount(group)
    shares = (0.0, 0.0) if split.by == "last" else (split.test, split.valid)
    test, valid = (np.floor(sizes * share).astype(int) for share in shares)
    for held, share in ((test, split.test), (valid, split.valid)):
        held += (held == 0) & (share > 0) & (sizes - test - valid > 1)
    place = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)  # among its group's rows
    size, held, tested = (np.repeat(values, sizes) for values in (sizes, test + valid, test))
    found = np.where(place >= size - tested, TEST, np.where(place >= size - held, VALID, TRAIN)).astype(np.int8)
    assigned = np.empty(len(order), np.int8)
    assigned[order] = found
    rising = np.argsort(rows)
    return Within(rows[rising], assigned[rising])


def time_values(column: pa.ChunkedArray) -> np.ndarray:
    """A column of times or numbers as something that can be ordered: text in ISO form orders as it is."""
    if pa.types.is_floating(column.type):
        return column.to_numpy()
    return np.array([value or "" for value in column.to_pylist()], dtype=object)


def by_time(split: Split, values: np.ndarray) -> ByTime:
    """The cuts, from the times of all rows."""
    ordered = np.sort(values)
    count = len(ordered)

    def cut(share: float) -> object:
        return ordered[min(count - 1, count - round(share * count))] if share and round(share * count) else None

    return ByTime(split.column or "", cut(split.valid + split.test) if split.valid else None, cut(split.test))


def describe(split: Split, official: set[str]) -> str:
    """The rule in one sentence, shown with every result."""
    ways: dict[str | None, str] = {
        "random": "at random",
        "stratified": "at random within each class",
        "group": f"by {split.column!r}: no group is in two splits",
        "time": f"by {split.column!r}: the latest rows are the test",
        "within": f"of each {split.column!r}: "
        + (f"its latest rows by {split.order!r}" if split.order else "at random"),
        "last": f"of each {split.column!r} one row: "
        + (f"its latest by {split.order!r}" if split.order else "at random"),
    }
    shares = {name: "" if split.by == "last" else f"{getattr(split, name):.0%} " for name in ("valid", "test")}
    valid = f"{shares['valid']}validation" if split.valid and "valid" not in official else ""
    test = f"{shares['test']}test" if split.test and "test" not in official else ""
    drawn = " and ".join(part for part in (valid, test) if part)
    kept = (
        f"the source's own {' and '.join(sorted(official - {'train', 'all'}))} part"
        if official - {"train", "all"}
        else ""
    )
    return "; ".join(part for part in (f"{drawn} {ways[split.by]}" if drawn else "", kept) if part) or "all rows train"
