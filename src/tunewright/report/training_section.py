"""The network of a stage, and how it learned: the picture, the layers, the curves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from tunewright.report import numbers
from tunewright.report.charts import Line, line_chart, thinned
from tunewright.report.components import as_found, capital, facts, folded, number, scroll, table
from tunewright.report.html import Html, tag
from tunewright.report.inline_images import clean_svg
from tunewright.report.reading import Stage, shown, with_options
from tunewright.report.translations import Words
from tunewright.runs.metrics_log import LOSS, EpochLine
from tunewright.runs.summary.facts import MetricFacts
from tunewright.runs.summary.model import LayerSummary

# The table beside the curves has at most about so many lines.
TABLE_ROWS = 50


def network(words: Words, stage: Stage) -> list[Html | None]:
    """The picture, the sizes and the table of layers."""
    model = stage.summary.model
    picture = clean_svg(model.svg, stage.name) if model.svg else None
    return [
        tag("h3", words("network")),
        tag("p", _size(words, stage)),
        tag("figure", scroll(picture, words("network")), class_="network") if picture else None,
        folded(words("layers"), _layers(words, model.layers)) if model.layers else None,
    ]


def _size(words: Words, stage: Stage) -> Html:
    counts = stage.summary.model.parameters
    return words.html(
        "network_size" if counts.frozen else "network_size_all",
        total=numbers.count(counts.total),
        trainable=numbers.count(counts.trainable),
        frozen=numbers.count(counts.frozen),
        flops=number(numbers.compact(stage.summary.model.flops_per_example)),
    )


def _layers(words: Words, layers: Sequence[LayerSummary]) -> Html:
    rows = [
        (
            tag("code", shown(layer.block)),
            shown(layer.kind),
            number(" × ".join(map(shown, layer.output_shape))),
            number(numbers.count(layer.parameters)),
            number(numbers.compact(layer.flops)),
            words("trained") if layer.trained else words("frozen"),
            number("–" if layer.lr is None else numbers.significant(layer.lr)),
        )
        for layer in layers
    ]
    head = ["block", "kind", "output_shape", "parameters", "flops", "state", "learning_rate"]
    return table([words(key) for key in head], rows, caption=words("layers"), right=[3, 4, 6])


def training(words: Words, stage: Stage) -> list[Html | None]:
    """What was done, in figures, and the curves."""
    done = stage.summary.training
    lr, batch, seconds = done.lr, done.batch_size, done.batch_seconds
    # A head that was solved for has no steps, and so no curves and no best epoch.
    stepped = done.steps is not None
    return [
        tag("h3", words("training")),
        _duration(words, stage),
        _kept(words, stage) if stepped else None,
        *(_curves(words, stage) if stepped else []),
        facts(
            [
                (words("objective"), as_found(words, done.objective)),
                (words("optimizer"), None if done.optimizer is None else with_options(done.optimizer)),
                (words("learning_rate"), numbers.significant(lr) if lr is not None else None),
                (words("batch_size"), numbers.count(batch) if batch is not None else None),
                (words("batch_seconds"), numbers.significant(seconds) if seconds is not None else None),
                (words("threads"), numbers.count(done.threads)),
                (words("ended"), as_found(words, done.stopped) if done.stopped else None),
            ],
            short=True,
        ),
    ]


def _duration(words: Words, stage: Stage) -> Html | None:
    done = stage.summary.training
    run, planned, steps, speed = done.epochs_run, done.epochs, done.steps, done.examples_per_second
    if run is None or planned is None or steps is None or speed is None:
        return None
    return tag(
        "p",
        words.html(
            "trained_for",
            epochs=numbers.count(run),
            planned=numbers.count(planned),
            steps=numbers.count(steps),
            time=number(numbers.duration(done.seconds)),
            speed=numbers.count(speed),
            device=shown(done.device),
        ),
    )


def _kept(words: Words, stage: Stage) -> Html:
    if (best := stage.summary.training.best) is None:
        return tag("p", words("last_weights"))
    metric = stage.metric(best.metric)
    written = number(numbers.value(metric, best.value))
    return tag("p", words.html("best_weights", epoch=best.epoch, metric=words.title(metric.title), value=written))


def _curves(words: Words, stage: Stage) -> list[Html | None]:
    epochs, steps = stage.curves.epochs, stage.curves.steps
    if not epochs:
        return [tag("p", words("no_curves"), class_="small")]
    per_epoch = max(1.0, epochs[-1].step / epochs[-1].epoch)
    losses = [
        Line(
            name=words("step_loss"),
            points=thinned([(line.step / per_epoch, line.loss) for line in steps]),
            look="faint",
        ),
        Line(name=words("train_loss"), points=[(float(line.epoch), line.train_loss) for line in epochs], look="two"),
        Line(name=words("valid_loss"), points=_validation(epochs, LOSS), look="one"),
    ]
    best = stage.summary.training.best
    mark = None if best is None else (float(best.epoch), words("best_epoch", epoch=best.epoch))
    figures = [_figure(words, words("loss"), losses, numbers.plain_tick, numbers.significant, mark, words("log_scale"))]
    metrics = [stage.metric(name) for name in epochs[0].valid or {} if name != LOSS]
    for metric in metrics:
        line = Line(name=words("valid_loss"), points=_validation(epochs, metric.name), look="one")
        title = capital(words("valid_metric", metric=words.title(metric.title)))
        figures.append(
            _figure(words, title, [line], partial(numbers.tick, metric), partial(numbers.value, metric), mark)
        )
    rates = [(line.step / per_epoch, line.lr) for line in steps]
    if len({f"{rate:.6g}" for _, rate in rates}) > 1:
        line = Line(name=words("learning_rate"), points=thinned(rates, 200), look="one")
        figures.append(_figure(words, words("learning_rate"), [line], numbers.plain_tick, numbers.significant))
    return [tag("div", figures, class_="pair"), folded(words("figures"), _epoch_table(words, epochs, metrics))]


def _validation(epochs: Sequence[EpochLine], name: str) -> list[tuple[float, float]]:
    """The validation results of one name, by epoch."""
    return [(float(line.epoch), line.valid[name]) for line in epochs if line.valid and name in line.valid]


def _figure(
    words: Words,
    title: str,
    lines: list[Line],
    tick: Callable[[float, float], str],
    write: Callable[[float], str],
    mark: tuple[float, str] | None = None,
    log_label: str | None = None,
) -> Html | None:
    if not any(line.points for line in lines if line.look != "faint"):
        return None
    chart = line_chart(
        lines,
        label=title,
        x_label=words("epoch"),
        tick=tick,
        hint=lambda epoch, found: words("at_epoch", epoch=numbers.significant(epoch), value=write(found)),
        mark=mark,
        log_label=log_label,
    )
    return tag("figure", tag("figcaption", tag("b", title)), chart)


def _epoch_table(words: Words, epochs: Sequence[EpochLine], metrics: Sequence[MetricFacts]) -> Html:
    every = -(-len(epochs) // TABLE_ROWS)
    chosen = [line for i, line in enumerate(epochs) if i % every == every - 1 or i == len(epochs) - 1]
    rows = [
        [
            numbers.count(line.epoch),
            _significant(line.train_loss),
            _significant((line.valid or {}).get(LOSS)),
            *(
                "–" if (found := (line.valid or {}).get(metric.name)) is None else numbers.value(metric, found)
                for metric in metrics
            ),
            numbers.significant(line.lr),
        ]
        for line in chosen
    ]
    loss = [f"{words('loss')}{words('colon')}{words(key)}" for key in ("train_loss", "valid_loss")]
    head = [
        words("epoch"),
        *loss,
        *(capital(words("valid_metric", metric=words.title(metric.title))) for metric in metrics),
        words("learning_rate"),
    ]
    return table(head, rows, caption=words("figures"), right=range(1, len(head)))


def _significant(found: float | None) -> str:
    return "–" if found is None else numbers.significant(found, aligned=True)
