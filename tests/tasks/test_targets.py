"""Targets: encoders of models that were saved when one class encoded all of them are still read."""

from __future__ import annotations

from typing import Any

import pytest

from tunewright.tasks.base.targets import (
    CATEGORY,
    LABELS,
    NUMBER,
    ClassTarget,
    LabelsTarget,
    NumberTarget,
    Target,
    TargetEncoder,
)

OLD: dict[str, Any] = {"column": "y", "classes": ["a", "b"], "mean": 0.0, "std": 1.0, "several": False}


@pytest.mark.parametrize(
    ("target", "changed", "expected"),
    [
        (CATEGORY, {}, ClassTarget(column="y", classes=["a", "b"])),
        (LABELS, {"several": True}, LabelsTarget(column="y", classes=["a", "b"])),
        (NUMBER, {"classes": None, "mean": 3.5, "std": 2.0}, NumberTarget(column="y", mean=3.5, std=2.0)),
    ],
)
def test_the_targets_of_older_models_are_read(target: Target, changed: dict[str, Any], expected: TargetEncoder) -> None:
    assert target.load({**OLD, **changed}) == expected
    assert target.load(expected.to_json()) == expected


def test_a_key_that_no_model_ever_had_is_refused() -> None:
    with pytest.raises(TypeError):
        CATEGORY.load({**OLD, "clases": ["a"]})
