"""What a stage's model comes from: read from the model that it starts with, kept in the model that it makes, put into words.

Only numbers of the account stand here; how they compose is in `training/privacy/lineage.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tunewright.console import Console
from tunewright.data.prepared import Prepared
from tunewright.errors import ArtifactError
from tunewright.models.backbone import Backbone
from tunewright.models.families import BESIDE
from tunewright.models.hub.catalog import BACKBONES
from tunewright.pipeline.stage import StageJob
from tunewright.recipe.schema import Recipe
from tunewright.recipe.stages import StageRecipe
from tunewright.report.promises import statistics as named_statistics
from tunewright.report.translations import Words
from tunewright.runs.folder import read_json
from tunewright.runs.summary.training import Guarantee, PrivacyAccount, PrivacySummary, Statistic, Unit
from tunewright.tasks.base.task import Preprocessor
from tunewright.tasks.registry import read_preprocessor
from tunewright.training.privacy.accounting import Steps
from tunewright.training.privacy.lineage import Learned, Lineage, Spent

LINEAGE = "lineage"
# What no ε of a stage says anything of.
NOT_COVERED = (
    "validation and test rows, which choose the epoch and are measured",
    "how many rows there are, and the fingerprint of the data",
    "the training losses in metrics.jsonl and in the report",
    "the report's baselines, which learn from the training rows without privacy",
    "other models that were trained on the same rows: each training spends again",
    "settings that were chosen by what trainings on these rows had shown, such as by tune, choose or lr-find",
)


def starting_lineage(job: StageJob) -> Lineage:
    """What the weights come from that a stage begins with."""
    if job.source is not None:
        return read_lineage(job.source)
    return Lineage() if job.pretrained is None else backbone_lineage(job.pretrained)


def backbone_lineage(backbone: Backbone) -> Lineage:
    """That of a pretrained backbone: ours, a published one, or a folder of which nothing is known."""
    if _record(backbone.folder) is not None:
        return read_lineage(backbone.folder)
    published = backbone.name in BACKBONES or backbone.hub is not None
    return Lineage(public=[backbone.name]) if published else Lineage(unknown=[backbone.folder.name])


def read_lineage(folder: Path) -> Lineage:
    """That of a saved model; a folder without a record is an unknown start.

    Raises:
        ArtifactError: the record is damaged.
    """
    record = _record(folder)
    if record is None or LINEAGE not in record:
        return Lineage(unknown=["/".join(folder.resolve().parts[-3:])])
    try:
        return Lineage.from_json(record[LINEAGE])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(
            f"the record of what the model learned from is damaged: {error}",
            file=folder,
            fix="restore the folder from a copy, or train again",
        ) from error


def _record(folder: Path) -> dict[str, Any] | None:
    """What Tunewright wrote beside a saved model; None: it is none of ours."""
    if (folder / BESIDE).exists():
        return read_json(folder / BESIDE, "a saved model")
    config = read_json(folder / "config.json", "a saved model") if (folder / "config.json").exists() else {}
    return config if config.get("model_type") == "tunewright" else None


def learned(job: StageJob, prepared: Prepared, spent: Spent | None, found: list[Statistic]) -> Learned:
    """What a stage adds to the lineage, with the statistics of its rows that its model keeps."""
    return Learned(
        stage=job.stage.name,
        source=prepared.manifest.source,
        data=prepared.manifest.fingerprint,
        content=_content(prepared),
        spent=spent,
        disjoint=job.recipe.data.disjoint,
        statistics=found,
    )


def lineage_after(
    job: StageJob, prepared: Prepared, preprocessor: Preprocessor, account: PrivacyAccount | None
) -> Lineage:
    """The lineage of the model that a stage ends with.

    Args:
        account: what the stage spent; None: it was trained without privacy.
    """
    start = starting_lineage(job)
    if account is None:
        return start.after(learned(job, prepared, None, []))
    steps = Steps(noise_multiplier=account.noise_multiplier, rate=account.rate, steps=account.steps)
    spent = Spent(steps=steps, delta=account.delta, unit=account.unit)
    return start.after(learned(job, prepared, spent, statistics(job, prepared, preprocessor)))


def _content(prepared: Prepared) -> str:
    """The hash of the files that were read, whatever was made of them; of data without files the fingerprint."""
    found = sorted(file["sha256"] for file in prepared.manifest.files)
    return hashlib.sha256("".join(found).encode()).hexdigest() if found else prepared.manifest.fingerprint


def statistics(job: StageJob, prepared: Prepared, preprocessor: Preprocessor) -> list[Statistic]:
    """What was computed from this stage's training rows and stands in its model, without what the recipe gives as public."""
    privacy = job.recipe.privacy
    by_user = privacy is not None and privacy.unit == "user"
    owner = (job.recipe.data.user or job.recipe.data.split.column) if by_user else None
    known: list[Statistic] = []
    if job.source is not None and (record := _record(job.source)) is not None:
        # An encoder that comes with the model was fitted by the stage that made it, and is in that one's list.
        known = read_preprocessor(record, job.source).inputs.statistics(prepared, owner)
    found = [entry for entry in preprocessor.inputs.statistics(prepared, owner) if entry not in known]
    if preprocessor.target is not None:
        found.append(preprocessor.target.statistic(prepared, owner))
    public = privacy.public if privacy is not None else {}
    unit: Unit = "user" if by_user else "example"
    return [replace(entry, unit=unit) for entry in found if entry.column not in public]


def promise(lineage: Lineage) -> PrivacySummary | None:
    """Return what is promised to whom, and what is not; None where no stage was trained with privacy."""
    if not lineage.is_private:
        return None
    kept = dict.fromkeys(entry for stage in lineage.stages for entry in stage.statistics)
    return PrivacySummary(
        guarantees=lineage.guarantees(), public=lineage.public, statistics=list(kept), not_covered=list(NOT_COVERED)
    )


# What is said before anything is trained


def warn_of_lost_promises(
    stages: Sequence[StageRecipe], prepared: Sequence[Prepared], start: Lineage, console: Console
) -> None:
    """Say, before anything is trained, where the recipe's stages leave no promise, or several that add up.

    Args:
        start: what the first stage begins with.
    """
    lineage, said = start, set[str]()
    for stage, data in zip(stages, prepared, strict=True):
        lineage = lineage.after(_foreseen(stage, data))
        for guarantee in lineage.guarantees():
            contents = {other.content for other in lineage.stages if other.stage in guarantee.stages}
            line = _caution(stage.name, guarantee, may_be_apart=len(contents) > 1)
            if line is not None and line not in said:
                said.add(line)
                console.warning(line)


def _foreseen(stage: StageRecipe, prepared: Prepared) -> Learned:
    """What a stage will add, with no step taken yet."""
    recipe: Recipe = stage.recipe
    none = Steps(noise_multiplier=1.0, rate=0.0, steps=0)
    return Learned(
        stage=stage.name,
        source=prepared.manifest.source,
        data=prepared.manifest.fingerprint,
        content=_content(prepared),
        spent=None if recipe.privacy is None else Spent(steps=none, delta=1e-5, unit=recipe.privacy.unit),
        disjoint=recipe.data.disjoint,
    )


def _caution(stage: str, guarantee: Guarantee, *, may_be_apart: bool) -> str | None:
    """What is to be said of a guarantee before training.

    Args:
        may_be_apart: the stages read different files, so that a promise of the recipe may help.
    """
    rows = f"privacy: after {stage}, the rows of {guarantee.source}"
    apart = "; or, if no row of its data is in the other, promise so with data.disjoint: true in the later stage"
    apart = apart if may_be_apart else ""
    match guarantee.reason:
        case "without privacy":
            return (
                f"{rows} have no guarantee, whatever ε is: {guarantee.because_of} learns without privacy from rows that may be "
                f"the same. Give {guarantee.because_of} a privacy block too{apart}"
            )
        case "unknown start":
            return (
                f"{rows} have no guarantee, whatever ε is: nothing says what the starting model {guarantee.because_of} learned "
                "from. If none of these rows was among it, promise so with data.disjoint: true"
            )
        case "other units":
            return (
                f"{rows} have no guarantee: {guarantee.because_of} protects other units than {guarantee.unit}s. Write the same "
                f"privacy.unit in both{apart}"
            )
        case None if len(guarantee.stages) > 1:
            return (
                f"{rows} are learned from by {' and '.join(guarantee.stages)}, and what these spend adds up: the model's ε is "
                f"more than that of any one of them{apart}"
            )
        case _:
            return None


def say_what_adds_up(start: Lineage, learned: Learned, console: Console) -> None:
    """Say what the model of a private stage will have spent in all, where others spent on the same rows before."""
    after = start.after(learned).guarantees()[0]
    if after.epsilon is not None and len(after.stages) > 1:
        console.warning(
            f"privacy: with what was spent before on rows that may be the same ({', '.join(after.stages)}), the model will "
            f"have ε = {after.epsilon:.3g} at δ = {after.delta:.2g}"
        )


def warn_of_statistics(found: Sequence[Statistic], console: Console) -> None:
    """Name what will be in the model without noise, with the remedy."""
    if not found:
        return
    shown = "; ".join(named_statistics(Words("en"), found[:5]))
    more = f"; and {len(found) - 5} more, all on the model's card" if len(found) > 5 else ""
    console.warning(
        f"privacy: computed from the training rows without noise, and kept in the model: {shown}{more}. "
        + remedy(found)
    )


def remedy(found: Sequence[Statistic]) -> str:
    """How the first of the statistics is avoided."""
    examples = {
        "categories": "{categories: [...]}",
        "classes": "{categories: [...]}",
        "mean and deviation": "{mean: 0, std: 1}",
        "bin edges": "{edges: [...]}",
    }
    for entry in found:
        if entry.kind in examples:
            return f"Public values are used instead: privacy.public: {{{entry.column}: {examples[entry.kind]}}}"
    if found[0].kind == "vocabulary":
        return f"A public tokenizer is used instead: privacy.public: {{{found[0].column}: {{tokenizer: FOLDER}}}}"
    return "Only a start from a public model avoids it"
