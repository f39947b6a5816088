"""Chat models: conversations in any shape, packed exactly, trained, answered, resumed, opened by the library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from torch import Tensor

from gpt_networks import hub_causal_lm
from language_recipes import chat_recipe
from tunewright import load_model
from tunewright.commands.chat import Drawing, chat
from tunewright.commands.data import check_data
from tunewright.console import silent
from tunewright.data.batches.sampler import Batches
from tunewright.data.prepare.prepare import prepare
from tunewright.data.text.conversations import Shape, Turn, conversation, recognise
from tunewright.errors import DataError, RecipeError, UserError
from tunewright.models.hub.hf_network import build_transformer, describe_transformer
from tunewright.models.hub.purposes import CAUSAL_LM
from tunewright.models.language.new_encoder import Gpt
from tunewright.recipe.schema import Data
from tunewright.run_recipe import run
from tunewright.tasks.language_model.chat_encoder import ChatExamples, packed
from tunewright.tasks.language_model.chat_template import Rendered
from tunewright.training.objectives.causal_lm import CausalLMLoss

ASKED = Turn("user", "2+3?")
SHAPES: list[tuple[str, dict[str, Any], list[Turn]]] = [
    (
        "messages",
        {
            "messages": [
                {"role": "system", "content": "Count."},
                {"role": "user", "content": "2+3?"},
                {"role": "assistant", "content": "5"},
            ]
        },
        [Turn("system", "Count."), ASKED, Turn("assistant", "5")],
    ),
    (
        "sharegpt",
        {"conversations": [{"from": "human", "value": "2+3?"}, {"from": "gpt", "value": "5"}]},
        [ASKED, Turn("assistant", "5")],
    ),
    (
        "alpaca",
        {"instruction": "Add.", "input": "2 and 3", "output": "5"},
        [Turn("user", "Add.\n\n2 and 3"), Turn("assistant", "5")],
    ),
    ("prompt and completion", {"prompt": "2+3?", "completion": "5"}, [ASKED, Turn("assistant", "5")]),
    ("prompt and completion", {"question": "2+3?", "answer": "5"}, [ASKED, Turn("assistant", "5")]),
]


@pytest.mark.parametrize(("name", "row", "turns"), SHAPES)
def test_shapes(name: str, row: dict[str, Any], turns: list[Turn]) -> None:
    shape = recognise([*row, "id"])
    assert shape is not None and shape.name == name
    cells = {key: value if isinstance(value, str) else json.dumps(value) for key, value in row.items()}
    assert conversation(shape, cells) == turns


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ('[{"role": "user", "content": "hello"}]', "no turn of the assistant"),
        ('[{"role": "king", "content": "hello"}]', "the role 'king' is unknown"),
        ('[{"role": "user", "content": " "}, {"role": "assistant", "content": "x"}]', "a turn of the user is empty"),
        ('[{"role": "user"}]', "no list of turns"),
        ("hello", "no JSON"),
    ],
)
def test_what_is_no_conversation(cell: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        conversation(Shape(name="messages", columns=("messages",)), {"messages": cell})


def test_conversations_in_parquet_are_those_of_json_lines(tmp_path: Path) -> None:
    rows = [
        {"messages": [{"role": "user", "content": f"{i}? 好"}, {"role": "assistant", "content": f"it is {i}"}], "id": i}
        for i in range(30)
    ]
    (tmp_path / "talk.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "talk.parquet")
    tables = [
        prepare(Data(source=f"talk.{kind}", labelled=False), seed=0, target_kind=None, base=tmp_path).table("train")
        for kind in ("jsonl", "parquet")
    ]
    first, second = ([json.loads(cell) for cell in table["messages"].to_pylist()] for table in tables)
    assert first == second and len(first) > 20


def test_packing_leaves_nothing_out_and_overfills_nothing() -> None:
    lengths = [3, 9, 4, 1, 10, 6, 2, 5]
    bins = packed(lengths, 10)
    assert sorted(index for bin in bins for index in bin) == list(range(8))
    assert all(sum(lengths[index] for index in bin) <= 10 for bin in bins) and len(bins) < 8


def rendered(count: int) -> list[Rendered]:
    draw = torch.Generator().manual_seed(0)
    found = []
    for _ in range(count):
        length = int(torch.randint(3, 12, (1,), generator=draw))
        ids = torch.randint(5, 50, (length,), generator=draw).tolist()
        trained = (torch.rand(length, generator=draw) < 0.5).tolist()
        trained[-1] = True
        found.append(Rendered(ids=ids, trained=trained, prompts=[], whole=len(ids)))
    return found


def gradients(bins: list[list[int]], accumulate: int, size: int) -> dict[str, Tensor]:
    config = {
        **Gpt(layers=2, width=32, heads=4, context=40).config(),
        "vocab_size": 50,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    network = build_transformer(describe_transformer(CAUSAL_LM, config, head=None, classes=None), seed=1)
    conversations = rendered(9)
    examples = ChatExamples(conversations=conversations, numbers=torch.arange(9), bins=bins)
    objective = CausalLMLoss(z_loss=0.0)
    steps = list(Batches(examples=examples, batch_size=size, accumulate=accumulate, seed=0).steps(0))
    weight = sum(objective.weight(batch) for step in steps for batch in step)
    assert weight == sum(sum(entry.trained[1:]) for entry in conversations)
    for step in steps:
        for batch in step:
            (objective.loss_sum(network, batch, 0) / weight).backward()
    return {name: value.grad for name, value in network.named_parameters() if value.grad is not None}


def test_packed_unpacked_and_accumulated_gradients_agree() -> None:
    alone = [[index] for index in range(9)]
    together = packed([len(entry.ids) - 1 for entry in rendered(9)], 30)
    assert len(together) < 5
    expected = gradients(alone, 1, 9)
    for found in (gradients(together, 1, 9), gradients(together, 3, 1), gradients(alone, 5, 2)):
        for name, value in expected.items():
            assert torch.allclose(found[name], value, atol=1e-5), name


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("chat")
    return run(chat_recipe(folder), base=folder, runs=folder / "runs", console=silent())


def test_it_learns_to_answer(trained: Any) -> None:
    summary = trained.stages["finetune"].summary
    metrics = {name: entry["value"] for name, entry in summary["evaluation"]["metrics"].items()}
    baseline = summary["evaluation"]["baselines"][0]["metrics"]
    assert list(metrics) == ["exact_match", "token_loss", "next_token_accuracy"]
    assert metrics["token_loss"] < baseline["token_loss"]["value"]
    # Every trained token was counted: an answer and its end.
    assert summary["texts"]["trained"] < summary["texts"]["tokens"] / 2


def test_an_exact_match_is_what_writing_gives(trained: Any) -> None:
    """The share that was measured token by token is the share of answers that come out word for word."""
    from tunewright.pipeline.results.predictions import read_predictions

    folder = trained.stages["finetune"].folder
    found = read_predictions(folder)
    model = load_model(folder / "model")
    lines = (folder.parents[2] / "sums.jsonl").read_text().splitlines()
    for row, outputs, target in list(zip(found.rows, found.outputs, found.target, strict=True))[:12]:
        question, answer = (turn["content"] for turn in json.loads(lines[row - 1])["messages"])
        (written,) = model.predict([question])
        assert (written["answer"] == answer) == (outputs[1] == target)


def test_the_library_opens_it_with_its_template_and_its_end(trained: Any) -> None:
    from transformers import AutoTokenizer

    folder = trained.stages["finetune"].folder / "model"
    tokenizer, theirs = AutoTokenizer.from_pretrained(folder), hub_causal_lm(folder)
    assert tokenizer.eos_token == "<|im_end|>"
    assert theirs.generation_config.eos_token_id == tokenizer.eos_token_id
    messages = [{"role": "user", "content": "3+4?"}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False, return_tensors="pt")
    written = theirs.generate(ids, max_new_tokens=20, do_sample=False)
    text = tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True).strip()
    (answer,) = load_model(folder).predict(["3+4?"])
    assert answer["answer"] == text
    said: list[str] = []
    chat(folder, Drawing(temperature=0.0, most=20), lines=["3+4?"], write=said.append)
    assert "".join(said).strip() == text


WRONG: list[tuple[dict[str, Any], str, type[Exception]]] = [
    ({"data": {"source": "texts.txt"}}, "holds no conversations", DataError),
    ({"data": {"source": "silent.jsonl"}}, "no turn of the assistant", DataError),
    (
        {"model": {"backbone": "gpt", "tokenizer": {"bpe": {"vocabulary": 270}}, "max_length": 4}},
        "fits into the context",
        DataError,
    ),
    ({"train": {"objective": "mse"}}, "no objective of this name", RecipeError),
]


@pytest.mark.parametrize(("change", "said", "kind"), WRONG, ids=[said for _, said, _ in WRONG])
def test_what_does_not_fit(tmp_path: Path, change: dict[str, Any], said: str, kind: type[Exception]) -> None:
    turns = [{"role": "user", "content": "hello"}]
    (tmp_path / "silent.jsonl").write_text("\n".join(json.dumps({"messages": turns}) for _ in range(30)))
    recipe = chat_recipe(tmp_path, stages=["pretrain"], **change)
    with pytest.raises(kind, match=said) as caught:
        run(recipe, base=tmp_path, runs=tmp_path / "runs", console=silent())
    assert isinstance(caught.value, UserError) and caught.value.fix


def test_the_check_shows_what_is_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(chat_recipe(tmp_path, stages=["pretrain"])))
    check_data(tmp_path / "recipe.yaml", [], as_json=False)
    said = capsys.readouterr().out
    assert "training rows (messages) fit the template and the context" in said
    shown = said[said.index("the first conversation") :]
    answer = shown[shown.rindex("⟦") + 1 : shown.rindex("⟧")]
    assert answer.endswith("<|im_end|>") and answer.removesuffix("<|im_end|>").isdigit()
