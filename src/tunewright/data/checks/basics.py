"""What was read, what the columns are, what is missing, how the classes are spread."""

from __future__ import annotations

import numpy as np
import pyarrow.compute as pc

from tunewright.data.checks.finding import Finding
from tunewright.data.checks.material import Material


def rows_read(material: Material) -> list[Finding]:
    """Report the rows read and used, and each reason for which some were skipped."""
    manifest = material.manifest
    parts = ", ".join(f"{split} {material.prepared.rows(split):,}" for split in manifest.splits)
    found = [
        Finding(
            code="rows",
            severity="info",
            title=f"{manifest.read:,} rows read, {manifest.used:,} used ({parts}); {manifest.split_rule}",
            count=manifest.used,
        )
    ]
    for entry in manifest.skipped:
        unreadable = "cannot be read" in entry.reason
        found.append(
            Finding(
                code="unreadable" if unreadable else "skipped-rows",
                severity="warning",
                title=f"{entry.count:,} rows were skipped: {entry.reason}",
                count=entry.count,
                examples=entry.examples,
                fix=entry.fix,
            )
        )
    return found


def types(material: Material) -> list[Finding]:
    """Return the kind of each column, the inputs, and the target with the reason."""
    manifest = material.manifest
    kinds: dict[str, list[str]] = {}
    for column in manifest.columns:
        kinds.setdefault(column.kind, []).append(column.name)
    shown = [f"{kind}: {', '.join(names[:6])}{' …' if len(names) > 6 else ''}" for kind, names in kinds.items()]
    target = f"target {manifest.target!r} ({manifest.target_reason})" if manifest.target else "no target"
    inputs = ", ".join(manifest.input[:5]) + (f" and {len(manifest.input) - 5} more" if len(manifest.input) > 5 else "")
    return [
        Finding(
            code="types",
            severity="info",
            title=f"{target}; input {inputs}",
            count=len(manifest.columns),
            examples=shown,
            fix=f"tunewright run {material.recipe} data.target=COLUMN data.input=[COLUMN, …] if this is not what you meant",
        )
    ]


def missing_values(material: Material) -> list[Finding]:
    """Input columns with empty cells."""
    manifest = material.manifest
    gaps = sorted((c for c in material.inputs if c.missing), key=lambda column: -column.missing)
    if not gaps:
        return []
    share = gaps[0].missing / max(1, manifest.used)
    return [
        Finding(
            code="missing-values",
            severity="warning" if share > 0.2 else "info",
            title=f"{len(gaps)} input columns have empty cells; {gaps[0].name!r} most, {share:.1%}",
            count=sum(column.missing for column in gaps),
            examples=[f"{column.name}: {column.missing:,} of {manifest.used:,} empty" for column in gaps[:3]],
            fix="nothing need be done: numbers get the mean and a mark; exclude a nearly empty column with data.input",
        )
    ]


def constant_columns(material: Material) -> list[Finding]:
    """Input columns with one value in every row."""
    names = [
        column.name
        for column in material.inputs
        if column.kind in ("number", "category") and pc.count_distinct(material.table[column.name]).as_py() <= 1
    ]
    if not names:
        return []
    return [
        Finding(
            code="constant-column",
            severity="info",
            title=f"{len(names)} input columns have the same value in every row",
            count=len(names),
            examples=[f"{name}: {material.table[name][0].as_py()!r}" for name in names[:3]],
            fix=f"they hold no information; exclude {names[0]!r} with data.input",
        )
    ]


def class_balance(material: Material) -> list[Finding]:
    """Report the rows of each class, and classes that a split lacks."""
    labels, classes = material.labels, material.manifest.classes
    if classes is None or (labels is None and material.label_sets is None):
        return []
    has = material.label_sets if labels is None else labels[:, None] == np.arange(len(classes))
    assert has is not None
    counts = has.sum(0, dtype=np.int64)
    order = np.argsort(-counts)
    ratio = counts[order[0]] / max(1, counts[order[-1]])
    found = [
        Finding(
            code="class-balance",
            severity="warning" if ratio > 10 else "info",
            title=f"{len(classes)} classes; the commonest, {classes[order[0]]!r}, has {ratio:.1f} times the rows of the rarest, {classes[order[-1]]!r}",
            count=len(classes),
            examples=[f"{classes[i]}: {counts[i]:,} rows" for i in (order[0], order[len(order) // 2], order[-1])],
            fix="train.class_weights: balanced; and judge by f1_macro, not by accuracy" if ratio > 10 else "",
        )
    ]
    if labels is None:
        found.append(_labels_a_row(has.sum(1, dtype=np.int64), material))
    for split in material.manifest.splits:
        present = has[material.splits == split].any(0)
        absent = [classes[i] for i in np.flatnonzero(~present)]
        if absent:
            found.append(
                Finding(
                    code="absent-class",
                    severity="problem" if split == "train" else "warning",
                    title=f"the {split} split has no row of {len(absent)} classes",
                    count=len(absent),
                    examples=absent[:3],
                    fix=f"tunewright run {material.recipe} data.split.by=stratified, or give more rows of these classes"
                    if labels is not None
                    else "give more rows of these classes, or remove them from the target",
                )
            )
    return found


def _labels_a_row(sizes: np.ndarray, material: Material) -> Finding:
    """Return how many labels the rows have."""
    none = np.flatnonzero(sizes == 0)
    return Finding(
        code="labels-a-row",
        severity="info",
        title=f"{sizes.mean():.2f} labels a row, {sizes.max()} at most; {len(none):,} rows have none",
        count=len(none),
        examples=[material.name_row(int(index)) for index in none[:3]],
        fix="no label is an answer; remove the rows from the source if they were never labelled" if len(none) else "",
    )
