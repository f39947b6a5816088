"""Tokenizers that are trained here: the same file for the same texts, in any process; round trips; vocabularies."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from tunewright.data.text.tokenizer import (
    READER,
    TOKENIZERS,
    WRITER,
    build_trainer,
    measure_tokenizer,
    save_tokenizer,
    without_endless_words,
)
from tunewright.errors import DataError, RecipeError, UserError

SIZES = {"wordpiece": 180, "bpe": 420, "unigram": 125}


def sentences(count: int = 300) -> list[str]:
    """Made-up reviews, English and Chinese in turn, with many ties among the counts."""
    subjects = ["The room", "Breakfast", "Our waiter", "This book", "The screen"]
    judged = ["was very pleasant", "is too expensive", "was never clean", "works as described", "seems unfinished"]
    places = ["酒店的房间", "早餐", "服务员", "这本书", "手机屏幕"]
    opinions = ["非常舒适", "价格太贵了", "不够干净", "和描述的一样", "让人失望"]
    return [
        f"{places[i % 5]}{opinions[(i // 5) % 5]}，第{i % 7}次购买。"
        if i % 2
        else f"{subjects[i % 5]} {judged[(i // 5) % 5]}, visit {i % 11}."
        for i in range(count)
    ]


def written(name: str, folder: Path, texts: Sequence[str]) -> str:
    options = {"vocabulary": SIZES[name]} if name in SIZES else {}
    save_tokenizer(build_trainer({name: options})(texts, READER), folder, 64)
    return (folder / "tokenizer.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_same_texts_give_the_same_file_in_any_process(tmp_path: Path, name: str) -> None:
    here = written(name, tmp_path / "here", sentences())
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path\n"
        "from test_tokenizer import sentences, written\n"
        "written(sys.argv[2], Path(sys.argv[3]), sentences())"
    )
    for attempt in range(2):
        folder = tmp_path / str(attempt)
        subprocess.run([sys.executable, "-c", code, str(Path(__file__).parent), name, str(folder)], check=True)
        assert (folder / "tokenizer.json").read_text(encoding="utf-8") == here
    # Few sentences hold all of the characters, but not all of the pieces.
    assert written(name, tmp_path / "other", sentences()[: 3 if name == "characters" else -40]) != here


@pytest.mark.parametrize("name", TOKENIZERS)
def test_plain_transformers_opens_it(tmp_path: Path, name: str) -> None:
    written(name, tmp_path, sentences())
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    characters = {character for text in sentences() for character in text}
    assert len(tokenizer) == SIZES.get(name, len(characters) + 5) and tokenizer.model_max_length == 64
    assert tokenizer.convert_ids_to_tokens(list(range(5))) == list(READER.special)
    assert (tokenizer.pad_token, tokenizer.mask_token, tokenizer.unk_token) == ("[PAD]", "[MASK]", "[UNK]")
    found = tokenizer("The room", "早餐")
    assert found["input_ids"][0] == 2 and found["input_ids"][-1] == 3
    assert found["token_type_ids"][0] == 0 and found["token_type_ids"][-1] == 1
    assert tokenizer("a [MASK] b")["input_ids"].count(4) == 1


@pytest.mark.parametrize("name", ["bpe", "unigram"])
@pytest.mark.parametrize("text", ["This book works as described, visit 3.", "酒店的房间非常舒适，第3次购买。"])
def test_a_text_comes_back(tmp_path: Path, name: str, text: str) -> None:
    written(name, tmp_path, sentences())
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    back = tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True)
    assert back == (text if name == "bpe" else text.replace("，", ","))  # unigram normalises by NFKC


def test_bytes_make_any_text(tmp_path: Path) -> None:
    written("bpe", tmp_path, sentences())
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    text = "née Ω 🙂 龘"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text and tokenizer.unk_token_id not in ids


def test_wordpiece_takes_chinese_by_characters_and_lowers_case(tmp_path: Path) -> None:
    written("wordpiece", tmp_path, sentences())
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.tokenize("房间") == ["房", "间"]
    assert tokenizer.tokenize("BREAKFAST") == tokenizer.tokenize("breakfast")
    assert tokenizer.tokenize("龘") == ["[UNK]"]
    exact = build_trainer({"wordpiece": {"vocabulary": 180, "lowercase": False}})(sentences(), READER)
    assert "B" in "".join(exact.encode("Breakfast", add_special_tokens=False).tokens)


def test_rare_characters_make_room() -> None:
    texts = ["aaaa bbbb cccc"] * 9 + ["aa q"] * 2 + ["aa z"]
    tokenizer = build_trainer({"wordpiece": {"vocabulary": len(READER.special) + 6}})(texts, READER)
    assert tokenizer.encode("a b c", add_special_tokens=False).tokens == ["a", "b", "c"]
    assert tokenizer.encode("q z", add_special_tokens=False).tokens == ["[UNK]", "[UNK]"]


def test_figures_by_hand(tmp_path: Path) -> None:
    save_tokenizer(
        build_trainer({"wordpiece": {"vocabulary": len(READER.special) + 6}})(["aa bb cc"] * 5, READER), tmp_path, 64
    )
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    facts = measure_tokenizer(tokenizer, ["a b", "é q", "房"], len(tokenizer))
    assert facts.longest[0] == "[UNK]" and set(facts.longest[1:]) == {"a", "b"}
    # "é" loses its accent and becomes e, which is unknown, as q and 房: 3 + 4 + 3 bytes, 5 tokens, 3 unknown.
    assert (facts.vocabulary, facts.texts) == (11, 3)
    assert facts.bytes_per_token == pytest.approx(10 / 5) and facts.unknown_rate == pytest.approx(3 / 5)


@pytest.mark.parametrize(
    ("named", "error", "said"),
    [
        ({"wordpiece": {"vocabulary": 5000}}, DataError, "do not give so large a vocabulary"),
        ({"bpe": {"vocabulary": 5000}}, DataError, "do not give so large a vocabulary"),
        ({"bpe": {"vocabulary": 200}}, RecipeError, "the 256 bytes"),
        ({"unigram": {"vocabulary": 20}}, RecipeError, "every character"),
        ({"wordpiece": {"vocabulary": 3}}, RecipeError, "greater than 5"),
        ({"wordpeace": {}}, RecipeError, "did you mean wordpiece"),
        ({"bpe": {"lowercase": True}}, RecipeError, "no such option"),
    ],
    ids=str,
)
def test_what_cannot_be_trained(named: dict[str, dict[str, object]], error: type[UserError], said: str) -> None:
    with pytest.raises(error, match=said) as caught:
        build_trainer(named)(sentences(), READER)
    assert caught.value.fix and caught.value.found


def test_the_size_that_the_error_names_can_be_had() -> None:
    with pytest.raises(DataError) as caught:
        build_trainer({"wordpiece": {"vocabulary": 5000}})(sentences(), READER)
    size = int(str(caught.value.found).split()[0].replace(",", ""))
    assert build_trainer({"wordpiece": {"vocabulary": size}})(sentences(), READER).get_vocab_size() == size


def test_the_order_of_a_unigram_model_does_not_depend_on_chance() -> None:
    tokenizer = build_trainer({"unigram": {"vocabulary": 125}})(sentences(), READER)
    pieces = json.loads(tokenizer.to_str())["model"]["vocab"][len(READER.special) :]
    assert pieces == sorted(pieces, key=lambda entry: (-entry[1], entry[0]))


def test_a_writer_begins_and_ends_texts_and_knows_turns(tmp_path: Path) -> None:
    save_tokenizer(build_trainer("bpe")(sentences(), WRITER), tmp_path, 64, WRITER)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.convert_ids_to_tokens(list(range(5))) == list(WRITER.special)
    assert tokenizer.bos_token == tokenizer.eos_token == "<|endoftext|>"
    assert "token_type_ids" not in tokenizer("The room")
    # No number was asked for, so there are as many pieces as the texts give.
    assert 261 < len(tokenizer) < 8000
    text = "The room was never clean.\n  酒店"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_characters_come_back_and_others_are_unknown(tmp_path: Path) -> None:
    save_tokenizer(build_trainer("characters")(["ab c\n", "海"], WRITER), tmp_path, 64, WRITER)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.decode(tokenizer("c b\na海")["input_ids"]) == "c b\na海"
    assert tokenizer("axb")["input_ids"][1] == tokenizer.unk_token_id


def test_endless_words_are_cut_before_training_and_nothing_else_is() -> None:
    honest = "to be, or not to be " * 200 + "-" * 900 + "\n" * 900
    assert list(without_endless_words(honest)) == [honest]
    endless = "a" * 2_500 + " b " + "\u0301" * 1_000
    parts = list(without_endless_words(endless))
    assert "".join(parts) == endless and max(map(len, parts)) <= 1_503 and len(parts) == 3
