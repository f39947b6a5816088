"""The model card: the README.md of a saved model, with the figures where the Hugging Face hub looks for them.

The front matter follows huggingface_hub's model card specification (`model-index`), the text the headings of Mitchell
et al. 2019, "Model Cards for Model Reporting".
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from typing import Any

import yaml

from tunewright.report import numbers
from tunewright.report.components import best_baseline, capital, verdict
from tunewright.report.html import plain
from tunewright.report.promises import promises, statistics
from tunewright.report.reading import Stage, mapping, named, number_from, sequence, shown, words_of
from tunewright.report.translations import KNOWN, Words

# The hub's names of metrics, where they differ from ours.
HUB_METRICS = {
    "f1_macro": "f1",
    "f1_micro": "f1",
    "pr_auc": "average_precision",
    "subset_accuracy": "accuracy",
    "brier": "brier_score",
    "r2": "r_squared",
}

# The hub's names of tasks, where they differ from ours.
HUB_TASKS = {
    "text-regression": "text-classification",
    "text-multilabel-classification": "text-classification",
    "image-multilabel-classification": "image-classification",
    "masked-language-modeling": "fill-mask",
    "language-modeling": "text-generation",
    "supervised-fine-tuning": "text-generation",
    "preference-tuning": "text-generation",
}

# More input columns than this are counted, not listed.
LISTED = 20

# What stands for the model's folder in the card.
FOLDER = "path/to/this/folder"

# What a comparison with the best baseline says, in the words of the report.
_SAY = Words("en")

_MARKDOWN = re.compile(r"([\\`*_\[\]|~$])")


def model_card(summary: Mapping[str, Any], resolved: Mapping[str, Any]) -> str:
    """README.md for a saved model.

    Args:
        summary: the stage's summary.json.
        resolved: the recipe with every default filled in, as a mapping.

    Returns:
        Markdown with YAML front matter. What was not measured is said to be so, or left out of the front matter.
    """
    stage = Stage(name=words_of(summary.get("stage")) or "model", summary=dict(summary), epochs=[], steps=[])
    data = stage.part("data")
    source = words_of(data.get("source")) or "unknown data"
    task = words_of(summary.get("task")) or "unknown task"
    name = words_of(resolved.get("name")) or f"{_SAY.known(task)} on {source}"
    parts = [
        f"---\n{_front_matter(stage, name, task, source)}---",
        f"# {_md(name)}",
        _headline(stage),
        "## Intended use",
        _intended_use(stage, task),
        "## Data",
        _data(data, source),
        "## Model and training",
        _training(stage, resolved),
        "## Evaluation",
        _evaluation(stage),
        *_privacy(stage),
        "## Limits",
        _limits(stage),
        "## How to load it",
        _opening(stage),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(stage: Stage, name: str, task: str, source: str) -> str:
    metrics = [
        {
            "type": HUB_METRICS.get(metric, metric),
            "name": KNOWN[metric][0] if metric in KNOWN else metric,
            "value": found.value,
        }
        for metric, found in stage.estimates.items()
    ]
    opening = mapping(stage.part("model").get("opening"))
    made_from = mapping(opening.get("made_from"))
    tag = HUB_TASKS.get(task, task)
    entries: dict[str, Any] = {
        "library_name": words_of(opening.get("library")) or "tunewright",
        "pipeline_tag": tag,
        "tags": ["tunewright", stage.name],
    }
    if licence := words_of(made_from.get("licence")):
        entries["license"] = licence.lower()
    if base := words_of(made_from.get("hub")):
        entries["base_model"] = base
    if source.startswith("hub:"):
        entries["datasets"] = [source.removeprefix("hub:")]
    if metrics:
        split = words_of(stage.part("evaluation").get("split")) or "test"
        result = {
            "task": {"type": tag, "name": _SAY.known(task)},
            "dataset": {"name": source, "type": source.removeprefix("hub:"), "split": split},
            "metrics": metrics,
        }
        entries["metrics"] = [entry["type"] for entry in metrics]
        entries["model-index"] = [{"name": name, "results": [result]}]
    return yaml.safe_dump(_printable(entries), sort_keys=False, allow_unicode=True, width=1000)


def _printable(value: Any) -> Any:
    """The same, each text on one line and without characters that no YAML file may hold."""
    if isinstance(value, dict):
        return {key: _printable(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_printable(entry) for entry in value]
    return " ".join(plain(value).split()) if isinstance(value, str) else value


def _headline(stage: Stage) -> str:
    """This model's own figure; the mean over seeds is that of its siblings too."""
    metric = stage.metric
    if metric is None:
        return "This model was not evaluated on test rows."
    found, best, over_seeds = stage.estimates[metric], best_baseline(stage), stage.over_seeds
    lower = "" if numbers.greater_is_better(metric) else "; lower is better"
    sentences = [f"**{capital(_name(metric))}: {numbers.estimate(metric, found)}** (95 % interval{lower})."]
    if best is not None:
        key = verdict(metric, found, best[1])
        sentences.append(_SAY(key, name=_md(best[0]), value=numbers.estimate(metric, best[1])))
    if over_seeds is not None:
        written = numbers.estimate(metric, over_seeds)
        sentences.append(f"Trained again with other seeds, {len(stage.seed_values)} in all, the mean is {written}.")
    return " ".join(sentences)


def _intended_use(stage: Stage, task: str) -> str:
    data = stage.part("data")
    inputs = [_code(shown(column)) for column in sequence(data.get("input"))]
    target, classes = words_of(data.get("target")), sequence(data.get("classes"))
    if target is None and task == "masked-language-modeling":
        return "An encoder that says which tokens of a text were hidden, to be fine-tuned for what texts are to tell."
    if target is None and task == "supervised-fine-tuning":
        return "A chat model: it answers as the assistant of the conversations below does. It was not examined for truth or safety."
    if target is None and task == "preference-tuning":
        return "A chat model that learned which of two answers people want. It was not examined for truth or safety."
    if target is None and task == "language-modeling":
        return "A language model: it writes on from a text. Nobody taught it to answer, or to tell the truth."
    if target is None:
        return "An encoder that was pretrained without labels, to be fine-tuned; it predicts nothing by itself."
    several = bool(sequence(stage.part("evaluation").get("labels")))
    of_classes = (
        f", {f'any of {len(classes)} labels' if several else f'one of {len(classes)} classes'}," if classes else ""
    )
    more = f" and {len(inputs) - LISTED} more columns" if len(inputs) > LISTED else ""
    return (
        f"{capital(_name(task))}: predicts {_code(target)}{of_classes} from "
        f"{', '.join(inputs[:LISTED]) or 'its inputs'}{more}. It is meant for data from the same source and of the "
        "same kind as below. It was not examined for decisions about people."
    )


def _data(data: dict[str, Any], source: str) -> str:
    rows = ", ".join(
        f"{name} {numbers.count(count)}"
        for name, value in mapping(data.get("rows")).items()
        if (count := number_from(value)) is not None
    )
    read, used = number_from(data.get("read")), number_from(data.get("used"))
    lines = [f"- Source: {_md(source)}"]
    if rows:
        lines.append(f"- Rows: {_md(rows)}")
    if read is not None and used is not None:
        lines.append(f"- Used: {numbers.count(used)} of {numbers.count(read)} rows read")
    lines += [
        f"- Left out: {_count(entry.get('count'))} rows, {_md(shown(entry.get('reason', '?')))}"
        for entry in map(mapping, sequence(data.get("left_out")))
    ]
    known = {key: words_of(data.get(key)) for key in ("split_rule", "licence", "citation", "fingerprint")}
    lines += [
        f"- {label}: {_md(value)}"
        for label, value in (
            ("Split", known["split_rule"]),
            ("Licence", known["licence"] or "not stated"),
            ("Citation", known["citation"]),
            ("Fingerprint", known["fingerprint"]),
        )
        if value
    ]
    return "\n".join(lines)


def _opening(stage: Stage) -> str:
    """How the folder is opened: by the library that its format belongs to, and by us."""
    opening = mapping(stage.part("model").get("opening"))
    kind, library = words_of(opening.get("class")), words_of(opening.get("library"))
    ours = (
        f'```python\nimport tunewright\n\nmodel = tunewright.load_model("{FOLDER}")\n```\n\n'
        f"From the command line: `tunewright predict {FOLDER} DATA`"
    )
    if opening.get("own_head") is True:
        return "The model has a head of its own, which no class of Transformers has: Tunewright opens it.\n\n" + ours
    if kind is None or library not in ("transformers", "peft"):
        return ours
    text = opening.get("tokenizer") is True
    lines = _with_peft(opening, kind) if library == "peft" else _with_transformers(kind)
    if text:
        lines = [
            line.replace("from transformers import ", "from transformers import AutoTokenizer, ") for line in lines
        ]
        lines.append(f'tokenizer = AutoTokenizer.from_pretrained("{FOLDER}")')
    code = "\n".join(lines)
    inputs = "texts" if text else "pictures"
    return f"```python\n{code}\n```\n\nWith Tunewright, which also turns {inputs} into inputs and logits into names:\n\n{ours}"


def _with_transformers(kind: str) -> list[str]:
    return [f"from transformers import {kind}", "", f'model = {kind}.from_pretrained("{FOLDER}")']


def _with_peft(opening: Mapping[str, Any], kind: str) -> list[str]:
    """The base gets the classes of this model, so that the head has their number; their names are not in peft's files."""
    base = json.dumps(words_of(opening.get("base")) or "the base model", ensure_ascii=False)
    lines = [
        "import json",
        "from pathlib import Path",
        "",
        "from peft import PeftModel",
        f"from transformers import {kind}",
    ]
    lines += ["", f'folder = Path("{FOLDER}")']
    if opening.get("named_classes") is False:
        lines.append(f"base = {kind}.from_pretrained({base})")
    else:
        lines += [
            'known = json.loads((folder / "tunewright.json").read_text(encoding="utf-8"))["network"]["config"]["id2label"]',
            "classes = {int(index): name for index, name in known.items()}",
            "indices = {name: index for index, name in classes.items()}",
            f"base = {kind}.from_pretrained({base}, id2label=classes, label2id=indices)",
        ]
    if (bits := words_of(opening.get("quantize"))) is not None:
        lines.append(
            f"# It learned beside this base rounded to {bits}: beside the whole one its answers differ a little."
        )
    return [*lines, "model = PeftModel.from_pretrained(base, folder)"]


def _count(value: object) -> str:
    return numbers.count(number_from(value) or 0)


def _training(stage: Stage, resolved: Mapping[str, Any]) -> str:
    model, done = stage.part("model"), stage.part("training")
    counts = mapping(model.get("parameters"))
    lines: list[str] = []
    if title := words_of(model.get("title")):
        lines.append(f"- Network: {_md(title)}")
    if (total := number_from(counts.get("total"))) is not None:
        frozen = number_from(counts.get("frozen")) or 0
        lines.append(f"- Parameters: {numbers.count(total)}, {numbers.count(frozen)} of them frozen")
    run, steps, seconds = (number_from(done.get(key)) for key in ("epochs_run", "steps", "seconds"))
    if run is not None and steps is not None and seconds is not None:
        time = numbers.duration(seconds)
        lines.append(f"- Trained for: {numbers.count(run)} epochs, {numbers.count(steps)} steps, {time}")
    optimizer, lr = named(done.get("optimizer")), number_from(done.get("lr"))
    if objective := words_of(done.get("objective")):
        lines.append(f"- Objective: {_name(objective)}")
    if optimizer and lr is not None:
        lines.append(f"- Optimiser: {_md(optimizer)}, learning rate {numbers.significant(lr)}")
    few = mapping(done.get("few_shot"))
    if (strength := number_from(few.get("C"))) is not None and (count := number_from(few.get("examples_a_class"))):
        lines.append(
            f"- Head: logistic regression on features, C {numbers.significant(strength)}; {count:.3g} examples a class"
        )
    seed = number_from(stage.summary.get("seed", resolved.get("seed")))
    if seed is not None:
        lines.append(f"- Seed: {seed:g}")
    if (kept := stage.kept_frozen) is not None:
        sentence = _SAY("frozen_intact" if kept else "frozen_changed")
        lines.append(f"- Freeze certificate: {_SAY('passed' if kept else 'failed')}. {sentence}.")
    return "\n".join(lines) or "Not recorded."


def _evaluation(stage: Stage) -> str:
    if stage.metric is None:
        return "Not measured."
    evaluation = stage.part("evaluation")
    rows, split = number_from(evaluation.get("rows")), words_of(evaluation.get("split")) or "test"
    lines = []
    if rows is not None:
        lines.append(_SAY("result_on", rows=numbers.count(rows), split=_name(split)) + " 95 % intervals.\n")
    others = stage.baselines
    head = ["Metric", "This model", *(_md(name) for name, _ in others)]
    lines += [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for metric, found in stage.estimates.items():
        cells = [numbers.estimate(metric, known[metric]) if metric in known else "not measured" for _, known in others]
        lines.append(f"| {' | '.join([_name(metric), numbers.estimate(metric, found), *cells])} |")
    comparisons = _comparisons(stage)
    return "\n".join(lines + (["", *comparisons] if comparisons else []))


def _comparisons(stage: Stage) -> list[str]:
    found: list[str] = []
    for entry in map(mapping, sequence(stage.summary.get("comparisons"))):
        metric = words_of(entry.get("metric")) or stage.metric or "accuracy"
        known = numbers.estimate_from(entry.get("difference"))
        figure = f" ({_name(metric)} {numbers.difference(metric, known, _SAY('points'))})" if known else ""
        found.append(f"- Against {_md(shown(entry.get('name', '?')))}: {_md(shown(entry.get('verdict', '?')))}{figure}")
    return found


def _privacy(stage: Stage) -> list[str]:
    """What is promised of the rows, counted over everything that the weights come from; nothing where no stage was private."""
    found = stage.part("privacy")
    if not (said := promises(_SAY, found)):
        return []
    lines = [f"- {_md(line)}" for line in said]
    if kept := statistics(_SAY, found):
        lines += ["", _SAY("privacy_kept"), "", *(f"- {_md(line)}" for line in kept)]
    left = [note for entry in sequence(found.get("not_covered")) if (note := words_of(entry))]
    lines += ["", _SAY("privacy_not"), "", *(f"- {_md(note)}" for note in left)]
    return ["## Differential privacy", "\n".join(lines)]


def _limits(stage: Stage) -> str:
    lines = [
        "- The figures hold for rows drawn as the test rows were; on data from another source, time or device the "
        "model may do worse."
    ]
    rows = number_from(stage.part("evaluation").get("rows"))
    if rows is not None and rows < 1000:
        lines.append(f"- {numbers.count(rows)} test rows are few: the intervals are wide.")
    if weakest := _weakest_slice(stage):
        lines.append(f"- Weakest part that was looked at: {weakest}.")
    advice = stage.part("hint")
    if (said := words_of(advice.get("advice"))) and (because := words_of(advice.get("because"))):
        lines.append(f"- What would most likely help: {_md(said)}. {_md(capital(because))}")
    return "\n".join(lines)


def _weakest_slice(stage: Stage) -> str | None:
    """The slice with the worst value; those with few rows do not count."""
    metric = stage.metric
    found: list[tuple[float, str]] = []
    sign = 1 if metric is None or numbers.greater_is_better(metric) else -1
    for entry in map(mapping, sequence(stage.part("evaluation").get("slices"))):
        known = numbers.estimate_from(mapping(entry.get("metrics")).get(metric or ""))
        if known is None or metric is None or entry.get("small") is True:
            continue
        place = f"{_code(shown(entry.get('column', '?')))} = {_code(shown(entry.get('value', '?')))}"
        found.append((sign * known.value, f"{place}, {_name(metric)} {numbers.estimate(metric, known)}"))
    return min(found)[1] if len(found) > 1 else None


def _name(value: str) -> str:
    """A name that Tunewright knows, in words; any other one is escaped."""
    return _md(_SAY.known(value))


def _md(value: str) -> str:
    """A text from data or recipe, so that none of it is taken for Markdown or HTML."""
    return _MARKDOWN.sub(r"\\\1", html.escape(plain(" ".join(value.split())), quote=False))


def _code(value: str) -> str:
    """The same, set as code where it holds nothing that could end the code."""
    return _md(value) if re.search("[`<|&]", value) else f"`{plain(' '.join(value.split()))}`"
