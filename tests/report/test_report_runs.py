"""The report of real runs: one whole file, safe whatever the data says, in both languages."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tunewright.console import silent
from tunewright.errors import UserError
from tunewright.report.page import write_report
from tunewright.run_recipe import run
from tunewright.runs.folder import read_json
from tunewright.runs.summary.stage import read_summary

VOID = {"meta", "br", "img", "line", "rect", "circle", "path", "polyline", "link", "input"}


class Balance(HTMLParser):
    """Fails when a tag is closed that was not open, and keeps what stays open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def check_page(text: str) -> None:
    parser = Balance()
    parser.feed(text)
    assert parser.open == []
    for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ElementTree.fromstring(svg)
    links = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?!data:|#)([^"')>\s]+)""", text)
    assert [link for link in links if not link.startswith("#")] == []
    assert "<script" not in text
    assert set(re.findall(r"https?://[^\s\"'<]+", text)) <= {"http://www.w3.org/2000/svg"}


HOSTILE = '<script>alert("x")</script>&\'"'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a table whose column and class names try to break the page."""
    place = tmp_path_factory.mktemp("hostile")
    quoted = HOSTILE.replace('"', '""')
    rows = "".join(f'{i},{i % 7},"{quoted if i % 2 else "b"}"\n' for i in range(120))
    (place / "t.csv").write_text(f'"x {quoted}",z,"{quoted}"\n' + rows)
    result = run(
        {
            "name": "hostile",
            "task": "tabular-classification",
            "data": {"source": "t.csv", "split": {"test": 0.3}},
            "train": {"epochs": 2},
            "eval": {
                "resamples": 100,
                "seeds": 2,
                "slices": ["z"],
                "target": {"accuracy": 0.01},
                "controls": ["from_scratch"],
            },
        },
        base=place,
        runs=place / "runs",
        console=silent(),
    )
    return result.folder


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_page_is_whole_and_safe(folder: Path, lang: str) -> None:
    text = write_report(folder, lang=lang).read_text(encoding="utf-8")
    check_page(text)
    assert "Content-Security-Policy" in text and "alert(" in text  # it is there, but as text
    assert ('lang="zh' in text) == (lang == "zh")
    assert len(text) < 500_000


def test_other_kinds_of_runs(tmp_path: Path) -> None:
    for name, recipe in {
        "regression": {"task": "tabular-regression", "data": {"source": "diabetes"}, "train": {"epochs": 1}},
        "unlabelled": {
            "task": "image-classification",
            "data": {"source": "digits", "labelled": False},
            "train": {"epochs": 1, "objective": "masked"},
            "model": {"layers": ["flatten", {"dense": 8}, {"dense": 10}]},
        },
        "no validation": {
            "task": "tabular-classification",
            "data": {"source": "wine", "split": {"valid": 0, "test": 0}},
            "train": {"epochs": 1},
        },
    }.items():
        result = run({**recipe, "eval": {"resamples": 100}}, runs=tmp_path / name, console=silent())
        assert result.report is not None
        check_page(result.report.read_text(encoding="utf-8"))


def test_what_a_run_writes_its_report_reads(folder: Path) -> None:
    """The summary of a real run comes through JSON without loss, and its figures and titles are on the page."""
    stage = folder / "pretrain"
    summary = read_summary(stage)
    written = read_json(stage / "summary.json", "a summary")
    assert json.loads(json.dumps(summary.to_json())) == written
    evaluation, seeds = summary.evaluation, summary.seeds
    assert evaluation is not None and evaluation.slices and evaluation.baselines and seeds is not None
    assert set(evaluation.metrics) <= set(summary.metric_facts)
    assert (
        summary.task_facts is not None and summary.comparisons and summary.target and summary.target["accuracy"].reached
    )
    page = write_report(folder).read_text(encoding="utf-8")
    for words in (summary.task_facts.title.en, "Target reached", "Freeze certificate", summary.data.fingerprint):
        assert (words in page) == (words != "Freeze certificate"), words
    assert all(metric.title.en.lower() in page.lower() for metric in summary.metric_facts.values())


def test_an_unknown_language_or_folder_is_a_users_mistake(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        write_report(folder, lang="fr")
    with pytest.raises(UserError):
        write_report(tmp_path)


def test_a_slice_of_few_rows_is_not_called_the_weakest(tmp_path: Path) -> None:
    """What an evaluation writes of a slice, card and report read: in a rare group each label is wrong."""
    rows: list[str] = []
    for number in range(900):
        group = "rare" if number % 15 == 0 else "ab"[number % 2]
        high = number % 7 > 3
        rows.append(f"{number % 7},{group},{'yes' if high != (group == 'rare') else 'no'}")
    (tmp_path / "t.csv").write_text("\n".join(["x,group,label", *rows]) + "\n")
    recipe = {
        "task": "tabular-classification",
        "data": {"source": "t.csv", "input": ["x"], "target": "label", "split": {"test": 0.3}},
        "train": {"epochs": 3},
        "eval": {"slices": ["group"], "resamples": 100},
    }
    stage = run(recipe, base=tmp_path, runs=tmp_path / "runs", console=silent()).stages["pretrain"]
    found = {entry["value"]: entry for entry in stage.summary["evaluation"]["slices"]}
    assert found["rare"]["small"] and not found["a"]["small"]
    accuracy = {name: entry["metrics"]["accuracy"]["value"] for name, entry in found.items()}
    assert accuracy["rare"] == min(accuracy.values())
    (line,) = [line for line in (stage.folder / "model" / "README.md").read_text().splitlines() if "Weakest" in line]
    assert "rare" not in line
