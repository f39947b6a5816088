"""Run `tunewright explain`: explain predictions, with a check of each explanation."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tunewright.console import Console, silent
from tunewright.data.manifest import Rejects
from tunewright.errors import RecipeError, UserError
from tunewright.evaluation.attribution import METHODS, VIEWS
from tunewright.explaining.influence import Learned, learned_from, show_influence, show_suspects
from tunewright.files import write_atomic
from tunewright.inference.model import Model, load_model, skipped_lines
from tunewright.inference.read_input import read_input
from tunewright.pipeline.results.explanations import Explanation, explain_rows
from tunewright.report.explanation import explanation_page
from tunewright.report.translations import Words, report_language

# The default number of rows per file: each takes hundreds of passes through the network.
ROWS = 5
SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class ExplainSettings:
    """Say what is explained, and how."""

    method: str | None = None
    """A name of `METHODS` or `VIEWS`; None: by the kind of input."""
    target: str | None = None
    """The class, item or text to explain; None: the model's prediction."""
    rows: int = ROWS
    """The most rows per file."""
    seed: int = 0
    influence: bool = False
    """Also name the training rows that support and oppose each prediction most."""


def explain(
    folder: Path,
    examples: list[str],
    settings: ExplainSettings = ExplainSettings(),
    *,
    html: Path | None = None,
    lang: str = "en",
    as_json: bool = False,
    console: Console | None = None,
) -> list[Explanation]:
    """Explain a saved model's predictions.

    Args:
        examples: as for `predict`: files, images, texts, JSON.
        html: the file for a page that draws the explanations, in the language `lang`.

    Raises:
        UserError: the method does not fit, there is no such class, or the page's file already exists.
    """
    console = silent() if as_json else console or Console()
    words = Words(report_language(lang))
    if html is not None and html.exists():
        raise UserError("this file already exists", file=html, place="--html", fix="choose another name")
    known = [*METHODS, *VIEWS]
    if settings.method is not None and settings.method not in known:
        raise RecipeError("there is no such method", place="--method", found=settings.method, expected=", ".join(known))
    model = load_model(folder)
    learned = learned_from(folder, model) if settings.influence else None
    found = [one for example in examples for one in _explain_example(model, example, settings, learned, console)]
    if html is not None:
        write_atomic(html, explanation_page(words, folder.name, [one.on_page() for one in found]))
        console.info(f"written: {html}")
    if as_json:
        for one in found:
            sys.stdout.write(json.dumps(one.to_json(), ensure_ascii=False) + "\n")
    return found


def _explain_example(
    model: Model, example: str, settings: ExplainSettings, learned: Learned | None, console: Console
) -> list[Explanation]:
    """Explain, and print, the first rows of one example."""
    found: list[Explanation] = []
    rejects = Rejects()
    left = settings.rows
    for piece in read_input(example, model.preprocessor, rejects):
        preprocessor = replace(model.preprocessor, inputs=piece.inputs)
        table = piece.table.slice(0, left)
        asked = explain_rows(
            model.network.eval(),
            preprocessor,
            table,
            piece.names,
            method=settings.method,
            target=settings.target,
            seed=settings.seed,
        )
        for row, one in enumerate(asked):
            _show(one, console)
            if learned is not None:
                behind = show_influence(learned, model.network, preprocessor, table.slice(row, 1), console)
                one = replace(one, influence=behind)
            found.append(one)
        left -= table.num_rows
        if left == 0:
            if piece.table.num_rows > table.num_rows:
                console.info(f"{example}: only the first {settings.rows:,} rows are explained; --rows asks for more")
            break
    for line in skipped_lines(rejects):
        console.warning(line)
    return found


def _show(one: Explanation, console: Console) -> None:
    explained, found, checked = one.question.explained, one.found, one.checked
    title = ", ".join(f"{key} {value}" for key, value in one.name.items())
    console.info(f"{title}: {one.question.said}" if title else one.question.said)
    console.info(f"  {found.method} of {explained.phrase}; absent: {explained.absent}")
    width = max(map(len, explained.units))
    for unit in np.argsort(-np.abs(found.scores), kind="stable")[:SHOWN].tolist():
        console.info(f"  {explained.units[unit]:<{width}}  {found.scores[unit]:+.4f}")
    if len(explained.units) > SHOWN:
        console.info(f"  and {len(explained.units) - SHOWN:,} more with smaller scores")
    if found.facts.get("view"):
        console.info("  a view: where attention ends up, independent of the answer")
    if not found.converged:
        facts = ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in found.facts.items())
        console.warning(f"NOT CONVERGED ({facts}): the scores are rough")
    worse = checked.percentile
    said = (
        f"removing the top-ranked features lowers the score by {checked.comprehensiveness:.3g}, more than "
        f"{worse['comprehensiveness']:.0%} of random rankings; keeping them alone lowers it by {checked.sufficiency:.3g}, less than "
        f"{worse['sufficiency']:.0%}; deletion lowers it more than {worse['deletion']:.0%}"
    )
    if checked.faithful:
        console.info(f"  checked: {said}")
    else:
        console.warning(f"NOT FAITHFUL: {said}")


def name_suspects(folder: Path, *, as_json: bool = False, console: Console | None = None) -> list[dict[str, Any]]:
    """Print and return the training rows of a classifier whose labels look wrong, the most suspicious first."""
    found = show_suspects(learned_from(folder, load_model(folder)), silent() if as_json else console or Console())
    if as_json:
        for entry in found:
            sys.stdout.write(json.dumps(entry, ensure_ascii=False) + "\n")
    return found
