"""Run `tunewright privacy MODEL`: attack a trained model to find out what it leaks about its training data.

An attack that finds nothing proves nothing: each is reported with what it could have found.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from tunewright.console import Console, silent
from tunewright.data.batches.batch import Examples
from tunewright.data.checks.duplicates import leaks
from tunewright.data.prepared import Prepared
from tunewright.errors import RecipeError
from tunewright.evaluation.membership import attack, audited_epsilon, exposure, likelihood_ratios
from tunewright.models.core.network import Network, evaluating
from tunewright.models.hub.generate import generate
from tunewright.pipeline.build.objective import objective_of
from tunewright.pipeline.results.provenance import Provenance, provenance
from tunewright.pipeline.stage import load_origin
from tunewright.pipeline.train.retrain import learned_from
from tunewright.random import mix, permutation
from tunewright.report.promises import promises
from tunewright.report.translations import Words
from tunewright.runs.summary.stage import StageSummary, read_summary
from tunewright.tasks.base.task import Preprocessor
from tunewright.tasks.language_model.writer import language_model
from tunewright.tasks.registry import get_task

# The most rows of each kind to attack; one loss is computed for each.
MOST = 2000
# The share of the randomly included or excluded rows that is guessed: the most certain ones.
GUESSED = 0.2
# Extraction: the number of texts, of prompt tokens, and of tokens that must be reproduced verbatim.
TEXTS, PROMPT, WORD_FOR_WORD = 100, 16, 16
# Secrets that were not inserted, among which an inserted one is ranked.
RANKED = 1000
DIGITS = 8
# Fewer reference models are too few to estimate the spread of scores.
FEWEST = 4


@dataclass(frozen=True, kw_only=True)
class Audit:
    """Hold the results of the attacks; those that were not requested are None."""

    rows: dict[str, int]
    loss: dict[str, Any]
    """The attack by loss alone: rows with small losses are called members (Yeom et al. 2018)."""
    ratio: dict[str, Any] | None
    """The same with reference models (LiRA)."""
    one_run: dict[str, Any] | None
    canaries: dict[str, Any] | None
    extraction: dict[str, Any] | None
    leaked: list[dict[str, Any]]
    """Rows of test or validation that are in the training split too, exactly or nearly: for these any attack, and the result
    itself, is too optimistic."""
    claimed: dict[str, Any] | None
    """The ε and δ that the stage was trained with."""
    promised: list[str]
    """The privacy guarantees of the model, over all stages that it comes from; empty: none was claimed."""


def audit(
    folder: Path, *, references: int = 0, one_run: bool = False, canaries: int = 0, seed: int = 0, console: Console
) -> Audit:
    """Attack a saved model.

    Args:
        references: the number of models of the same recipe to train on random halves of the rows, at least 4; 0: none.
        one_run: train again, with a fifth of the rows included or excluded at random, and estimate a lower bound of ε.
        canaries: train again with this many made-up secrets among the texts.

    Raises:
        UserError: the model is not in a run, there are no held-out rows, or it cannot be audited in this way.
    """
    if 0 < references < FEWEST:
        raise RecipeError(
            "there are too few reference models", place="--references", found=references, expected=f"{FEWEST} or more"
        )
    origin = provenance(folder)
    prepared = origin.data()
    other = next((split for split in ("test", "valid") if prepared.rows(split)), None)
    if other is None:
        raise RecipeError(
            "there are no held-out rows",
            place="data.split",
            expected="a test or validation split",
            fix="train with data.split: {test: 0.1}",
        )
    loaded = load_origin(folder)
    members, others = (_chosen(prepared, split, seed) for split in ("train", other))
    losses = _Losses(origin, prepared)
    scores = [-losses.of(loaded.network, loaded.preprocessor, part) for part in (members, others)]
    summary = read_summary(folder.parent)
    return Audit(
        rows={"train": len(scores[0]), other: len(scores[1])},
        loss=asdict(attack(scores[0], scores[1], seed=seed)),
        ratio=_with_references(losses, (members, others), scores, references, seed, console) if references else None,
        one_run=_one_run(origin, prepared, losses, summary, seed, console) if one_run else None,
        canaries=_canaries(origin, prepared, canaries, seed, console) if canaries else None,
        extraction=_extraction(loaded.network, loaded.preprocessor, prepared, other, seed),
        leaked=[finding.to_json() for finding in leaks(prepared, seed)],
        claimed=None if summary.training.privacy is None else asdict(summary.training.privacy),
        promised=promises(Words("en"), summary.privacy) if summary.privacy is not None else [],
    )


class _Losses:
    """Compute the loss of single rows, by the stage's own objective."""

    def __init__(self, origin: Provenance, prepared: Prepared) -> None:
        self.origin, self.prepared = origin, prepared

    def of(self, network: Network, preprocessor: Preprocessor, table: pa.Table) -> np.ndarray:
        """Return each row's mean loss, [N] float64; rows with larger losses are less likely to be members."""
        recipe = self.origin.stage.recipe
        objective = objective_of(recipe, preprocessor.task, preprocessor.inputs, self.prepared)
        bound = objective.bind(recipe.seed, torch.device("cpu"))
        whole = _examples(preprocessor, table)
        # Packed texts are evaluated one by one.
        each = len(whole) == table.num_rows
        found = np.zeros(table.num_rows)
        with evaluating(network), torch.no_grad():
            for row in range(table.num_rows):
                examples = whole if each else _examples(preprocessor, table.slice(row, 1))
                ids = torch.tensor([row]) if each else torch.arange(len(examples))
                batch = examples.batch(ids, 0)
                found[row] = float(bound.loss_sum(network, batch, 0)) / (bound.weight(batch) or 1.0)
        return found


def _examples(preprocessor: Preprocessor, table: pa.Table) -> Examples:
    target = preprocessor.target.encode(table) if preprocessor.target else None
    return preprocessor.inputs.examples(table, target)


def _chosen(prepared: Prepared, split: str, seed: int) -> pa.Table:
    """Return at most MOST random rows of a split."""
    table = prepared.table(split)
    return table.take(np.sort(permutation(seed, "audit", 0, table.num_rows)[:MOST]))


# Trainings on other rows


@contextmanager
def trained_on(
    origin: Provenance, prepared: Prepared, train: pa.Table, seed: int
) -> Generator[tuple[Network, Preprocessor, StageSummary]]:
    """Train the stage's model on these rows instead, with another seed; yield it with its summary."""
    job = origin.job(Path(), prepared)
    with learned_from(job, {"train": train}, mix(seed, "audit") % 2**32) as again:
        loaded = load_origin(again.folder / "model")
        yield loaded.network, loaded.preprocessor, read_summary(again.folder)


def _with_references(
    losses: _Losses,
    attacked: tuple[pa.Table, pa.Table],
    scores: list[np.ndarray],
    count: int,
    seed: int,
    console: Console,
) -> dict[str, Any]:
    """Attack with reference models, each trained on a random half of the attacked rows and no others.

    Args:
        attacked: the members and the others.
        scores: of each of them, by the audited model.
    """
    pool = pa.concat_tables(attacked)
    inside = np.stack(
        [np.random.default_rng(mix(seed, "reference", k)).random(pool.num_rows) < 0.5 for k in range(count)]
    )
    found: list[np.ndarray] = []
    for k in range(count):
        console.info(f"reference model {k + 1} of {count}: {int(inside[k].sum()):,} rows")
        half = pool.filter(pa.array(inside[k]))
        with trained_on(losses.origin, losses.prepared, half, mix(seed, k)) as (network, inputs, _):
            found.append(-losses.of(network, inputs, pool))
    ratios = likelihood_ratios(np.concatenate(scores), np.stack(found), inside)
    return {"models": count, **asdict(attack(ratios[: len(scores[0])], ratios[len(scores[0]) :], seed=seed))}


def _one_run(
    origin: Provenance, prepared: Prepared, losses: _Losses, summary: StageSummary, seed: int, console: Console
) -> dict[str, Any]:
    """One training with a fifth of the rows in or out by coins, and the ε that it surely exceeds."""
    table = prepared.table("train")
    order = permutation(seed, "one run", 0, table.num_rows)
    tossed = np.sort(order[: min(MOST, table.num_rows // 5)])
    inside = np.random.default_rng(mix(seed, "coins")).random(len(tossed)) < 0.5
    keep = np.ones(table.num_rows, bool)
    keep[tossed[~inside]] = False
    console.info(f"training again: each of {len(tossed):,} rows is included at random")
    with trained_on(origin, prepared, table.filter(pa.array(keep)), mix(seed, "one run")) as (
        network,
        inputs,
        again,
    ):
        scores = -losses.of(network, inputs, table.take(tossed))
    half = max(1, int(len(tossed) * GUESSED / 2))
    order = np.argsort(scores, kind="stable")
    right = int(inside[order[-half:]].sum() + (~inside[order[:half]]).sum())
    delta = 1e-5 if again.training.privacy is None else again.training.privacy.delta
    found = audited_epsilon(2 * half, right, len(tossed), delta)
    claimed = None if summary.training.privacy is None else summary.training.privacy.epsilon
    return {
        "rows": len(tossed),
        "guesses": 2 * half,
        "right": right,
        "epsilon_at_least": found,
        "could_show": audited_epsilon(2 * half, 2 * half, len(tossed), delta),
        "delta": delta,
        "broken": claimed is not None and found > claimed,
    }


# Language models


def _canaries(origin: Provenance, prepared: Prepared, count: int, seed: int, console: Console) -> dict[str, Any]:
    """Train with made-up secrets among the texts, and measure the exposure of each."""
    column = prepared.manifest.input[0]
    if get_task(origin.stage.recipe.task).inputs.documents is None:
        raise RecipeError(
            "canaries are inserted among the texts of a language model", place="--canaries", found=origin.stage.recipe.task,
            expected="task: language-modeling", fix="omit --canaries",
        )  # fmt: skip
    draw = np.random.default_rng(mix(seed, "canaries"))
    table = prepared.table("train")

    def texts(n: int) -> list[str]:
        numbers = ("".join(map(str, draw.integers(0, 10, DIGITS))) for _ in range(n))
        return [f"The number of the safe is {number}." for number in numbers]

    def rows(some: Sequence[str]) -> pa.Table:
        like = table.take(pa.array(np.zeros(len(some), dtype=np.int64)))
        place = like.column_names.index(column)
        return like.set_column(place, like.schema.field(place), pa.array(some, like.schema.field(place).type))

    secrets, others = texts(count), texts(RANKED)
    console.info(f"training again with {count} made-up secrets among {table.num_rows:,} texts")
    losses = _Losses(origin, prepared)
    with trained_on(origin, prepared, pa.concat_tables([table, rows(secrets)]), mix(seed, "canaries")) as (
        network,
        inputs,
        _,
    ):
        ours, theirs = (losses.of(network, inputs, rows(some)) for some in (secrets, others))
    exposures = [exposure(float(loss), theirs) for loss in ours]
    return {
        "secrets": count,
        "exposures": exposures,
        "mean": float(np.mean(exposures)),
        "highest_that_could_be": float(np.log2(RANKED + 1)),
        "by_chance": float(np.log2(np.e)),
    }


def _extraction(
    network: Network, preprocessor: Preprocessor, prepared: Prepared, other: str, seed: int
) -> dict[str, Any] | None:
    """Count the texts that greedy decoding reproduces verbatim, among training texts and held-out texts (Carlini et al.
    2023, "Quantifying memorization across neural language models", section 3)."""
    writer = language_model(network, preprocessor)
    documents = preprocessor.task.inputs.documents
    if writer is None or documents is None:
        return None
    found: dict[str, Any] = {"prompt_tokens": PROMPT, "tokens": WORD_FOR_WORD}
    for split in ("train", other):
        table = _chosen(prepared, split, seed)
        texts = [ids for ids in documents(writer.encoder, table) if len(ids) > PROMPT + WORD_FOR_WORD][:TEXTS]
        hits = 0
        for ids in texts:
            new = generate(
                writer.network, ids[:PROMPT].tolist(), end=set[int](), most=WORD_FOR_WORD, context=writer.encoder.limit
            )
            hits += list(new) == ids[PROMPT : PROMPT + WORD_FOR_WORD].tolist()
        found[split] = {"texts": len(texts), "word_for_word": hits}
    return found


# What is printed


def print_audit(
    folder: Path, *, references: int, one_run: bool, canaries: int, seed: int, as_json: bool, console: Console
) -> None:
    """Run the audit, and print it as text or JSON."""
    found = audit(
        folder,
        references=references,
        one_run=one_run,
        canaries=canaries,
        seed=seed,
        console=silent() if as_json else console,
    )
    if as_json:
        print(json.dumps(asdict(found), indent=1))
        return
    for line in lines_of(found):
        console.info(line)


def lines_of(found: Audit) -> list[str]:
    """Format the audit for people."""
    lines = [_attack_line("by the loss alone", found.loss)]
    if found.ratio is not None:
        lines.append(_attack_line(f"with {found.ratio['models']} reference models (LiRA)", found.ratio))
    if (one := found.one_run) is not None:
        lines.append(
            f"one-run audit: {one['right']:,} of {one['guesses']:,} guesses right, so this training's ε is at least {one['epsilon_at_least']:.2f} "
            f"(95 % confidence, δ = {one['delta']:.2g}); with all guesses right it could have shown {one['could_show']:.2f}"
        )
        if one["broken"]:
            lines.append("BROKEN: that is more than the ε that the training claims; please report it")
    if (inserted := found.canaries) is not None:
        lines.append(
            f"canaries: mean exposure {inserted['mean']:.1f} bits of at most {inserted['highest_that_could_be']:.1f}; "
            f"{inserted['by_chance']:.1f} if nothing is memorised"
        )
    if (extracted := found.extraction) is not None:
        parts = [
            f"{facts['word_for_word']} of {facts['texts']} {name} texts"
            for name, facts in extracted.items()
            if isinstance(facts, dict)
        ]
        lines.append(
            f"extraction: from their first {extracted['prompt_tokens']} tokens it reproduces the next {extracted['tokens']} verbatim for "
            + " and ".join(parts)
        )
    if found.claimed is not None:
        lines.append(
            f"this stage was trained with differential privacy: ε = {found.claimed['epsilon']:.3g}, δ = {found.claimed['delta']:.2g}"
        )
    lines += [f"guarantee: {line}" for line in found.promised]
    lines += [f"leaked: {leak['title']}, such as {leak['examples'][0]}" for leak in found.leaked] or [
        "no test or validation row is in the training split, exactly or nearly"
    ]
    lines.append("an attack that finds nothing proves nothing")
    return lines


def _attack_line(how: str, found: dict[str, Any]) -> str:
    shares = [
        f"{share:.1%} of members at a false positive rate of {float(rate):.1%}"
        for rate, share in found["found"].items()
        if share is not None
    ]
    verdict = "tells members apart" if found["low"] > 0.5 else "does not tell members apart"
    return (
        f"membership {how}: {verdict}: AUC {found['auc']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"
        + (", finds " + ", ".join(shares) if shares else "")
        + f" ({found['members']:,} rows trained on, {found['others']:,} not)"
    )
