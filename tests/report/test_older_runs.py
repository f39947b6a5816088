"""Runs of the previous release, whose summary.json names several fields otherwise, still have a report and a card."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from tunewright.errors import ArtifactError
from tunewright.report.card import model_card
from tunewright.report.page import write_report
from tunewright.runs.summary.stage import read_summary

# As the previous release wrote it, without task_facts and metric_facts, shortened to one row, layer and score.
OLD: dict[str, Any] = {
    "stage": "finetune",
    "kind": "finetune",
    "task": "image-classification",
    "seed": 0,
    "data": {
        "source": "digits",
        "rows": {"train": 1437, "valid": 180, "test": 178},
        "read": 1797,
        "used": 1795,
        "left_out": [
            {"reason": "the target 'label' is missing", "count": 2, "examples": ["row 62"], "fix": "fill it in"}
        ],
        "input": ["image"],
        "target": "label",
        "target_reason": "the source says so",
        "classes": ["0", "1"],
        "split_rule": "10% validation and 10% test at random within each class",
        "fingerprint": "329480efcaa0ec00eabe8fb9aa63b955",
        "licence": "CC BY 4.0",
        "citation": None,
    },
    "model": {
        "title": "flatten, dense 10",
        "layers": [
            {
                "block": "head.0_dense",
                "kind": "dense 10",
                "output_shape": [10],
                "parameters": 650,
                "flops": 1280,
                "trained": True,
                "moving": 649,
                "from_epoch": 1,
                "lr": None,
            }
        ],
        "parameters": {"total": 650, "trainable": 650, "frozen": 0},
        "flops_per_example": 1280,
        "flops_of": None,
        "svg": '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"/>',
        "opening": {
            "library": "transformers",
            "made_from": None,
            "purpose": "image-classification",
            "own_head": False,
            "class": "AutoModelForImageClassification",
        },
    },
    "training": {
        "epochs": None,
        "epochs_run": None,
        "steps": None,
        "seconds": 2.25,
        "examples_per_second": None,
        "batch_size": None,
        "batch_seconds": None,
        "optimizer": None,
        "lr": None,
        "objective": "logistic regression",
        "best": None,
        "stopped": None,
        "device": "cpu",
        "threads": 1,
        "preparation_seconds": 0.5,
        "frozen_part_kept": True,
        "few_shot": {
            "method": "features",
            "asked_for": True,
            "examples_a_class": 143.7,
            "few": 64,
            "features": 32,
            "C": 0.125,
            "folds": 5,
            "scores": [{"C": 0.125, "log_loss": 0.2377, "accuracy": 0.9228}],
            "notes": [],
        },
        "privacy": {
            "epsilon": 4.99,
            "epsilon_prv": 3.79,
            "asked": 5.0,
            "delta": 0.004,
            "unit": "example",
            "units": 143,
            "rate": 0.14,
            "steps": 14,
            "noise_multiplier": 0.73,
            "clip_norm": 1.0,
        },
    },
    "certificate": {"frozen": [], "trained": [], "passed": True, "warnings": []},
    "evaluation": {
        "split": "test",
        "rows": 178,
        "metrics": {"accuracy": {"value": 0.875, "low": 0.75, "high": 1.0}},
        "baselines": [],
        "beside": [
            {
                "kind": "questions",
                "guesses": {"chance": 0.25},
                "name": "quiz",
                "source": "quiz.jsonl",
                "split": "train",
                "rows": 6,
                "metrics": {
                    "accuracy": {
                        "now": {"value": 0.5, "low": 0.0, "high": 1.0},
                        "before": {"value": 1.0, "low": 1.0, "high": 1.0},
                        "difference": {"value": -0.5, "low": -1.0, "high": 0.0},
                        "verdict": "no real difference",
                    }
                },
            }
        ],
    },
}


def stage_folder(run: Path, summary: dict[str, Any]) -> Path:
    stage = run / "finetune"
    stage.mkdir(parents=True)
    (stage / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    return stage


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_run_of_the_previous_release_has_a_report_and_a_card(tmp_path: Path, language: str) -> None:
    stage = stage_folder(tmp_path / "old", OLD)
    page = write_report(tmp_path / "old", lang=language).read_text(encoding="utf-8")
    assert all(found in page for found in ("0.125", "144", "quiz", "row 62"))
    card = model_card(read_summary(stage))
    assert "0.125" in card and "144 examples per class" in card and "AutoModelForImageClassification" in card


def test_every_renamed_field_is_read(tmp_path: Path) -> None:
    found = read_summary(stage_folder(tmp_path, OLD))
    assert [(entry.reason, entry.count) for entry in found.data.skipped] == [("the target 'label' is missing", 2)]
    assert found.model.layers[0].trainable == 649
    assert found.model.opening.model_class == "AutoModelForImageClassification"
    few, account = found.training.few_shot, found.training.privacy
    assert found.training.feature_cache is True and few is not None and account is not None
    assert (few.requested, few.examples_per_class, few.threshold, few.strength) == (True, 143.7, 64, 0.125)
    assert few.scores[0].strength == 0.125 and account.target_epsilon == 5.0
    assert found.evaluation is not None and found.evaluation.other_data is not None
    assert found.evaluation.other_data[0].name == "quiz"


def test_damage_in_an_old_summary_is_named(tmp_path: Path) -> None:
    damaged = copy.deepcopy(OLD)
    damaged["model"]["layers"][0]["moving"] = "many"
    with pytest.raises(ArtifactError, match=r"layers.*trainable|layers.*moving"):
        read_summary(stage_folder(tmp_path, damaged))
