"""Language models from text to text: trained, measured, resumed, continued, adapted, merged, talked with."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from torch.nn import functional as F

from gpt_networks import gpt_network, hub_causal_lm
from language_recipes import THINGS, language_recipe, tales
from tiny import tiny_tokenizer
from tunewright import load_model
from tunewright.commands.chat import Drawing, chat
from tunewright.commands.merge import merge_adapter
from tunewright.console import silent
from tunewright.data.text.tokenizer import WRITER, build_trainer, save_tokenizer
from tunewright.errors import ArtifactError, DataError, RecipeError, UserError
from tunewright.evaluation.metrics import METRICS
from tunewright.run_recipe import run
from tunewright.runs.metrics_log import read_metrics
from tunewright.tasks.language_model import evaluation as next_tokens
from tunewright.tasks.language_model.encoder import CausalEncoder, load_tokenizer, token_ids
from tunewright.tasks.language_model.evaluation import frequencies, next_token_outputs


def carried_out(folder: Path, recipe: dict[str, Any]) -> Any:
    return run(recipe, base=folder, runs=folder / "runs", console=silent())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("trained")
    return carried_out(folder, language_recipe(folder))


def test_it_learns_and_says_so(trained: Any) -> None:
    summary = trained.stages["pretrain"].summary
    found = {name: entry["value"] for name, entry in summary["evaluation"]["metrics"].items()}
    assert list(found) == ["token_loss", "perplexity", "bits_per_byte", "next_token_accuracy"]
    baselines = {entry["name"]: entry["metrics"] for entry in summary["evaluation"]["baselines"]}
    assert list(baselines) == ["token frequencies", "pairs of tokens"]
    assert found["token_loss"] < baselines["pairs of tokens"]["token_loss"]["value"]
    assert found["perplexity"] == pytest.approx(math.exp(found["token_loss"]))
    assert summary["texts"]["tokens"] > 5000 and summary["texts"]["tokenizer"]["unknown_rate"] == 0
    lines = read_metrics(trained.stages["pretrain"].folder / "metrics.jsonl")
    samples = [line["text"] for line in lines if line["kind"] == "sample"]
    assert len(samples) == 2 and samples[0] != samples[1]
    page = trained.report.read_text()
    assert "Generated samples" in page and "its per byte" in page
    card = (trained.stages["pretrain"].folder / "model" / "README.md").read_text()
    assert "AutoModelForCausalLM" in card and "text-generation" in card


def test_the_saved_model_is_the_librarys(trained: Any) -> None:
    from transformers import AutoTokenizer

    folder = trained.stages["pretrain"].folder / "model"
    theirs, tokenizer = hub_causal_lm(folder), AutoTokenizer.from_pretrained(folder)
    ours = load_model(folder)
    ids = tokenizer("Anna sees the", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        assert torch.allclose(ours.network({"input_ids": ids}), theirs(input_ids=ids).logits, atol=1e-4)
    assert tokenizer.decode(tokenizer("Ben likes 海.")["input_ids"]) == "Ben likes 海."
    text = "Anna sees"
    begun = torch.tensor([[tokenizer.bos_token_id, *tokenizer(text)["input_ids"]]])
    written = theirs.generate(begun, max_new_tokens=20, do_sample=False)
    expected = tokenizer.decode(written[0, begun.shape[1] :], skip_special_tokens=True)
    (answer,) = ours.predict([text])
    assert answer["continuation"].startswith(expected) and expected


def test_chat_writes_on_from_what_is_said(trained: Any) -> None:
    folder = trained.stages["pretrain"].folder / "model"

    def said(**drawing: Any) -> str:
        written: list[str] = []
        chat(folder, Drawing(most=30, **drawing), lines=["Anna sees\n", "\n", "Ben\n"], write=written.append)
        return "".join(written)

    assert said() == said() != said(seed=1)
    lines = said(temperature=0.0).splitlines()
    assert lines[0].startswith("Anna sees") and len(lines[0]) > len("Anna sees")


def encoder_for(folder: Path, context: int, texts: list[str]) -> CausalEncoder:
    save_tokenizer(build_trainer("characters")(texts, WRITER), folder, 40, WRITER)
    return CausalEncoder(columns=["text"], max_length=context, limit=40, tokenizer=load_tokenizer(folder))


def table_of(texts: list[str]) -> pa.Table:
    return pa.table({"text": texts, "_row": list(range(1, len(texts) + 1))})


@pytest.mark.parametrize(("context", "tokens"), [(40, 16_384), (12, 50)])
def test_what_is_measured_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, context: int, tokens: int) -> None:
    monkeypatch.setattr(next_tokens, "TOKENS", tokens)
    texts = ["Anna sees a house.", "", "Ben likes the sea. 海", "C"]
    encoder = encoder_for(tmp_path, context, texts)
    network = gpt_network().eval()
    outputs, target = next_token_outputs(network, None, encoder, table_of(texts))
    for number, text in enumerate(texts):
        ids = torch.tensor([[0, *encoder.tokenizer(text)["input_ids"], 0]]) if text else torch.zeros(1, 0).long()
        losses, right = 0.0, 0
        for place in range(max(0, ids.shape[1] - 1)):
            # Whole where it fits; else half a context is new in each window.
            start = 0
            if place >= context:
                new = round(context / 2)
                stop = context + new * ((place - context) // new + 1)
                start = min(stop, ids.shape[1] - 1) - context
            with torch.no_grad():
                logits = network({"input_ids": ids[:, start : place + 1]})[0, -1]
            losses += F.cross_entropy(logits, ids[0, place + 1]).item()
            right += int(logits.argmax() == ids[0, place + 1])
        assert outputs[number] == pytest.approx([losses, right, len(text.encode())], abs=1e-3)
        assert target[number] == max(0, ids.shape[1] - 1)
    bits = METRICS["bits_per_byte"].value(outputs, target)
    assert bits == pytest.approx(outputs[:, 0].sum() / math.log(2) / sum(len(text.encode()) for text in texts))


def test_the_baselines_are_distributions(tmp_path: Path) -> None:
    known, new = ["aab", "abb", ""], ["ab", "c"]
    encoder = encoder_for(tmp_path, 10, [*known, *new])
    size = len(encoder.tokenizer)
    found = frequencies(encoder, table_of(known), table_of(new))
    # aab and abb with their ends: a a b . a b b . ; each piece was seen once more than it was.
    a, b, end = ((count + 1) / (8 + size) for count in (3, 3, 2))
    assert found[0].outputs[0, 0] == pytest.approx(-math.log(a) - math.log(b) - math.log(end))
    # After the beginning a came 2 of 2 times; after a: a 1, b 2; after b: the end 2, b 1.
    d = next_tokens.DISCOUNT
    first = (2 - d) / 2 + d * 1 / 2 * a
    second = (2 - d) / 3 + d * 2 / 3 * b
    last = (2 - d) / 3 + d * 2 / 3 * end
    assert found[1].outputs[0, 0] == pytest.approx(-math.log(first) - math.log(second) - math.log(last))
    assert found[1].outputs[0, 1] == 3


def test_stopped_and_gone_on_with_it_is_the_same(tmp_path: Path) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    for folder in (whole, halves):
        folder.mkdir()
    recipe = language_recipe(
        whole, train={"epochs": 2, "batch_size": 8, "lr": 5e-3, "optimizer": "muon", "checkpoint_steps": 5}
    )
    expected = carried_out(whole, recipe).stages["pretrain"].folder / "model" / "model.safetensors"
    from tunewright.training import loop

    plain = loop.check_health
    seen = [0]

    def killed(*arguments: Any) -> None:
        seen[0] += 1
        if seen[0] == 13:
            raise KeyboardInterrupt
        plain(*arguments)

    language_recipe(halves)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "check_health", killed)
        with pytest.raises(KeyboardInterrupt):
            carried_out(halves, recipe)
    found = carried_out(halves, recipe).stages["pretrain"].folder / "model" / "model.safetensors"
    assert found.read_bytes() == expected.read_bytes()


def library_model(folder: Path) -> Path:
    """A tiny GPT-2 with a tokenizer, in the hub's format."""
    from transformers import GPT2Config, GPT2LMHeadModel

    save_tokenizer(build_trainer({"bpe": {"vocabulary": 280}})(tales(50), WRITER), folder, 64, WRITER)
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=2,
        n_embd=32,
        n_head=2,
        vocab_size=280,
        n_positions=64,
        bos_token_id=0,
        eos_token_id=0,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def test_any_causal_model_goes_on_with_an_adapter_that_is_merged(tmp_path: Path) -> None:
    library_model(tmp_path / "base")
    recipe = language_recipe(
        tmp_path,
        model={"backbone": "base"},
        stages=["finetune"],
        tune={"adapter": {"lora": {"r": 4, "target": ["c_attn"]}}},
        train={"epochs": 2, "batch_size": 8, "lr": 1e-2},
    )
    result = carried_out(tmp_path, recipe)
    folder = result.stages["finetune"].folder / "model"
    assert (folder / "adapter_model.safetensors").exists()
    assert result.stages["finetune"].summary["certificate"]["passed"]
    found = merge_adapter(folder, tmp_path / "merged", silent())
    assert found.difference < 1e-3
    adapted, whole = load_model(folder).network, load_model(tmp_path / "merged").network
    ids = torch.tensor([[0, 50, 60, 70]])
    with torch.no_grad():
        expected = adapted({"input_ids": ids})
        assert torch.allclose(whole({"input_ids": ids}), expected, atol=1e-4)
        assert torch.allclose(hub_causal_lm(tmp_path / "merged")(input_ids=ids).logits, expected, atol=1e-4)
    with pytest.raises(UserError, match="folder already exists"):
        merge_adapter(folder, tmp_path / "merged", silent())
    with pytest.raises(ArtifactError, match="no adapter"):
        merge_adapter(tmp_path / "merged", tmp_path / "again", silent())


def test_a_second_stage_goes_on_with_the_first_ones_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("\n".join(f"Clara likes {thing}." for thing in THINGS * 20), encoding="utf-8")
    recipe = language_recipe(
        tmp_path, stages=["pretrain", {"finetune": {"data": {"source": "more.txt"}, "tune": {"freeze": "embeddings"}}}]
    )
    result = carried_out(tmp_path, recipe)
    certificate = result.stages["finetune"].summary["certificate"]
    assert [entry["block"] for entry in certificate["frozen"]] == ["backbone.embed_tokens"]
    assert certificate["passed"]


WRONG: list[tuple[dict[str, Any], str, type[Exception]]] = [
    (
        {"model": {"backbone": {"gpt": {"context": 16}}, "tokenizer": "characters", "max_length": 17}},
        "context is shorter",
        RecipeError,
    ),
    (
        {"model": {"backbone": "gpt", "tokenizer": "characters", "head": [{"dense": "auto"}]}},
        "the head of its architecture",
        RecipeError,
    ),
    ({"train": {"objective": "cross_entropy"}}, "no objective of this name", RecipeError),
    ({"train": {"label_smoothing": 0.1}}, "is for classes", RecipeError),
    ({"eval": {"metrics": ["accuracy"]}}, "no metric of this name for next_tokens", RecipeError),
    ({"data": {"source": "pairs.csv"}}, "one column of text", DataError),
]


@pytest.mark.parametrize(("change", "said", "kind"), WRONG, ids=[said for _, said, _ in WRONG])
def test_what_does_not_fit(tmp_path: Path, change: dict[str, Any], said: str, kind: type[Exception]) -> None:
    (tmp_path / "pairs.csv").write_text(
        "first,second\n" + "".join(f"a fine and warm room {i},the film was not good {i}\n" for i in range(40))
    )
    with pytest.raises(kind, match=said) as caught:
        carried_out(tmp_path, language_recipe(tmp_path, **change))
    assert isinstance(caught.value, UserError) and caught.value.fix


def test_a_text_with_an_endless_word_is_tokenized_in_parts(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    honest, endless = "good film " * 30, "x" * 2_500 + " good"
    (first, second) = token_ids(tokenizer, [honest, endless])
    assert first == tokenizer(honest, add_special_tokens=False, verbose=False)["input_ids"]
    unknown, good = tokenizer.unk_token_id, tokenizer.convert_tokens_to_ids("good")
    assert second == [unknown, unknown, unknown, good]
