"""Find training interactions that are later than those of the test."""

from __future__ import annotations

import numpy as np

from tunewright.data.checks.finding import Finding
from tunewright.data.checks.material import Material
from tunewright.data.prepare.splits import time_values
from tunewright.data.recommendation.column_roles import role_columns, time_column
from tunewright.recipe.schema import Data


def known_future(material: Material) -> list[Finding]:
    """Users of whom a test row is older than a training row, where rows have a user, an item and a time."""
    manifest = material.manifest
    names = [column.name for column in manifest.columns]
    data = Data(source=manifest.source)
    user, item = role_columns(data, names)
    time = time_column(data, names)
    if user is None or item is None or time is None or manifest.column(time).kind not in ("number", "time"):
        return []
    users = np.unique(material.table[user].to_pylist(), return_inverse=True)[1]
    values = time_values(material.table[time])
    moments = np.unique(values, return_inverse=True)[1]
    learned, asked = material.splits == "train", material.splits == "test"
    newest = np.full(users.max() + 1, -1)
    np.maximum.at(newest, users[learned], moments[learned])
    late = asked & (moments < newest[users])
    if not late.any():
        return []
    those = len(np.unique(users[late]))
    places = np.flatnonzero(late)
    return [
        Finding(
            code="known-future",
            severity="warning",
            title=f"{late.sum() / asked.sum():.0%} of the test rows, of {those:,} users, are older than a training row of the same "
            "user: the model partly predicts the past",
            count=int(late.sum()),
            examples=[material.name_row(int(place)) for place in places[:3]],
            fix=f"data.split: {{by: within, order: {time}}}, or {{by: time, column: {time}}}",
        )
    ]
