"""Planning: bytes that are alive, traced against sums by hand; a plan against the run that it predicts."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tunewright.commands.plan import FitSettings, print_plan
from tunewright.console import Console, silent
from tunewright.errors import RecipeError
from tunewright.hardware.benchmark import BUSY
from tunewright.hardware.machines import find_hardware
from tunewright.hardware.memory_tracer import Tracer
from tunewright.hardware.operator_timing import time_calls
from tunewright.hardware.resource_model import Basis, Span, StagePlan
from tunewright.hardware.roofline import rate_at
from tunewright.models.build import build_network, describe_model
from tunewright.pipeline.read_recipe import read_recipe
from tunewright.pipeline.session.memory import free_memory
from tunewright.planning.dry_run import run_dry
from tunewright.planning.fit_to_budget import Limits, parse_budgets
from tunewright.planning.history import learned_factor, outcomes, record, show_history
from tunewright.planning.plan import given_stages, plan, planned_machine
from tunewright.recipe.schema import Model
from tunewright.recipe.stages import stage_recipes
from tunewright.run_recipe import run
from tunewright.runs.folder import read_json

FLOAT = 4


def test_what_is_alive_is_counted_and_what_is_gone_is_not() -> None:
    already = torch.zeros(100)
    tracer = Tracer({"weights": [already]})
    with tracer:
        tracer.phase = "first"
        held = torch.ones(1000)
        view = held[10:20].view(2, 5)
        assert tracer.alive == {"weights": 100 * FLOAT, "first": 1000 * FLOAT}
        tracer.phase = "second"
        held2 = held * 2
        del held2
        tracer.phase = "third"
        small = torch.ones(10)
        tracer.made_for(small, "gradients")
    assert +tracer.alive == {"weights": 100 * FLOAT, "first": 1000 * FLOAT, "gradients": 10 * FLOAT}
    assert tracer.most == (100 + 2000) * FLOAT == tracer.peak.total()
    assert tracer.peak_at.startswith("second, aten.mul")
    del held, small
    assert tracer.alive.total() == (100 + 1000) * FLOAT  # the view holds it
    del view
    assert tracer.alive.total() == 100 * FLOAT


def test_a_training_step_takes_what_its_parts_take() -> None:
    """A product of 64 × 256 by 256 × 512, ReLU, and one more by 512 × 8."""
    torch.manual_seed(0)
    first, last = torch.nn.Linear(256, 512, bias=False), torch.nn.Linear(512, 8, bias=False)
    optimizer = torch.optim.SGD([first.weight, last.weight], lr=0.1, foreach=False)
    inputs = torch.randn(64, 256)
    tracer = Tracer({"weights": [first.weight, last.weight], "batch": [inputs]})
    with tracer:
        tracer.phase = "step"
        loss = last(first(inputs).relu()).square().sum()
        loss.backward()
        optimizer.step()
    weights = 256 * 512 + 512 * 8
    # Weights, input, activation; in the backward pass both gradients of weights with that of the activation.
    least = (weights + 64 * 256 + 64 * 512 + weights) * FLOAT
    assert least <= tracer.most <= least + 3 * 64 * 512 * FLOAT
    products = sum(call.flops * count for call, count in tracer.all_calls().items())
    # Forwards both, backwards both for the weights, and one for the activation between.
    assert products == 2 * 64 * (2 * 256 * 512 + 3 * 512 * 8)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plan")
    lines = ["a,b,c,label", *(f"{row % 7},{row % 5},{row % 3},{'xy'[row % 2]}" for row in range(400))]
    (folder / "rows.csv").write_text("\n".join(lines) + "\n")
    recipe: dict[str, Any] = {
        "task": "tabular-classification",
        "data": {"source": "rows.csv", "target": "label", "split": {"valid": 0.1, "test": 0.1}},
        "model": {"backbone": {"mlp": {"hidden": [64, 32]}}},
        "train": {"epochs": 3, "batch_size": 32},
        "eval": {"resamples": 100},
        "stages": ["pretrain", {"finetune": {"tune": {"freeze": "backbone"}, "train": {"epochs": 2}}}],
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder


def test_a_plan_is_what_the_run_does(place: Path) -> None:
    first, second = plan(place / "recipe.yaml", [], console=silent())
    done = run(place / "recipe.yaml", runs=place / "runs", plan=True, console=silent())
    for found in (first, second):
        summary = done.stages[found.stage].summary
        assert found.steps == summary["training"]["steps"]
        assert (found.parameters, found.trained) == tuple(
            summary["model"]["parameters"][name] for name in ("total", "trainable")
        )
        assert found.blocks == {layer["block"]: layer["parameters"] for layer in summary["model"]["layers"]}
        parts = found.peak_parts
        assert parts["weights"] == FLOAT * found.parameters
        # Adam: two numbers for each that is trained, and a counter for each tensor.
        assert parts["optimiser"] == pytest.approx(2 * FLOAT * found.trained, rel=0.05)
        assert sum(parts.values()) == found.peak and found.fits
        assert found.basis == "measured here"
        assert 0 < found.step.low <= found.step.middle <= found.step.high
        assert found.seconds.middle > found.steps * found.step.middle
        folder = done.stages[found.stage].folder
        stored = sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
        planned = found.disk["checkpoints"] + found.disk["model"]
        assert 0.2 * planned < stored < 2 * planned + 20_000
    # Forwards once, backwards twice where all is trained; but for the first layer, below which nothing is.
    per_example = first.flops_per_step / 32
    forward = done.stages["pretrain"].summary["model"]["flops_per_example"]
    assert 2 * forward < per_example < 3 * forward
    assert second.flops_per_step / 32 < 1.2 * forward
    # The run planned itself, remembered how that went, and the report says so.
    predicted = read_json(done.folder / "plan.json", "a plan")["stages"]
    assert predicted["pretrain"]["peak"] == first.peak and predicted["pretrain"]["basis"] == "operation by operation"
    known = [entry for entry in outcomes() if entry.run == done.folder.name]
    assert [entry.stage for entry in known[-2:]] == ["pretrain", "finetune"]
    assert all(entry.took_bytes > entry.foretold_bytes / 2 for entry in known)


def test_a_stage_that_begins_with_a_saved_model_is_planned(place: Path, tmp_path: Path) -> None:
    """A new head has meta weights, and so has the saved backbone, and the run begins with the saved one."""
    done = run(place / "recipe.yaml", overrides=["stages=[pretrain]"], runs=tmp_path, console=silent())
    changes = [
        f"model.weights={done.stages['pretrain'].folder / 'model'}",
        "model.head=[{dense: 16, activation: relu}, {dense: auto}]",
        "tune.freeze=backbone",
        "stages=[finetune]",
    ]
    (found,) = plan(place / "recipe.yaml", changes, probe=False, console=silent())
    further = run(place / "recipe.yaml", overrides=changes, runs=tmp_path, plan=True, console=silent())
    counted = further.stages["finetune"].summary["model"]["parameters"]
    assert (found.parameters, found.trained) == (counted["total"], counted["trainable"])
    assert further.stages["finetune"].summary["certificate"]["passed"]


@pytest.mark.parametrize(
    "changes",
    [
        ["model.backbone={mlp: {hidden: [64, 32]}}"],
        ["train.optimizer=muon", "model.backbone={mlp: {hidden: [64, 32, 32]}}"],
        ["train.clip_norm=1.0", "train.accumulate=2"],
        ["train.optimizer={sgd: {momentum: 0.9}}", "train.regularization={l1: 0.001, weight_decay: 0.1}"],
    ],
)
def test_on_meta_weights_as_much_is_alive_as_with_them(place: Path, changes: list[str]) -> None:
    assert peaks(place / "recipe.yaml", changes)[0] == peaks(place / "recipe.yaml", changes)[1]


def peaks(recipe: Path, changes: list[str]) -> tuple[dict[str, int], dict[str, int]]:
    """What is alive at the peak of a step of the first stage, on meta weights and on random ones."""
    loaded, _, _, base, _ = read_recipe(recipe, changes, None)
    (given, *_) = given_stages(stage_recipes(loaded)[:1], base, silent())
    found: list[dict[str, int]] = []
    for weights in ("meta", "random"):
        tracer = run_dry(given.ingredients(given.stage.recipe, weights), silent()).largest
        found.append({**tracer.peak, "where": tracer.peak_at})
    return found[0], found[1]


def test_a_plan_as_json(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_plan(place / "recipe.yaml", ["train.batch_size=16"], probe=False, as_json=True)
    first, _ = json.loads(capsys.readouterr().out)
    assert first["stage"] == "pretrain" and first["steps"] == 3 * 20 and first["fits"] is True
    print_plan(place / "recipe.yaml", [], probe=False)
    said = capsys.readouterr().out
    assert "operation by operation" in said and "fits" in said


def test_another_machine(place: Path) -> None:
    (one, _), (eight, _) = (plan(place / "recipe.yaml", [], on=name, console=silent()) for name in ("h100", "8xh100"))
    assert one.machine == "h100" and one.basis == "roofline" and one.memory > 79 * 2**30
    # Eight get an eighth of each batch: as many steps, and eight times the energy for each second.
    assert eight.steps == one.steps and eight.flops_per_step == pytest.approx(one.flops_per_step / 8, rel=0.01)
    hours = one.seconds.middle / 3600
    assert one.energy.middle == pytest.approx(hours * 0.7 * 1.56)
    assert one.carbon.middle == pytest.approx(473 * one.energy.middle)
    assert one.cost.low < one.cost.middle < one.cost.high and one.cost.low == pytest.approx(
        one.seconds.low / 3600 * 1.99
    )


def test_a_machine_of_ones_own(place: Path) -> None:
    path = place / "server.yaml"
    path.write_text("name: ours\nmemory_gib: 0.001\ntflops: {float32: 1}\ngigabytes_per_second: 100\nwatts: 200\n")
    found = plan(place / "recipe.yaml", [], on=str(path), console=silent())[0]
    assert found.machine == "ours" and not found.fits
    path.write_text("name: ours\nmemory_gib: much\n")
    with pytest.raises(RecipeError, match="memory_gib"):
        find_hardware(str(path), Path("."))
    with pytest.raises(RecipeError, match="did you mean h100"):
        find_hardware("h1000", Path("."))


def test_what_does_not_fit_is_made_to_fit(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A limit between what a batch of 256 needs and what one of 32 does."""
    recipe, written = place / "recipe.yaml", place / "smaller.yaml"
    wide = ["train.batch_size=256", "model.backbone={mlp: {hidden: [30000]}}", "stages=[pretrain]"]
    whole, small = (
        plan(recipe, [*wide, *more], probe=False, console=silent())[0] for more in ([], ["train.batch_size=32"])
    )
    assert whole.peak > small.peak
    limit = (whole.process.middle + small.process.middle) / 2 / 2**20
    print_plan(recipe, wide, fit=FitSettings(budgets=[f"{limit}MiB"], write=written), probe=False)
    said = capsys.readouterr().out
    assert "the result stays the same" in said
    changed = yaml.safe_load(written.read_text())["stages"][0]["pretrain"]["train"]
    assert changed["batch_size"] * changed["accumulate"] == 256 and changed["batch_size"] < 256
    with pytest.raises(RecipeError, match="already exists"):
        print_plan(recipe, wide, fit=FitSettings(write=written), probe=False)
    with pytest.raises(RecipeError, match="relative to its folder"):
        print_plan(recipe, wide, fit=FitSettings(write=tmp_path / "other.yaml"), probe=False)
    with pytest.raises(RecipeError, match="budget"):
        parse_budgets(["much"])
    assert parse_budgets(["16GiB", "24h", "50usd"]) == Limits(memory=16 * 2**30, seconds=86400.0, cost=50.0)


def test_a_private_step_is_planned_as_one(place: Path, tmp_path: Path) -> None:
    """It goes back through the network twice; each example's norm is found on the way, with or without meta weights."""
    changes = ["stages=[pretrain]", "privacy={epsilon: 3}"]
    (plain,) = plan(place / "recipe.yaml", changes[:1], probe=False, console=silent())
    (private,) = plan(place / "recipe.yaml", changes, probe=False, console=silent())
    assert "clipped gradients" in private.peak_parts and private.flops_per_step > 1.2 * plain.flops_per_step
    loaded, _, _, base, _ = read_recipe(place / "recipe.yaml", changes, None)
    (given,) = given_stages(stage_recipes(loaded), base, silent())
    real = run_dry(given.ingredients(given.stage.recipe, "random"), silent())
    assert private.peak == pytest.approx(real.most.most, rel=0.05)
    done = run(place / "recipe.yaml", overrides=changes, runs=tmp_path, plan=True, console=silent())
    assert private.steps == done.stages["pretrain"].summary["training"]["steps"]


DEEP = f"model.backbone={{mlp: {{hidden: {[2800] * 8}}}}}"


def test_more_cards_where_one_is_not_enough(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Weights, gradients and Adam's means of 55 million parameters are 840 MiB, and CUDA takes a gibibyte."""
    card, written = place / "card.yaml", place / "several.yaml"
    card.write_text(
        "name: small card\nmemory_gib: 1.65\ntflops: {float32: 10}\ngigabytes_per_second: 300\n"
        "link_gigabytes_per_second: 30\n"
    )
    wide = [DEEP, "stages=[pretrain]", "train.clip_norm=1.0"]
    print_plan(place / "recipe.yaml", wide, fit=FitSettings(write=written), on=str(card))
    said = capsys.readouterr().out
    assert "DOES NOT FIT" in said and "the result stays the same" in said
    # Without a word of it the weights would be held whole: four times their size is less than half of the card.
    assert yaml.safe_load(written.read_text())["hardware"] == {"devices": 2, "strategy": "fsdp"}
    (one,), (two,) = (
        plan(path, changes, on=str(card), console=silent())
        for path, changes in ((place / "recipe.yaml", wide), (written, []))
    )
    assert (one.fits, two.fits) == (False, True)
    layer = FLOAT * 2800 * 2801
    # Two layers, the gradients of one, and nothing that is in no layer.
    assert two.peak_parts["gathered"] == 3 * layer and "gathered" not in one.peak_parts
    assert two.peak_parts["optimiser"] == pytest.approx(one.peak_parts["optimiser"] / 2, abs=1)
    assert two.peak < 0.65 * one.peak


def test_cards_that_cannot_hold_their_parts_let_the_processor_keep_them(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = place / "smaller.yaml"
    card.write_text(
        "name: smaller card\nmemory_gib: 1.3\ntflops: {float32: 10}\ngigabytes_per_second: 300\n"
        "link_gigabytes_per_second: 30\nhost_gigabytes_per_second: 16\n"
    )
    wide = [DEEP, "stages=[pretrain]", "hardware.devices=2", "train.batch_size=2"]
    print_plan(place / "recipe.yaml", wide, on=str(card))
    assert "hardware.offload=true, and the result stays the same" in " ".join(capsys.readouterr().out.split())
    (kept,), (elsewhere,) = (
        plan(place / "recipe.yaml", [*wide, *more], on=str(card), console=silent())
        for more in ([], ["hardware.offload=true"])
    )
    assert (kept.fits, elsewhere.fits) == (False, True)
    assert elsewhere.peak_parts["weights"] == elsewhere.peak_parts["optimiser"] == 0
    assert elsewhere.seconds.middle > 2 * kept.seconds.middle
    # What several processes cannot train is not laid upon several cards.
    print_plan(place / "recipe.yaml", [*wide, "train.optimizer=muon"], on=str(card))
    assert "hardware" not in " ".join(capsys.readouterr().out.split()).split("DOES NOT FIT")[1]


def test_steps_in_the_backward_pass_save_the_gradients(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All but the largest; and a budget between the two plans finds the way."""
    wide = ["model.backbone={mlp: {hidden: [3000, 3000, 3000]}}", "stages=[pretrain]", "train.batch_size=4"]
    plain, saving = (
        plan(place / "recipe.yaml", [*wide, f"hardware.optimizer_in_backward={flag}"], on="h100", console=silent())[0]
        for flag in ("false", "true")
    )
    largest = FLOAT * 3000 * 3000
    assert saving.peak < plain.peak - (plain.peak_parts["gradients"] - 2.2 * largest)
    budget = (plain.process.middle + saving.process.middle) / 2 / 2**20
    written = place / "in_backward.yaml"
    print_plan(place / "recipe.yaml", wide, fit=FitSettings(budgets=[f"{budget:.0f}MiB"], write=written), on="h100")
    assert "hardware.optimizer_in_backward=true, and the result stays the same" in " ".join(
        capsys.readouterr().out.split()
    )
    assert read_recipe(written, [], None)[0].hardware.optimizer_in_backward


def test_a_machine_that_was_busy_when_it_was_measured_is_said_to_have_been(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known = find_hardware("h100", Path("."))
    for others, said in (("", False), (f", {BUSY} 40% of the processor", True)):
        machine = replace(known, source=f"measured here on 2026-11-27{others}")
        monkeypatch.setattr("tunewright.planning.plan.this_machine", lambda machine=machine: machine)
        planned_machine(None, Console())
        assert ("tunewright calibrate measures it again" in " ".join(capsys.readouterr().out.split())) == said


def card_of(place: Path, gibibytes: float) -> str:
    path = place / f"card{gibibytes:.4f}.yaml"
    path.write_text(
        f"name: a card\nmemory_gib: {gibibytes}\ntflops: {{float32: 10}}\ngigabytes_per_second: 300\n"
        "link_gigabytes_per_second: 30\n"
    )
    return str(path)


def test_where_one_row_is_too_much_cards_divide_the_layers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two cards with a row each need all activations of a row; four that divide the layers in two need little more than half of these."""
    (tmp_path / "texts.csv").write_text("text\n" + "\n".join(f"row {row} of a text" for row in range(3000)) + "\n")
    gpt = {"layers": 3, "heads": 8, "width": 64, "inner": 4096, "context": 2048}
    recipe: dict[str, Any] = {
        "task": "language-modeling",
        "data": {"source": "texts.csv", "input": "text"},
        "model": {"backbone": {"gpt": gpt}, "tokenizer": "characters"},
        "train": {"batch_size": 2},
        "hardware": {"gradient_checkpointing": True, "precision": "float32"},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))

    def planned(*overrides: str) -> StagePlan:
        return plan(tmp_path / "recipe.yaml", [*overrides], on=card_of(tmp_path, 80), console=silent())[0]

    rows, layers = planned("hardware.devices=2"), planned("hardware.devices=4", "hardware.tensor=2")
    assert layers.parameters == rows.parameters and layers.blocks == rows.blocks and layers.steps == rows.steps
    assert layers.flops == pytest.approx(rows.flops, rel=0.1)
    assert layers.peak < 0.7 * rows.peak
    between = (rows.process.middle + layers.process.middle) / 2 / 2**30
    written = tmp_path / "divided.yaml"
    print_plan(tmp_path / "recipe.yaml", [], fit=FitSettings(write=written), on=card_of(tmp_path, between))
    said = capsys.readouterr().out
    assert "DOES NOT FIT" in said
    found = yaml.safe_load(written.read_text())["hardware"]
    assert found["tensor"] >= 2 and "the result stays the same" in said
    for tensor, more, why in ((3, [], "not a multiple"), (2, ["train.regularization={l1: 0.1}"], "penalties")):
        with pytest.raises(RecipeError, match=f"the layers cannot be divided: .*{why}"):
            planned("hardware.devices=6", f"hardware.tensor={tensor}", *more)


def test_a_run_refuses_what_cannot_fit(place: Path) -> None:
    """Forty billion parameters in two layers: seen before any of them is made."""
    with pytest.raises(RecipeError, match="does not fit into this machine's memory") as caught:
        run(
            place / "recipe.yaml",
            overrides=["model.backbone={mlp: {hidden: [200000, 200000]}}", "stages=[pretrain]"],
            runs=place / "none",
            plan=True,
            console=silent(),
        )
    assert "--write" in str(caught.value) and not (place / "none").exists()


def test_seventy_billion_parameters_are_planned_without_making_them(tmp_path: Path) -> None:
    """The shape of Llama 3 70B with a vocabulary of characters; two of its eighty layers, for the test's time."""
    (tmp_path / "texts.csv").write_text(
        "text\n" + "\n".join(f"row {row} of a small text" for row in range(2000)) + "\n"
    )
    gpt = {"layers": 2, "heads": 64, "kv_heads": 8, "width": 8192, "inner": 28672, "context": 128}
    recipe: dict[str, Any] = {
        "task": "language-modeling",
        "data": {"source": "texts.csv", "input": "text", "split": {"valid": 0.1, "test": 0.1}},
        "model": {"backbone": {"gpt": gpt}, "tokenizer": "characters"},
        "train": {"batch_size": 2},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    found = plan(tmp_path / "recipe.yaml", [], on="h100", console=silent())[0]
    layer = 8192 * 8192 * 2 + 8192 * 1024 * 2 + 3 * 8192 * 28672 + 2 * 8192
    assert found.parameters == pytest.approx(2 * layer, rel=0.002)
    assert found.peak_parts["weights"] == pytest.approx(FLOAT * found.parameters, rel=0.001)
    assert found.peak_parts["optimiser"] == pytest.approx(2 * FLOAT * found.parameters, rel=0.001)
    # Six operations for each parameter and token, and those of attention.
    assert found.flops_per_step == pytest.approx(6 * 2 * layer * 2 * 128, rel=0.05)


def test_another_machine_has_its_own_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether activations are recomputed there is no matter of what is free here."""
    monkeypatch.setattr("tunewright.pipeline.session.memory.free_memory", lambda network: 2**20)
    (tmp_path / "texts.csv").write_text("text\n" + "a row of text\n" * 200)
    recipe = {
        "task": "language-modeling",
        "data": {"source": "texts.csv", "input": "text", "split": {"valid": 0.1, "test": 0.1}},
        "model": {
            "backbone": {"gpt": {"layers": 2, "heads": 2, "width": 64, "context": 64}},
            "tokenizer": "characters",
        },
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    (there,) = plan(tmp_path / "recipe.yaml", [], on="h100", console=silent())
    (here,) = plan(tmp_path / "recipe.yaml", [], probe=False, console=silent())
    assert here.recomputes and not there.recomputes


def test_what_the_system_keeps_files_in_is_free() -> None:
    described = describe_model(Model(layers=[{"dense": 2}]), input_shape=(3,), outputs=2)
    free = free_memory(build_network(described, seed=0))
    pages = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0.9 * pages < free <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_history_teaches(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(tmp_path))
    assert learned_factor("h100") == 1 and show_history() == []
    for number in range(5):
        record(example_plan(basis="roofline"), when="2026-01-01", run=f"run-{number}", seconds=0.02, peak=2**20)
    record(example_plan(basis="measured here"), when="2026-01-02", run="other", seconds=1.0, peak=2**20)
    assert learned_factor("h100") == pytest.approx(2.0) and learned_factor("a100") == 1
    show_history()
    assert "multiplied by 2.00" in capsys.readouterr().out
    with (tmp_path / "plans" / "history.jsonl").open("ab") as file:
        file.write(b'{}\n\xff\n{"took_seconds": "x"')
    assert len(show_history()) == 6 and "line 8: damaged" in caplog.text
    record(example_plan(basis="roofline"), when="2026-01-03", run="last", seconds=0.02, peak=2**20)
    assert len((tmp_path / "plans" / "history.jsonl").read_text().splitlines()) == 7


def example_plan(*, basis: Basis) -> StagePlan:
    """A stage of a hundred steps of ten milliseconds."""
    nothing = Span(low=0.0, middle=0.0, high=0.0)
    return StagePlan(
        stage="pretrain",
        machine="h100",
        parameters=1,
        trained=1,
        blocks={},
        steps=100,
        examples=1,
        flops_per_step=1.0,
        flops=1.0,
        precision="float32",
        recomputes=False,
        peak=1,
        peak_parts={},
        peak_at="",
        closed_form=1,
        process=Span(low=2**20, middle=2**20, high=2**20),
        memory=2**30,
        step=Span(low=0.01, middle=0.01, high=0.01),
        seconds=Span(low=1.0, middle=1.0, high=1.0),
        per_second=1.0,
        basis=basis,
        measured=0.0,
        disk={},
        energy=nothing,
        carbon=nothing,
        cost=nothing,
    )


def test_rates_between_what_was_measured() -> None:
    curve = ((10.0, 1.0), (1000.0, 100.0))
    assert [rate_at(curve, size) for size in (1, 10, 1000, 1e9)] == [1, 1, 100, 100]
    assert rate_at(curve, 100) == pytest.approx(10)  # half-way in the logarithms


def test_an_operation_is_timed_as_it_was_called() -> None:
    weight = torch.ones(300, 200)
    tracer = Tracer()
    with tracer:
        tracer.phase = "step"
        for _ in range(3):
            torch.nn.functional.embedding(torch.tensor([1, 299]), weight)
    calls = tracer.all_calls()
    ((call, count),) = [(call, count) for call, count in calls.items() if "embedding" in call.name]
    assert count == 3
    timed = time_calls(calls, tracer.examples, find_hardware("laptop", Path(".")))
    assert timed.measured == pytest.approx(1.0)
    assert 0 < timed.seconds[call] < 0.1
    assert timed.total(calls) == pytest.approx(sum(timed.seconds[entry] * number for entry, number in calls.items()))
