"""The model card: the README.md of a saved model, with the figures where the Hugging Face hub looks for them.

The front matter follows huggingface_hub's model card specification (`model-index`), the text the headings of Mitchell
et al. 2019, "Model Cards for Model Reporting".
"""

from __future__ import annotations

import html
import json
import re
from typing import Any

import yaml

from tunewright.report import numbers
from tunewright.report.components import baseline_name, best_baseline, capital, verdict
from tunewright.report.html import plain
from tunewright.report.promises import promises, statistics
from tunewright.report.reading import Stage, shown, with_options
from tunewright.report.translations import Words
from tunewright.runs.summary.data import DataSummary
from tunewright.runs.summary.facts import MetricFacts
from tunewright.runs.summary.model import OpeningSummary
from tunewright.runs.summary.stage import StageSummary

# More input columns than this are counted, not listed.
LISTED = 20

# What stands for the model's folder in the card.
FOLDER = "path/to/this/folder"

# What a comparison with the best baseline says, in the words of the report.
_SAY = Words("en")

_MARKDOWN = re.compile(r"([\\`*_\[\]|~$])")


def model_card(summary: StageSummary, *, name: str | None = None) -> str:
    """Return README.md for a saved model.

    Args:
        name: the recipe's; None: the card is named after task and data.

    Returns:
        Markdown with YAML front matter. What was not measured is said to be so, and is not in the front matter.
    """
    stage = Stage(name=summary.stage, summary=summary)
    title = name or f"{_SAY.task(summary)} on {stage.source}"
    parts = [
        f"---\n{_front_matter(stage, title)}---",
        f"# {_md(title)}",
        _headline(stage),
        "## Intended use",
        _intended_use(summary),
        "## Data",
        _data(summary.data),
        "## Model and training",
        _training(summary),
        "## Evaluation",
        _evaluation(stage),
        *_privacy(summary),
        "## Limits",
        _limits(stage),
        "## How to load it",
        _opening(summary.model.opening),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(stage: Stage, title: str) -> str:
    summary, source = stage.summary, stage.source
    made_from = summary.model.opening.made_from
    tag = summary.task_facts.hub_task if summary.task_facts is not None else summary.task
    metrics = [
        {"type": metric.hub_name, "name": metric.title.en, "value": found.value}
        for metric, found in ((stage.metric(name), found) for name, found in stage.figures.items())
    ]
    entries: dict[str, Any] = {
        "library_name": summary.model.opening.library,
        "pipeline_tag": tag,
        "tags": ["tunewright", stage.name],
    }
    if made_from is not None and made_from.licence:
        entries["license"] = made_from.licence.lower()
    if made_from is not None and made_from.hub:
        entries["base_model"] = made_from.hub
    if source.startswith("hub:"):
        entries["datasets"] = [source.removeprefix("hub:")]
    if metrics and stage.evaluation is not None:
        result = {
            "task": {"type": tag, "name": _SAY.task(summary)},
            "dataset": {"name": source, "type": source.removeprefix("hub:"), "split": stage.evaluation.split},
            "metrics": metrics,
        }
        entries["metrics"] = [entry["type"] for entry in metrics]
        entries["model-index"] = [{"name": title, "results": [result]}]
    return yaml.safe_dump(_printable(entries), sort_keys=False, allow_unicode=True, width=1000)


def _printable(value: Any) -> Any:
    """The same, each text on one line and without characters that no YAML file may hold."""
    if isinstance(value, dict):
        return {key: _printable(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_printable(entry) for entry in value]
    return " ".join(plain(value).split()) if isinstance(value, str) else value


def _headline(stage: Stage) -> str:
    """This model's own figure; the mean over seeds belongs to its siblings too."""
    metric = stage.headline_metric
    if metric is None:
        return "This model was not evaluated on test rows."
    found, best, over_seeds = stage.figures[metric.name], best_baseline(stage), stage.over_seeds
    lower = "" if metric.greater_is_better else "; lower is better"
    sentences = [f"**{capital(_title(metric))}: {numbers.estimate(metric, found)}** (95 % interval{lower})."]
    if best is not None:
        key = verdict(metric, found, best[1])
        name = _md(baseline_name(_SAY, best[0]))
        sentences.append(_SAY(key, name=name, value=numbers.estimate(metric, best[1])))
    if over_seeds is not None:
        written = numbers.estimate(metric, over_seeds)
        sentences.append(f"Over {len(stage.seed_values)} seeds, this one among them, the mean is {written}.")
    return " ".join(sentences)


def _intended_use(summary: StageSummary) -> str:
    data, evaluation = summary.data, summary.evaluation
    if data.target is None and summary.task_facts is not None and summary.task_facts.intended_use is not None:
        return _md(summary.task_facts.intended_use)
    if data.target is None:
        return "An encoder that was pretrained without labels, to be fine-tuned; it predicts nothing by itself."
    inputs, classes = [_code(shown(column)) for column in data.input], data.classes or []
    several = evaluation is not None and evaluation.labels is not None
    choice = f"any of {len(classes)} labels" if several else f"one of {len(classes)} classes"
    of_classes = f", {choice}," if classes else ""
    more = f" and {len(inputs) - LISTED} more columns" if len(inputs) > LISTED else ""
    return (
        f"{_md(capital(_SAY.task(summary)))}: predicts {_code(data.target)}{of_classes} from "
        f"{', '.join(inputs[:LISTED]) or 'its inputs'}{more}. It is meant for data from the same source and of the "
        "same kind as below. It was not tested for decisions about people."
    )


def _data(data: DataSummary) -> str:
    lines = [f"- Source: {_md(data.source)}"]
    if data.rows:
        rows = ", ".join(f"{name} {numbers.count(count)}" for name, count in data.rows.items())
        lines.append(f"- Rows: {_md(rows)}")
    if data.read is not None and data.used is not None:
        lines.append(f"- Used: {numbers.count(data.used)} of {numbers.count(data.read)} rows read")
    lines += [f"- Skipped: {numbers.count(entry.count)} rows, {_md(shown(entry.reason))}" for entry in data.skipped]
    lines += [
        f"- {label}: {_md(value)}"
        for label, value in (
            ("Split", data.split_rule),
            ("Licence", data.licence or "not stated"),
            ("Citation", data.citation),
            ("Fingerprint", data.fingerprint),
        )
        if value
    ]
    return "\n".join(lines)


def _opening(opening: OpeningSummary) -> str:
    """How the folder is opened: by the library that its format belongs to, and by Tunewright."""
    ours = (
        f'```python\nimport tunewright\n\nmodel = tunewright.load_model("{FOLDER}")\n```\n\n'
        f"From the command line: `tunewright predict {FOLDER} DATA`"
    )
    if opening.own_head:
        return (
            "The model has a head of its own, which no class of Transformers has: open it with Tunewright.\n\n" + ours
        )
    kind = opening.model_class
    if kind is None or opening.library not in ("transformers", "peft"):
        return ours
    lines = _with_peft(opening, kind) if opening.library == "peft" else _with_transformers(kind)
    if opening.tokenizer:
        lines = [
            line.replace("from transformers import ", "from transformers import AutoTokenizer, ") for line in lines
        ]
        lines.append(f'tokenizer = AutoTokenizer.from_pretrained("{FOLDER}")')
    code = "\n".join(lines)
    return f"```python\n{code}\n```\n\nTunewright also encodes the inputs and names the answers:\n\n{ours}"


def _with_transformers(kind: str) -> list[str]:
    return [f"from transformers import {kind}", "", f'model = {kind}.from_pretrained("{FOLDER}")']


def _with_peft(opening: OpeningSummary, kind: str) -> list[str]:
    """The base gets the classes of this model, so that its head has their number; peft's files do not hold their names."""
    base = json.dumps(opening.base or "the base model", ensure_ascii=False)
    lines = [
        "import json",
        "from pathlib import Path",
        "",
        "from peft import PeftModel",
        f"from transformers import {kind}",
    ]
    lines += ["", f'folder = Path("{FOLDER}")']
    if opening.named_classes:
        lines += [
            'known = json.loads((folder / "tunewright.json").read_text(encoding="utf-8"))["network"]["config"]["id2label"]',
            "classes = {int(index): name for index, name in known.items()}",
            "indices = {name: index for index, name in classes.items()}",
            f"base = {kind}.from_pretrained({base}, id2label=classes, label2id=indices)",
        ]
    else:
        lines.append(f"base = {kind}.from_pretrained({base})")
    if (bits := opening.quantize) is not None:
        lines.append(
            f"# It was trained with this base quantized to {bits}: with full weights its answers differ slightly."
        )
    return [*lines, "model = PeftModel.from_pretrained(base, folder)"]


def _training(summary: StageSummary) -> str:
    model, done = summary.model, summary.training
    total, frozen = numbers.count(model.parameters.total), numbers.count(model.parameters.frozen)
    lines = [f"- Network: {_md(model.title)}", f"- Parameters: {total}, {frozen} of them frozen"]
    if done.epochs_run is not None and done.steps is not None:
        epochs, steps = numbers.count(done.epochs_run), numbers.count(done.steps)
        lines.append(f"- Trained for: {epochs} epochs, {steps} steps, {numbers.duration(done.seconds)}")
    lines.append(f"- Objective: {_md(_SAY.known(done.objective))}")
    if done.optimizer is not None and done.lr is not None:
        rate = numbers.significant(done.lr)
        lines.append(f"- Optimiser: {_md(with_options(done.optimizer))}, learning rate {rate}")
    if (few := done.few_shot) is not None:
        strength = numbers.significant(few.strength)
        lines.append(
            f"- Head: logistic regression on features, C {strength}; {few.examples_per_class:.3g} examples per class"
        )
    lines.append(f"- Seed: {summary.seed}")
    if (intact := summary.certificate.intact) is not None:
        sentence = _SAY("frozen_intact" if intact else "frozen_changed")
        lines.append(f"- Freeze certificate: {_SAY('passed' if intact else 'failed')}. {sentence}.")
    return "\n".join(lines)


def _evaluation(stage: Stage) -> str:
    evaluation = stage.evaluation
    if evaluation is None or not stage.figures:
        return "Not measured."
    rows, split = numbers.count(evaluation.rows), _md(_SAY.known(evaluation.split))
    head = ["Metric", "This model", *(_md(baseline_name(_SAY, entry)) for entry in evaluation.baselines)]
    lines = [
        (_md(evaluation.warning) if evaluation.warning else _SAY("result_on", rows=rows, split=split))
        + " 95 % intervals.\n",
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
    ]
    for name, found in stage.figures.items():
        metric = stage.metric(name)
        others = [numbers.figure(entry.metrics.get(name)) for entry in evaluation.baselines]
        cells = ["not measured" if other is None else numbers.estimate(metric, other) for other in others]
        lines.append(f"| {' | '.join([_title(metric), numbers.estimate(metric, found), *cells])} |")
    comparisons = _comparisons(stage)
    return "\n".join(lines + (["", *comparisons] if comparisons else []))


def _comparisons(stage: Stage) -> list[str]:
    found: list[str] = []
    for entry in stage.summary.comparisons or []:
        metric, known = stage.metric(entry.metric), numbers.figure(entry.difference)
        figure = f" ({_title(metric)} {numbers.difference(metric, known, _SAY('points'))})" if known else ""
        found.append(f"- Against {_md(shown(entry.name))}: {entry.verdict}{figure}")
    return found


def _privacy(summary: StageSummary) -> list[str]:
    """What is promised of the rows, over everything that the weights come from; nothing where no stage was private."""
    if (found := summary.privacy) is None:
        return []
    lines = [f"- {_md(line)}" for line in promises(_SAY, found)]
    if kept := statistics(_SAY, found.statistics):
        lines += ["", _SAY("privacy_kept"), "", *(f"- {_md(line)}" for line in kept)]
    lines += ["", _SAY("privacy_not"), "", *(f"- {_md(note)}" for note in found.not_covered)]
    return ["## Differential privacy", "\n".join(lines)]


def _limits(stage: Stage) -> str:
    lines = [
        "- The figures hold for rows drawn as the test rows were; on data from another source, time or device the "
        "model may do worse."
    ]
    if stage.evaluation is not None and stage.evaluation.rows < 1000:
        lines.append(f"- {numbers.count(stage.evaluation.rows)} test rows are few: the intervals are wide.")
    if weakest := _weakest_slice(stage):
        lines.append(f"- Weakest slice: {weakest}.")
    if (hint := stage.summary.hint) is not None:
        lines.append(f"- What would most likely help: {_md(hint.advice)}. {_md(capital(hint.because))}")
    return "\n".join(lines)


def _weakest_slice(stage: Stage) -> str | None:
    """The slice with the worst value; those with few rows do not count."""
    metric, evaluation = stage.headline_metric, stage.evaluation
    if metric is None or evaluation is None:
        return None
    sign = 1 if metric.greater_is_better else -1
    found: list[tuple[float, str]] = []
    for entry in evaluation.slices:
        known = numbers.figure(entry.metrics.get(metric.name))
        if known is not None and not entry.small:
            place = f"{_code(shown(entry.column))} = {_code(shown(entry.value))}"
            found.append((sign * known.value, f"{place}, {_title(metric)} {numbers.estimate(metric, known)}"))
    return min(found)[1] if len(found) > 1 else None


def _title(metric: MetricFacts) -> str:
    return _md(_SAY.title(metric.title))


def _md(value: str) -> str:
    """A text from data or recipe, so that none of it is taken for Markdown or HTML."""
    return _MARKDOWN.sub(r"\\\1", html.escape(plain(" ".join(value.split())), quote=False))


def _code(value: str) -> str:
    """The same, set as code where it holds nothing that could end the code."""
    return _md(value) if re.search("[`<|&]", value) else f"`{plain(' '.join(value.split()))}`"
