"""Find duplicate rows, exact or near, and test rows that are also in the training split."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from contextlib import closing

import numpy as np
import pyarrow as pa

from tunewright.data.checks.finding import Finding
from tunewright.data.checks.material import Material, shrink
from tunewright.data.prepared import Prepared
from tunewright.data.text.near_duplicates import NearTexts, bands

# Pictures whose mean-square difference, after shrinking, is below this are the same picture to the eye.
NEAR_PIXELS = 0.02
# Comparing every picture with every other is quadratic: so many at most. Texts take a few seconds for so many.
MOST_PICTURES = 12_000
MOST_TEXTS = 20_000
BLOCK = 1_000


def exact_duplicates(material: Material) -> list[Finding]:
    """Report rows with the same inputs: within the training, with another label, and across splits."""
    groups = [positions for positions in _same(_keys(material)).values() if len(positions) > 1]
    found: list[Finding] = []
    extra = sum(len(group) - 1 for group in groups)
    if groups:
        found.append(
            Finding(
                code="duplicates",
                severity="warning" if extra > 0.01 * len(material.rows) else "info",
                title=f"{extra:,} rows repeat the inputs of another row exactly",
                count=extra,
                examples=[" = ".join(material.name_row(i) for i in group[:3]) for group in groups[:3]],
                fix="remove the repetitions from the source, or keep them together: data.split: {by: group, column: …}",
            )
        )
    labels = material.labels
    torn = [group for group in groups if labels is not None and len(set(labels[group].tolist())) > 1]
    if torn and labels is not None and material.manifest.classes is not None:
        classes = material.manifest.classes
        found.append(
            Finding(
                code="conflicting-labels",
                severity="problem",
                title=f"{len(torn):,} groups of equal rows have different labels",
                count=len(torn),
                examples=[
                    ", ".join(f"{material.name_row(i)} {classes[labels[i]]!r}" for i in group[:3]) for group in torn[:3]
                ],
                fix="decide which label is right, and correct these rows in the source",
            )
        )
    return found + _leaked(material, groups, "exactly", "in-train")


def near_duplicates(material: Material) -> list[Finding]:
    """Report rows whose inputs are nearly the same: pictures by their pixels, texts by MinHash, tables by rounded numbers."""
    if material.pixels is not None:
        pairs, sampled = _near_pictures(material)
    elif any(column.kind == "text" for column in material.inputs):
        pairs, sampled = _near_texts(material)
    else:
        pairs, sampled = _near_rows(material)
    if not pairs:
        return []
    note = f" (among {sampled:,} rows drawn by the seed)" if sampled < len(material.rows) else ""
    found = [
        Finding(
            code="near-duplicates",
            severity="info",
            title=f"{len(pairs):,} pairs of rows are nearly the same{note}",
            count=len(pairs),
            examples=[f"{material.name_row(a)} ≈ {material.name_row(b)}" for a, b in pairs[:3]],
            fix="if they come from one original, keep them together: data.split: {by: group, column: …}",
        )
    ]
    return found + _leaked(material, [list(pair) for pair in pairs], "nearly", "near-train")


def leaks(prepared: Prepared, seed: int) -> list[Finding]:
    """Report rows of test and validation that are also in the training split, exactly or nearly."""
    material = Material(prepared, seed, "RECIPE")
    found = exact_duplicates(material) + near_duplicates(material)
    return [finding for finding in found if finding.code.endswith("-train")]  # as `_leaked` calls them


def _leaked(material: Material, groups: list[list[int]], how: str, code: str) -> list[Finding]:
    """Groups that hold a training row and a row of another split."""
    found: list[Finding] = []
    for split in ("test", "valid"):
        shared = [
            (
                next(i for i in group if material.splits[i] == split),
                next(i for i in group if material.splits[i] == "train"),
            )
            for group in groups
            if {split, "train"} <= set(material.splits[group].tolist())
        ]
        if shared:
            rows = max(1, int((material.splits == split).sum()))
            found.append(
                Finding(
                    code=f"{split}-{code}",
                    severity="problem"
                    if len(shared) > 0.01 * rows or (how == "exactly" and len(shared) > 0.001 * rows)
                    else "warning",
                    title=f"{len(shared):,} of {rows:,} {split} rows are {how} in the training split: the result will look better than it is",
                    count=len(shared),
                    examples=[f"{material.name_row(a)} and {material.name_row(b)}" for a, b in shared[:3]],
                    fix=f"remove the repetitions, or tunewright run {material.recipe} data.split.by=group data.split.column=COLUMN",
                )
            )
    return found


def _keys(material: Material) -> list[bytes]:
    pixels = material.pixels
    if pixels is not None:
        return [hashlib.blake2b(picture.tobytes(), digest_size=12).digest() for picture in pixels]
    return _row_keys([material.table[column.name] for column in material.inputs])


def _row_keys(columns: list[pa.ChunkedArray]) -> list[bytes]:
    listed = [column.to_pylist() for column in columns]
    return [hashlib.blake2b(repr(row).encode(), digest_size=12).digest() for row in zip(*listed)]


def _same(keys: list[bytes]) -> dict[bytes, list[int]]:
    groups: dict[bytes, list[int]] = defaultdict(list)
    for position, key in enumerate(keys):
        groups[key].append(position)
    return groups


def _near_pictures(material: Material) -> tuple[list[tuple[int, int]], int]:
    """Pairs of pictures that differ a little, but do differ; blockwise, so that memory stays flat."""
    pixels = material.pixels
    assert pixels is not None
    chosen = material.sample(MOST_PICTURES)
    small = shrink(pixels[chosen])
    squares = np.square(small).sum(1)
    limit = NEAR_PIXELS**2 * small.shape[1]
    pairs: list[tuple[int, int]] = []
    for start in range(0, len(small), BLOCK):
        block = small[start : start + BLOCK]
        distance = squares[start : start + BLOCK, None] + squares[None, start:] - 2 * block @ small[start:].T
        for a, b in np.argwhere(np.triu(distance < limit, k=1)):
            first, second = int(chosen[start + a]), int(chosen[start + b])
            if not np.array_equal(pixels[first], pixels[second]):
                pairs.append((first, second))
    return pairs, len(chosen)


def _near_texts(material: Material) -> tuple[list[tuple[int, int]], int]:
    """Return each text that is nearly, but not quite, the same as an earlier one, with the first of its kind."""
    chosen = material.sample(MOST_TEXTS)
    names = [column.name for column in material.inputs if column.kind == "text"]
    columns = [material.table[name].take(pa.array(chosen)).to_pylist() for name in names]
    texts = ["\n".join(cell or "" for cell in cells) for cells in zip(*columns)]
    with closing(NearTexts()) as near:
        for place, text in enumerate(texts):
            if (key := bands(text)) is not None:
                near.add(place, key)
        alike = near.repeated()
    pairs = [(first, later) for later, first in alike.items() if texts[first] != texts[later]]
    return [(int(chosen[first]), int(chosen[later])) for first, later in pairs], len(chosen)


def _near_rows(material: Material) -> tuple[list[tuple[int, int]], int]:
    """Pairs of rows that are equal once numbers are rounded to three digits, but not before."""
    numbers = [column for column in material.inputs if column.kind == "number"]
    if len(numbers) < 3:
        return [], len(material.rows)
    rounded: list[pa.ChunkedArray] = []
    for column in material.inputs:
        values = material.table[column.name]
        if column.kind == "number":
            raw = values.to_numpy().astype(np.float64)
            spread = float(np.nanstd(raw)) or 1.0
            values = pa.chunked_array([np.round(raw / spread, 2)])
        elif column.kind == "array":
            continue
        rounded.append(values)
    exact = _row_keys([material.table[column.name] for column in material.inputs if column.kind != "array"])
    pairs = [
        (group[0], other)
        for group in _same(_row_keys(rounded)).values()
        for other in group[1:]
        if exact[group[0]] != exact[other]
    ]
    return pairs, len(material.rows)
