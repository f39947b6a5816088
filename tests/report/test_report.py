"""The report and the model card: from the files of a run folder to one page that is safe, whole and readable."""

from __future__ import annotations

import base64
import copy
import io
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from PIL import Image

from repository import REPOSITORY
from summaries import data_summary, model_summary, stage_summary, training_summary
from tunewright.errors import ArtifactError, UserError
from tunewright.evaluation.calibration import calibrate
from tunewright.evaluation.intervals import bootstrap, over_seeds
from tunewright.evaluation.metrics import METRICS, Outcome, facts_of
from tunewright.evaluation.paired_comparison import Predictions, compare_predictions
from tunewright.evaluation.slices import confusion, slice_by, worst
from tunewright.report import numbers
from tunewright.report.axes import linear_ticks, log_ticks, width, wrapped
from tunewright.report.card import model_card
from tunewright.report.charts import Line, Whisker, line_chart, whisker_chart
from tunewright.report.components import verdict
from tunewright.report.heat_map import heat_map
from tunewright.report.html import Html, tag, text
from tunewright.report.inline_images import clean_svg, image_uri
from tunewright.report.numbers import Figure
from tunewright.report.page import page, write_report
from tunewright.report.reading import read_run
from tunewright.report.style import DARK, LIGHT, on_shade, style_sheet
from tunewright.report.translations import KNOWN, WORDS, Words
from tunewright.runs.metrics_log import LOSS
from tunewright.runs.records import from_json
from tunewright.runs.summary.evaluation import (
    BaselineSummary,
    Comparison,
    Estimate,
    EvaluationSummary,
    HintSummary,
    Mistake,
    SeedFigures,
    SeedSummary,
    TargetSummary,
)
from tunewright.runs.summary.explanation import CheckSummary, ExplanationSummary, Phrases, UnitScore
from tunewright.runs.summary.facts import MetricFacts, TaskFacts, Title
from tunewright.runs.summary.model import CertificateSummary, FrozenBlock, TrainedBlock
from tunewright.runs.summary.stage import OLD_NAMES, StageSummary, read_summary, write_summary
from tunewright.runs.summary.training import BestEpoch, TrainingSummary

HOSTILE = "<script>alert('1')</script>\"&amp; {x} %s \u202eevil\x00\ud800"
SOURCES = sorted((REPOSITORY / "src/tunewright/report").glob("*.py"))

RECIPE = """# Learn digits, then adapt the network to other writers.
task: image-classification
data: {source: mnist, split: {valid: 0.05}}
model: {layers: [flatten, {dense: 128, activation: relu}, {dense: 10}]}
stages: [pretrain, {finetune: {data: {source: digits}, tune: {freeze: backbone}}}]

# with these overrides:
#   train.lr=1e-4
#   name=it's mine
"""


# --- run folders as a run leaves them, their figures measured by the package itself ---


def digits(classes: int) -> list[str]:
    return [str(number) for number in range(classes)]


def answers(rows: int, classes: int, skill: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits [rows, classes] of a classifier that is right the more often the greater its skill, and the targets."""
    random = np.random.Generator(np.random.Philox(key=seed))
    target = random.integers(classes, size=rows)
    logits = random.normal(size=(rows, classes))
    logits[np.arange(rows), target] += skill * random.uniform(0.2, 2, size=rows)
    return 2.0 * logits, target


def picture(seed: int) -> str:
    pixels = np.random.Generator(np.random.Philox(key=seed)).integers(256, size=(8, 8), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def measured(outputs: dict[str, np.ndarray], target: np.ndarray, names: list[str]) -> dict[str, dict[str, Estimate]]:
    metrics = [METRICS[name] for name in names]
    return {name: bootstrap(metrics, Outcome(value, target), resamples=100, seed=0) for name, value in outputs.items()}


def classified(
    rows: int, labels: list[str], *, skill: float = 4.0, seed: int = 0, images: bool = True
) -> EvaluationSummary:
    """The evaluation of a classifier."""
    classes = len(labels)
    logits, target = answers(rows, classes, skill, seed)
    weak, _ = answers(rows, classes, skill * 0.7, seed)
    names = ["accuracy", "f1_macro", "log_loss", "brier", "ece"]
    outputs = {
        "": logits,
        "majority class": np.tile(np.eye(classes)[0], (rows, 1)),
        "linear model on raw inputs": weak,
    }
    found = measured(outputs, target, names)
    writer = np.array(["left-handed", "right-handed", None], dtype=object)[np.arange(rows) % 50 % 7 % 3]
    outcome = Outcome(logits, target)
    return EvaluationSummary(
        split="test",
        rows=rows,
        metrics=found[""],
        baselines=[
            BaselineSummary(name="majority class", metrics=found["majority class"]),
            BaselineSummary(
                name="linear model on raw inputs",
                training_rows=10_000,
                metrics=found["linear model on raw inputs"],
            ),
        ],
        slices=slice_by("writer", list(writer), [METRICS["accuracy"]], outcome, resamples=100, seed=0),
        confusion=confusion(outcome, labels),
        calibration=calibrate(*answers(500, classes, skill, seed + 1), logits, target),
        mistakes=[
            Mistake(
                row=index + 1,
                target=labels[int(target[index])],
                prediction=labels[int(outcome.predicted[index])],
                confidence=float(outcome.probabilities[index].max()),
                loss=float(-outcome.log_probabilities[index, target[index]]),
                image=picture(index) if images else None,
                input=None if images else {"age": 34, "city": "Zürich", "income": None},
            )
            for index in worst(outcome, 24)
        ],
        explanations=[
            explained("units", [f"patch {i}" for i in range(4)], shape=[2, 2], image=picture(0))
            if images
            else explained("text", ["the", "film", "<b>", "was", "good"], view=True)
        ],
    )


def explained(look: Literal["units", "text"], units: list[str], **more: Any) -> ExplanationSummary:
    """An answer that is explained, though not well."""
    scores = np.linspace(-1, 2, len(units)).tolist()
    percentile = {"comprehensiveness": 1.0, "sufficiency": 0.4, "deletion": 0.9}
    return ExplanationSummary(
        row=7,
        target="5",
        answer="3, 98.0%",
        explained="the log odds of 3",
        absent="not chosen",
        method="integrated gradients",
        converged=False,
        units=[UnitScore(unit=unit, score=score) for unit, score in zip(units, scores)],
        check=CheckSummary(
            comprehensiveness=1.25, sufficiency=0.5, deletion=0.1, percentile=percentile, faithful=False
        ),
        phrases=Phrases(answer=["{}, {}", "3", "98.0%"], explained=["the log odds of {}", "3"]),
        look=look,
        **more,
    )


def training(
    epochs: int, *, metric: str | None, best: int | None = None, greater: bool = True
) -> tuple[TrainingSummary, list[dict[str, Any]]]:
    """A training, and the lines of its metrics.jsonl."""
    random = np.random.Generator(np.random.Philox(key=epochs))
    lines: list[dict[str, Any]] = []
    for epoch in range(1, epochs + 1):
        for part in range(1, 11):
            done = epoch - 1 + part / 10
            loss = 2.2 * float(np.exp(-done / (epochs / 5))) + 0.05 + 0.05 * float(random.uniform())
            rate = 0.001 * (1 - done / epochs / 1.01)
            lines.append(
                {"kind": "step", "step": (epoch - 1) * 50 + part * 5, "epoch": epoch, "loss": loss, "lr": rate}
            )
        level = float(np.exp(-epoch / (epochs / 5)))
        valid = {"loss": 2.0 * level + 0.12 + 0.002 * epoch}
        if metric:
            valid[metric] = 0.97 - 0.5 * level if greater else 3 + 5 * level
        lines.append(
            {
                "kind": "epoch",
                "epoch": epoch,
                "step": epoch * 50,
                "train_loss": 2.1 * level + 0.06,
                "valid": valid,
                "lr": 0.001 * (1 - epoch / epochs / 1.01),
                "seconds": 0.4 * epoch,
                "examples_per_second": 40_000.0,
            }
        )
    kept = BestEpoch(epoch=best, step=best * 50, metric=metric, value=0.9712) if best and metric else None
    return training_summary(epochs, best=kept), lines


def write_run(
    folder: Path, stages: dict[str, tuple[StageSummary, list[dict[str, Any]]]], *, recipe: str = RECIPE
) -> Path:
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(recipe, encoding="utf-8")
    (folder / "recipe.resolved.yaml").write_text("name: null  # default\nseed: 0\n", encoding="utf-8")
    (folder / "run.json").write_text(json.dumps({"identity": "x", "complete": True, "stages": list(stages)}))
    environment = {
        "python": "3.11.7",
        "platform": "Linux",
        "processor": "a processor",
        "cores": 2,
        "memory_bytes": 25_276_502_016,
        "accelerators": [],
        "threads": 2,
        "packages": {"tunewright": "0.1.0", "torch": "2.13.0", "numpy": "2.4.6"},
        "data": [{"path": "/home/someone/private/digits.csv", "sha256": "ab" * 32, "bytes": 1_602_050}],
        "git_commit": "1c46dec42be66832698ae2f9827cc4f46ccf7f30",
    }
    (folder / "environment.json").write_text(json.dumps(environment))
    for name, (summary, lines) in stages.items():
        (folder / name).mkdir()
        write_summary(folder / name, summary)
        (folder / name / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def two_stages(folder: Path, *, labels: list[str] | None = None, source: str = "digits", recipe: str = RECIPE) -> Path:
    """Images, pretrained and fine-tuned with a frozen backbone, three seeds, compared with a control."""
    labels = labels or digits(10)
    first, first_lines = training(5, metric="accuracy")
    second, second_lines = training(20, metric="accuracy", best=12)
    evaluation = classified(540, labels, skill=4.4)
    logits, target = answers(540, len(labels), 4.4, 0)
    other, _ = answers(540, len(labels), 4.2, 0)
    pair = [
        Predictions(name=name, data="x", kind="classification", rows=np.arange(540), outputs=outputs, target=target)
        for name, outputs in (("this", logits), ("other", other))
    ]
    difference = compare_predictions(pair[0], pair[1], "accuracy", resamples=100)
    value = evaluation.metrics["accuracy"].value
    assert value is not None
    values = [value, value + 0.011, value - 0.006]
    seeds = over_seeds(values)
    assert seeds.value is not None
    pretrained = classified(2000, digits(10), skill=5.0, seed=3)
    pretrain = stage_summary(
        data=data_summary("mnist", digits(10)),
        training=first,
        evaluation=pretrained,
        hint=HintSummary("nothing obvious", "accuracy is 0.99 on training rows and 0.98 on validation rows."),
        target={"accuracy": TargetSummary(wanted=0.95, value=pretrained.metrics["accuracy"].value or 0, reached=False)},
    )
    finetune = stage_summary(
        stage="finetune",
        kind="finetune",
        data=data_summary(source, labels),
        model=model_summary(frozen=True),
        training=second,
        evaluation=evaluation,
        comparisons=[
            Comparison(
                name="the same network from random weights, nothing frozen",
                metric="accuracy",
                difference=difference.estimate,
                verdict=difference.verdict,
            )
        ],
        seeds=SeedSummary(
            count=3,
            metrics={"accuracy": SeedFigures(values=values, mean=seeds.value, low=seeds.low, high=seeds.high)},
        ),
        hint=HintSummary("more data", "accuracy is 0.99 on training rows and 0.95 on validation rows."),
        certificate=CertificateSummary(
            frozen=[FrozenBlock(block="backbone.1_dense", tensors=2, parameters=100_480, identical=True)],
            trained=[
                TrainedBlock(
                    block="head.0_dense", tensors=2, parameters=1290, changed=1, unchanged=["head.0_dense.bias"]
                )
            ],
            passed=True,
            warnings=["head.0_dense.bias was trained but did not change"],
        ),
        target={"accuracy": TargetSummary(wanted=0.9, value=seeds.value, reached=True)},
    )
    return write_run(folder, {"pretrain": (pretrain, first_lines), "finetune": (finetune, second_lines)}, recipe=recipe)


def regression(folder: Path) -> Path:
    """Rows with a number to predict; mistakes as small tables; a metric that is undefined."""
    random = np.random.Generator(np.random.Philox(key=9))
    target = random.normal(150, 40, size=400)
    prediction = target + random.normal(0, 9, size=400)
    outputs = {
        "": prediction,
        "mean": np.full(400, 150.0),
        "median": np.full(400, 148.0),
        "linear model on raw inputs": target + random.normal(0, 12, 400),
    }
    found = measured(outputs, target, ["rmse", "mae", "r2"])
    done, lines = training(60, metric="rmse", best=47, greater=False)
    mistakes = [
        Mistake(
            row=index + 1,
            target=float(target[index]),
            prediction=float(prediction[index]),
            loss=float(abs(target[index] - prediction[index])),
            input={f"column {i}": float(random.normal()) for i in range(14)} | {"note": None, "town": "Zürich"},
        )
        for index in worst(Outcome(prediction, target), 9)
    ]
    parts = slice_by(
        "size", list(random.normal(70, 20, 400)), [METRICS["rmse"]], Outcome(prediction, target), resamples=100, seed=0
    )
    own = found.pop("")
    summary = stage_summary(
        task="tabular-regression",
        task_facts=TaskFacts(title=Title(en="tabular regression", zh="表格回归"), hub_task="tabular-regression"),
        seed=7,
        data=data_summary("houses.csv", None, target="price", inputs=["size", "rooms", "town"]),
        model=model_summary(outputs=1),
        training=replace(done, objective="mse", optimizer="adam"),
        evaluation=EvaluationSummary(
            split="test",
            rows=400,
            metrics=own | {"roc_auc": Estimate(None, None, None)},
            baselines=[BaselineSummary(name=name, metrics=metrics) for name, metrics in found.items()],
            slices=parts,
            mistakes=mistakes,
        ),
        target={"rmse": TargetSummary(wanted=8.5, value=own["rmse"].value or 0, reached=False)},
    )
    return write_run(
        folder, {"pretrain": (summary, lines)}, recipe="task: tabular-regression\ndata: {source: houses.csv}\n"
    )


def unlabelled(folder: Path) -> Path:
    """A self-supervised pretraining on its own: nothing was evaluated."""
    done, lines = training(8, metric=None)
    summary = stage_summary(
        data=data_summary("pictures/", None, target=None), training=replace(done, objective="masked")
    )
    return write_run(folder, {"pretrain": (summary, lines)}, recipe="task: image-classification\n")


def hundred_classes(folder: Path, classes: int = 100) -> Path:
    labels = [f"a rather long name of species {number}" for number in range(classes)]
    done, lines = training(200, metric="accuracy", best=150)
    summary = stage_summary(
        data=data_summary("species.csv", labels, inputs=[f"measure {i}" for i in range(30)]),
        model=model_summary(outputs=classes),
        training=done,
        evaluation=classified(5000, labels, skill=5.0, images=False),
    )
    return write_run(folder, {"pretrain": (summary, lines)})


RUNS = {
    "two_stages": two_stages,
    "regression": regression,
    "unlabelled": unlabelled,
    "hundred_classes": hundred_classes,
}


# --- what every page must be ---

VOID = {"meta", "br", "img"}
PAGES = [(name, lang) for name in RUNS for lang in ("en", "zh")]


class Reader(HTMLParser):
    """Collects a page's elements and text, and complains about tags that do not match."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.faults: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if len({name for name, _ in attrs}) != len(attrs):
            self.faults.append(f"<{tag}> has an attribute twice")
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if "svg" not in self.open:
            self.faults.append(f"<{tag}/> outside of a drawing does not close anything")

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> closes nothing")

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return "".join(self.texts)


def read_page(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert not reader.faults
    assert not reader.open
    return reader


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], str]:
    """Each run's page in each language."""
    root = tmp_path_factory.mktemp("runs")
    folders = {name: build(root / name) for name, build in RUNS.items()}
    return {(name, lang): write_report(folders[name], lang=lang).read_text(encoding="utf-8") for name, lang in PAGES}


def english(pages: dict[tuple[str, str], str], name: str) -> Reader:
    return read_page(pages[name, "en"])


@pytest.mark.parametrize(("name", "lang"), PAGES)
def test_the_page_is_whole_and_alone(pages, name, lang) -> None:
    page = pages[name, lang]
    reader = read_page(page)
    names = {tag for tag, _ in reader.elements}
    assert not names & {"script", "link", "iframe", "object", "embed", "base", "form", "foreignobject", "use"}
    attributes = [(tag, key, value or "") for tag, found in reader.elements for key, value in found.items()]
    assert not [entry for entry in attributes if entry[1].startswith("on")]
    links = [(tag, value) for tag, key, value in attributes if key in ("href", "xlink:href")]
    assert all(value.startswith("#") for tag, value in links if tag != "image")
    assert all(value.startswith("data:image/png;base64,") for tag, value in links if tag == "image")
    assert all(value.startswith("data:image/png;base64,") for _, key, value in attributes if key == "src")
    # The only address on the page is the name of the drawing language.
    without_pictures = re.sub(r"data:image/png;base64,[\w+/=]+", "", page)
    assert "//" not in without_pictures
    assert "@import" not in page
    assert all(found.startswith("#") for found in re.findall(r"url\(([^)]*)\)", page))
    policy = next(found["content"] for tag, found in reader.elements if found.get("http-equiv"))
    assert (
        policy
        == "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:; base-uri 'none'; form-action 'none'"
    )
    assert len(page.encode()) < 500_000


@pytest.mark.parametrize(("name", "lang"), PAGES)
def test_links_and_names_on_the_page_fit(pages, name, lang) -> None:
    reader = read_page(pages[name, lang])
    names = [found["id"] for _, found in reader.elements if "id" in found]
    assert len(names) == len(set(names))
    references = [found.get(key) for _, found in reader.elements for key in ("href", "aria-labelledby")]
    inside = [reference for reference in references if reference and not reference.startswith("data:")]
    pointed_at = {reference.removeprefix("#") for reference in inside}
    pointed_at |= set(re.findall(r"url\(#([^)]+)\)", pages[name, lang]))
    assert pointed_at <= set(names)
    assert len(pointed_at) > 6


@pytest.mark.parametrize(("name", "lang"), PAGES)
def test_every_drawing_is_xml_with_numbers_in_it(pages, name, lang) -> None:
    drawings = re.findall(r"<svg.*?</svg>", pages[name, lang], re.DOTALL)
    assert len(drawings) >= 3
    for drawing in drawings:
        root = ElementTree.fromstring(drawing)
        assert root.get("role") == "img"
        assert root.get("aria-label") or root.get("aria-labelledby")
        for element in root.iter():
            for key in ("x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "width", "height"):
                value = element.get(key)
                assert value is None or re.fullmatch(r"-?\d+(\.\d+)?%?", value), (element.tag, key, value)
        assert "nan" not in drawing.lower().replace("finance", "")


@pytest.mark.parametrize(("name", "lang"), PAGES)
def test_the_page_can_be_used_without_a_mouse_or_eyes(pages, name, lang) -> None:
    reader = read_page(pages[name, lang])
    assert ("html", {"lang": "en" if lang == "en" else "zh-CN"}) in reader.elements
    found = [tag for tag, _ in reader.elements]
    assert found.count("h1") == found.count("main") == found.count("nav") == 1
    assert all(attributes.get("alt") for tag, attributes in reader.elements if tag == "img")
    assert all(attributes.get("scope") for tag, attributes in reader.elements if tag == "th")
    framed = [attributes for tag, attributes in reader.elements if attributes.get("class") == "scroll"]
    assert framed
    assert all(entry["tabindex"] == "0" and entry["aria-label"] for entry in framed)
    assert found.count("details") == found.count("summary") > 0


def test_the_two_languages_have_the_same_words_and_use_them_all() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in SOURCES if path.name != "words.py")
    for key, pair in WORDS.items():
        assert len(pair) == 2
        assert all(words.strip() for words in pair), key
        holes = [set(re.findall(r"{(\w+)}", words)) for words in pair]
        assert holes[0] == holes[1], key
        assert re.search(f"""["']{key}["']""", source), f"{key} is not used"
    used = set(re.findall(r"""(?:words|words\.html|_SAY)\(\s*["'](\w+)["']""", source))
    assert len(used) > 100
    assert used <= set(WORDS)
    assert all(len(pair) == 2 and all(pair) for pair in KNOWN.values())


def test_no_english_sentence_is_left_on_the_chinese_page(pages) -> None:
    chinese = read_page(pages["two_stages", "zh"])
    ours = [english for english, _ in WORDS.values() if len(english.split()) > 2 and "{" not in english]
    assert not [sentence for sentence in ours if sentence in chinese.text]
    assert "优于" in chinese.text
    assert "冻结证明" in chinese.text
    # What Tunewright says in English stays English, and is marked as such.
    assert any(found.get("lang") == "en" for tag, found in chinese.elements if tag == "span")


def test_every_metric_has_a_title_of_its_own_in_both_languages() -> None:
    assert all(metric.title.en.strip() and metric.title.zh.strip() for metric in METRICS.values())
    assert len({metric.title.en for metric in METRICS.values()}) == len(METRICS)
    assert not facts_of(LOSS).greater_is_better


def test_a_metric_that_is_not_installed_is_known_by_the_summary(tmp_path: Path) -> None:
    """Its title, direction and style were written beside its value; without them only its name is known."""
    facts = MetricFacts(
        name="regret",
        title=Title(en="mean regret", zh="平均遗憾"),
        greater_is_better=False,
        style="percent",
        hub_name="r",
    )
    evaluation = EvaluationSummary(split="test", rows=5, metrics={"regret": Estimate(0.25, 0.2, 0.3)})
    summary = stage_summary(evaluation=evaluation, metric_facts={"regret": facts})
    said = read_page(write_report(write_run(tmp_path / "known", {"pretrain": (summary, [])})).read_text()).text
    assert "25.0 %" in said and "mean regret (lower is better)" in said
    unknown = replace(summary, metric_facts={})
    said = read_page(write_report(write_run(tmp_path / "unknown", {"pretrain": (unknown, [])})).read_text()).text
    assert "0.250" in said and "regret" in said and "lower is better" not in said


# --- what the page says ---


def test_the_headline_is_the_mean_over_seeds_beside_the_best_baseline(pages) -> None:
    said = english(pages, "two_stages").text
    assert "Pretrained on mnist, fine-tuned on digits" in said
    assert "mean of 3 seeds, 540 test rows of digits" in said
    assert "Better than the best baseline, linear model on raw inputs (10,000 training rows), with 81.3 %" in said
    assert "the two intervals do not overlap" in said
    assert "Target reached: accuracy 90.17 %, required ≥ 90 %" in said
    assert "Target missed: accuracy 91.85 %, required ≥ 95 %" in said
    assert "Frozen layers are bit-identical to their source" in said
    assert "Better than the same network from random weights, nothing frozen: +0.7 points [+0.2, +1.5]" in said


@pytest.mark.parametrize(
    ("model", "baseline", "key"),
    [
        ((0.90, 0.88, 0.92), (0.80, 0.78, 0.82), "baseline_better"),
        ((0.90, 0.88, 0.92), (0.91, 0.89, 0.93), "baseline_unclear"),
        ((0.70, 0.68, 0.72), (0.80, 0.78, 0.82), "baseline_worse"),
        ((0.70, None, None), (0.80, 0.78, 0.82), "baseline_unknown"),
    ],
)
def test_the_verdict_follows_from_the_intervals(model, baseline, key) -> None:
    pair = [Figure(value=value, low=low, high=high) for value, low, high in (model, baseline)]
    assert verdict(facts_of("accuracy"), *pair) == key
    turned = {"baseline_better": "baseline_worse", "baseline_worse": "baseline_better"}
    assert verdict(facts_of("rmse"), *pair) == turned.get(key, key)


def test_no_real_difference_is_said_plainly(tmp_path: Path) -> None:
    folder = two_stages(tmp_path / "run")
    change(folder / "finetune", lambda summary: summary["comparisons"][0].update(verdict="no real difference"))
    said = read_page(write_report(folder).read_text(encoding="utf-8")).text
    assert said.count("No real difference from the same network from random weights, nothing frozen") == 2


def test_the_certificate_is_only_as_good_as_its_blocks(tmp_path: Path, pages) -> None:
    said = english(pages, "two_stages").text
    assert "Frozen blocks that are bit-identical to their source: 1 of 1 (2 tensors, 100,480 parameters" in said
    assert "Trained parameter tensors that changed: 1 of 2." in said
    assert "head.0_dense.bias was trained but did not change" in said
    folder = two_stages(tmp_path / "run")
    change(folder / "finetune", lambda summary: summary["certificate"]["frozen"][0].update(identical=False))
    reader = read_page(write_report(folder).read_text(encoding="utf-8"))
    assert "Frozen layers have changed" in reader.text
    assert "changed although frozen" in reader.text
    seals = [found for tag, found in reader.elements if str(found.get("class")).startswith("seal")]
    assert [found["aria-label"] for found in seals] == ["Freeze certificate: Failed"]


def test_data_says_what_was_skipped_and_why(pages) -> None:
    said = english(pages, "two_stages").text
    assert "1,797 of 1,800 rows are used." in said
    assert "row 17: label is empty" in said
    assert "fill in the label, or delete the rows" in said
    assert "training 1,437" in said
    assert "Alpaydin" in said


def test_regression_has_no_confusion_and_shows_rows_as_tables(pages) -> None:
    reader = english(pages, "regression")
    said = reader.text
    assert "Confusion matrix" not in said
    assert "Calibration" not in said
    assert "Freeze certificate" not in said
    assert "lower is better" in said
    assert "required ≤ 8.5" in said
    assert "undefined" in said
    assert "missing" in said
    assert "and 6 more columns" in said
    assert len(re.findall(r"[0-9.]+ to [0-9.]+ \(100 rows\)", said)) == 8  # in the chart and in the table
    assert not [tag for tag, _ in reader.elements if tag == "img"]


def test_a_pretraining_without_labels_says_that_it_was_not_evaluated(pages) -> None:
    said = english(pages, "unlabelled").text
    assert "Pretrained on pictures/, without labels" in said
    assert "validation loss after 8 epochs" in said
    assert said.count("Not evaluated") == 2
    assert "none: the rows have no labels" in said


def test_many_classes_are_folded(pages) -> None:
    reader = english(pages, "hundred_classes")
    assert "The matrix of 100 classes" in reader.text
    assert "Most frequent confusions" in reader.text
    # No cell of a large matrix is an element of its own.
    assert len(reader.elements) < 4000
    # Six shades of two colours at most.
    shades = [found["class"] for tag, found in reader.elements if tag == "path" and "cell" in str(found.get("class"))]
    assert 2 <= len(shades) == len(set(shades)) <= 12


def test_too_many_classes_are_only_listed(tmp_path: Path) -> None:
    said = read_page(write_report(hundred_classes(tmp_path / "run", 230)).read_text(encoding="utf-8")).text
    assert "A matrix of 230 classes is too large to draw." in said


def test_pictures_of_mistakes_are_shown_with_what_was_said_of_them(pages) -> None:
    reader = english(pages, "two_stages")
    pictures = [found for tag, found in reader.elements if tag == "img"]
    assert len(pictures) == 48
    assert re.fullmatch(r"\d predicted as \d", pictures[0]["alt"] or "")
    assert "12 more" in reader.text


def test_explanations_show_their_parts_and_what_is_wrong_with_them(pages) -> None:
    text = english(pages, "two_stages").text
    assert "row 7: 3, 98.0% (correct: 5)" in text
    assert "Not converged" in text and "Not faithful" in text
    assert "lowers the log odds of 3 by 1.25, more than 100% of random rankings" in text
    assert "patch 3" in text
    assert "A view" not in text
    chinese = read_page(pages["hundred_classes", "zh"]).text
    assert "第 7 行：3, 98.0%" in chinese and "3 的对数几率" in chinese and "积分梯度" in chinese and "视图" in chinese


def test_the_commands_reproduce_the_run(pages) -> None:
    said = english(pages, "two_stages").text
    line = next(line for line in said.splitlines() if line.startswith("tunewright run"))
    assert shlex.split(line) == ["tunewright", "run", "recipe.yaml", "train.lr=1e-4", "name=it's mine"]
    assert "pip install tunewright==0.1.0 torch==2.13.0" in said
    assert "tunewright predict runs/two_stages/finetune/model DATA" in said
    assert "/home/someone" not in said
    assert "digits.csv" in said


def test_stages_are_in_the_order_of_the_run_and_unfinished_ones_are_absent(tmp_path: Path) -> None:
    folder = two_stages(tmp_path / "run")
    (folder / "run.json").write_text(json.dumps({"stages": ["finetune", "../../elsewhere", "..", "pretrain", "later"]}))
    headings = re.findall(r"<h2[^>]*>([^<]*)", write_report(folder).read_text(encoding="utf-8"))
    assert headings[2:4] == ["Fine-tune", "Pretrain"]
    (folder / "run.json").unlink()
    headings = re.findall(r"<h2[^>]*>([^<]*)", write_report(folder).read_text(encoding="utf-8"))
    assert headings[2:4] == ["Pretrain", "Fine-tune"]


# --- what may be missing, wrong or hostile ---


def change(stage: Path, how: Callable[[dict[str, Any]], object]) -> None:
    path = stage / "summary.json"
    summary = json.loads(path.read_bytes())
    del summary["content_sha256"]
    how(summary)
    path.write_text(json.dumps(summary))


def variants(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of every entry of nested mappings, and of the first of each list."""
    if isinstance(value, dict):
        for key, entry in value.items():
            yield (*path, key)
            yield from variants(entry, (*path, key))
    elif isinstance(value, list) and value:
        yield (*path, 0)
        yield from variants(value[0], (*path, 0))


@pytest.mark.parametrize("wrong", [None, {}, [[None]], "text", -1, 1e308])
def test_whatever_is_of_another_type_is_named(tmp_path: Path, wrong: object) -> None:
    """Each field of a summary, with another value in its place: either it fits, and there is a page, or file and field are named."""
    run = read_run(two_stages(tmp_path / "run"))
    evaluation = run.stages[1].evaluation
    assert evaluation is not None
    small = replace(
        evaluation,
        confusion=confusion(Outcome(np.eye(2), np.array([0, 1])), ["a", "b"]),
        mistakes=(evaluation.mistakes or [])[:2],
    )
    summary = run.stages[1].summary
    whole = json.loads(json.dumps(replace(summary, evaluation=small, model=replace(summary.model, svg=None)).to_json()))
    words, refused = Words("en"), 0
    places = list(variants(whole))
    assert len(places) > 150
    for place in places:
        spoiled = copy.deepcopy(whole)
        inner = spoiled
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = wrong
        try:
            found = from_json(StageSummary, spoiled, file="summary.json", old_names=OLD_NAMES)
        except ArtifactError as error:
            refused += 1
            # A union is named by its last member, so a place may be that of the field around it.
            assert error.file == "summary.json" and (error.place or "").split(".")[0].split("[")[0] == place[0], place
            continue
        stage = replace(run.stages[1], summary=found)
        assert "<h1>" in page(words, replace(run, stages=[stage])), place
        model_card(found)
    assert refused > len(places) / 2


def test_a_summary_comes_back_from_json(tmp_path: Path) -> None:
    summary = read_summary(two_stages(tmp_path / "run") / "finetune")
    assert from_json(StageSummary, json.loads(json.dumps(summary.to_json()))) == summary
    assert summary.evaluation is not None and len(summary.evaluation.slices) == 3


def test_summaries_of_older_versions_are_read(tmp_path: Path) -> None:
    """Keys that were renamed, and a summary without what came later."""
    whole = json.loads(json.dumps(stage_summary(model=model_summary(frozen=True)).to_json()))
    whole["data"]["left_out"] = whole["data"].pop("skipped")
    del whole["task_facts"], whole["metric_facts"], whole["data"]["licence"]
    (tmp_path / "summary.json").write_text(json.dumps(whole))
    found = read_summary(tmp_path)
    assert found.data.skipped[0].count == 3 and found.data.licence is None and found.task_facts is None
    assert "image-classification" in model_card(found)


def test_a_summary_without_its_parts_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "pretrain").mkdir()
    (tmp_path / "pretrain" / "summary.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"summary\.json, stage: a field is missing"):
        write_report(tmp_path)


def test_a_damaged_line_of_metrics_is_passed_over(tmp_path: Path) -> None:
    folder = unlabelled(tmp_path / "run")
    with (folder / "pretrain" / "metrics.jsonl").open("a") as file:
        file.write(
            '{"kind": "epoch", "step": 1, "epoch": "x"}\n{"kind": "step", "step": 3, "loss": null}\n{"kind": "ep'
        )
    assert "after 8 epochs" in read_page(write_report(folder).read_text(encoding="utf-8")).text


def test_errors_name_the_file_and_the_fix(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no stage has a summary\.json"):
        write_report(tmp_path)
    folder = unlabelled(tmp_path / "run")
    with pytest.raises(UserError, match="--lang"):
        write_report(folder, lang="fr")
    (folder / "pretrain" / "summary.json").write_text('{"stage": ')
    with pytest.raises(ArtifactError, match=r"summary\.json"):
        write_report(folder)


def test_nothing_from_data_or_recipe_becomes_markup(tmp_path: Path) -> None:
    labels = [f"{HOSTILE} {number}" for number in range(4)]
    recipe = f"name: {HOSTILE[:-1]}\n# with these overrides:\n#   a={HOSTILE[:-2]}\n"
    folder = two_stages(tmp_path / "run", labels=labels, source=HOSTILE, recipe=recipe)

    def spoil(summary: dict[str, Any]) -> None:
        for key in ("target", "target_reason", "split_rule", "fingerprint", "licence", "citation"):
            summary["data"][key] = HOSTILE
        summary["data"]["input"] = [HOSTILE]
        summary["data"]["skipped"] = [{"reason": HOSTILE, "count": 1, "examples": [HOSTILE], "fix": HOSTILE}]
        summary["model"]["layers"][0].update(block=HOSTILE, kind=HOSTILE)
        summary["training"].update(
            objective=HOSTILE, optimizer={HOSTILE: {HOSTILE: HOSTILE}}, stopped=HOSTILE, device=HOSTILE
        )
        evaluation = summary["evaluation"]
        evaluation["baselines"][0]["name"] = HOSTILE
        evaluation["slices"][0].update(column=HOSTILE, value=HOSTILE)
        evaluation["metrics"][HOSTILE] = {"value": None, "low": None, "high": None}
        evaluation["mistakes"][0] |= {"image": f'data:image/png;base64,"{HOSTILE}', "target": HOSTILE}
        evaluation["mistakes"][1] |= {"image": None, "input": {HOSTILE: HOSTILE}}
        evaluation["explanations"][0] |= {"file": HOSTILE, "method": HOSTILE, "absent": HOSTILE}
        evaluation["explanations"][0]["units"] = [{"unit": HOSTILE, "score": 1.0}]
        evaluation["explanations"][0]["phrases"] = {"answer": [HOSTILE, HOSTILE], "explained": ["{}", HOSTILE]}
        difference = {"value": 0.1, "low": 0.0, "high": 0.2}
        summary["comparisons"] = [{"name": HOSTILE, "verdict": "better", "metric": HOSTILE, "difference": difference}]
        summary["hint"] = {"advice": HOSTILE, "because": HOSTILE}
        summary["certificate"]["warnings"] = [HOSTILE]
        summary["certificate"]["trained"] = [
            {"block": HOSTILE, "tensors": 1, "parameters": 1, "changed": 0, "unchanged": [HOSTILE]}
        ]
        summary["task"] = HOSTILE
        summary["task_facts"]["title"] = {"en": HOSTILE, "zh": HOSTILE}
        facts = {"name": HOSTILE, "title": {"en": HOSTILE, "zh": HOSTILE}, "style": "percent", "hub_name": HOSTILE}
        summary["metric_facts"] = {HOSTILE: {**facts, "greater_is_better": False}}

    for stage in ("pretrain", "finetune"):
        change(folder / stage, spoil)
    environment = json.loads((folder / "environment.json").read_bytes())
    environment |= {"platform": HOSTILE, "packages": {HOSTILE: HOSTILE}, "data": [{"path": HOSTILE, "sha256": HOSTILE}]}
    (folder / "environment.json").write_text(json.dumps(environment))
    for lang in ("en", "zh"):
        written = write_report(folder, lang=lang).read_text(encoding="utf-8")
        reader = read_page(written)
        assert "script" not in {tag for tag, _ in reader.elements}
        assert "<script" not in written
        assert "\u202e" not in written
        assert "\x00" not in written
        assert reader.text.count("<script>alert('1')</script>") > 20
        for drawing in re.findall(r"<svg.*?</svg>", written, re.DOTALL):
            ElementTree.fromstring(drawing)


HOSTILE_DRAWINGS = [
    "<script xmlns='http://www.w3.org/2000/svg'>alert(1)</script>",
    '<!DOCTYPE svg [<!ENTITY a "aaaa">]><svg xmlns="http://www.w3.org/2000/svg"><text>&a;</text></svg>',
    "<svg><not closed",
    "<svg>without a namespace</svg>",
    "",
]


def test_only_shapes_of_a_drawing_are_taken_over() -> None:
    drawing = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 9 9" '
        'onload="alert(1)"><script>alert(2)</script><style>*{display:none}</style><foreignObject><p>x</p></foreignObject>'
        '<image href="http://example.org/x.png"/><a href="javascript:alert(3)"><text>link</text></a>'
        '<rect id="box" fill="url(#box)" style="fill:url(http://example.org)" stroke="url(#box)"/>'
        '<use xlink:href="#box"/><text fill="RED">&lt;b&gt; &amp; more</text></svg>'
    )
    clean = clean_svg(drawing, "finetune")
    assert clean == (
        '<svg viewBox="0 0 9 9"><rect id="finetune-box" fill="url(#finetune-box)" stroke="url(#finetune-box)"/>'
        '<text fill="RED">&lt;b&gt; &amp; more</text></svg>'
    )


@pytest.mark.parametrize("drawing", HOSTILE_DRAWINGS)
def test_what_is_no_drawing_is_left_out(drawing) -> None:
    assert clean_svg(drawing, "x") is None


@pytest.mark.parametrize(
    "uri",
    [
        None,
        7,
        "http://example.org/x.png",
        "data:image/svg+xml;base64,AAAA",
        "data:text/html;base64,AAAA",
        'data:image/png;base64,AAAA" onload="alert(1)',
        "data:image/png;base64," + "A" * 100_000,
    ],
)
def test_only_small_pictures_are_embedded(uri) -> None:
    assert image_uri(uri) is None
    assert image_uri(picture(1)) == picture(1)


# --- numbers, axes, charts ---


@pytest.mark.parametrize(
    ("metric", "found", "written"),
    [
        ("accuracy", (0.976, 0.973, 0.979), "97.6 % [97.3, 97.9]"),
        ("accuracy", (0.99974, 0.99961, 0.99985), "99.97 % [99.96, 99.98]"),
        ("accuracy", (1.0, 1.0, 1.0), "100.0 % [100.0, 100.0]"),
        ("accuracy", (0.5, None, None), "50.0 %"),
        ("f1_macro", (0.97391, 0.97069, 0.97697), "0.974 [0.971, 0.977]"),
        ("log_loss", (0.0832, 0.0734, 0.0934), "0.083 [0.073, 0.093]"),
        ("r2", (-0.0004, -0.1, 0.1), "0.000 [−0.100, 0.100]"),
        ("rmse", (9.0634, 8.2912, 9.7123), "9.06 [8.29, 9.71]"),
        ("rmse", (45231.7, 44011.2, 46499.8), "45,232 [44,011, 46,500]"),
        ("mae", (0.0012345, None, None), "0.001234"),
    ],
)
def test_estimates_have_the_digits_that_their_interval_allows(metric, found, written) -> None:
    value, low, high = found
    assert numbers.estimate(facts_of(metric), Figure(value=value, low=low, high=high)) == written


def test_differences_are_signed() -> None:
    found = Figure(value=-0.007, low=-0.028, high=0.013)
    assert numbers.difference(facts_of("accuracy"), found, "points") == "−0.7 points [−2.8, +1.3]"
    assert numbers.difference(facts_of("rmse"), Figure(value=0.0), "points") == "0"


@pytest.mark.parametrize(
    ("write", "examples"),
    [
        (
            numbers.significant,
            {0: "0", 0.062936: "0.06294", 12340.4: "12,340", -1.5e-7: "−1.5×10⁻⁷", 2e12: "2×10¹²", 0.001: "0.001"},
        ),
        (numbers.confidence, {0.5: "50.0 %", 0.99996: "99.996 %", 0.99999999: "> 99.9999 %", 1.0: "100.0 %"}),
        (numbers.compact, {7: "7", 1290: "1.29 k", 203392: "203 k", 1.267e6: "1.27 M", 4.1e9: "4.1 G"}),
        (numbers.duration, {0.667: "0.67 s", 7.06: "7.1 s", 200: "3 min 20 s", 7500: "2 h 5 min"}),
        (numbers.size, {999: "999 B", 1_602_050: "1.6 MB"}),
    ],
)
def test_numbers_are_written_the_same_everywhere(write, examples) -> None:
    assert {number: write(number) for number in examples} == examples


def test_labels_of_ticks_have_the_digits_of_their_step() -> None:
    assert numbers.tick(facts_of("accuracy"), 0.975, 0.005) == "97.5 %"
    assert numbers.tick(facts_of(LOSS), 0.2, 0) == "0.2"


@pytest.mark.parametrize("low", [0, -3.7, 1e-9, 12345.6, 0.9741])
@pytest.mark.parametrize("span", [1e-7, 0.0031, 1, 7.7, 5e6])
def test_ticks_are_round_and_inside(low, span) -> None:
    ticks = linear_ticks(low, low + span)
    assert 2 <= len(ticks.values) <= 9
    assert all(low - span * 1e-6 <= value <= low + span * (1 + 1e-6) for value in ticks.values)
    assert f"{ticks.step:.0e}"[0] in "125"


def test_logarithmic_ticks() -> None:
    assert log_ticks(0.04, 2.5).values == pytest.approx([0.05, 0.1, 0.2, 0.5, 1, 2])
    assert log_ticks(1e-6, 10).values == pytest.approx([1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1, 10])


def test_names_are_broken_between_words_and_cut_off_at_the_end() -> None:
    assert wrapped("short", 100, 12) == ["short"]
    lines = wrapped("a name of many words that does not fit into one line", 150, 12)
    assert len(lines) == 2
    assert all(width(line, 12) <= 150 for line in lines)
    assert lines[1].endswith("…")
    assert wrapped("x" * 99, 60, 12)[0].endswith("…")
    assert width("中文", 10) == 20


def plot(points: list[tuple[float, float]]) -> ElementTree.Element:
    lines = [
        Line(name="training", points=points, look="two"),
        Line(name="validation", points=[(x, 2 * y) for x, y in points], look="one"),
    ]
    chart = line_chart(
        lines,
        label="loss",
        x_label="epoch",
        tick=lambda value, _: f"{value:.3g}",
        hint=lambda x, y: f"{x}: {y}",
        log_label="log",
    )
    return ElementTree.fromstring(chart)


def places(root: ElementTree.Element) -> list[list[tuple[float, ...]]]:
    """The points of each line, in pixels."""
    lines = [line.get("points", "").split() for line in root.iter("polyline")]
    return [[tuple(map(float, pair.split(","))) for pair in line] for line in lines]


def test_a_line_chart_puts_points_where_they_belong() -> None:
    root = plot([(1, 1.0), (2, 0.5), (3, 0.25)])
    first, second = places(root)
    assert [x for x, _ in first] == [x for x, _ in second]
    assert first[1][0] - first[0][0] == pytest.approx(first[2][0] - first[1][0], abs=0.2)
    # Below is less: y grows downwards.
    assert first[0][1] < first[1][1] < first[2][1]
    assert second[1][1] == pytest.approx(first[0][1], abs=0.1)
    assert [title.text for title in root.iter("title")][:2] == ["training, 1: 1.0", "training, 2: 0.5"]
    assert not [text for text in root.iter("text") if text.text == "log"]


def test_a_wide_range_is_drawn_on_a_logarithmic_axis() -> None:
    root = plot([(1, 10.0), (2, 1.0), (3, 0.1)])
    points = [y for _, y in places(root)[0]]
    assert points[1] - points[0] == pytest.approx(points[2] - points[1], abs=0.2)
    assert [text for text in root.iter("text") if text.text == "log"]


@pytest.mark.parametrize("points", [[(1, 0.5)], [(1, 0.0), (2, 0.0)], [(1, 1e300), (2, 1e-300)], [(1, -5.0), (2, 5.0)]])
def test_strange_curves_can_be_drawn(points) -> None:
    assert plot(points).get("viewBox")


def whiskers(values: list[tuple[float, bool]]) -> ElementTree.Element:
    rows = [
        Whisker(name=f"row {i}", value=value, low=value - 0.01, high=value + 0.01, shown=f"{value}", strong=strong)
        for i, (value, strong) in enumerate(values)
    ]
    return ElementTree.fromstring(
        whisker_chart(rows, label="accuracy", tick=lambda value, _: f"{value:.2f}", off_scale="far off")
    )


def test_a_whisker_chart_orders_places_like_values() -> None:
    root = whiskers([(0.9, True), (0.8, False), (0.7, False)])
    dots = [float(circle.get("cx", "").rstrip("%")) for circle in root.iter("circle")]
    assert dots == sorted(dots, reverse=True)
    assert dots[0] - dots[1] == pytest.approx(dots[1] - dots[2], abs=0.1)
    assert root.get("aria-label") == "accuracy. row 0: 0.9; row 1: 0.8; row 2: 0.7"


def test_a_baseline_far_off_does_not_squeeze_the_others() -> None:
    root = whiskers([(0.95, True), (0.93, False), (0.1, False)])
    dots = [float(circle.get("cx", "").rstrip("%")) for circle in root.iter("circle")]
    assert len(dots) == 2
    assert dots[0] - dots[1] > 15
    assert [text.text for text in root.iter("text") if "far off" in (text.text or "")] == ["◂ far off"]


def test_a_matrix_has_a_shade_for_each_share() -> None:
    counts = [[90, 10, 0], [1, 99, 0], [0, 0, 0]]
    labels = ["a", "a name that is too long for its row", "c"]
    drawn = heat_map(labels, counts, label="m", row_label="r", column_label="c", hint=lambda i, j: f"{i}{j}")
    cells = [cell.get("class") for cell in ElementTree.fromstring(drawn).iter("g")]
    assert cells == ["cell b6", "cell o6", "cell o2", "cell b6"]


# --- colours ---


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance of sRGB."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("palette", [LIGHT, DARK])
def test_text_and_marks_have_enough_contrast(palette) -> None:
    for name in ("ink", "quiet", "one", "two", "good", "bad"):
        assert contrast(palette[name], palette["paper"]) >= 4.5, name
    for name in ("ink", "quiet", "good", "bad"):
        assert contrast(palette[name], palette["panel"]) >= 4.5, name
    assert contrast(palette["line"], palette["paper"]) >= 3
    for level in range(1, 7):
        for hue in "bo":
            assert contrast(palette[on_shade(level)], palette[f"{hue}{level}"]) >= 4.5, (hue, level)
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


def simulate(colour: str, kind: str) -> tuple[float, float, float]:
    """How it looks with protanopia or deuteranopia (Viénot, Brettel and Mollon 1999), in linear RGB."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    if kind == "protan":
        return (0.1124 * red + 0.8876 * green, 0.1124 * red + 0.8876 * green, 0.0040 * red - 0.0040 * green + blue)
    return (0.2928 * red + 0.7072 * green, 0.2928 * red + 0.7072 * green, -0.0223 * red + 0.0223 * green + blue)


@pytest.mark.parametrize("palette", [LIGHT, DARK])
@pytest.mark.parametrize("kind", ["protan", "deutan"])
def test_blue_and_orange_differ_for_the_colour_blind(palette, kind) -> None:
    for one, other in (("one", "two"), ("b3", "o3"), ("b5", "o5")):
        difference = [
            abs(a - b) for a, b in zip(simulate(palette[one], kind), simulate(palette[other], kind), strict=True)
        ]
        assert max(difference) > 0.15


def test_dark_is_for_the_screen_only() -> None:
    sheet = style_sheet()
    assert "@media screen and (prefers-color-scheme:dark)" in sheet
    assert "@media print" in sheet
    used = set(re.findall(r"var\(--(\w+)", sheet))
    assert used <= set(LIGHT) | {"sans", "serif", "mono"}
    assert set(LIGHT) == set(DARK)
    assert set(LIGHT) <= used


# --- building blocks ---


def test_markup_is_safe_by_construction() -> None:
    assert tag("p", "<b>", None, [Html("<i>x</i>"), 3], class_="a&b", hidden=True, open_=False) == (
        '<p class="a&amp;b" hidden>&lt;b&gt;<i>x</i>3</p>'
    )
    assert tag("a", "x", title='" onclick="alert(1)') == '<a title="&quot; onclick=&quot;alert(1)">x</a>'
    assert text("a\x00b\ud800c\u202ed\ufffe") == "a�b�c�d�"
    assert text("\t中文 é 🙂\n") == "\t中文 é 🙂\n"
    assert Words("en").html("title", task="<b>", data=tag("i", "x")) == "&lt;b&gt; on <i>x</i>"
    assert Words("zh")("title", task="{data}", data="x") == "x 上的{data}"


def test_a_page_is_made_quickly_and_without_heavy_packages(tmp_path: Path) -> None:
    folder = two_stages(tmp_path / "run")
    code = (
        "import sys; from pathlib import Path; from tunewright.report.page import write_report\n"
        "import tunewright.report.card\n"
        f"write_report(Path({str(folder)!r}))\n"
        "print([name for name in ('torch', 'pyarrow', 'sklearn', 'pandas', 'PIL') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- the model card ---


def front_matter(card: str) -> dict[str, Any]:
    _, matter, _ = card.split("---\n", 2)
    return yaml.safe_load(matter)


def test_the_card_has_a_model_index_with_the_figures(tmp_path: Path) -> None:
    summary = read_summary(two_stages(tmp_path / "run") / "finetune")
    assert summary.evaluation is not None
    card = model_card(summary, name="digits")
    matter = front_matter(card)
    assert matter["pipeline_tag"] == "image-classification"
    (model,) = matter["model-index"]
    (result,) = model["results"]
    assert model["name"] == "digits"
    assert result["task"]["type"] == "image-classification"
    assert result["dataset"] == {"name": "digits", "type": "digits", "split": "test"}
    values = {entry["type"]: entry["value"] for entry in result["metrics"]}
    assert values["accuracy"] == summary.evaluation.metrics["accuracy"].value
    assert values["f1"] == summary.evaluation.metrics["f1_macro"].value
    assert "**Accuracy: 90.0 % [87.6, 92.1]**" in card
    assert "Over 3 seeds, this one among them, the mean is 90.2 %" in card
    assert "| macro F1 |" in card
    assert 'tunewright.load_model("path/to/this/folder")' in card
    for heading in ("Intended use", "Data", "Model and training", "Evaluation", "Limits", "How to load it"):
        assert f"\n## {heading}\n" in card
    assert "CC BY 4.0" in card
    assert "Freeze certificate: Passed" in card


def test_the_card_of_a_model_that_was_not_evaluated_claims_nothing(tmp_path: Path) -> None:
    card = model_card(read_summary(unlabelled(tmp_path / "run") / "pretrain"))
    assert "model-index" not in front_matter(card)
    assert "not evaluated" in card
    assert "it predicts nothing by itself" in card


def test_nothing_hostile_gets_through_the_card() -> None:
    evil = "`|</details> [x](javascript:alert(1)) *b* \x00---\n# heading"
    metrics = {"accuracy": Estimate(0.5, 0.4, 0.6), evil: Estimate(1, None, None)}
    summary = stage_summary(
        stage=evil,
        task=evil,
        task_facts=TaskFacts(title=Title(en=evil, zh=evil), hub_task=evil, intended_use=evil),
        data=replace(data_summary(evil, [evil], target=evil, inputs=[evil]), licence=evil),
        evaluation=EvaluationSummary(
            split=evil,
            rows=10,
            metrics=metrics,
            baselines=[BaselineSummary(name=evil, metrics={"accuracy": Estimate(0.4, None, None)})],
        ),
        comparisons=[Comparison(name=evil, metric=evil, difference=metrics[evil], verdict="better")],
        hint=HintSummary(evil, evil),
    )
    card = model_card(summary, name=evil)
    matter = front_matter(card)
    assert matter["model-index"][0]["results"][0]["dataset"]["name"] == evil.replace("\x00", "�").replace("\n", " ")
    body = card.split("---\n", 2)[2]
    assert "</details>" not in body
    assert "\x00" not in card
    assert not re.search(r"(?<!\\)\[x\](?!\\)", body)
    assert "\n# heading" not in body
    row = next(line for line in body.splitlines() if line.startswith("| accuracy"))
    head = next(line for line in body.splitlines() if line.startswith("| Metric"))
    assert len(re.findall(r"(?<!\\)\|", row)) == len(re.findall(r"(?<!\\)\|", head)) == 4


def test_after_one_epoch_the_single_steps_are_seen() -> None:
    steps = [(index / 10, 3 - index / 5) for index in range(1, 10)]
    chart = line_chart(
        [
            Line(name="steps", points=steps, look="faint"),
            Line(name="training", points=[(1.0, 1.2)], look="two"),
            Line(name="validation", points=[(1.0, 1.15)], look="one"),
        ],
        label="loss",
        x_label="epoch",
        tick=lambda value, _: f"{value:.3g}",
        hint=lambda x, y: f"{x}: {y}",
    )
    labels = [float(text.text or "nan") for text in ElementTree.fromstring(chart).iter("text") if _is_number(text.text)]
    assert max(labels) > 2


def _is_number(text: str | None) -> bool:
    return bool(text) and text.replace(".", "").isdigit()
