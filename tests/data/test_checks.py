"""Planted problems are found, and named; clean data is left in peace."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_digits

from tunewright.data.checks.finding import Finding
from tunewright.data.checks.labels import doubtful, out_of_fold
from tunewright.data.checks.table import check
from tunewright.data.prepare.prepare import prepare
from tunewright.recipe.schema import Data, Split


def look(source: Path | str, kind: str = "category", **data: object) -> dict[str, Finding]:
    found = prepare(Data(source=str(source), **data), seed=0, target_kind=kind, base=Path("."))  # type: ignore[arg-type]
    return {finding.code: finding for finding in check(found)}


def write_table(path: Path, columns: dict[str, object]) -> Path:
    rows = zip(*columns.values())  # type: ignore[arg-type]
    path.write_text(",".join(columns) + "\n" + "".join(",".join(map(str, row)) + "\n" for row in rows))
    return path


def cancer() -> dict[str, object]:
    data = load_breast_cancer()
    columns: dict[str, object] = {f"m{i}": data.data[:, i] for i in range(6)}
    return {**columns, "label": [data.target_names[t] for t in data.target]}


@pytest.mark.parametrize(
    ("source", "kind"),
    [("digits", "category"), ("breast-cancer", "category"), ("wine", "category"), ("diabetes", "number")],
)
def test_clean_data_has_no_problem(source: str, kind: str) -> None:
    findings = look(source, kind, split=Split(by="stratified" if kind == "category" else "random"))
    assert [f.title for f in findings.values() if f.severity == "problem"] == []
    assert {"rows", "types"} <= set(findings)


def test_every_finding_can_be_mended(tmp_path: Path) -> None:
    columns = cancer()
    columns["copy"] = [0 if value == "benign" else 1 for value in columns["label"]]  # type: ignore[union-attr]
    path = write_table(tmp_path / "t.csv", {k: columns[k] for k in ("copy", *(f"m{i}" for i in range(6)), "label")})
    for finding in look(path).values():
        if finding.severity != "info":
            assert finding.fix and finding.examples and len(finding.examples) <= 3 and finding.count


def test_a_leaking_column(tmp_path: Path) -> None:
    columns = cancer()
    columns = {"copy": [f"code {value[:1]}" for value in columns["label"]], **columns}  # type: ignore[union-attr]
    finding = look(write_table(tmp_path / "t.csv", columns))["leaking-column"]
    assert finding.severity == "problem" and finding.count == 1 and "copy" in finding.examples[0]
    assert "data.input=" in finding.fix


def test_a_leaking_number(tmp_path: Path) -> None:
    target = np.random.default_rng(0).normal(size=400)
    columns = {"x": np.random.default_rng(1).normal(size=400), "copy": target * 3 + 1, "y": target}
    assert "copy" in look(write_table(tmp_path / "t.csv", columns), "number", target="y")["leaking-column"].examples[0]


def test_an_identifier(tmp_path: Path) -> None:
    columns = {"number": range(569), **cancer()}
    assert "number" in look(write_table(tmp_path / "t.csv", columns))["identifier-column"].examples[0]


def test_duplicates_conflicts_and_test_rows_in_train(tmp_path: Path) -> None:
    columns = {name: list(values) for name, values in cancer().items()}  # type: ignore[call-overload]
    for name, values in columns.items():
        values += values[:100]
        if name == "label":
            values[-1] = "benign" if values[-1] == "malignant" else "malignant"
    findings = look(write_table(tmp_path / "t.csv", columns), split=Split(valid=0.1, test=0.3))
    assert findings["duplicates"].count == 100
    assert findings["conflicting-labels"].count == 1 and findings["conflicting-labels"].severity == "problem"
    leak = findings["test-in-train"]
    assert leak.severity == "problem" and 20 < leak.count < 60
    assert "(test)" in leak.examples[0] and "(train)" in leak.examples[0]


def test_nearly_the_same_pictures(tmp_path: Path) -> None:
    from PIL import Image

    digits = load_digits()
    for index in range(100):
        pixels = np.rint(digits.images[index] * 15).astype(np.uint8)
        folder = tmp_path / "p" / str(digits.target[index])
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{index}.png")
        if index < 10:
            pixels[0, 0] += 3
            Image.fromarray(pixels).save(folder / f"{index}-again.png")
    findings = look(tmp_path / "p", split=Split(valid=0.1, test=0.3))
    assert findings["near-duplicates"].count == 10


def test_nearly_the_same_texts(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    words = [f"word{number}" for number in range(300)]
    texts = [" ".join(draw.choice(words, 40)) for _ in range(120)]
    changed = [text.rsplit(" ", 1)[0] + " end" for text in texts[:15]]  # but for the last word
    rows = {"text": [*texts, *changed], "label": ["ab"[number % 2] for number in range(135)]}
    findings = look(
        write_table(tmp_path / "t.csv", rows), input="text", target="label", split=Split(valid=0.1, test=0.3)
    )
    assert findings["near-duplicates"].count == 15
    assert findings["test-near-train"].severity == "problem" and "duplicates" not in findings


def test_missing_constant_rare_and_absent(tmp_path: Path) -> None:
    count = 300
    columns = {
        "gap": ["" if i % 2 else i for i in range(count)],
        "same": ["x"] * count,
        "z": np.random.default_rng(0).normal(size=count),
        "label": ["rare" if i == 7 else "a" if i % 2 else "b" for i in range(count)],
    }
    findings = look(write_table(tmp_path / "t.csv", columns))
    assert "gap" in findings["missing-values"].examples[0] and findings["missing-values"].count == 150
    assert "same" in findings["constant-column"].examples[0]
    assert findings["class-balance"].severity == "warning" and "class_weights" in findings["class-balance"].fix
    assert findings["absent-class"].examples == ["rare"]


def test_wrong_labels_are_found() -> None:
    """Of 10 % flipped labels of the digits most are named, with few false alarms; of clean labels hardly any."""
    inputs, labels = load_digits(return_X_y=True)
    generator = np.random.default_rng(0)
    flipped = generator.choice(len(labels), len(labels) // 10, replace=False)
    noisy = labels.copy()
    noisy[flipped] = (labels[flipped] + generator.integers(1, 10, len(flipped))) % 10
    suspects = doubtful(out_of_fold(inputs.astype(np.float32), noisy, seed=0), noisy)
    right = len(set(suspects.tolist()) & set(flipped.tolist()))
    assert right >= 0.7 * len(flipped) and right >= 0.9 * len(suspects)
    clean = doubtful(out_of_fold(inputs.astype(np.float32), labels, seed=0), labels)
    assert len(clean) < 0.03 * len(labels)


def test_mnist_is_looked_through() -> None:
    findings = look("mnist", split=Split(valid=0), limit=5000)
    assert findings["label-errors"].count < 200 and "test-in-train" not in findings
