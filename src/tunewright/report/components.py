"""The small pieces that every section is made of: facts, tables, folded parts, sentences of estimates."""

from __future__ import annotations

from collections.abc import Sequence

from tunewright.report import numbers
from tunewright.report.html import Html, tag
from tunewright.report.numbers import Figure
from tunewright.report.reading import Stage
from tunewright.report.translations import Words
from tunewright.runs.summary.evaluation import BaselineSummary, Estimate
from tunewright.runs.summary.facts import MetricFacts

# Tables of more rows than this are folded.
LONG = 14


def number(written: str) -> Html:
    """A number that is never broken over two lines."""
    return tag("span", written, class_="n")


def facts(pairs: Sequence[tuple[str, object]], *, short: bool = False) -> Html | None:
    """A list of names and values; None as a value leaves the pair out. Short ones stand in two columns."""
    known = [(name, value) for name, value in pairs if value is not None]
    if not known:
        return None
    return tag(
        "dl", [[tag("dt", name), tag("dd", value)] for name, value in known], class_="facts short" if short else "facts"
    )


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    caption: str,
    right: Sequence[int] = (),
    text: Sequence[int] = (),
) -> Html:
    """A table in a frame that scrolls by itself where the page is narrow.

    Args:
        rows: the first cell of each is its heading.
        caption: what the table shows; also the name of the frame for those who cannot see it.
        right: the columns that are set to the right.
        text: the columns with running text, which are never made very narrow.
    """

    def look(column: int) -> str | None:
        return "r" if column in right else "text" if column in text else None

    return tag(
        "div",
        tag(
            "table",
            tag("caption", caption),
            tag("thead", tag("tr", [tag("th", name, scope="col", class_=look(i)) for i, name in enumerate(head)])),
            tag(
                "tbody",
                [
                    tag(
                        "tr",
                        tag("th", row[0], scope="row", class_=look(0)),
                        [tag("td", cell, class_=look(i + 1)) for i, cell in enumerate(row[1:])],
                    )
                    for row in rows
                ],
            ),
        ),
        class_="scroll",
        role="region",
        aria_label=caption,
        tabindex=0,
    )


def scroll(content: object, label: str) -> Html:
    """A frame that scrolls by itself where the page is narrow."""
    return tag("div", content, class_="scroll", role="region", aria_label=label, tabindex=0)


def folded(summary: object, *content: object) -> Html:
    """A part that the reader opens."""
    return tag("details", tag("summary", summary), list(content))


def fold_if(long: bool, summary: str, content: Html) -> Html:
    return folded(summary, content) if long else content


def as_found(words: Words, value: str) -> Html:
    """A text from data or recipe. It is in no known language, unless Tunewright itself wrote it, in English."""
    known = words.known(value)
    return tag("span", known) if words.knows(value) or words.language == "en" else tag("span", value, lang="en")


def capital(sentence: str) -> str:
    """With a capital first letter, as at the start of a line."""
    return sentence[:1].upper() + sentence[1:]


def metric_title(words: Words, metric: MetricFacts) -> str:
    """A metric's name at the start of a line, and that lower is better where it is."""
    lower = "" if metric.greater_is_better else f" ({words('lower_is_better')})"
    return capital(words.title(metric.title)) + lower


def baseline_name(words: Words, baseline: BaselineSummary) -> str:
    """A baseline's name, and how many rows it learned from where these are not all."""
    name = words.known(baseline.name)
    if baseline.training_rows is None:
        return name
    return words("training_rows", name=name, count=numbers.count(baseline.training_rows))


def stage_title(words: Words, stage: Stage) -> str:
    """ "Fine-tune"; a second stage of the kind keeps its own name."""
    return words.known(stage.name)


def estimate(words: Words, metric: MetricFacts, entry: Estimate) -> Html:
    """An estimate, or that it is not defined."""
    found = numbers.figure(entry)
    if found is not None:
        return number(numbers.estimate(metric, found))
    return tag("span", words("undefined"), class_="even")


def difference(words: Words, metric: MetricFacts, entry: Estimate | None) -> str:
    """A difference, "−0.7 points [−2.8, +1.3]"."""
    found = numbers.figure(entry)
    return numbers.difference(metric, found, words("points")) if found else words("undefined")


def check(kind: str, *content: object) -> Html:
    """A line with a sign before it: good, bad or even."""
    sign = {"good": "✓", "bad": "✗", "even": "–"}[kind]
    return tag("li", tag("i", sign, class_=kind, aria_hidden="true"), tag("span", list(content)))


def targets(words: Words, stage: Stage) -> list[Html]:
    """Each figure that had to be reached, and whether it was."""
    lines: list[Html] = []
    for name, target in (stage.summary.target or {}).items():
        metric = stage.metric(name)
        sentence = words.html(
            "target_reached" if target.reached else "target_missed",
            metric=words.title(metric.title),
            value=number(_exactly(metric, target.value)),
            wanted=number(wanted_figure(metric, target.wanted)),
        )
        lines.append(check("good" if target.reached else "bad", sentence))
    return lines


def wanted_figure(metric: MetricFacts, wanted: float) -> str:
    """ "≥ 95 %", or "≤ 8.5" where lower is better."""
    return f"{'≥' if metric.greater_is_better else '≤'} {_exactly(metric, wanted)}"


def _exactly(metric: MetricFacts, found: float) -> str:
    """Four significant digits: a target that was missed by little must not look as if it had been reached."""
    if metric.style == "percent":
        return f"{numbers.significant(found * 100)} %"
    return numbers.significant(found)


def best_baseline(stage: Stage) -> tuple[BaselineSummary, Figure] | None:
    """The baseline that comes nearest to the model, or is better, in the headline metric."""
    metric = stage.headline_metric
    found = stage.baselines(metric) if metric is not None else []
    if not found or metric is None:
        return None
    sign = 1 if metric.greater_is_better else -1
    return max(found, key=lambda pair: sign * pair[1].value)


def verdict(metric: MetricFacts, model: Figure, baseline: Figure) -> str:
    """baseline_better, baseline_worse or baseline_unclear: what the two intervals say about the model."""
    if model.low is None or model.high is None or baseline.low is None or baseline.high is None:
        return "baseline_unknown"
    if model.low <= baseline.high and baseline.low <= model.high:
        return "baseline_unclear"
    above = model.low > baseline.high
    return "baseline_better" if above == metric.greater_is_better else "baseline_worse"
