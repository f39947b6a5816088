"""The top of the page: what was asked, the one number, and what it is worth."""

from __future__ import annotations

from tunewright.report import numbers
from tunewright.report.components import (
    baseline_name,
    best_baseline,
    capital,
    check,
    difference,
    number,
    targets,
    verdict,
)
from tunewright.report.html import Html, tag
from tunewright.report.numbers import Figure
from tunewright.report.reading import RunFiles, Stage
from tunewright.report.translations import Words
from tunewright.runs.metrics_log import LOSS
from tunewright.runs.summary.evaluation import Verdict
from tunewright.runs.summary.facts import MetricFacts


def headline(words: Words, run: RunFiles) -> Html:
    """The title, the number of the last stage that was evaluated, the verdicts."""
    stage = judged(run)
    return tag(
        "header",
        tag("p", f"{run.name} · {words.task(stage.summary)}", class_="over"),
        tag("h1", title(words, run)),
        tag("div", _result(words, stage), id="result"),
    )


def judged(run: RunFiles) -> Stage:
    """The stage that the headline is about: the last that was evaluated, or else the last."""
    evaluated = [stage for stage in run.stages if stage.headline]
    return evaluated[-1] if evaluated else run.stages[-1]


def title(words: Words, run: RunFiles) -> str:
    first, last = run.stages[0], run.stages[-1]
    kinds = [stage.summary.kind for stage in run.stages]
    if kinds[0] == "pretrain" and kinds[-1] == "finetune":
        return words("title_both", first=first.source, last=last.source)
    if kinds[-1] == "finetune":
        return words("title_finetune", data=last.source)
    if first.summary.data.target is None:
        return words("title_unlabelled", data=first.source)
    if len(run.stages) == 1:
        return words("title", task=capital(words.task(last.summary)), data=last.source)
    return words("title_pretrain", data=last.source)


def _result(words: Words, stage: Stage) -> list[Html | None]:
    metric, found = stage.headline_metric, stage.headline
    if metric is None or found is None:
        return [*_last_loss(words, stage), tag("ul", _checks(words, stage), class_="checks")]
    return [
        tag(
            "div",
            tag("b", numbers.value(metric, found.value, like=found)),
            tag("span", tag("strong", _about(words, metric, found)), words("clause").join(_basis(words, stage))),
            class_="lead",
        ),
        tag("p", _against_baseline(words, stage, metric, found), class_="verdict"),
        tag("ul", _checks(words, stage), class_="checks"),
    ]


def _about(words: Words, metric: MetricFacts, found: Figure) -> Html:
    bounds = numbers.interval(metric, found)
    lower = None if metric.greater_is_better else f" ({words('lower_is_better')})"
    parts = [words.title(metric.title), lower]
    if bounds:
        parts += [words("clause"), words.html("interval_is", interval=number(bounds))]
    return tag("span", parts)


def _basis(words: Words, stage: Stage) -> list[str]:
    parts = [words("mean_of_seeds", count=len(stage.seed_values))] if stage.over_seeds else []
    if (evaluation := stage.evaluation) is not None:
        rows, split = numbers.count(evaluation.rows), words.known(evaluation.split)
        parts.append(words("on_test_rows", count=rows, split=split, data=stage.source))
    return parts


def _against_baseline(words: Words, stage: Stage, metric: MetricFacts, found: Figure) -> Html | str:
    best = best_baseline(stage)
    if best is None:
        return words("no_baseline")
    entry, baseline = best
    return words.html(
        verdict(metric, found, baseline),
        name=baseline_name(words, entry),
        value=number(numbers.estimate(metric, baseline)),
    )


def _last_loss(words: Words, stage: Stage) -> list[Html | None]:
    """For a stage without an evaluation: the loss that its training ended with."""
    lead = None
    if epochs := stage.curves.epochs:
        valid = (epochs[-1].valid or {}).get(LOSS)
        split, loss = ("train", epochs[-1].train_loss) if valid is None else ("valid", valid)
        said = words("last_loss", split=words.known(split), count=len(epochs))
        lead = tag("div", tag("b", numbers.significant(loss)), tag("span", tag("strong", said)), class_="lead")
    return [lead, tag("p", words("not_evaluated"), class_="verdict")]


def _checks(words: Words, stage: Stage) -> list[Html]:
    lines = targets(words, stage)
    if (kept := stage.summary.certificate.intact) is not None:
        lines.append(check("good" if kept else "bad", words("frozen_intact" if kept else "frozen_changed")))
    return lines + comparisons(words, stage)


def comparisons(words: Words, stage: Stage) -> list[Html]:
    """What each comparison says, in words."""
    lines: list[Html] = []
    for entry in stage.summary.comparisons or []:
        key, kind = VERDICTS[entry.verdict]
        written = number(difference(words, stage.metric(entry.metric), entry.difference))
        lines.append(check(kind, words.html(key, name=words.known(entry.name), difference=written)))
    return lines


VERDICTS: dict[Verdict, tuple[str, str]] = {
    "better": ("better_than", "good"),
    "worse": ("worse_than", "bad"),
    "no real difference": ("no_difference", "even"),
}
