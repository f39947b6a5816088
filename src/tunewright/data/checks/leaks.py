"""Columns that give the target away, and columns that only number the rows."""

from __future__ import annotations

import warnings

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tunewright.data.checks.finding import Finding
from tunewright.data.checks.material import Material

MOST_ROWS = 5_000
MOST_COLUMNS = 500
# One column alone that predicts this well is more likely a copy of the target than a cause of it.
SUSPICIOUS = 0.99
FOLDS = 3


def leaking_columns(material: Material) -> list[Finding]:
    """Score each input column by itself as a predictor of the target: a shallow tree, cross-validated on the training split.

    The score is accuracy for classes, where it must also be far above that of the commonest class, and R² for numbers.
    """
    columns = [column for column in material.inputs if column.kind in ("number", "category")][:MOST_COLUMNS]
    if material.manifest.target is None or len(columns) < 2:
        return []
    chosen = material.sample(MOST_ROWS, material.splits == "train")
    target = _target(material, chosen)
    if target is None or len(chosen) < 10 * FOLDS:
        return []
    scores = {
        column.name: _score(_values(material, column.name, column.kind, chosen), target, material) for column in columns
    }
    floor = np.bincount(target).max() / len(target) if material.labels is not None else 0.0
    leaks = [name for name, score in scores.items() if score >= SUSPICIOUS and score > (1 + floor) / 2]
    if not leaks:
        return []
    shown = "{}: accuracy {:.3f} by itself" if material.labels is not None else "{}: R² {:.3f} by itself"
    keep = [column.name for column in material.inputs if column.name not in leaks]
    return [
        Finding(
            code="leaking-column",
            severity="problem",
            title=f"{len(leaks)} input columns predict the target alone: are they known before the target is?",
            count=len(leaks),
            examples=[shown.format(name, scores[name]) for name in leaks[:3]],
            fix=f"if not: tunewright run {material.recipe} 'data.input=[{', '.join(keep[:20])}]'",
        )
    ]


def identifier_columns(material: Material) -> list[Finding]:
    """Input columns with another value in every row, in steps of one or as text: they name rows, they don't describe them."""
    names: list[str] = []
    for column in material.inputs:
        values = material.table[column.name]
        if column.kind == "number":
            numbers = np.sort(values.to_numpy().astype(np.float64))
            if len(numbers) > 20 and np.isfinite(numbers).all() and (np.diff(numbers) == 1).all():
                names.append(column.name)
        elif column.kind in ("category", "text") and len(values) > 20 and len(values.unique()) == len(values):
            # A name is one word of letters and digits; a sentence in every row is only a text.
            named = pc.all(pc.match_substring_regex(values, r"^[\w.:/+-]{1,64}$")).as_py()
            names += [column.name] if named else []
    if not names:
        return []
    keep = [column.name for column in material.inputs if column.name not in names]
    return [
        Finding(
            code="identifier-column",
            severity="warning",
            title=f"{len(names)} input columns seem to number the rows",
            count=len(names),
            examples=[
                f"{name}: {', '.join(str(v) for v in material.table[name].slice(0, 3).to_pylist())}"
                for name in names[:3]
            ],
            fix=f"tunewright run {material.recipe} 'data.input=[{', '.join(keep[:20])}]'",
        )
    ]


def _target(material: Material, chosen: np.ndarray) -> np.ndarray | None:
    if material.labels is not None:
        return material.labels[chosen]
    assert material.manifest.target is not None
    if material.label_sets is not None:
        return None
    values = material.table[material.manifest.target].take(pa.array(chosen)).to_numpy().astype(np.float64)
    return values if values.std() > 0 else None


def _values(material: Material, name: str, kind: str, chosen: np.ndarray) -> np.ndarray:
    values = material.table[name].take(pa.array(chosen))
    if kind == "number":
        return np.nan_to_num(values.to_numpy().astype(np.float64), nan=-1e30)[:, None]
    # Categories in the order of their codes: a tree finds those that matter.
    return (
        values.combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False).astype(np.float64)[:, None]
    )


def _score(values: np.ndarray, target: np.ndarray, material: Material) -> float:
    from sklearn.model_selection import cross_val_score
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    leaves = max(8, 4 * len(material.manifest.classes or ()))
    kind = DecisionTreeClassifier if material.labels is not None else DecisionTreeRegressor
    tree = kind(max_leaf_nodes=leaves if material.labels is not None else 256, min_samples_leaf=2, random_state=0)
    with warnings.catch_warnings():
        # A class with fewer rows than folds is the class balance check's affair.
        warnings.simplefilter("ignore", UserWarning)
        order = np.random.Generator(np.random.Philox(key=material.seed)).permutation(len(target))
        scores = cross_val_score(tree, np.nan_to_num(values)[order], target[order], cv=FOLDS)
    return float(np.mean(scores))
