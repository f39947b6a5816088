"""Masked language models: what is hidden and how it is weighed, the head at hidden tokens alone, stages in a chain."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForMaskedLM, AutoTokenizer

import tunewright
from tiny import SPECIAL, WORDS, texts, tiny_bert, tiny_tokenizer
from tunewright.commands.design import show_design
from tunewright.commands.init import write_recipe
from tunewright.console import silent
from tunewright.data.batches.batch import Batch
from tunewright.data.batches.sampler import Batches
from tunewright.data.checks.table import check
from tunewright.errors import DataError, RecipeError
from tunewright.evaluation.baselines import token_frequencies
from tunewright.evaluation.intervals import bootstrap
from tunewright.evaluation.metrics import METRICS, Outcome
from tunewright.files import sha256_file
from tunewright.models.hub.hf_network import build_transformer, describe_transformer
from tunewright.models.hub.purposes import MASKED_LM
from tunewright.models.language.masked_positions import WANTED, selection_is_exact
from tunewright.pipeline.build.parts import build_parts
from tunewright.pipeline.build.prepare_data import prepare_data
from tunewright.pipeline.stage import load_origin, recipe_backbone
from tunewright.random import uniform
from tunewright.recipe.loading import load_recipe, recipe_from_dict
from tunewright.recipe.stages import stage_recipes
from tunewright.run_recipe import run
from tunewright.tasks.registry import task_defaults
from tunewright.tasks.text.encoder import TextEncoder
from tunewright.tasks.text.masked_evaluation import frequency_baseline, hidden_token_outputs
from tunewright.training.objectives.corruption import Vocabulary, hidden_counts, mask_tokens
from tunewright.training.objectives.masked_lm import MaskedLMLoss

SIZE = len(SPECIAL) + len(WORDS)
VOCABULARY = Vocabulary(mask=4, ordinary=torch.arange(5, SIZE), special=torch.arange(5))
CPU = torch.device("cpu")


def text_file(path: Path, lines: int = 120) -> Path:
    """Texts of 3 to 24 tokens, each the same word again and again: what is hidden can be known from the others."""
    draw = np.random.default_rng(1)
    words, lengths = draw.integers(0, len(WORDS), lines), draw.integers(3, 25, lines)
    path.write_text("\n".join(" ".join([WORDS[a]] * n) for a, n in zip(words, lengths)) + "\n", encoding="utf-8")
    return path


def carry_out(tmp_path: Path, recipe: dict[str, Any], **settings: Any) -> tunewright.run_recipe.RunResult:  # type: ignore[name-defined]
    given = {"eval": {"resamples": 100}, "hardware": {"threads": 1, "precision": "float32"}, **recipe}
    return run(given, base=tmp_path, runs=tmp_path / "runs", console=silent(), **settings)


def recipe_for(tmp_path: Path, **more: Any) -> dict[str, Any]:
    """Masked language modelling with the tiny BERT."""
    if not (tmp_path / "bert").exists():
        tiny_bert(tmp_path / "bert", layers=2)
        text_file(tmp_path / "texts.txt")
    return {
        "name": "mlm",
        "task": "masked-language-modeling",
        "data": {"source": "texts.txt"},
        "model": {"backbone": "bert", "max_length": 12},
        "train": {"epochs": 2, "batch_size": 16, "lr": 1e-3},
        **more,
    }


# What is hidden


def padded(lengths: list[int], width: int) -> tuple[Tensor, Tensor]:
    """Made-up texts between [CLS] and [SEP] in batches of `width` tokens, and their attention mask."""
    tokens = torch.zeros(len(lengths), width, dtype=torch.int64)
    for row, length in enumerate(lengths):
        tokens[row, : length + 2] = torch.tensor([2, *(5 + (row + k) % len(WORDS) for k in range(length)), 3])
    return tokens, (tokens != 0).long()


def hide(tokens: Tensor, mask: Tensor, ids: Tensor, epoch: int = 0, seed: int = 0, ratio: float = 0.15) -> Any:
    ordinary = ~torch.isin(tokens, VOCABULARY.special) & (mask == 1)
    return mask_tokens(tokens, ordinary, ids, epoch, seed, ratio=ratio, vocabulary=VOCABULARY)


def test_so_many_tokens_are_hidden_and_never_a_special_one() -> None:
    lengths = [1, 2, 3, 4, 10, 17, 40]
    tokens, mask = padded(lengths, 50)
    spoiled, hidden = hide(tokens, mask, torch.arange(7))
    # round(0.15 n) and at least one: 0.15, 0.3, 0.45, 0.6, 1.5, 2.55, 6.
    assert hidden.sum(1).tolist() == [1, 1, 1, 1, 2, 3, 6]
    assert not hidden[torch.isin(tokens, VOCABULARY.special)].any()
    assert torch.equal(spoiled[~hidden], tokens[~hidden])
    empty = torch.tensor([[2, 3, 0, 0]])
    assert hidden_counts(torch.zeros(1, 4, dtype=torch.bool), 0.15).tolist() == [0]
    assert not hide(empty, (empty != 0).long(), torch.arange(1))[1].any()


def test_eighty_ten_ten() -> None:
    tokens, mask = padded([100] * 2000, 102)
    spoiled, hidden = hide(tokens, mask, torch.arange(2000))
    before, after = tokens[hidden], spoiled[hidden]
    assert len(before) == 2000 * 15
    masked, stayed = after == VOCABULARY.mask, after == before
    # A random token is the same by chance in one of 22 cases. Five standard deviations on each side.
    for share, expected in ((masked, 0.8), (stayed, 0.1 + 0.1 / len(WORDS))):
        assert share.double().mean() == pytest.approx(expected, abs=5 * math.sqrt(expected * (1 - expected) / 30_000))
    other = after[~masked & ~stayed]
    assert other.min() == 5 and other.max() == SIZE - 1, "any ordinary token, and no other"
    assert np.bincount(other.numpy())[5:].min() > 0.5 * len(other) / len(WORDS)
    places = hidden.double().mean(0)[1:101]
    assert places.min() > 0.1 and places.max() < 0.2, "no place is preferred"


def test_what_is_hidden_depends_on_seed_epoch_and_example_alone() -> None:
    tokens, mask = padded([9, 30, 4, 22], 32)
    ids = torch.tensor([7, 3, 99, 0])
    spoiled, hidden = hide(tokens, mask, ids, epoch=2, seed=5)
    for row in range(4):  # alone, and padded to its own length
        width = int(mask[row].sum())
        alone = hide(tokens[row : row + 1, :width], mask[row : row + 1, :width], ids[row : row + 1], epoch=2, seed=5)
        assert torch.equal(alone[0][0], spoiled[row, :width]) and torch.equal(alone[1][0], hidden[row, :width])
    back = hide(tokens.flip(0), mask.flip(0), ids.flip(0), epoch=2, seed=5)
    assert torch.equal(back[1].flip(0), hidden)
    assert not torch.equal(hide(tokens, mask, ids, epoch=3, seed=5)[1], hidden)
    assert not torch.equal(hide(tokens, mask, ids, epoch=2, seed=6)[1], hidden)
    assert not torch.equal(hide(tokens, mask, ids + 1, epoch=2, seed=5)[1], hidden)


def test_the_random_draws_do_not_depend_on_the_width() -> None:
    ids = np.arange(5)
    assert np.array_equal(uniform(0, "x", 1, ids, 8), uniform(0, "x", 1, ids, 20)[:, :8])


# How it is weighed


class Table(nn.Module):
    """A model that gives the wanted positions logits which depend on the position and on what stands there alone."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.by_token = nn.Embedding(SIZE, SIZE, dtype=torch.float64)
        self.by_place = nn.Embedding(64, SIZE, dtype=torch.float64)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        tokens = inputs["input_ids"]
        logits = self.by_token(tokens) + self.by_place(torch.arange(tokens.shape[1]))
        return logits[inputs[WANTED]]


def batch_of(lengths: list[int], width: int, first: int = 0) -> Batch:
    tokens, mask = padded(lengths, width)
    return Batch({"input_ids": tokens, "attention_mask": mask}, None, torch.arange(first, first + len(lengths)))


def test_the_loss_by_hand() -> None:
    objective = MaskedLMLoss(seed=3, ratio=0.15, vocabulary=VOCABULARY)
    batch, model = batch_of([10, 4], 12), Table()
    spoiled, hidden = hide(*(batch.named[name] for name in ("input_ids", "attention_mask")), batch.ids, 1, 3)
    total = 0.0
    for row, place in hidden.nonzero().tolist():
        logits = (model.by_token.weight[spoiled[row, place]] + model.by_place.weight[place]).tolist()
        right = int(batch.named["input_ids"][row, place])
        total += math.log(sum(math.exp(value) for value in logits)) - logits[right]
    assert objective.weight(batch) == 3  # of 10 tokens two, of 4 one
    assert objective.loss_sum(model, batch, 1).item() == pytest.approx(total, rel=1e-12)


def test_uneven_micro_batches_equal_one_batch() -> None:
    objective = MaskedLMLoss(seed=0, ratio=0.15, vocabulary=VOCABULARY)
    lengths = [3, 30, 12, 1, 45, 7, 20]
    model = Table()

    def gradient(parts: list[Batch]) -> Tensor:
        model.zero_grad()
        weight = sum(objective.weight(part) for part in parts)
        for part in parts:
            (objective.loss_sum(model, part, 4) / weight).backward()
        return torch.cat([value.grad.reshape(-1) for value in model.parameters()])  # type: ignore[union-attr]

    whole = gradient([batch_of(lengths, 47)])
    first = batch_of(lengths, 47)
    cuts = [(0, 1), (1, 4), (4, 7)]
    parts = [Batch({name: value[a:b] for name, value in first.named.items()}, None, first.ids[a:b]) for a, b in cuts]
    torch.testing.assert_close(gradient(parts), whole)
    assert whole.abs().max() > 0


def test_metrics_and_baseline_by_hand() -> None:
    # Two texts: 3 hidden tokens with a loss of 6 in all, one right; one with a loss of 1, right.
    outcome = Outcome(np.array([[6.0, 1.0], [1.0, 1.0]]), np.array([3, 1]))
    values = {name: float(METRICS[name].formula(outcome, np.ones((1, 2)))[0]) for name in TASK_METRICS}
    assert values["masked_loss"] == pytest.approx(7 / 4)
    assert values["pseudo_perplexity"] == pytest.approx(math.exp(7 / 4))
    assert values["masked_accuracy"] == pytest.approx(2 / 4)
    twice = float(METRICS["masked_loss"].formula(outcome, np.array([[2.0, 0.0]]))[0])
    assert twice == pytest.approx(2.0), "texts are resampled, not tokens"
    # Of 4 pieces: 5 tokens, piece 2 three times. p = (n + 1) / (5 + 4).
    found = token_frequencies(np.array([2, 2, 2, 0, 1]), np.array([2, 0, 3]), np.array([0, 0, 1]), 2, 4)
    expected = [[-math.log(4 / 9) - math.log(2 / 9), 1.0], [-math.log(1 / 9), 0.0]]
    np.testing.assert_allclose(found.outputs, expected)


TASK_METRICS = ("masked_loss", "pseudo_perplexity", "masked_accuracy")


def test_evaluation_gathers_the_passages_of_a_text(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    encoder = TextEncoder(columns=["text"], max_length=8, limit=64, tokenizer=tokenizer, passages=True)
    table = pa.table({"text": [" ".join(WORDS[:20]), "", "good film"], "_row": [5, 6, 9]})
    examples = encoder.examples(table, None)
    assert examples.rows.tolist() == [5, 5, 5, 5, 9] and examples.empty == 1 and examples.cut == 0
    network = build_transformer(
        describe_transformer(MASKED_LM, CONFIGS["bert"], head=None, classes=None), seed=0
    ).eval()
    outputs, target = hidden_token_outputs(network, None, encoder, table)
    # 20 tokens in passages of 6, 6, 6 and 2: one hidden in each; none in an empty text; one of two.
    assert target.tolist() == [4, 0, 1] and outputs[1].tolist() == [0.0, 0.0] and (outputs[[0, 2], 0] > 0).all()
    baseline = frequency_baseline(encoder, table, table)[0]
    # The same tokens were hidden: each of 20 words comes once or (good, film) twice among 22 tokens.
    assert baseline.outputs[0, 0] == pytest.approx(
        -sum(math.log((n + 1) / (22 + SIZE)) for n in _hidden(encoder, table))
    )
    estimates = bootstrap([METRICS[name] for name in TASK_METRICS], Outcome(outputs, target), resamples=100, seed=0)
    assert all(value.value is not None and value.low <= value.value <= value.high for value in estimates.values())  # type: ignore[operator]


def _hidden(encoder: TextEncoder, table: pa.Table) -> list[int]:
    """How often the hidden tokens of the first text come in the table."""
    examples = encoder.examples(table, None)
    batch = examples.batch(torch.arange(4))
    _, hidden = MaskedLMLoss(seed=0, ratio=0.15, vocabulary=encoder.vocabulary).hide(batch, 0)
    counts = np.bincount(examples.tokens.values.numpy(), minlength=SIZE)
    return counts[batch.named["input_ids"][hidden].numpy()].tolist()


# The head at hidden tokens alone

SMALL = {
    "vocab_size": SIZE,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "bert": {"model_type": "bert", **SMALL},
    "roberta": {"model_type": "roberta", **SMALL, "pad_token_id": 0},
    "distilbert": {
        "model_type": "distilbert",
        "vocab_size": SIZE,
        "dim": 32,
        "n_layers": 2,
        "n_heads": 2,
        "hidden_dim": 48,
    },
    "electra": {"model_type": "electra", **SMALL, "embedding_size": 16},
    "deberta-v2": {"model_type": "deberta-v2", **SMALL},
    "albert": {"model_type": "albert", **SMALL, "embedding_size": 16},
    "modernbert": {"model_type": "modernbert", **SMALL, "pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3},
}


def masked_lm(name: str, seed: int = 0) -> Any:
    return build_transformer(describe_transformer(MASKED_LM, CONFIGS[name], head=None, classes=None), seed=seed)


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_and_gradients_at_hidden_tokens_are_those_of_the_whole(name: str) -> None:
    network = masked_lm(name).eval()
    assert selection_is_exact(network)
    objective = MaskedLMLoss(seed=0, ratio=0.3, vocabulary=VOCABULARY)
    batch = batch_of([5, 9, 3], 11)
    inputs, hidden = objective.hide(batch, 0)
    with torch.no_grad():
        whole = network({key: value for key, value in inputs.items() if key != WANTED})
        part = network(inputs)
    assert part.shape == (int(hidden.sum()), SIZE) and whole.shape == (3, 11, SIZE)
    torch.testing.assert_close(part, whole[hidden], rtol=1e-4, atol=1e-5)

    def gradient() -> Tensor:
        network.zero_grad()
        objective.loss_sum(network, batch, 0).backward()
        return torch.cat([value.grad.reshape(-1) for value in network.parameters() if value.grad is not None])

    narrow = gradient()
    network.selects = False
    torch.testing.assert_close(narrow, gradient(), rtol=1e-3, atol=1e-5)


def test_a_head_that_looks_at_several_tokens_is_computed_for_all() -> None:
    network = masked_lm("bert").eval()
    real = network.core.cls.forward
    network.core.cls.forward = lambda states: real(states + states.mean(1, keepdim=True))
    assert not selection_is_exact(network)
    network.selects = False
    assert selection_is_exact(network)


# The task


def test_it_learns_is_measured_and_opens_elsewhere(tmp_path: Path) -> None:
    recipe = recipe_for(tmp_path, train={"epochs": 12, "batch_size": 8, "lr": 3e-3})
    result = carry_out(tmp_path, recipe).stages["pretrain"]
    evaluation = result.summary["evaluation"]
    before, baseline = evaluation["baselines"]
    assert before["name"] == "the model before this stage"
    assert list(evaluation["metrics"]) == list(TASK_METRICS) and baseline["name"] == "token frequencies"
    assert evaluation["metrics"]["masked_loss"]["high"] < baseline["metrics"]["masked_loss"]["low"]
    assert evaluation["metrics"]["masked_accuracy"]["value"] > 0.5
    assert evaluation["rows"] == 12 and "mistakes" not in evaluation
    texts = result.summary["texts"]
    assert texts["examples"] > result.summary["data"]["rows"]["train"] and texts["cut"] == 0
    assert texts["tokenizer"]["vocabulary"] == SIZE and texts["tokenizer"]["unknown_rate"] == 0

    model, tokenizer = (kind.from_pretrained(result.folder / "model") for kind in (AutoModelForMaskedLM, AutoTokenizer))
    known = load_origin(result.folder / "model")
    inputs = tokenizer("the a [MASK] book room", return_tensors="pt")
    with torch.no_grad():
        expected = model.eval()(**inputs).logits
        found = known.network.eval()(dict(inputs))
    assert torch.equal(found, expected)
    assert known.preprocessor.inputs.tokenizer("film book")["input_ids"] == tokenizer("film book")["input_ids"]

    table = pa.table({"text": ["the a [MASK] book room", "no gap"]})
    filled = tunewright.predict(result.folder / "model", table)
    assert filled[1] == {"masks": []} and len(filled[0]["masks"][0]) == 5
    best = filled[0]["masks"][0][0]
    place = inputs["input_ids"][0].tolist().index(tokenizer.mask_token_id)
    assert best["token"] == tokenizer.decode([int(expected[0, place].argmax())])
    assert best["probability"] == pytest.approx(float(expected[0, place].softmax(0).max()), rel=1e-4)
    assert "masked tokens" in (result.folder / "model" / "README.md").read_text(encoding="utf-8")
    card = (result.folder.parent / "report.html").read_text(encoding="utf-8")
    assert "accuracy on masked tokens" in card.lower()


def test_validation_hides_the_same_in_every_epoch(tmp_path: Path) -> None:
    recipe = recipe_for(
        tmp_path, train={"epochs": 3, "batch_size": 16, "lr": 1e-12, "schedule": "constant", "warmup": 0}
    )
    result = carry_out(tmp_path, recipe).stages["pretrain"]
    lines = (result.folder / "metrics.jsonl").read_text().splitlines()
    losses = [entry["valid"]["loss"] for entry in map(json.loads, lines) if entry["kind"] == "epoch"]
    assert len(losses) == 3 and losses == pytest.approx([losses[0]] * 3, rel=1e-4)
    trained = [entry["train_loss"] for entry in map(json.loads, lines) if entry["kind"] == "epoch"]
    assert max(trained) - min(trained) > 1e-3, "in training other tokens are hidden each time"


def test_bucketing_and_batch_size_change_nothing_of_what_is_hidden(tmp_path: Path) -> None:
    recipe = recipe_from_dict(recipe_for(tmp_path), defaults=task_defaults)
    ingredients = build_parts(
        recipe, prepare_data(recipe, tmp_path, silent()), None, recipe_backbone(recipe, tmp_path), silent()
    )
    examples = ingredients.examples("train")
    assert examples is not None
    objective = ingredients.objective.bind(0, CPU)

    def all_hidden(batch_size: int) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for (batch,) in Batches(examples=examples, batch_size=batch_size, seed=0).steps(1):
            inputs, hidden = objective.hide(batch, 1)
            for row, example in enumerate(batch.ids.tolist()):
                found[example] = [int(inputs["input_ids"][row, place]) for place in hidden[row].nonzero().reshape(-1)]
        return found

    assert all_hidden(4) == all_hidden(33) and len(all_hidden(4)) == len(examples)


# Killed and gone on with


def finish(runs: Path, recipe: dict[str, Any], base: Path, before: Callable[[], None] = lambda: None) -> int:
    """Run the recipe in a forked process; how it ended."""
    child = os.fork()
    if not child:
        code = 1
        try:
            before()
            run(recipe, base=base, runs=runs, console=silent())
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_after_saves(count: int) -> Callable[[], None]:
    def arrange() -> None:
        from tunewright.training.checkpoints import async_saver as saving

        real, calls = saving.save_checkpoint, iter(range(1, 1000))

        def deadly(*arguments: Any) -> Any:
            done = real(*arguments)
            if next(calls) == count:
                os.kill(os.getpid(), signal.SIGKILL)
            return done

        saving.save_checkpoint = deadly

    return arrange


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder in which a chain was carried out that nobody killed, and its recipe."""
    torch.set_num_threads(1)
    place = tmp_path_factory.mktemp("whole")
    texts(place / "reviews.jsonl", 40)
    pretrain = {
        "task": "masked-language-modeling",
        "data": {"source": "texts.txt", "limit": 40},
        "train": {"epochs": 2, "batch_size": 8, "accumulate": 2, "checkpoint_steps": 2, "lr": 1e-3},
    }
    recipe = {
        **recipe_for(place),
        "task": "text-classification",
        "data": {"source": "reviews.jsonl", "target": "label"},
        "tune": {"freeze": "none"},
        "train": {"epochs": 1, "batch_size": 8, "lr": 1e-3, "checkpoint_steps": 1},
        "hardware": {"threads": 1, "precision": "float32"},
        "eval": {"resamples": 100},
        "stages": [{"pretrain": pretrain}, "finetune"],
    }
    assert finish(place / "whole", recipe, place) == 0
    return place, recipe


@pytest.mark.parametrize("saves", [1, 4, 7])
def test_killed_and_gone_on_with_it_ends_the_same(whole: tuple[Path, dict[str, Any]], saves: int) -> None:
    place, recipe = whole
    killed = place / f"killed-{saves}"
    assert finish(killed, recipe, place, kill_after_saves(saves)) == -signal.SIGKILL
    assert (killed / "mlm" / "pretrain" / "summary.json").exists() == (saves == 7)
    assert finish(killed, recipe, place) == 0
    for stage in ("pretrain", "finetune"):
        weights = [folder / "mlm" / stage / "model" / "model.safetensors" for folder in (place / "whole", killed)]
        assert sha256_file(weights[0]) == sha256_file(weights[1])


# Stages in a chain

NEW = {"backbone": {"bert": {"layers": 2, "width": 32, "heads": 2}}, "tokenizer": {"wordpiece": {"vocabulary": 60}}}


def chain(tmp_path: Path, **finetune: Any) -> dict[str, Any]:
    text_file(tmp_path / "texts.txt")
    texts(tmp_path / "reviews.jsonl", 80)
    pretrain = {
        "task": "masked-language-modeling",
        "data": {"source": "texts.txt"},
        "model": {"max_length": 16},
        "train": {"epochs": 2, "lr": 2e-3},
    }
    return {
        "name": "chain",
        "task": "text-classification",
        "data": {"source": "reviews.jsonl", "target": "label"},
        "model": NEW,
        "train": {"epochs": 2, "batch_size": 16, "lr": 1e-3, "label_smoothing": 0.1},
        "stages": [{"pretrain": pretrain}, {"finetune": finetune}],
    }


def test_pretrain_from_nothing_then_finetune(tmp_path: Path) -> None:
    result = carry_out(tmp_path, chain(tmp_path, tune={"freeze": "backbone"}))
    first, second = (load_origin(result.stages[name].folder / "model") for name in ("pretrain", "finetune"))
    assert len(first.preprocessor.inputs.tokenizer) == 60
    files = [result.stages[name].folder / "model" / "tokenizer.json" for name in ("pretrain", "finetune")]
    assert sha256_file(files[0]) == sha256_file(files[1]), "the fine-tune goes on with the tokenizer of the pretraining"
    assert second.preprocessor.inputs.max_length == 16 and second.preprocessor.inputs.limit == 512
    assert not second.preprocessor.inputs.passages and first.preprocessor.inputs.passages
    # What was learned is kept, bit for bit; the pooler, which a masked language model lacks, learns with the head.
    learned, kept = first.network.base.state_dict(), second.network.base.state_dict()
    assert all(torch.equal(kept[name], value) for name, value in learned.items())
    certificate = result.stages["finetune"].summary["certificate"]
    assert certificate["passed"]
    assert [entry["block"] for entry in certificate["frozen"]] == [
        "backbone.embeddings",
        "backbone.encoder.layer.0",
        "backbone.encoder.layer.1",
    ]
    assert {"backbone.pooler", "head.classifier"} == {entry["block"] for entry in certificate["trained"]}
    assert result.stages["pretrain"].summary["task"] == "masked-language-modeling"
    assert result.stages["finetune"].summary["evaluation"]["metrics"]["accuracy"]["value"] is not None
    # What was written down gives the same stages again.
    again = load_recipe(result.folder / "recipe.resolved.yaml", defaults=task_defaults)
    given = recipe_from_dict(chain(tmp_path, tune={"freeze": "backbone"}), defaults=task_defaults)
    names = {"exclude": {"eval", "hardware", "stages"}}
    assert [s.recipe.model_dump(**names) for s in stage_recipes(again)] == [  # type: ignore[arg-type]
        s.recipe.model_dump(**names)  # type: ignore[arg-type]
        for s in stage_recipes(given)
    ]


def test_few_labels_are_no_reason_to_take_features_from_a_random_pooler(tmp_path: Path) -> None:
    recipe = {**chain(tmp_path), "stages": [chain(tmp_path)["stages"][0], "finetune"]}
    summary = carry_out(tmp_path, recipe).stages["finetune"].summary
    assert summary["training"]["steps"] and "few_shot" not in summary["training"]


def test_without_pretraining_the_tokenizer_is_trained_on_the_stages_own_texts(tmp_path: Path) -> None:
    model = {**NEW, "tokenizer": {"wordpiece": {"vocabulary": 50}}}
    result = carry_out(tmp_path, {**chain(tmp_path), "model": model, "stages": ["finetune"]})
    assert len(load_origin(result.stages["finetune"].folder / "model").preprocessor.inputs.tokenizer) == 50


def test_a_second_pretraining_goes_on_with_the_head(tmp_path: Path) -> None:
    recipe = recipe_for(
        tmp_path,
        stages=[
            "pretrain",
            {"pretrain": {"data": {"source": "texts.txt", "limit": 50}, "train": {"epochs": 1, "lr": 1e-9}}},
        ],
    )
    result = carry_out(tmp_path, recipe)
    first, second = (load_origin(result.stages[name].folder / "model") for name in ("pretrain", "pretrain-2"))
    heads = [origin.network.core.cls.predictions.transform.dense.weight for origin in (first, second)]
    torch.testing.assert_close(heads[0], heads[1], rtol=1e-4, atol=1e-6)


def test_a_stage_with_its_own_task_takes_the_data_and_the_backbone_of_the_recipe_alone(tmp_path: Path) -> None:
    recipe = recipe_from_dict(
        {
            "task": "text-classification",
            "seed": 3,
            "data": {"source": "a.csv", "target": "label", "input": "text", "split": {"by": "random", "test": 0.3}},
            "model": {"backbone": "minilm", "head": [{"dropout": 0.1}, {"dense": "auto"}]},
            "tune": {"freeze": 3},
            "train": {"epochs": 9, "class_weights": "balanced", "clip_norm": 7},
            "eval": {"target": {"accuracy": 0.9}, "resamples": 200},
            "stages": [{"pretrain": {"task": "masked-language-modeling", "train": {"epochs": 4}}}, "finetune"],
        },
        ["stages.0.pretrain.train.lr=2e-4"],
        defaults=task_defaults,
    )
    first, second = (stage.recipe for stage in stage_recipes(recipe))
    assert (first.task, first.data.labelled, first.data.target, first.data.input) == (
        "masked-language-modeling",
        False,
        None,
        ["text"],
    )
    assert first.data.source == "a.csv" and first.data.split == second.data.split and first.seed == 3
    assert first.model.backbone == "minilm" and first.model.head is None
    assert (first.train.epochs, first.train.lr, first.train.class_weights, first.train.clip_norm) == (
        4,
        2e-4,
        None,
        1.0,
    )
    assert first.eval.target == {} and first.eval.resamples == 200 and first.tune.freeze == "none"
    assert (second.task, second.train.epochs, second.train.clip_norm) == ("text-classification", 9, 7)


def test_design_of_a_chain(tmp_path: Path) -> None:
    import yaml

    (tmp_path / "r.yaml").write_text(yaml.safe_dump(chain(tmp_path, tune={"freeze": "backbone"})))
    first, second = show_design(tmp_path / "r.yaml", [], None, console=silent())
    assert first.layers[-1].block == "head.cls" and second.parameters.frozen > 0
    assert [layer.block for layer in second.layers if layer.trained and layer.parameters] == [
        "backbone.pooler",
        "head.classifier",
    ]


def test_test_texts_that_were_read_before_are_counted(tmp_path: Path) -> None:
    lines = [json.dumps({"text": f"{WORDS[i % 22]} {WORDS[i % 5]} {i}", "label": "ab"[i % 2]}) for i in range(100)]
    (tmp_path / "labelled.jsonl").write_text("\n".join(lines))
    (tmp_path / "all.txt").write_text("\n".join(json.loads(line)["text"] for line in reversed(lines)))
    tiny_bert(tmp_path / "bert", layers=1)
    pretrain: dict[str, Any] = {"task": "masked-language-modeling", "train": {"epochs": 1}}
    recipe = {
        "name": "known",
        "task": "text-classification",
        "data": {"source": "labelled.jsonl", "target": "label", "input": "text", "split": {"by": "random"}},
        "model": {"backbone": "bert"},
        "train": {"epochs": 1},
    }
    other: dict[str, Any] = {**pretrain, "data": {"source": "all.txt", "split": {"valid": 0, "test": 0.5}}}
    said = carry_out(tmp_path, {**recipe, "stages": [{"pretrain": other}, "finetune"]}).folder / "log.txt"
    assert "of the 10 test texts of finetune stand in what pretrain learns from" in said.read_text()
    same = carry_out(tmp_path, {**recipe, "stages": [{"pretrain": pretrain}, "finetune"]}).folder / "log.txt"
    assert "test texts of finetune" not in same.read_text(), "the same rows, divided alike"
    together = {"by": "group", "column": "text"}
    other["data"] |= {"input": "text", "split": {**together, "valid": 0, "test": 0.5}}
    grouped = {**recipe, "data": {**recipe["data"], "split": together}, "stages": [{"pretrain": other}, "finetune"]}
    assert "test texts of finetune" not in (carry_out(tmp_path, grouped).folder / "log.txt").read_text()


# Around it


def test_init_and_check(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    rows = [f"{' '.join(draw.choice(WORDS, 9))},{'ab'[i % 2]}" for i in range(80)]
    (tmp_path / "t.csv").write_text("\n".join(["text,label", *rows, rows[0]]) + "\n")
    tiny_bert(tmp_path / "bert", layers=1)
    assert "next:" in write_recipe("masked-language-modeling", str(tmp_path / "t.csv"), tmp_path / "r.yaml")
    recipe = load_recipe(tmp_path / "r.yaml", ["model.backbone=bert"], defaults=task_defaults)
    assert recipe.data.input == ["text"] and not recipe.data.labelled and recipe.train.optimizer == "adamw"
    findings = {finding.code: finding for finding in check(prepare_data(recipe, tmp_path, silent()))}
    assert findings["duplicates"].count == 1 and "identifier-column" not in findings
    assert "label-errors" not in findings and "no target" in findings["types"].title
    assert run(
        tmp_path / "r.yaml",
        overrides=["model.backbone=bert", "train.epochs=1", "eval.resamples=100"],
        runs=tmp_path / "runs",
        console=silent(),
    ).report


def test_plain_text_is_read_line_by_line(tmp_path: Path) -> None:
    import gzip

    written = "\ufeffone two\r\n\r\nthree, four\n   \nfünf 六\n"
    (tmp_path / "t.txt").write_bytes(written.encode())
    with gzip.open(tmp_path / "z.txt.gz", "wb") as file:
        file.write(written.encode())
    for name in ("t.txt", "z.txt.gz"):
        recipe = recipe_from_dict(
            {"task": "masked-language-modeling", "data": {"source": name, "split": {"valid": 0, "test": 0}}},
            defaults=task_defaults,
        )
        prepared = prepare_data(recipe, tmp_path, silent())
        table = prepared.table("train")
        assert table["text"].to_pylist() == ["one two", "three, four", "fünf 六"]
        assert table["_row"].to_pylist() == [1, 3, 5]
        (blank,) = prepared.manifest.skipped
        assert (blank.reason, blank.count, blank.examples) == ("a blank line", 2, ["line 2", "line 4"])


@pytest.mark.parametrize(
    ("raw", "found"), [(b"good\nb\xffd\n", "0xff"), (b"good\nb\0d\n", "NUL"), ("ö".encode("utf-16"), "0xff")]
)
def test_a_file_that_is_no_text_names_the_line(tmp_path: Path, raw: bytes, found: str) -> None:
    (tmp_path / "t.txt").write_bytes(raw)
    with pytest.raises(DataError, match="not UTF-8 text") as caught:
        carry_out(tmp_path, {"task": "masked-language-modeling", "data": {"source": "t.txt"}})
    assert found in str(caught.value.found) and str(caught.value.place).startswith("line ") and caught.value.fix
    assert caught.value.place == ("line 2" if raw.startswith(b"good") else "line 1")


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"data": {"source": "numbers.csv"}}, "one column of text", "data"),
    ({"data": {"source": "pairs.csv"}}, "one column of text, the data has several", "data"),
    ({"data": {"source": "strange.txt"}}, "no token in these texts", "data"),
    ({"model": {"backbone": "bert", "max_length": 65}}, "context is shorter", "recipe"),
    ({"model": {"backbone": "bert", "tokenizer": "wordpiece"}}, "need their own tokenizer", "recipe"),
    ({"model": {"backbone": "bert", "head": [{"dense": "auto"}]}}, "the head of its architecture", "recipe"),
    ({"model": {**NEW, "tokenizer": {"wordpiece": {"vocabulary": 5000}}}}, "so large a vocabulary", "data"),
    ({"model": {"backbone": {"bert": {"width": 30, "heads": 4}}}}, "heads do not divide", "recipe"),
    ({"model": {"backbone": {"bert": {"depth": 3}}}}, "no such option", "recipe"),
    ({"train": {"objective": "masked"}}, "no objective of this name", "recipe"),
    ({"train": {"objective": {"masked_tokens": {"ratio": 1.5}}}}, "not allowed", "recipe"),
    ({"train": {"label_smoothing": 0.1}}, "is for classes", "recipe"),
    ({"eval": {"metrics": ["accuracy"]}}, "no metric of this name for tokens", "recipe"),
    (
        {"task": "text-classification", "data": {"source": "pairs.csv"}, "train": {"objective": "masked_tokens"}},
        "no objective of this name",
        "recipe",
    ),
    ({"stages": [{"pretrain": {"task": "masked-lm"}}]}, "no such task", "recipe"),
    ({"stages": [{"pretrain": {"task": 3}}]}, "task", "recipe"),
    ({"stages": [{"pretrain": {"seed": 3}}]}, "not a stage", "recipe"),
]


@pytest.mark.parametrize(("change", "said", "kind"), WRONG, ids=[said for _, said, _ in WRONG])
def test_what_does_not_fit(tmp_path: Path, change: dict[str, Any], said: str, kind: str) -> None:
    recipe = recipe_for(tmp_path)
    (tmp_path / "numbers.csv").write_text("a,b\n" + "".join(f"{i},{i * 7 % 5}\n" for i in range(40)))
    (tmp_path / "pairs.csv").write_text(
        "first,second,label\n"
        + "".join(f"a fine and warm room {i},the film was not good {i},{i % 2}\n" for i in range(40))
    )
    (tmp_path / "strange.txt").write_text("龘靐\n" * 40)
    with pytest.raises(DataError if kind == "data" else RecipeError, match=said) as caught:
        carry_out(tmp_path, {**recipe, **change})
    assert caught.value.problem


def test_a_tokenizer_without_a_mask(tmp_path: Path) -> None:
    recipe = recipe_for(tmp_path)
    settings = json.loads((tmp_path / "bert" / "tokenizer_config.json").read_text())
    del settings["mask_token"]
    (tmp_path / "bert" / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(RecipeError, match=r"no \[MASK\]"):
        carry_out(tmp_path, recipe)


def test_the_head_meets_few_numbers_of_positions() -> None:
    objective, met = MaskedLMLoss(seed=0, ratio=0.15, vocabulary=VOCABULARY), set[int]()
    table = Table()

    def model(inputs: dict[str, Tensor]) -> Tensor:
        met.add(int(inputs[WANTED].sum()))
        return table(inputs)

    for count in range(1, 40):
        objective.loss_sum(model, batch_of([20] * count, 22), 0)
    assert met == {8 * (count + 1) for count in range(15)}, "3 of 20 tokens are hidden, 117 in the largest"
