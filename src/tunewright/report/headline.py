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
    source_of,
    targets,
    verdict,
)
from tunewright.report.html import Html, tag
from tunewright.report.numbers import Estimate
from tunewright.report.reading import RunFiles, Stage, mapping, number_from, sequence, words_of
from tunewright.report.translations import Words


def headline(words: Words, run: RunFiles) -> Html:
    """The title, the number of the last stage that was evaluated, the verdicts."""
    stage = judged(run)
    task = words_of(stage.summary.get("task"))
    over = [run.name, words.known(task) if task else None]
    return tag(
        "header",
        tag("p", " · ".join(part for part in over if part), class_="over"),
        tag("h1", title(words, run)),
        tag("div", _result(words, stage), id="result"),
    )


def judged(run: RunFiles) -> Stage:
    """The stage that the headline is about: the last that was evaluated, or else the last."""
    evaluated = [stage for stage in run.stages if stage.headline]
    return evaluated[-1] if evaluated else run.stages[-1]


def title(words: Words, run: RunFiles) -> str:
    first, last = run.stages[0], run.stages[-1]
    kinds = [_kind(stage) for stage in run.stages]
    if kinds[0] == "pretrain" and kinds[-1] == "finetune":
        return words("title_both", first=source_of(first), last=source_of(last))
    if kinds[-1] == "finetune":
        return words("title_finetune", data=source_of(last))
    if not first.part("data").get("target"):
        return words("title_unlabelled", data=source_of(first))
    task = words_of(last.summary.get("task"))
    if len(run.stages) == 1 and task:
        return words("title", task=capital(words.known(task)), data=source_of(last))
    return words("title_pretrain", data=source_of(last))


def _kind(stage: Stage) -> str:
    return words_of(stage.summary.get("kind")) or stage.name


def _result(words: Words, stage: Stage) -> list[Html | None]:
    metric, found = stage.metric, stage.headline
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


def _about(words: Words, metric: str, found: Estimate) -> Html:
    bounds = numbers.interval(metric, found)
    lower = None if numbers.greater_is_better(metric) else f" ({words('lower_is_better')})"
    parts = [words.known(metric), lower]
    if bounds:
        parts += [words("clause"), words.html("interval_is", interval=number(bounds))]
    return tag("span", parts)


def _basis(words: Words, stage: Stage) -> list[str]:
    evaluation = stage.part("evaluation")
    rows = number_from(evaluation.get("rows"))
    seeds = len(stage.seed_values)
    parts = [words("mean_of_seeds", count=seeds)] if stage.over_seeds else []
    if rows is not None:
        split = words.known(words_of(evaluation.get("split")) or "test")
        parts.append(words("on_test_rows", count=numbers.count(rows), split=split, data=source_of(stage)))
    return parts


def _against_baseline(words: Words, stage: Stage, metric: str, found: Estimate) -> Html | str:
    best = best_baseline(stage)
    if best is None:
        return words("no_baseline")
    name, baseline = best
    return words.html(
        verdict(metric, found, baseline),
        name=baseline_name(words, name),
        value=number(numbers.estimate(metric, baseline)),
    )


def _last_loss(words: Words, stage: Stage) -> list[Html | None]:
    """For a stage without an evaluation: the loss that its training ended with."""
    losses = [
        (split, loss)
        for entry in stage.epochs[-1:]
        for split, loss in (
            ("valid", number_from(mapping(entry.get("valid")).get("loss"))),
            ("train", number_from(entry.get("train_loss"))),
        )
        if loss is not None
    ]
    lead = None
    if losses:
        split, loss = losses[0]
        said = words("last_loss", split=words.known(split), count=len(stage.epochs))
        lead = tag("div", tag("b", numbers.significant(loss)), tag("span", tag("strong", said)), class_="lead")
    return [lead, tag("p", words("not_evaluated"), class_="verdict")]


def _checks(words: Words, stage: Stage) -> list[Html]:
    lines = targets(words, stage)
    if (kept := stage.kept_frozen) is not None:
        lines.append(check("good" if kept else "bad", words("frozen_intact" if kept else "frozen_changed")))
    return lines + comparisons(words, stage)


def comparisons(words: Words, stage: Stage) -> list[Html]:
    """What each comparison says, in words."""
    lines: list[Html] = []
    for entry in map(mapping, sequence(stage.summary.get("comparisons"))):
        metric = words_of(entry.get("metric")) or stage.metric or "accuracy"
        key, kind = VERDICTS.get(str(entry.get("verdict")), ("cannot_compare", "even"))
        written = number(difference(words, metric, entry.get("difference")))
        name = words.known(words_of(entry.get("name")) or "?")
        lines.append(check(kind, words.html(key, name=name, difference=written)))
    return lines


VERDICTS = {
    "better": ("better_than", "good"),
    "worse": ("worse_than", "bad"),
    "no real difference": ("no_difference", "even"),
}
