"""What the test rows say of a stage: the number beside its baselines, comparisons, slices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
    number,
    table,
    targets,
    verdict,
)
from tunewright.report.headline import comparisons
from tunewright.report.html import Html, tag
from tunewright.report.numbers import Estimate, estimate_from
from tunewright.report.reading import Stage, mapping, number_from, sequence, shown, words_of
from tunewright.report.translations import Words

# The widths of the intervals of so few rows mean little.
FEW_ROWS = 30
# Of each column, at most so many slices; the rest is counted.
MOST_SLICES = 40


def result(words: Words, stage: Stage) -> list[Html | None]:
    """The headline metric beside the baselines, then every metric, then the comparisons."""
    metric = stage.metric
    if metric is None:
        return [tag("h3", words("result")), tag("p", words("not_evaluated"))]
    evaluation = stage.part("evaluation")
    rows, split = number_from(evaluation.get("rows")), words_of(evaluation.get("split")) or "test"
    measured = words("result_on", rows=numbers.count(rows), split=words.known(split)) if rows is not None else None
    aims = targets(words, stage)
    return [
        tag("h3", words("result")),
        tag("p", measured) if measured else None,
        tag("ul", aims, class_="checks") if aims else None,
        _chart(words, stage, metric),
        _verdict(words, stage, metric),
        _seeds(words, stage, metric),
        _all_metrics(words, stage),
    ]


def _chart(words: Words, stage: Stage, metric: str) -> Html:
    """The model, its mean over seeds, and the baselines, the best first."""
    seed, over_seeds = number_from(stage.summary.get("seed")), stage.over_seeds
    name = words("this_model_seed", seed=f"{seed:g}") if over_seeds and seed is not None else words("this_model")
    models = [_whisker(metric, name, stage.estimates[metric], strong=True)]
    if over_seeds:
        name = words("this_model_seeds", count=len(stage.seed_values))
        models = [_whisker(metric, name, over_seeds, strong=True, dots=stage.seed_values), *models]
    sign = -1 if numbers.greater_is_better(metric) else 1
    others = [(baseline_name(words, name), found[metric]) for name, found in stage.baselines if metric in found]
    others.sort(key=lambda pair: sign * pair[1].value)
    title = _metric_title(words, metric)
    chart = whisker_chart(
        [*models, *(_whisker(metric, name, found) for name, found in others)],
        label=title,
        tick=_tick(metric),
        off_scale=words("off_scale"),
    )
    return tag("figure", tag("figcaption", tag("b", title)), chart, class_="wide")


def _metric_title(words: Words, metric: str) -> str:
    lower = "" if numbers.greater_is_better(metric) else f" ({words('lower_is_better')})"
    return capital(words.known(metric)) + lower


def _whisker(
    metric: str, name: str, found: Estimate, *, strong: bool = False, dots: list[float] | None = None
) -> Whisker:
    return Whisker(
        name=name,
        value=found.value,
        low=found.low,
        high=found.high,
        shown=numbers.estimate(metric, found),
        strong=strong,
        dots=dots or (),
    )


def _tick(metric: str) -> Callable[[float, float], str]:
    return lambda value, step: numbers.tick(metric, value, step)


def _verdict(words: Words, stage: Stage, metric: str) -> Html:
    best, found = best_baseline(stage), stage.headline
    if best is None or found is None:
        return tag("p", words("no_baseline"))
    written = number(numbers.estimate(metric, best[1]))
    return tag("p", words.html(verdict(metric, found, best[1]), name=baseline_name(words, best[0]), value=written))


def _seeds(words: Words, stage: Stage, metric: str) -> Html | None:
    if not stage.over_seeds:
        return None
    values = words("comma").join(numbers.value(metric, value) for value in stage.seed_values)
    return tag("p", words("seeds_note", values=values), class_="small")


def _all_metrics(words: Words, stage: Stage) -> Html:
    """A row for each metric; what is undefined says why."""
    measured = stage.part("evaluation", "metrics")
    others = [mapping(entry) for entry in sequence(stage.part("evaluation").get("baselines"))]
    others = [entry for entry in others if mapping(entry.get("metrics"))]
    rows = [
        [
            _metric_title(words, metric),
            estimate(words, metric, entry),
            *(_or_dash(words, metric, mapping(other.get("metrics")).get(metric)) for other in others),
        ]
        for metric, entry in measured.items()
    ]
    names = [baseline_name(words, words_of(entry.get("name")) or "?") for entry in others]
    head = [words("metric"), words("this_model"), *names]
    return fold_if(len(rows) > 1, words("all_metrics"), table(head, rows, caption=words("all_metrics")))


def _or_dash(words: Words, metric: str, entry: object) -> Html | str:
    return words("not_measured") if entry is None else estimate(words, metric, entry)


def compared(words: Words, stage: Stage) -> list[Html | None]:
    """The differences from other trainings, as a chart about zero and in words."""
    entries = [mapping(entry) for entry in sequence(stage.summary.get("comparisons"))]
    if not entries:
        return []
    metric = words_of(entries[0].get("metric")) or stage.metric or "accuracy"
    found = [
        (entry, estimate_from(entry.get("difference"))) for entry in entries if entry.get("metric", metric) == metric
    ]
    rows = [
        Whisker(
            name=words.known(words_of(entry.get("name")) or "?"),
            value=known.value,
            low=known.low,
            high=known.high,
            shown=difference(words, metric, entry.get("difference")).replace(f" {words('points')}", ""),
            strong=entry.get("verdict") in ("better", "worse"),
        )
        for entry, known in found
        if known is not None
    ]
    key = "difference_in_points" if numbers.style_of(metric) == "share" else "difference"
    title = words(key, metric=_metric_title(words, metric))
    chart = whisker_chart(rows, label=title, tick=_difference_tick(metric), line_at=0.0) if rows else None
    return [
        tag("h3", words("comparisons")),
        tag("ul", comparisons(words, stage), class_="checks"),
        tag("figure", tag("figcaption", tag("b", title), tag("br"), words("comparisons_note")), chart, class_="wide")
        if chart
        else None,
    ]


def _difference_tick(metric: str) -> Callable[[float, float], str]:
    def tick(value: float, step: float) -> str:
        written = numbers.tick(metric, value, step).removesuffix(" %")
        return f"+{written}" if value > step / 2 else written

    return tick


def sliced(words: Words, stage: Stage) -> list[Html | None]:
    """The headline metric for the values of each column that the recipe asked for."""
    metric = stage.metric
    by_column: dict[str, list[dict[str, Any]]] = {}
    for entry in map(mapping, sequence(stage.part("evaluation").get("slices"))):
        by_column.setdefault(shown(entry.get("column", "?"), 80), []).append(entry)
    if not by_column or metric is None:
        return []
    overall = stage.estimates[metric].value
    figures = [_slice_figure(words, metric, column, entries, overall) for column, entries in by_column.items()]
    note = tag("p", _metric_title(words, metric), tag("br"), words("slices_note"), class_="small")
    return [tag("h3", words("slices")), note, *figures]


def _slice_figure(words: Words, metric: str, column: str, entries: list[dict[str, Any]], overall: float) -> Html:
    rows: list[Whisker] = []
    absent: list[Html] = []
    for entry in entries[:MOST_SLICES]:
        count = number_from(entry.get("rows")) or 0
        name = words("slice_rows", value=shown(entry.get("value", "?"), 80), count=numbers.count(count))
        known = estimate_from(mapping(entry.get("metrics")).get(metric))
        if known is None:
            absent.append(
                tag("li", name, words("colon"), estimate(words, metric, mapping(entry.get("metrics")).get(metric)))
            )
            continue
        row = _whisker(metric, name, known)
        few = entry.get("small") is True or count < FEW_ROWS
        rows.append(
            Whisker(
                name=name,
                value=row.value,
                low=row.low,
                high=row.high,
                shown=row.shown,
                note=words("few_rows") if few else "",
            )
        )
    rest = len(entries) - MOST_SLICES
    chart = whisker_chart(rows, label=column, tick=_tick(metric), line_at=overall) if rows else None
    return tag(
        "figure",
        tag("figcaption", tag("b", column)),
        chart,
        tag("ul", absent, class_="small") if absent else None,
        tag("p", words("and_more", count=rest), class_="small") if rest > 0 else None,
        class_="wide",
    )


def hint(words: Words, stage: Stage) -> list[Html | None]:
    """What would most likely help next, and from which figures that follows."""
    found = stage.part("hint")
    advice, because = words_of(found.get("advice")), words_of(found.get("because"))
    if advice is None:
        return []
    said = tag("p", tag("b", capital(words.known(advice))))
    return [
        tag("h3", words("hint")),
        tag(
            "div", said, tag("p", as_found(words, capital(because)), class_="small") if because else None, class_="hint"
        ),
    ]
