"""The network of a stage, and how it learned: the picture, the layers, the curves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tunewright.report import numbers
from tunewright.report.charts import Line, line_chart, thinned
from tunewright.report.components import as_found, capital, facts, folded, number, scroll, table
from tunewright.report.html import Html, tag
from tunewright.report.inline_images import clean_svg
from tunewright.report.reading import Stage, mapping, named, number_from, sequence, shown, words_of
from tunewright.report.translations import Words

# The table beside the curves has at most about so many lines.
TABLE_ROWS = 50


def network(words: Words, stage: Stage) -> list[Html | None]:
    """The picture, the sizes and the table of layers."""
    model = stage.part("model")
    drawing = words_of(model.get("svg"))
    picture = clean_svg(drawing, stage.name) if drawing else None
    layers = [mapping(entry) for entry in sequence(model.get("layers"))]
    size = _size(words, stage)
    if not picture and not layers and not size:
        return []
    return [
        tag("h3", words("network")),
        tag("p", size) if size else None,
        tag("figure", scroll(picture, words("network")), class_="network") if picture else None,
        folded(words("layers"), _layers(words, layers)) if layers else None,
    ]


def _size(words: Words, stage: Stage) -> Html | None:
    counts = stage.part("model", "parameters")
    total, trainable, frozen = (number_from(counts.get(key)) for key in ("total", "trainable", "frozen"))
    flops = number_from(stage.part("model").get("flops_per_example"))
    if total is None or trainable is None or flops is None:
        return None
    return words.html(
        "network_size" if frozen else "network_size_all",
        total=numbers.count(total),
        trainable=numbers.count(trainable),
        frozen=numbers.count(frozen or 0),
        flops=number(numbers.compact(flops)),
    )


def _layers(words: Words, layers: Sequence[dict[str, Any]]) -> Html:
    rows = [
        (
            tag("code", shown(layer.get("block", "?"))),
            shown(layer.get("kind", "–")),
            number(" × ".join(map(shown, sequence(layer.get("output_shape"))))),
            number(_count(layer.get("parameters"))),
            number(_compact(layer.get("flops"))),
            words("trained") if layer.get("trained") else words("frozen"),
            number("–" if (rate := number_from(layer.get("lr"))) is None else numbers.significant(rate)),
        )
        for layer in layers
    ]
    head = ["block", "kind", "output_shape", "parameters", "flops", "moves", "learning_rate"]
    return table([words(key) for key in head], rows, caption=words("layers"), right=[3, 4, 6])


def training(words: Words, stage: Stage) -> list[Html | None]:
    """What was done, in figures, and the curves."""
    done = stage.part("training")
    if not done and not stage.epochs:
        return []
    optimizer, lr = named(done.get("optimizer")), number_from(done.get("lr"))
    objective, stopped = words_of(done.get("objective")), words_of(done.get("stopped"))
    batch, threads = number_from(done.get("batch_size")), number_from(done.get("threads"))
    sound = number_from(done.get("batch_seconds"))
    # A head that was solved for has no steps, and so no curves and no best epoch.
    stepped = bool(stage.epochs) or not stage.part("training", "few_shot")
    return [
        tag("h3", words("training")),
        _duration(words, stage),
        _kept(words, stage) if done and stepped else None,
        *(_curves(words, stage) if stepped else []),
        facts(
            [
                (words("objective"), as_found(words, objective) if objective else None),
                (words("optimizer"), optimizer),
                (words("learning_rate"), numbers.significant(lr) if lr is not None else None),
                (words("batch_size"), numbers.count(batch) if batch is not None else None),
                (words("batch_seconds"), numbers.significant(sound) if sound is not None else None),
                (words("threads"), numbers.count(threads) if threads is not None else None),
                (words("ended"), as_found(words, stopped) if stopped else None),
            ],
            short=True,
        ),
    ]


def _duration(words: Words, stage: Stage) -> Html | None:
    done = stage.part("training")
    keys = ("epochs_run", "epochs", "steps", "seconds", "examples_per_second")
    run, planned, steps, seconds, speed = (number_from(done.get(key)) for key in keys)
    if run is None or planned is None or steps is None or seconds is None or speed is None:
        return None
    return tag(
        "p",
        words.html(
            "trained_for",
            epochs=numbers.count(run),
            planned=numbers.count(planned),
            steps=numbers.count(steps),
            time=number(numbers.duration(seconds)),
            speed=numbers.count(speed),
            device=shown(done.get("device", "?")),
        ),
    )


def _kept(words: Words, stage: Stage) -> Html:
    best = stage.part("training", "best")
    epoch, value, metric = _best_epoch(stage), number_from(best.get("value")), words_of(best.get("metric"))
    if epoch is None or value is None or metric is None:
        return tag("p", words("last_weights"))
    written = number(numbers.value(metric, value) if metric != "loss" else numbers.significant(value))
    return tag("p", words.html("best_weights", epoch=f"{epoch:g}", metric=words.known(metric), value=written))


def _best_epoch(stage: Stage) -> float | None:
    return number_from(stage.part("training", "best").get("epoch"))


def _curves(words: Words, stage: Stage) -> list[Html | None]:
    if not stage.epochs:
        return [tag("p", words("no_curves"), class_="small")]
    per_epoch = _steps_per_epoch(stage)
    steps = _pairs(
        stage.steps, lambda entry: (number_from(entry.get("step")) or 0) / per_epoch, lambda entry: entry.get("loss")
    )
    losses = [
        Line(name=words("train_loss"), points=_by_epoch(stage, lambda entry: entry.get("train_loss")), look="two"),
        Line(
            name=words("valid_loss"),
            points=_by_epoch(stage, lambda entry: mapping(entry.get("valid")).get("loss")),
            look="one",
        ),
        Line(name=words("step_loss"), points=thinned(steps), look="faint"),
    ]
    figures = [_figure(words, stage, words("loss"), [losses[2], *losses[:2]], "loss")]
    measured = [key for entry in stage.epochs[:1] for key in mapping(entry.get("valid")) if key != "loss"]
    for metric in measured:
        points = _by_epoch(stage, lambda entry, metric=metric: mapping(entry.get("valid")).get(metric))
        title = capital(words("valid_metric", metric=words.known(metric)))
        figures.append(
            _figure(words, stage, title, [Line(name=words("valid_loss"), points=points, look="one")], metric)
        )
    rates = _pairs(
        stage.steps, lambda entry: (number_from(entry.get("step")) or 0) / per_epoch, lambda entry: entry.get("lr")
    )
    if len({f"{rate:.6g}" for _, rate in rates}) > 1:
        line = Line(name=words("learning_rate"), points=thinned(rates, 200), look="one")
        figures.append(_figure(words, stage, words("learning_rate"), [line], "lr"))
    return [tag("div", figures, class_="pair"), folded(words("figures"), _epoch_table(words, stage, measured))]


def _figure(words: Words, stage: Stage, title: str, lines: list[Line], metric: str) -> Html | None:
    if not any(line.points for line in lines if line.look != "faint"):
        return None
    best = _best_epoch(stage)
    exact = metric in ("loss", "lr")

    def hint(epoch: float, found: float) -> str:
        written = numbers.significant(found) if exact else numbers.value(metric, found)
        return words("at_epoch", epoch=numbers.significant(epoch), value=written)

    chart = line_chart(
        lines,
        label=title,
        x_label=words("epoch"),
        tick=lambda value, step: numbers.tick("loss" if exact else metric, value, step),
        hint=hint,
        mark=(best, words("best_epoch", epoch=f"{best:g}")) if best is not None and metric != "lr" else None,
        log_label=words("log_scale") if metric == "loss" else None,
    )
    return tag("figure", tag("figcaption", tag("b", title)), chart)


def _epoch_table(words: Words, stage: Stage, measured: Sequence[str]) -> Html:
    every = -(-len(stage.epochs) // TABLE_ROWS)
    chosen = [entry for i, entry in enumerate(stage.epochs) if i % every == every - 1 or i == len(stage.epochs) - 1]
    rows = [
        [
            numbers.count(number_from(entry.get("epoch")) or 0),
            _significant(entry.get("train_loss")),
            _significant(mapping(entry.get("valid")).get("loss")),
            *(_measured(metric, mapping(entry.get("valid")).get(metric)) for metric in measured),
            numbers.significant(number_from(entry.get("lr")) or 0),
        ]
        for entry in chosen
    ]
    loss = [f"{words('loss')}{words('colon')}{words(key)}" for key in ("train_loss", "valid_loss")]
    head = [
        words("epoch"),
        *loss,
        *(capital(words("valid_metric", metric=words.known(name))) for name in measured),
        words("learning_rate"),
    ]
    return table(head, rows, caption=words("figures"), right=range(1, len(head)))


def _by_epoch(stage: Stage, read: Callable[[dict[str, Any]], object]) -> list[tuple[float, float]]:
    return _pairs(stage.epochs, lambda entry: number_from(entry.get("epoch")) or 0, read)


def _pairs(
    entries: Sequence[dict[str, Any]],
    x: Callable[[dict[str, Any]], float],
    y: Callable[[dict[str, Any]], object],
) -> list[tuple[float, float]]:
    return [(x(entry), found) for entry in entries if (found := number_from(y(entry))) is not None]


def _steps_per_epoch(stage: Stage) -> float:
    last = stage.epochs[-1]
    return max(1.0, (number_from(last.get("step")) or 0) / (number_from(last.get("epoch")) or 1))


def _count(value: object) -> str:
    found = number_from(value)
    return "–" if found is None else numbers.count(found)


def _compact(value: object) -> str:
    found = number_from(value)
    return "–" if found is None else numbers.compact(found)


def _significant(value: object) -> str:
    found = number_from(value)
    return "–" if found is None else numbers.significant(found, aligned=True)


def _measured(metric: str, value: object) -> str:
    found = number_from(value)
    return "–" if found is None else numbers.value(metric, found)
