"""Preference tuning: the losses against hand-written ones, the shapes of pairs, and a model that learns to prefer."""

from __future__ import annotations

import copy
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from language_recipes import preference_recipe
from tunewright import load_model
from tunewright.commands.data import check_data
from tunewright.commands.evaluate import evaluate_run
from tunewright.console import silent
from tunewright.data.batches.batch import Batch
from tunewright.data.text.conversations import Turn
from tunewright.data.text.preferences import Preference, preference, recognise_preferences
from tunewright.errors import DataError, RecipeError, UserError
from tunewright.files import write_record
from tunewright.models.hub.hf_network import Transformer, build_transformer, describe_transformer
from tunewright.models.hub.purposes import CAUSAL_LM
from tunewright.models.language.new_encoder import Gpt
from tunewright.run_recipe import run
from tunewright.tasks.language_model.chat_encoder import ChatExamples
from tunewright.tasks.language_model.chat_template import Rendered
from tunewright.tasks.language_model.preference_encoder import PreferenceExamples
from tunewright.training.objectives.preference import PREFERENCES, dpo, ipo, orpo, refer, simpo

PAIRS = 5
# (π_c, π_r), (T_c, T_r), (π₀_c, π₀_r), and the losses by a pocket calculator.
SUMS, TOKENS, BEFORE = (torch.tensor([values]) for values in ([-2.0, -6.0], [2.0, 3.0], [-3.0, -5.0]))


def test_the_formulas_on_one_pair() -> None:
    def softplus(value: float) -> float:
        return math.log1p(math.exp(value))

    assert dpo(SUMS, TOKENS, BEFORE, beta=0.5).item() == pytest.approx(softplus(-0.5 * 2))
    assert ipo(SUMS, TOKENS, BEFORE, beta=0.5).item() == pytest.approx((1 / 2 + 1 / 3 - 1) ** 2)
    assert simpo(SUMS, TOKENS, BEFORE, beta=2.0, gamma=0.5).item() == pytest.approx(softplus(-(2 * 1 - 0.5)))
    odds = [mean - math.log(1 - math.exp(mean)) for mean in (-1.0, -2.0)]
    assert orpo(SUMS, TOKENS, BEFORE, weight=0.3).item() == pytest.approx(1 + 0.3 * softplus(odds[1] - odds[0]))


def test_an_answer_that_is_certain_has_finite_odds() -> None:
    sums = torch.tensor([[0.0, -1.0]], requires_grad=True)
    loss = orpo(sums, TOKENS, BEFORE, weight=0.1).sum()
    loss.backward()
    assert loss.isfinite() and sums.grad is not None and sums.grad.isfinite().all()


def network_of(seed: int) -> Transformer:
    config = {
        **Gpt(layers=2, width=32, heads=4, context=40).config(),
        "vocab_size": 50,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    return build_transformer(describe_transformer(CAUSAL_LM, config, head=None, classes=None), seed=seed)


def some_pairs() -> PreferenceExamples:
    draw = torch.Generator().manual_seed(0)
    texts: list[Rendered] = []
    for _ in range(PAIRS):
        prompt = torch.randint(5, 50, (4,), generator=draw).tolist()
        for _ in range(2):
            answer = torch.randint(5, 50, (int(torch.randint(1, 7, (1,), generator=draw)),), generator=draw).tolist()
            trained = [False] * len(prompt) + [True] * len(answer)
            whole = len(trained)
            texts.append(Rendered(ids=prompt + answer, trained=trained, prompts=[len(prompt)], whole=whole))
    bins = [[2 * index, 2 * index + 1] for index in range(PAIRS)]
    return PreferenceExamples(texts=ChatExamples(conversations=texts, numbers=torch.arange(2 * PAIRS), bins=bins))


def by_hand(network: Transformer, entry: Rendered) -> Tensor:
    """[T] the log probability of each token of the answer, from all logits of this conversation alone."""
    ids = torch.tensor([entry.ids])
    chances = network({"input_ids": ids[:, :-1]})[0].log_softmax(1)
    places = torch.tensor(entry.trained[1:])
    return chances.gather(1, ids[0, 1:, None])[:, 0][places]


def written_out(name: str, network: Transformer, before: Transformer, pairs: PreferenceExamples) -> Tensor:
    """The losses as the papers write them, one pair after the other; nothing shared with what is tested."""
    total = torch.zeros(())
    texts = pairs.texts.conversations
    for chosen, rejected in zip(texts[::2], texts[1::2], strict=True):
        c, r = by_hand(network, chosen), by_hand(network, rejected)
        with torch.no_grad():
            c0, r0 = by_hand(before, chosen), by_hand(before, rejected)
        if name == "dpo":
            loss = -torch.log(torch.sigmoid(0.1 * ((c.sum() - c0.sum()) - (r.sum() - r0.sum()))))
        elif name == "ipo":
            loss = ((c - c0).mean() - (r - r0).mean() - 1 / 0.2) ** 2
        elif name == "simpo":
            loss = -torch.log(torch.sigmoid(2.0 * (c.mean() - r.mean()) - 1.0))
        else:
            odds = [p / (1 - p) for p in (c.mean().exp(), r.mean().exp())]
            loss = -c.mean() - 0.1 * torch.log(torch.sigmoid(torch.log(odds[0] / odds[1])))
        total = total + loss
    return total


@pytest.mark.parametrize("name", PREFERENCES)
def test_loss_and_gradients_are_those_written_out_by_hand(name: str) -> None:
    network, before = network_of(1), network_of(2)
    pairs = some_pairs()
    objective = PREFERENCES[name](None)
    if objective.refer is not None:
        pairs = pairs.with_reference(objective.refer(before, pairs))
    other = copy.deepcopy(network)
    expected = written_out(name, other, before, pairs)
    expected.backward()
    bound = objective.bind(0, torch.device("cpu"))
    batch = pairs.batch(torch.arange(PAIRS))
    assert bound.weight(batch) == PAIRS
    loss = bound.loss_sum(network, batch, 0)
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for (key, value), wanted in zip(network.named_parameters(), other.parameters(), strict=True):
        assert value.grad is not None and wanted.grad is not None
        assert torch.allclose(value.grad, wanted.grad, atol=1e-5), key


def test_pairs_weigh_the_same_in_any_batches() -> None:
    network, pairs = network_of(1), some_pairs()
    pairs = pairs.with_reference(refer(network_of(2), pairs))
    bound = PREFERENCES["dpo"](None).bind(0, torch.device("cpu"))

    def gradient(parts: list[Tensor]) -> Tensor:
        network.zero_grad()
        for part in parts:
            (bound.loss_sum(network, pairs.batch(part), 0) / PAIRS).backward()
        return torch.cat([value.grad.flatten() for value in network.parameters() if value.grad is not None])

    whole = gradient([torch.arange(PAIRS)])
    assert torch.allclose(gradient(list(torch.arange(PAIRS).split(2))), whole, atol=1e-6)


def test_at_the_start_nothing_is_preferred() -> None:
    network, pairs = network_of(1), some_pairs()
    batch: Batch = pairs.with_reference(refer(network, pairs)).batch(torch.arange(PAIRS))
    bound = PREFERENCES["dpo"](None).bind(0, torch.device("cpu"))
    assert bound.loss_sum(network, batch, 0).item() == pytest.approx(PAIRS * math.log(2), rel=1e-5)


def turns(*said: str) -> list[Turn]:
    return [Turn(role, text) for role, text in zip(("user", "assistant") * 2, said)]


def as_json(*said: str) -> str:
    return json.dumps([{"role": turn.role, "content": turn.content} for turn in turns(*said)])


SHAPES: list[tuple[str, dict[str, str], Preference]] = [
    (
        "prompt, chosen and rejected",
        {"prompt": "2+3?", "chosen": "5", "rejected": "6"},
        Preference(turns("2+3?"), [Turn("assistant", "5")], [Turn("assistant", "6")]),
    ),
    (
        "question, chosen and rejected",
        {"question": "2+3?", "chosen": "5", "rejected": "6"},
        Preference(turns("2+3?"), [Turn("assistant", "5")], [Turn("assistant", "6")]),
    ),
    (
        "chosen and rejected",
        {"chosen": as_json("a", "b", "2+3?", "5"), "rejected": as_json("a", "b", "2+3?", "6")},
        Preference(turns("a", "b", "2+3?"), [Turn("assistant", "5")], [Turn("assistant", "6")]),
    ),
    (
        "prompt, chosen and rejected",
        {"prompt": "2+3?", "chosen": as_json("2+3?", "5"), "rejected": as_json("2+3?", "6")},
        Preference(turns("2+3?"), [Turn("assistant", "5")], [Turn("assistant", "6")]),
    ),
]


@pytest.mark.parametrize(("name", "row", "expected"), SHAPES)
def test_shapes(name: str, row: dict[str, str], expected: Preference) -> None:
    shape = recognise_preferences([*row, "id"])
    assert shape is not None and shape.name == name and list(shape.columns) == list(row)
    assert preference(dict(row)) == expected


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "2+3?", "chosen": "5", "rejected": "5"}, "are the same"),
        ({"prompt": "2+3?", "chosen": "5", "rejected": None}, "rejected is empty"),
        ({"prompt": " ", "chosen": "5", "rejected": "6"}, "prompt is empty"),
        ({"chosen": as_json("a", "5"), "rejected": as_json("b", "6")}, "no prompt"),
        ({"chosen": as_json("a"), "rejected": as_json("a", "6")}, "chosen has no answer"),
    ],
)
def test_what_is_no_pair(row: dict[str, str | None], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        preference(row)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("preferences")
    return run(preference_recipe(folder), base=folder, runs=folder / "runs", console=silent())


def test_it_learns_to_prefer(trained: Any) -> None:
    evaluation = trained.stages["finetune"].summary["evaluation"]
    found = {name: entry["value"] for name, entry in evaluation["metrics"].items()}
    before, longer = evaluation["baselines"]
    assert found["reward_accuracy"] > 0.9 and found["preference_accuracy"] > 0.9
    assert found["reward_margin"] > 0 and found["kl"] > 0
    start = {name: entry["value"] for name, entry in before["metrics"].items()}
    assert (before["name"], start["reward_accuracy"]) == ("the model before this stage", 0.5)
    assert (start["reward_margin"], start["kl"]) == (0.0, pytest.approx(0.0, abs=1e-6))
    assert longer["name"] == "the longer answer" and list(longer["metrics"]) == [
        "reward_accuracy",
        "preference_accuracy",
    ]
    (answer,) = load_model(trained.stages["finetune"].folder / "model").predict(["say 12"])
    assert list(answer) == ["answer"]


def test_measured_again_it_is_the_same(trained: Any) -> None:
    before = trained.stages["finetune"].summary["evaluation"]["metrics"]
    evaluate_run(trained.folder, ["eval.metrics=null"], console=silent())
    summary = json.loads((trained.stages["finetune"].folder / "summary.json").read_text())
    assert summary["evaluation"]["metrics"] == before


def test_a_training_that_goes_on_keeps_its_reference(trained: Any, tmp_path: Path) -> None:
    """From the checkpoint of the first epoch on: the reference is still the network before the stage."""
    folder = trained.folder.parents[1]
    runs = tmp_path / "runs"
    recipe = preference_recipe(folder)
    whole = run(recipe, base=folder, runs=runs, console=silent())
    stage = whole.stages["finetune"].folder
    expected = load_file(stage / "model" / "model.safetensors")
    assert torch.equal(
        expected["model.norm.weight"],
        load_file(trained.stages["finetune"].folder / "model" / "model.safetensors")["model.norm.weight"],
    )
    # As if it had been killed: no result, the newest checkpoint lost.
    shutil.rmtree(stage / "model")
    (stage / "summary.json").unlink()
    record = json.loads((whole.folder / "run.json").read_text())
    write_record(whole.folder / "run.json", {**record, "complete": False})
    checkpoints = sorted((stage / "checkpoints").glob("step-*"))
    assert len(checkpoints) == 2
    shutil.rmtree(checkpoints[-1])
    again = run(recipe, base=folder, runs=runs, console=silent())
    found = load_file(again.stages["finetune"].folder / "model" / "model.safetensors")
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


WRONG: list[tuple[dict[str, Any], str, type[Exception]]] = [
    ({"stages": ["pretrain"]}, "has learned something before", RecipeError),
    (
        {"stages": ["pretrain"], "data": {"source": "answers.jsonl"}, "model": {"weights": "here"}},
        "no pairs",
        DataError,
    ),
    ({"train": {"objective": {"dpo": {"beta": 0}}}}, "beta", RecipeError),
]


@pytest.mark.parametrize(("change", "said", "kind"), WRONG, ids=[said for _, said, _ in WRONG])
def test_what_does_not_fit(
    trained: Any, tmp_path: Path, change: dict[str, Any], said: str, kind: type[Exception]
) -> None:
    shutil.copytree(trained.stages["pretrain"].folder / "model", tmp_path / "here")
    with pytest.raises(kind, match=said) as caught:
        run(preference_recipe(tmp_path, **change), base=tmp_path, runs=tmp_path / "runs", console=silent())
    assert isinstance(caught.value, UserError) and caught.value.fix


def test_the_check_shows_both_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = preference_recipe(tmp_path)
    del recipe["stages"]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    check_data(tmp_path / "recipe.yaml", [], as_json=False)
    said = capsys.readouterr().out
    assert "the first pair, chosen" in said and "the first pair, rejected" in said
