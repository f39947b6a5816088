"""Summaries as stages write them, with as little in them as there must be."""

from __future__ import annotations

from typing import Any

from tunewright.models.diagram import network_svg
from tunewright.models.layer_table import LayerRow
from tunewright.runs.summary.data import DataSummary, SkippedSummary
from tunewright.runs.summary.facts import TaskFacts, Title
from tunewright.runs.summary.model import CertificateSummary, LayerSummary, ModelSummary, ParameterCounts
from tunewright.runs.summary.stage import StageSummary
from tunewright.runs.summary.training import TrainingSummary


def stage_summary(**changed: Any) -> StageSummary:
    """The summary of a stage that was trained and not evaluated; `changed` are fields of it."""
    parts: dict[str, Any] = {
        "stage": "pretrain",
        "kind": "pretrain",
        "task": "image-classification",
        "task_facts": TaskFacts(title=Title(en="image classification", zh="图像分类"), hub_task="image-classification"),
        "seed": 0,
        "data": data_summary("digits", [str(number) for number in range(10)]),
        "model": model_summary(),
        "training": training_summary(),
        "certificate": CertificateSummary(passed=True),
    }
    return StageSummary(**{**parts, **changed})


def data_summary(
    source: str, classes: list[str] | None, *, target: str | None = "label", inputs: list[str] | None = None
) -> DataSummary:
    """Data of which three rows were skipped."""
    return DataSummary(
        source=source,
        rows={"train": 1437, "valid": 180, "test": 180 if target else 0},
        read=1800,
        used=1797,
        skipped=[
            SkippedSummary(
                reason="the target is missing",
                count=3,
                examples=["row 17: label is empty"],
                fix="fill in the label, or delete the rows",
            )
        ],
        input=inputs or ["image"],
        target=target,
        target_reason="the last column" if target else "",
        classes=classes,
        split_rule="10% validation and 10% test at random within each class",
        fingerprint=f"fingerprint-of-{source}"[:40],
        licence="CC BY 4.0",
        citation="E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits (1998)",
    )


def model_summary(*, frozen: bool = False, outputs: int = 10) -> ModelSummary:
    """Two dense layers, the first of which may be frozen."""
    rows = [
        LayerRow(block="backbone.0_flatten", kind="flatten", output_shape=(784,), parameters=0, flops=0),
        LayerRow(
            block="backbone.1_dense", kind="dense 128, relu", output_shape=(128,), parameters=100_480, flops=200_960
        ),
        LayerRow(
            block="head.0_dense",
            kind=f"dense {outputs}",
            output_shape=(outputs,),
            parameters=129 * outputs,
            flops=258 * outputs,
        ),
    ]
    still = {row.block for row in rows[:2]} if frozen else set[str]()
    total, kept = sum(row.parameters for row in rows), sum(row.parameters for row in rows if row.block in still)
    title = ", ".join(row.kind for row in rows)
    return ModelSummary(
        title=title,
        layers=[
            LayerSummary(
                block=row.block,
                kind=row.kind,
                output_shape=list(row.output_shape),
                parameters=row.parameters,
                flops=row.flops,
                trained=row.block not in still,
                lr=None if row.block in still else 0.001,
            )
            for row in rows
        ],
        parameters=ParameterCounts(total=total, trainable=total - kept, frozen=kept),
        flops_per_example=2 * total,
        svg=network_svg(rows, title=title, frozen=still),
    )


def training_summary(epochs: int = 5, **changed: Any) -> TrainingSummary:
    """A training of so many epochs, 50 steps each; `changed` are fields of it."""
    parts: dict[str, Any] = {
        "epochs": epochs,
        "epochs_run": epochs,
        "steps": epochs * 50,
        "seconds": 0.4 * epochs,
        "examples_per_second": 40_000.0,
        "batch_size": 32,
        "optimizer": {"sgd": {"momentum": 0.9}},
        "lr": 0.001,
        "objective": "cross_entropy",
        "stopped": "finished",
        "device": "cpu",
        "threads": 2,
    }
    return TrainingSummary(**{**parts, **changed})
