"""What was asked, and of which data: the recipe, the rows used and skipped, the splits, the classes."""

from __future__ import annotations

from tunewright.report import numbers
from tunewright.report.charts import bar_of_parts
from tunewright.report.components import as_found, facts, folded, number, stage_title, table, wanted_figure
from tunewright.report.html import Html, join, tag
from tunewright.report.reading import RunFiles, Stage, shown
from tunewright.report.translations import Words

# A recipe of more lines than this is folded.
LONG_RECIPE = 40
# More classes than this are folded, and more than these are not listed at all.
SHOWN_CLASSES, LISTED_CLASSES = 24, 1000


def asked(words: Words, run: RunFiles) -> list[Html | None]:
    """The task in a few lines, and the recipe word for word."""
    last = run.stages[-1]
    wanted = [
        f"{words.title(last.metric(name).title)} {wanted_figure(last.metric(name), target.wanted)}"
        for name, target in (last.summary.target or {}).items()
    ]
    seeds = max(len(stage.seed_values) for stage in run.stages)
    given = [
        (words("asked_task"), words.task(last.summary)),
        (
            words("asked_stages"),
            " → ".join(f"{stage_title(words, stage)} ({stage.source})" for stage in run.stages),
        ),
        (words("asked_target"), words("comma").join(wanted) or words("no_target")),
        (words("asked_seeds"), numbers.count(max(1, seeds))),
    ]
    return [
        facts(given),
        _recipe(words, run.recipe) if run.recipe else None,
        folded(words("resolved"), tag("pre", tag("code", _quiet_defaults(run.resolved)), tabindex=0))
        if run.resolved
        else None,
    ]


def _recipe(words: Words, recipe: str) -> Html:
    written = tag("pre", tag("code", recipe.rstrip()), tabindex=0)
    if len(recipe.splitlines()) > LONG_RECIPE:
        return folded(words("recipe"), written)
    return join([tag("h3", words("recipe")), written])


def _quiet_defaults(resolved: str) -> list[object]:
    """The resolved recipe, with the lines that are defaults in a quiet colour."""
    lines: list[object] = []
    for line in resolved.rstrip().splitlines():
        lines += [tag("span", line, class_="even") if line.endswith("# default") else line, "\n"]
    return lines


def data_sets(words: Words, run: RunFiles) -> list[Html | None]:
    """Each data set that the stages use; two of them side by side where there is room."""
    by_data: dict[str, list[Stage]] = {}
    for stage in run.stages:
        data = stage.summary.data
        by_data.setdefault(f"{data.fingerprint} {data.source}", []).append(stage)
    parts = [_data_set(words, stages, len(by_data) > 1) for stages in by_data.values()]
    tables = [_skipped(words, stages[0]) for stages in by_data.values()]
    return [tag("div", parts, class_="pair sets" if len(parts) > 1 else None), *tables]


def _data_set(words: Words, stages: list[Stage], several: bool) -> Html:
    used_by = words("used_by", stages=words("comma").join(stage_title(words, stage) for stage in stages))
    note = tag("p", used_by, class_="small") if several else None
    return tag("div", tag("h3", stages[0].source), note, _data(words, stages[0]))


def _data(words: Words, stage: Stage) -> list[Html | None]:
    data = stage.summary.data
    target, reason = data.target, data.target_reason
    about = [as_found(words, target), " – ", as_found(words, reason)] if target and reason else target
    return [
        _rows(words, stage),
        _splits(words, stage),
        facts(
            [
                (words("split_rule"), as_found(words, data.split_rule) if data.split_rule else None),
                (words("input"), words("comma").join(map(shown, data.input)) or None),
                (words("target"), about or words("no_labels")),
                (words("classes"), _classes(words, data.classes or [])),
                (words("fingerprint"), tag("code", data.fingerprint) if data.fingerprint else None),
            ]
        ),
    ]


def _rows(words: Words, stage: Stage) -> Html | None:
    read, used = stage.summary.data.read, stage.summary.data.used
    if read is None or used is None:
        return None
    key = "all_rows_used" if read == used else "rows_used"
    return tag("p", words(key, read=numbers.count(read), used=numbers.count(used)))


def _splits(words: Words, stage: Stage) -> Html | None:
    rows = [(words.known(name), count) for name, count in stage.summary.data.rows.items() if count > 0]
    if not rows:
        return None
    named = [(f"{name} {numbers.count(count)}", count) for name, count in rows]
    return tag(
        "figure",
        bar_of_parts(named, label=words("comma").join(name for name, _ in named)),
        tag("ul", [tag("li", tag("i", class_=f"part{i}"), name) for i, (name, _) in enumerate(named)], class_="keys"),
        class_="wide",
    )


def _classes(words: Words, classes: list[str]) -> Html | None:
    if not classes:
        return None
    named = [shown(name, 80) for name in classes]
    if len(named) <= SHOWN_CLASSES:
        return tag("span", f"{len(named)}", words("colon"), words("comma").join(named))
    rest = len(named) - LISTED_CLASSES
    listed = words("comma").join(named[:LISTED_CLASSES])
    more = words("comma") + words("and_more", count=numbers.count(rest)) if rest > 0 else ""
    return folded(numbers.count(len(named)), tag("p", listed + more, class_="small"))


def _skipped(words: Words, stage: Stage) -> Html | None:
    if not (skipped := stage.summary.data.skipped):
        return None
    rows = [
        (
            as_found(words, entry.reason),
            number(numbers.count(entry.count)),
            [[shown(example, 120), tag("br")] for example in entry.examples],
            as_found(words, entry.fix or "–"),
        )
        for entry in skipped
    ]
    head = [words("reason"), words("rows"), words("examples"), words("fix")]
    caption = f"{words('skipped')}{words('colon')}{stage.source}"
    return table(head, rows, caption=caption, right=[1], text=[0, 2, 3])
