"""Run `tunewright choose`: rank the pretrained models that a recipe could start from.

Each candidate's scores on a sample of the training rows (`selection/probing.py`) are shown with published facts and the results of past runs.
Feature scores alone can rank models worse than a fixed order does, so the fixed order is shown as well, and ties are
reported.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.table import Table

from tunewright.console import Console, silent
from tunewright.errors import RecipeError, TunewrightError
from tunewright.evaluation.intervals import Difference, Estimate, paired_bootstrap
from tunewright.evaluation.metrics import METRICS
from tunewright.evaluation.rank_scores import combined, standardised
from tunewright.hardware.machines import Hardware
from tunewright.hardware.resource_model import StagePlan
from tunewright.models.hub.model_facts import LOOKED_UP
from tunewright.pipeline.build.parts import build_parts
from tunewright.pipeline.build.prepare_data import prepare_data
from tunewright.pipeline.read_recipe import given_origin, given_weights, read_recipe
from tunewright.pipeline.stage import StageJob, recipe_backbone
from tunewright.planning.plan import PlanInput, plan_stage, planned_machine
from tunewright.recipe.schema import Recipe
from tunewright.selection.candidates import Candidate, candidates_for, past_scores
from tunewright.selection.probing import (
    NEIGHBOURS,
    RESAMPLES,
    Measured,
    fine_tune_folds,
    measure,
    paired_outcomes,
    sample_rows,
    zero_training_metric,
)
from tunewright.tasks.base.task import Task
from tunewright.tasks.registry import get_task
from tunewright.units import duration, size_of

# Rows of the sample: for scores of features, and for zero-shot evaluation.
SAMPLE, ZERO_SHOT_SAMPLE = 500, 100
LANGUAGES = {"zh": "Chinese", "en": "a language with an alphabet"}
# Texts with a larger fraction of Chinese characters are Chinese.
HAN, CHINESE = re.compile(r"[\u3400-\u9fff]"), 0.2


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """Hold a ranked candidate with its scores and plan."""

    candidate: Candidate
    score: float
    """The combined score; only its order is meaningful."""
    prior: float | None
    """The prior score, in standard deviations; None: unknown."""
    measured: Measured | None
    plan: StagePlan | None
    why_not: str | None
    """Why it was not evaluated, or not fine-tuned."""
    against_first: Difference | None
    """Its probe's metric minus that of the first candidate, on the same rows."""

    def to_json(self) -> dict[str, Any]:
        facts, found, plan = self.candidate.published, self.measured, self.plan
        return {
            "name": self.candidate.name,
            "score": self.score,
            "prior": self.prior,
            "probe": found and found.probe.to_json(),
            "neighbours": found and found.neighbours,
            "logme": found and found.logme,
            "h_score": found and found.h_score,
            "leep": found and found.leep,
            "tuned": found and found.tuned and found.tuned[1].to_json(),
            "against_first": self.against_first and self.against_first.to_json(),
            "published": facts and asdict(facts),
            "memory": plan and plan.process.middle,
            "seconds": plan and plan.seconds.middle,
            "fits": plan and plan.fits,
            "why_not": self.why_not,
        }


@dataclass(frozen=True, kw_only=True)
class ChooseSettings:
    """Say which models are ranked, and by what."""

    names: list[str] | None = None
    """Catalog names, folders, or hub ids, which are then downloaded; None: the catalog's for the task."""
    sample: int | None = None
    """Training rows to use; None: 500, or 100 for tasks without a target."""
    tune: bool = False
    """Also fine-tune each on parts of the sample, and evaluate it on the rest."""
    runs: Path = Path("runs")
    """The folder of past runs, whose results are priors."""
    planned: bool = True
    """Also plan the fine-tune of each, for its memory and time."""


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """Hold what was found out about a candidate."""

    measured: Measured | None = None
    plan: StagePlan | None = None
    why_not: str | None = None
    """Why it was not evaluated, or not fine-tuned."""


def choose(
    recipe: Path,
    overrides: list[str],
    settings: ChooseSettings = ChooseSettings(),
    *,
    as_json: bool = False,
    console: Console | None = None,
) -> list[Ranked]:
    """Rank the models that a recipe could start from, the best first; those that were not evaluated come last.

    Raises:
        RecipeError: models cannot be compared for this task before training, or the recipe is private.
    """
    console = silent() if as_json else console or Console()
    loaded, _, _, base, _ = read_recipe(recipe, overrides, None)
    found = candidates_for(loaded, settings.names)
    task = get_task(found[0].stage.recipe.task)
    metric = _metric_before_training(task, found[0].stage.recipe)
    sample = settings.sample or (SAMPLE if task.evaluation.by_batch else ZERO_SHOT_SAMPLE)
    machine = planned_machine(None, console) if settings.planned else None
    language = _language(found[0], base) if task.purpose is not None and not task.purpose.reads_images else None
    past = past_scores(settings.runs, task.name)
    evaluated: list[Evaluated] = []
    for candidate in found:
        if candidate.local:
            console.info(f"evaluating {candidate.name}")
        evaluated.append(_evaluate(candidate, base, sample, machine, settings.tune, console))
    ranked = _rank(found, evaluated, past, metric, language)
    if as_json:
        sys.stdout.write(json.dumps([entry.to_json() for entry in ranked], indent=2, ensure_ascii=False) + "\n")
    else:
        _show(ranked, metric, console, language, by_features=task.evaluation.by_batch)
    return ranked


def _metric_before_training(task: Task, recipe: Recipe) -> str:
    """Return the name of the metric that ranks models before they are trained.

    Raises:
        RecipeError: there is none for this task, or the recipe is private.
    """
    metric = zero_training_metric(task)
    if metric is None:
        raise RecipeError(
            f"models cannot be compared for {task.name} before they are trained",
            place="task",
            found=task.name,
            expected="a target, or language-modeling, supervised-fine-tuning or speech-recognition",
            fix="run a short stage from each model, and `tunewright compare` them",
        )
    if recipe.privacy is not None:
        raise RecipeError(
            "choosing a model by the training rows is not private: the choice reveals something about them",
            place="privacy",
            found=f"ε = {recipe.privacy.epsilon:g}",
            expected="a recipe without privacy",
            fix="choose on public data of the same kind (data.source=…), then train privately",
        )
    return metric.name


def _evaluate(
    candidate: Candidate, base: Path, sample: int, machine: Hardware | None, tune: bool, console: Console
) -> Evaluated:
    if not candidate.local:
        return Evaluated(why_not="not on this machine; --candidates NAME downloads and evaluates it")
    recipe = candidate.stage.recipe
    try:
        prepared = prepare_data(recipe, base, silent())
        backbone, origin = recipe_backbone(recipe, base), given_origin(recipe, base)
        given = PlanInput(stage=candidate.stage, prepared=prepared, start=origin, backbone=backbone)
        parts = build_parts(recipe, prepared, origin, backbone, silent())
        plan = plan_stage(given, machine, probe=False, console=silent()) if machine is not None else None
        rows = sample_rows(prepared, recipe.seed, sample)
        one = Evaluated(measured=measure(parts, origin, rows), plan=plan)
    except TunewrightError as error:
        return Evaluated(why_not=f"was not evaluated: {error.message.splitlines()[0]}")
    if not tune or one.measured is None:
        return one
    if plan is not None and not plan.fits:
        return replace(one, why_not="was not fine-tuned: it does not fit into this machine's memory")
    source = given_weights(recipe, base)
    job = StageJob(stage=candidate.stage, folder=base, source=source, prepared=prepared, backbone=backbone)
    try:
        return replace(one, measured=replace(one.measured, tuned=fine_tune_folds(job, rows, console)))
    except TunewrightError as error:
        return replace(one, why_not=f"was not fine-tuned: {error.message.splitlines()[0]}")


def _rank(
    found: list[Candidate], evaluated: list[Evaluated], past: dict[str, float], metric: str, language: str | None
) -> list[Ranked]:
    prior = priors(found, past, language)
    measured = [one.measured for one in evaluated]
    known = [index for index, one in enumerate(measured) if one is not None]
    scores = combined(scores_of([measured[index] for index in known], [prior[index] for index in known], metric))
    score = dict(zip(known, scores.tolist()))

    def place(index: int) -> tuple[float, ...]:
        unknown = prior[index] is None
        return (
            index not in score,
            -score.get(index, 0),
            not _reads(found[index], language),
            unknown,
            -(prior[index] or 0),
        )

    order = sorted(range(len(found)), key=place)
    first = measured[order[0]]
    ranked: list[Ranked] = []
    for index in order:
        one = measured[index]
        against = None
        if one is not None and first is not None and one is not first:
            against = paired_bootstrap(METRICS[metric], *paired_outcomes(one, first), resamples=RESAMPLES, seed=0)
        ranked.append(
            Ranked(
                candidate=found[index],
                score=score.get(index, 0.0),
                prior=prior[index],
                measured=one,
                plan=evaluated[index].plan,
                why_not=evaluated[index].why_not,
                against_first=against,
            )
        )
    return ranked


def scores_of(measured: list[Any], prior: list[float | None], metric: str) -> dict[str, list[float | None]]:
    """Return the candidates' values of each score, greater is better, as `combined` takes them."""
    sign = 1 if METRICS[metric].greater_is_better else -1

    def reached(found: Any) -> float | None:
        return None if found is None or found.value is None else sign * found.value

    scores: dict[str, list[float | None]] = {
        "probe": [reached(one.probe) for one in measured],
        "neighbours": [one.neighbours for one in measured],
        "logme": [one.logme for one in measured],
        "h_score": [one.h_score for one in measured],
        "prior": prior,
        "tuned": [reached(one.tuned and one.tuned[1]) for one in measured],
    }
    return scores


def _language(candidate: Candidate, base: Path) -> str:
    """Return zh if many characters of the texts are Chinese, else en."""
    prepared = prepare_data(candidate.stage.recipe, base, silent())
    table = prepared.table("train", prepared.manifest.input).slice(0, SAMPLE)
    text = "".join(str(value) for column in table.columns for value in column.to_pylist())
    return "zh" if len(HAN.findall(text)) > CHINESE * len(text) else "en"


def _reads(candidate: Candidate, language: str | None) -> bool:
    facts = candidate.published
    return language is None or facts is None or not facts.languages or bool({language, "many"} & {*facts.languages})


def priors(found: list[Candidate], past: dict[str, float], language: str | None) -> list[float | None]:
    """Return the prior scores: the mean of published scores on one benchmark, standardised, and scores of past runs. Published
    scores count for models that were pretrained on the language of the texts."""
    facts = [candidate.published if _reads(candidate, language) else None for candidate in found]
    values: list[list[float]] = [[] for _ in found]
    for measure_name in {fact.measure for fact in facts if fact is not None and fact.measure is not None}:
        same = [fact.score if fact is not None and fact.measure == measure_name else None for fact in facts]
        if sum(value is not None for value in same) > 1:
            for index, (value, standard) in enumerate(zip(same, standardised(same))):
                if value is not None:
                    values[index].append(float(standard))
    for index, candidate in enumerate(found):
        if candidate.key in past:
            values[index].append(past[candidate.key])
    return [sum(entry) / len(entry) if entry else None for entry in values]


def _show(ranked: list[Ranked], metric: str, console: Console, language: str | None, *, by_features: bool) -> None:
    if any(entry.measured for entry in ranked):
        console.rich.print(_scores(ranked, metric, by_features))
    heads = ("candidate", "parameters", "memory", "training", "licence", "reads", "published")
    console.rich.print(_table("facts", heads, [_known(entry) for entry in ranked]))
    _show_left(ranked, console, language)
    if any(entry.measured for entry in ranked):
        _show_verdict(ranked, metric, console, by_features)


def _scores(ranked: list[Ranked], metric: str, by_features: bool) -> Table:
    """Return the table of the scores of those that were evaluated."""
    tuned = (f"{metric}, fine-tuned",) if any(entry.measured and entry.measured.tuned for entry in ranked) else ()
    scores = (f"{NEIGHBOURS} nearest", "LogME", "H-score", "LEEP") if by_features else ()
    heads = (
        "candidate",
        *tuned,
        f"{metric} of a probe" if by_features else f"{metric}, zero-shot",
        *scores,
        "prior",
    )
    rows = [
        (
            entry.candidate.name,
            *(_estimate(entry.measured.tuned and entry.measured.tuned[1]) for _ in tuned),
            *_figures(entry.measured)[: len(scores) + 1],
            _number(entry.prior),
        )
        for entry in ranked
        if entry.measured
    ]
    return _table("ranking", heads, rows)


def _show_left(ranked: list[Ranked], console: Console, language: str | None) -> None:
    """Name the candidates that were not evaluated, and those that read another language."""
    for entry in ranked:
        if entry.why_not is not None and entry.candidate.local:
            console.warning(f"{entry.candidate.name} {entry.why_not}")
    if language is not None and (others := [e.candidate.name for e in ranked if not _reads(e.candidate, language)]):
        console.warning(
            f"the texts are in {LANGUAGES[language]}, which these were not pretrained on: {', '.join(others)}"
        )
    away = [entry.candidate.name for entry in ranked if not entry.candidate.local]
    if away:
        console.info(
            "not evaluated, because they are not on this machine (--candidates NAME downloads and evaluates one): "
            + ", ".join(away)
        )


def _show_verdict(ranked: list[Ranked], metric: str, console: Console, by_features: bool) -> None:
    """Say which candidate comes first, by what, and how much that says."""
    measured = [entry for entry in ranked if entry.measured is not None]
    tuned = any(entry.measured and entry.measured.tuned for entry in ranked)
    tied = [
        entry.candidate.name
        for entry in measured
        if entry.against_first is not None and entry.against_first.verdict == "no real difference"
    ]
    count = len(measured[0].measured.outcome) if measured[0].measured else 0
    console.info(f"first of {len(measured)}: {measured[0].candidate.name}, by {count:,} training rows")
    if tied:
        by = "fine-tuning on them" if tuned else "the probe" if by_features else metric
        console.info(f"by {by} these cannot be told apart from it: {', '.join(tied)}")
    known = sorted((entry for entry in ranked if entry.prior is not None), key=lambda entry: -(entry.prior or 0))
    if known:
        console.info("the static ranking, by the prior alone: " + ", ".join(entry.candidate.name for entry in known))
    if tuned:
        console.info("fine-tuning on a few rows is a hint too: a larger model may learn more from all of them")
    elif by_features:
        console.info(
            "a feature score is a hint, not a result: on the standard benchmark such scores alone rank models worse "
            "than a fixed order does (mean weighted τ 0.57 against 0.91)"
        )
    else:
        console.info("a zero-shot score is a hint, not a result: a larger model may learn more")
    if not tuned:
        console.info("more reliable, and slower: --tune, which fine-tunes each of them on these rows")
    console.info(f"published facts were looked up on {LOOKED_UP}")


def _table(title: str, heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for place, head in enumerate(heads):
        wide = max(len(head), *(len(row[place]) for row in rows))
        left = head in ("candidate", "licence", "reads", "published")
        table.add_column(head, justify="left" if left else "right", no_wrap=True, min_width=wide)
    for row in rows:
        table.add_row(*row)
    return table


def _known(entry: Ranked) -> tuple[str, ...]:
    facts, plan = entry.candidate.published, entry.plan
    parameters = plan.parameters if plan else facts.parameters if facts else None
    return (
        entry.candidate.name,
        "–" if parameters is None else f"{parameters / 1e6:.1f} M",
        "–" if plan is None else size_of(plan.process.middle) + ("" if plan.fits else ", TOO MUCH"),
        "–" if plan is None else duration(plan.seconds.middle),
        "–" if facts is None else facts.licence,
        "–" if facts is None or not facts.languages else " ".join(facts.languages),
        "–" if facts is None or facts.score is None else f"{facts.score} {facts.measure}",
    )


def _figures(one: Measured) -> tuple[str, ...]:
    return (_estimate(one.probe), *map(_number, (one.neighbours, one.logme, one.h_score, one.leep)))


def _estimate(found: Estimate | None) -> str:
    if found is None or found.value is None:
        return "–"
    return f"{found.value:.3f} [{found.low or 0:.3f}, {found.high or 0:.3f}]"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
