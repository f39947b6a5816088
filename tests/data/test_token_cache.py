"""Tokens on disk: the same as in memory, kept, mended where they are damaged, read without being in memory."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tunewright.data.batches.packing import PackedExamples, pack
from tunewright.data.batches.sampler import Batches
from tunewright.data.prepare.prepare import prepare
from tunewright.data.prepared import Prepared
from tunewright.data.text.token_cache import token_file
from tunewright.data.text.tokenizer import WRITER, bpe, save_tokenizer
from tunewright.errors import DataError
from tunewright.recipe.schema import Data
from tunewright.tasks.language_model.encoder import CausalEncoder, token_ids
from tunewright.tasks.text.encoder import load_tokenizer


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


WORDS = [f"{a}{b}" for a in ("ban", "den", "for", "gut") for b in ("ing", "ed", "able", "", "ness", "er")]


def made(seed: int) -> str:
    draw = np.random.default_rng(seed)
    return " ".join(WORDS[n] for n in draw.integers(0, len(WORDS), int(draw.integers(0, 40))))


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    path = tmp_path / "texts.jsonl"
    path.write_text("\n".join(json.dumps({"text": made(n) or None}) for n in range(5000)))
    data = Data(source=str(path), labelled=False, input=["text"])
    return prepare(data, seed=0, target_kind=None, base=tmp_path)


@pytest.fixture
def encoder(tmp_path: Path) -> CausalEncoder:
    tokenizer = bpe(vocabulary=300)([made(n) for n in range(50)], WRITER)
    save_tokenizer(tokenizer, tmp_path / "tokenizer", 64, WRITER)
    return CausalEncoder(columns=["text"], max_length=32, limit=64, tokenizer=load_tokenizer(tmp_path / "tokenizer"))


def test_they_are_those_in_memory(prepared: Prepared, encoder: CausalEncoder) -> None:
    stored, whole = encoder.split(prepared, "train", None), encoder.examples(prepared.table("train"), None)
    assert isinstance(stored.tokens, np.memmap) and stored.tokens.dtype == np.uint16
    assert np.array_equal(stored.tokens, whole.tokens) and np.array_equal(stored.starts, whole.starts)
    assert torch.equal(stored.documents, whole.documents) and torch.equal(stored.rows, whole.rows)
    ids = torch.tensor([0, 5, len(stored) - 1])
    for epoch in (None, 3):
        one, other = stored.batch(ids, epoch), whole.batch(ids, epoch)
        assert all(torch.equal(value, other.named[name]) for name, value in one.named.items())


def test_tokens_are_the_librarys(encoder: CausalEncoder) -> None:
    texts = [made(n) for n in range(1200)]
    expected = encoder.tokenizer(texts, add_special_tokens=False)["input_ids"]
    assert list(token_ids(encoder.tokenizer, texts)) == expected


def test_they_are_kept_and_mended(prepared: Prepared, encoder: CausalEncoder, cache: Path) -> None:
    expected = np.array(encoder.split(prepared, "train", None).tokens)
    (folder,) = (cache / "tokens").iterdir()
    before = (folder / "tokens.bin").stat().st_mtime_ns
    encoder.split(prepared, "train", None)
    assert (folder / "tokens.bin").stat().st_mtime_ns == before
    damaged = bytearray((folder / "tokens.bin").read_bytes())
    damaged[100] ^= 1
    (folder / "tokens.bin").write_bytes(damaged)
    assert np.array_equal(encoder.split(prepared, "train", None).tokens, expected)
    (folder / "index.json").unlink()  # as after a kill
    assert np.array_equal(encoder.split(prepared, "train", None).tokens, expected)
    assert [entry.name for entry in (cache / "tokens").iterdir()] == [folder.name]


def test_many_pieces_take_four_bytes_and_nothing_is_no_text(prepared: Prepared, encoder: CausalEncoder) -> None:
    tokens = np.array([70_000, 3])
    found = token_file("many", [([tokens], np.array([1]))], pieces=70_001)
    assert found.tokens.dtype == np.uint32 and found.tokens.tolist() == tokens.tolist()
    empty = token_file("none", [([np.empty(0, np.int32)], np.array([1]))], pieces=9)
    assert (len(empty.tokens), empty.starts.tolist(), len(empty.rows)) == (0, [0], 0)


def test_texts_without_a_token_are_no_texts(tmp_path: Path, encoder: CausalEncoder) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_text("\n".join(json.dumps({"text": None, "other": "x"}) for _ in range(40)))
    data = Data(source=str(path), labelled=False)
    with pytest.raises(DataError, match="no text"):
        encoder.split(prepare(data, seed=0, target_kind=None, base=tmp_path), "train", None)


def seen(examples: PackedExamples, stop: int, start: int = 0) -> list[Tensor]:
    batches = Batches(examples=examples, batch_size=4, seed=1)
    steps = batches.steps(1, start=start)
    return [next(steps)[0].named["input_ids"] for _ in range(stop - start)]


def test_going_on_shows_no_row_twice_and_leaves_none_out(prepared: Prepared, encoder: CausalEncoder) -> None:
    """An epoch in one go, and one that was stopped after seven steps: the same batches; together every token once."""
    examples = encoder.split(prepared, "valid", None)
    count = Batches(examples=examples, batch_size=4, seed=1).steps_per_epoch
    whole = seen(examples, count)
    again = seen(examples, 7) + seen(encoder.split(prepared, "valid", None), count, start=7)
    assert all(torch.equal(one, other) for one, other in zip(whole, again, strict=True))
    rows = torch.cat(
        [batch.ids for step in Batches(examples=examples, batch_size=4, seed=1).steps(1) for batch in step]
    )
    assert sorted(rows.tolist()) == list(range(len(examples)))
    assert len(examples) == -(-len(examples.tokens) // 33)


def test_pieces_and_choices_are_the_tables_rows(prepared: Prepared) -> None:
    table = prepared.table("train")
    assert sum(piece.num_rows for piece in prepared.pieces("train", rows=700)) == table.num_rows
    places = np.array([0, 3, 1999, 2000, 3999])
    assert prepared.chosen("train", places).equals(table.take(places).combine_chunks())


def test_packing_in_memory_is_the_same_form() -> None:
    found = pack([np.array([1, 2]), np.array([], np.int32), np.array([3])], torch.tensor([1, 2, 3]), 4)
    assert found.documents.tolist() == [1, 3] and found.starts.tolist() == [0, 2, 3]
