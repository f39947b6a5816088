"""What the test rows say of a stage: the headline beside its baselines, comparisons, slices."""

from __future__ import annotations

from collections.abc import Callable

from tunewright.report import numbers
from tunewright.report.charts import Whisker, whisker_chart
from tunewright.report.components import (
    as_found,
    baseline_name,
    best_baseline,
    capital,
    difference,
    estimate,
    fold_if,
    metric_title,
    number,
    table,
    targets,
    verdict,
)
from tunewright.report.headline import comparisons
from tunewright.report.html import Html, tag
from tunewright.report.numbers import Figure
from tunewright.report.reading import Stage, shown
from tunewright.report.translations import Words
from tunewright.runs.summary.evaluation import Slice
from tunewright.runs.summary.facts import MetricFacts

# Of each column, at most so many slices; the rest is counted.
MOST_SLICES = 40


def result(words: Words, stage: Stage) -> list[Html | None]:
    """The headline metric beside the baselines, then every metric, then the comparisons."""
    metric, evaluation = stage.headline_metric, stage.evaluation
    if metric is None or evaluation is None:
        return [tag("h3", words("result")), tag("p", words("not_evaluated"))]
    rows, split = numbers.count(evaluation.rows), words.known(evaluation.split)
    aims = targets(words, stage)
    return [
        tag("h3", words("result")),
        tag(
            "p",
            as_found(words, evaluation.warning) if evaluation.warning else words("result_on", rows=rows, split=split),
        ),
        tag("ul", aims, class_="checks") if aims else None,
        _chart(words, stage, metric),
        _verdict(words, stage, metric),
        _seeds(words, stage, metric),
        _all_metrics(words, stage),
    ]


def _chart(words: Words, stage: Stage, metric: MetricFacts) -> Html:
    """The model, its mean over seeds, and the baselines, the best first."""
    over_seeds = stage.over_seeds
    name = words("this_model_seed", seed=f"{stage.summary.seed}") if over_seeds else words("this_model")
    models = [_whisker(metric, name, stage.figures[metric.name], strong=True)]
    if over_seeds:
        name = words("this_model_seeds", count=len(stage.seed_values))
        models = [_whisker(metric, name, over_seeds, strong=True, dots=stage.seed_values), *models]
    sign = -1 if metric.greater_is_better else 1
    others = sorted(stage.baselines(metric), key=lambda pair: sign * pair[1].value)
    title = metric_title(words, metric)
    chart = whisker_chart(
        [*models, *(_whisker(metric, baseline_name(words, entry), found) for entry, found in others)],
        label=title,
        tick=_tick(metric),
        off_scale=words("off_scale"),
    )
    return tag("figure", tag("figcaption", tag("b", title)), chart, class_="wide")


def _whisker(
    metric: MetricFacts,
    name: str,
    found: Figure,
    *,
    strong: bool = False,
    dots: list[float] | None = None,
    note: str = "",
) -> Whisker:
    return Whisker(
        name=name,
        value=found.value,
        low=found.low,
        high=found.high,
        shown=numbers.estimate(metric, found),
        strong=strong,
        dots=dots or (),
        note=note,
    )


def _tick(metric: MetricFacts) -> Callable[[float, float], str]:
    return lambda value, step: numbers.tick(metric, value, step)


def _verdict(words: Words, stage: Stage, metric: MetricFacts) -> Html:
    best, found = best_baseline(stage), stage.headline
    if best is None or found is None:
        return tag("p", words("no_baseline"))
    written = number(numbers.estimate(metric, best[1]))
    return tag("p", words.html(verdict(metric, found, best[1]), name=baseline_name(words, best[0]), value=written))


def _seeds(words: Words, stage: Stage, metric: MetricFacts) -> Html | None:
    if not stage.over_seeds:
        return None
    values = words("comma").join(numbers.value(metric, value) for value in stage.seed_values)
    return tag("p", words("seeds_note", values=values), class_="small")


def _all_metrics(words: Words, stage: Stage) -> Html | None:
    """A row for each metric, a column for each baseline."""
    if (evaluation := stage.evaluation) is None:
        return None
    baselines = [entry for entry in evaluation.baselines if entry.metrics]
    rows: list[list[object]] = []
    for name, entry in evaluation.metrics.items():
        metric = stage.metric(name)
        others = [
            estimate(words, metric, found) if (found := baseline.metrics.get(name)) else words("not_measured")
            for baseline in baselines
        ]
        rows.append([metric_title(words, metric), estimate(words, metric, entry), *others])
    head = [words("metric"), words("this_model"), *(baseline_name(words, entry) for entry in baselines)]
    return fold_if(len(rows) > 1, words("all_metrics"), table(head, rows, caption=words("all_metrics")))


def compared(words: Words, stage: Stage) -> list[Html | None]:
    """The differences from other trainings, as a chart about zero and in words."""
    entries = stage.summary.comparisons
    if not entries:
        return []
    metric = stage.metric(entries[0].metric)
    rows = [
        Whisker(
            name=words.known(entry.name),
            value=known.value,
            low=known.low,
            high=known.high,
            shown=difference(words, metric, entry.difference).replace(f" {words('points')}", ""),
            strong=entry.verdict != "no real difference",
        )
        for entry in entries
        if entry.metric == metric.name and (known := numbers.figure(entry.difference))
    ]
    key = "difference_in_points" if metric.style == "percent" else "difference"
    title = words(key, metric=metric_title(words, metric))
    chart = whisker_chart(rows, label=title, tick=_difference_tick(metric), line_at=0.0) if rows else None
    return [
        tag("h3", words("comparisons")),
        tag("ul", comparisons(words, stage), class_="checks"),
        tag("figure", tag("figcaption", tag("b", title), tag("br"), words("comparisons_note")), chart, class_="wide")
        if chart
        else None,
    ]


def _difference_tick(metric: MetricFacts) -> Callable[[float, float], str]:
    def tick(value: float, step: float) -> str:
        written = numbers.tick(metric, value, step).removesuffix(" %")
        return f"+{written}" if value > step / 2 else written

    return tick


def sliced(words: Words, stage: Stage) -> list[Html | None]:
    """The headline metric for the values of each column that the recipe asked for."""
    metric = stage.headline_metric
    if metric is None or stage.evaluation is None or not stage.evaluation.slices:
        return []
    by_column: dict[str, list[Slice]] = {}
    for entry in stage.evaluation.slices:
        by_column.setdefault(shown(entry.column, 80), []).append(entry)
    overall = stage.figures[metric.name].value
    figures = [_slice_figure(words, metric, column, entries, overall) for column, entries in by_column.items()]
    note = tag("p", metric_title(words, metric), tag("br"), words("slices_note"), class_="small")
    return [tag("h3", words("slices")), note, *figures]


def _slice_figure(words: Words, metric: MetricFacts, column: str, entries: list[Slice], overall: float) -> Html:
    rows: list[Whisker] = []
    undefined: list[Html] = []
    for entry in entries[:MOST_SLICES]:
        name = words("slice_rows", value=shown(entry.value, 80), count=numbers.count(entry.rows))
        known = numbers.figure(entry.metrics.get(metric.name))
        if known is None:
            undefined.append(tag("li", name, words("colon"), words("undefined")))
        else:
            rows.append(_whisker(metric, name, known, note=words("few_rows") if entry.small else ""))
    rest = len(entries) - MOST_SLICES
    chart = whisker_chart(rows, label=column, tick=_tick(metric), line_at=overall) if rows else None
    return tag(
        "figure",
        tag("figcaption", tag("b", column)),
        chart,
        tag("ul", undefined, class_="small") if undefined else None,
        tag("p", words("and_more", count=rest), class_="small") if rest > 0 else None,
        class_="wide",
    )


def hint(words: Words, stage: Stage) -> list[Html | None]:
    """What would most likely help next, and from which figures that follows."""
    if (found := stage.summary.hint) is None:
        return []
    because = tag("p", as_found(words, capital(found.because)), class_="small")
    return [
        tag("h3", words("hint")),
        tag("div", tag("p", tag("b", capital(words.known(found.advice)))), because, class_="hint"),
    ]
