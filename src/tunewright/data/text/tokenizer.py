"""Train a tokenizer on the texts of a training split; the same texts give the same file.

The library's trainers count in hash tables whose order changes from run to run, and where counts are equal that order
decides. So what depends on it is fixed here: the alphabet is chosen before the training, and the result is put in order.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field
from tokenizers import (
    Regex,
    Tokenizer,
    __version__,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from tunewright.cached import cached_folder
from tunewright.data.prepared import Prepared
from tunewright.errors import DataError, RecipeError
from tunewright.files import cache_dir, write_json
from tunewright.recipe.named import check_options, choose, parse_named
from tunewright.recipe.schema import Named

# A piece that a trainer makes by joining others must be seen so often.
LEAST = 2
# A tokenizer is trained on so many bytes of text at most: more hardly changes it.
MOST_BYTES = 2**27
# A thousand letters and digits, other signs or spaces one after the other.
RUN = 1000
ENDLESS = re.compile(r"\w{1000}|[^\w\s]{1000}|\s{1000}")
# Whether there is such a run, asked only where one can begin: that takes time in proportion to the text.
HAS_ENDLESS = re.compile(r"(?<!\w)\w{1000}|(?<![^\w\s])[^\w\s]{1000}|(?<!\s)\s{1000}")
# So many of the longest tokens are named.
LONGEST = 5
# A tokenizer is measured on so many texts at most.
MEASURED = 2_000
# Raised when the way tokenizers are trained changes, so that no run uses what an older version trained.
VERSION = 3
PLACE = "model.tokenizer"


@dataclass(frozen=True, kw_only=True)
class Style:
    """What a tokenizer has besides the pieces of its texts: its first ids."""

    special: tuple[str, ...]
    roles: dict[str, str]
    """The special tokens by what the library calls them."""
    around: str
    """How a text is written: what stands before and behind it, as in tokenizers' templates."""
    pair: str
    inputs: tuple[str, ...]
    """What the tokenizer gives for a text."""


# BERT's five (Devlin et al. 2019, section 3): padding, unknown, first, separator, hidden.
READER = Style(
    special=("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    roles={
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    },
    around="[CLS] $A [SEP]",
    pair="[CLS] $A [SEP] $B:1 [SEP]:1",
    inputs=("input_ids", "token_type_ids", "attention_mask"),
)
# A language model's: where a text begins and ends (Radford et al. 2019), and the turns of a conversation for later.
WRITER = Style(
    special=("<|endoftext|>", "<|unknown|>", "<|padding|>", "<|im_start|>", "<|im_end|>"),
    roles={
        "bos_token": "<|endoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|unknown|>",
        "pad_token": "<|padding|>",
    },
    around="$A",
    pair="$A $B",
    inputs=("input_ids", "attention_mask"),
)
SPECIALS = 5
UNKNOWN = 1
# Pieces of a tokenizer at most, where the recipe gives no number.
USUAL_VOCABULARY = 8000

Size = Annotated[int, Field(gt=SPECIALS, le=1_000_000, strict=True)]
# Texts and a style to a tokenizer; called again and again.
Trainer = Callable[[Sequence[str], Style], Tokenizer]


@dataclass(frozen=True, kw_only=True)
class TokenizerFacts:
    """What a tokenizer makes of texts that it was not trained on."""

    vocabulary: int
    """Pieces that it knows, special ones included."""
    bytes_per_token: float
    """UTF-8 bytes of the texts for each token, special ones not counted: more is shorter."""
    unknown_rate: float
    """The share of the tokens that are unknown tokens."""
    texts: int
    """How many texts were measured."""
    longest: list[str]
    """The longest tokens in these texts: odd ones show what the tokenizer was trained on."""


def wordpiece(*, vocabulary: Size | None = None, lowercase: bool = True) -> Trainer:
    """Words cut into pieces, `##` before all but the first; each Chinese character is a word (Devlin et al. 2019).

    Characters that are too rare for the vocabulary become [UNK].
    """

    size = vocabulary or USUAL_VOCABULARY

    def train(texts: Sequence[str], style: Style) -> Tokenizer:
        tokenizer = Tokenizer(models.WordPiece(unk_token=style.special[UNKNOWN]))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        first, continuing = _alphabet(tokenizer, texts, size - SPECIALS)
        inside = sorted(f"##{character}" for character in continuing)
        tokenizer.train_from_iterator(
            texts,
            trainers.WordPieceTrainer(
                vocab_size=size,
                min_frequency=LEAST,
                special_tokens=[*style.special, *inside],  # listed first, so that their ids are fixed
                initial_alphabet=first,
                limit_alphabet=len(first),
                show_progress=False,
            ),
        )
        known = tokenizer.get_vocab()
        fresh = Tokenizer(models.WordPiece(known, unk_token=style.special[UNKNOWN]))
        fresh.normalizer, fresh.pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
        fresh.decoder = decoders.WordPiece()
        return _finished(fresh, vocabulary, style)

    return train


def bpe(*, vocabulary: Size | None = None) -> Trainer:
    """Byte-level byte-pair encoding: pairs of bytes that come often are joined (Radford et al. 2019, section 2.2).

    Every text can be written with it, so nothing is unknown, and the text comes back exactly. Each digit is a piece of its
    own, so that numbers are read place by place (Touvron et al. 2023, section 2.1).
    """

    size = vocabulary or USUAL_VOCABULARY

    def train(texts: Sequence[str], style: Style) -> Tokenizer:
        if size < (least := 256 + SPECIALS):
            raise _too_small(size, least, "the 256 bytes and the special tokens")
        tokenizer = Tokenizer(models.BPE())
        digits, words = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.train_from_iterator(
            texts,
            trainers.BpeTrainer(
                vocab_size=size,
                min_frequency=LEAST,
                special_tokens=list(style.special),
                initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
                show_progress=False,
            ),
        )
        return _finished(tokenizer, vocabulary, style)

    return train


def unigram(*, vocabulary: Size | None = None) -> Trainer:
    """Return the pieces under which the texts are likeliest, each drawn by itself (Kudo 2018, section 3.2)."""

    size = vocabulary or USUAL_VOCABULARY

    def train(texts: Sequence[str], style: Style) -> Tokenizer:
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.normalizer = normalizers.NFKC()
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=size,
            special_tokens=list(style.special),
            unk_token=style.special[UNKNOWN],
            show_progress=False,
        )
        # Each character must be a piece, and the space's mark.
        characters = {"▁", *(c for text in texts for c in tokenizer.normalizer.normalize_str(text) if c != " ")}
        if size < (least := len(characters) + SPECIALS):
            raise _too_small(size, least, "every character of the training texts")
        tokenizer.train_from_iterator(texts, trainer)
        fresh = Tokenizer(models.Unigram(_in_order(json.loads(tokenizer.to_str())["model"]["vocab"]), unk_id=UNKNOWN))
        fresh.normalizer, fresh.pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
        fresh.decoder = decoders.Metaspace()
        return _finished(fresh, vocabulary, style)

    return train


def characters() -> Trainer:
    """Return a tokenizer in which each character of the training texts is a piece; any other is unknown."""

    def train(texts: Sequence[str], style: Style) -> Tokenizer:
        known = sorted({character for text in texts for character in text})
        pieces = {piece: number for number, piece in enumerate([*style.special, *known])}
        tokenizer = Tokenizer(models.WordLevel(pieces, unk_token=style.special[UNKNOWN]))
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("[\\s\\S]"), "isolated")
        tokenizer.decoder = decoders.Fuse()
        return _finished(tokenizer, None, style)

    return train


TOKENIZERS: dict[str, Callable[..., Trainer]] = {
    "wordpiece": wordpiece,
    "bpe": bpe,
    "unigram": unigram,
    "characters": characters,
}


def build_trainer(named: Named) -> Trainer:
    """Build the trainer that the recipe names at model.tokenizer.

    Raises:
        RecipeError: no such tokenizer or option.
    """
    name, options = parse_named(named, PLACE)
    function = choose(TOKENIZERS, name, PLACE)
    return function(**check_options(function, options, f"{PLACE}.{name}"))


def trained_tokenizer(
    prepared: Prepared, columns: list[str], named: Named, longest: int, style: Style = READER
) -> Path:
    """Return a folder with a tokenizer trained on the training split's texts; at once when it was trained before.

    Args:
        columns: the text columns.
        longest: tokens that the network reads at most.
        style: which special tokens it gets.

    Returns:
        The folder: tokenizer.json and tokenizer_config.json, which Transformers opens.

    Raises:
        RecipeError: no such tokenizer, or a vocabulary that is too small for it.
        DataError: the texts give fewer pieces than the vocabulary has room for.
    """
    train = build_trainer(named)
    facts = [VERSION, __version__, prepared.manifest.fingerprint, columns, named, longest, style.special]
    key = hashlib.sha256(json.dumps(facts, ensure_ascii=False).encode()).hexdigest()[:32]

    def make(folder: Path) -> None:
        save_tokenizer(train(_first_texts(prepared, columns), style), folder, longest, style)

    return cached_folder(cache_dir() / "tokenizers" / key, make)


def is_trained_here(tokenizer: Any) -> bool:
    """Return whether an opened tokenizer is one that `trained_tokenizer` made, rather than one that came with a model."""
    return Path(tokenizer.name_or_path).parent == cache_dir() / "tokenizers"


def as_texts(column: pa.ChunkedArray) -> list[str]:
    """Return the texts of a column, empty where one is missing; words in lists are joined by a space."""
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        return [" ".join(word or "" for word in words or []) for words in column.to_pylist()]
    return pc.fill_null(column.cast(pa.string()), "").to_pylist()


def _first_texts(prepared: Prepared, columns: list[str]) -> list[str]:
    """Return the training texts, one column behind the other; of very many the first so many bytes."""
    found: dict[str, list[str]] = {name: [] for name in columns}
    size = 0
    for table in prepared.pieces("train", columns):
        for name, texts in found.items():
            texts += [text for text in as_texts(table[name]) if text]
        if (size := size + table.nbytes) > MOST_BYTES:
            break
    return [part for texts in found.values() for text in texts for part in without_endless_words(text)]


def has_endless_words(text: str) -> bool:
    """Return whether a text has a run of a thousand letters, signs or spaces; of ordinary texts it is seen at once that it has
    none."""
    if len(text) < RUN:
        return False
    longest = max(map(len, text.split()), default=len(text))
    return (longest >= RUN or " " * RUN in text or "\n" * RUN in text) and HAS_ENDLESS.search(text) is not None


def without_endless_words(text: str) -> Iterator[str]:
    """Cut a text inside runs of one kind of character that no language has as a word; any other text comes as it is.

    A tokenizer learns in time that grows with the square of a word's length, and takes hundreds of bytes for a token.
    """
    if not has_endless_words(text):
        yield text
        return
    begin = 0
    for run in ENDLESS.finditer(text):
        yield text[begin : run.end()]
        begin = run.end()
    if begin < len(text):
        yield text[begin:]


def save_tokenizer(tokenizer: Tokenizer, folder: Path, longest: int, style: Style = READER) -> None:
    """Write it in the Hugging Face format; the file that makes the folder whole comes last."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": longest,
        "model_input_names": list(style.inputs),
        "clean_up_tokenization_spaces": False,
        **style.roles,
    }
    write_json(folder / "tokenizer_config.json", settings)


def measure_tokenizer(tokenizer: Any, texts: Iterable[str], vocabulary: int) -> TokenizerFacts:
    """Return how a tokenizer does on texts.

    Args:
        tokenizer: one of the Transformers library.
        vocabulary: how many pieces it knows.
    """
    texts = list(texts)
    found = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"] if texts else []
    tokens = sum(map(len, found))
    unknown = sum(ids.count(tokenizer.unk_token_id) for ids in found)
    seen = sorted(
        {tokenizer.decode([token]) for ids in found for token in set(ids)}, key=lambda text: (-len(text), text)
    )
    return TokenizerFacts(
        vocabulary=vocabulary,
        bytes_per_token=sum(len(text.encode()) for text in texts) / max(1, tokens),
        unknown_rate=unknown / max(1, tokens),
        texts=len(texts),
        longest=seen[:LONGEST],
    )


def _alphabet(tokenizer: Tokenizer, texts: Sequence[str], room: int) -> tuple[list[str], list[str]]:
    """Return the characters that get a piece, the commonest first, as many as there is room for; and those of them that stand
    inside words."""
    words: Counter[str] = Counter()
    for text in texts:
        normal = tokenizer.normalizer.normalize_str(text)
        words.update(word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal))
    counts: Counter[str] = Counter()
    inside: set[str] = set()
    for word, count in words.items():
        for character in word:
            counts[character] += count
        inside.update(word[1:])
    chosen: list[str] = []
    for character in sorted(counts, key=lambda c: (-counts[c], c)):
        needed = 2 if character in inside else 1
        if needed > room:
            break
        chosen.append(character)
        room -= needed
    return chosen, [character for character in chosen if character in inside]


def _in_order(pieces: list[list[Any]]) -> list[tuple[str, float]]:
    """Return a unigram model's pieces, likeliest first, with what depends on chance taken out.

    Sums of the same numbers in another order differ in the last digits: they are rounded. Characters that the training
    let go of are put back with log-probabilities a ten-thousandth apart, from the lowest of all on, in any order: all
    characters in that range get the lowest.
    """
    special, learned = pieces[:SPECIALS], pieces[SPECIALS:]
    lowest = min((score for _, score in learned), default=0.0)
    singles = sum(len(piece) == 1 for piece, _ in learned)
    reach = lowest + 1e-4 * singles

    def score(piece: str, value: float) -> float:
        return round(lowest if len(piece) == 1 and value <= reach else value, 6)

    scored = [(piece, score(piece, value)) for piece, value in learned]
    return [(piece, 0.0) for piece, _ in special] + sorted(scored, key=lambda entry: (-entry[1], entry[0]))


def _finished(tokenizer: Tokenizer, vocabulary: int | None, style: Style) -> Tokenizer:
    """With the style's special tokens around texts and pairs of texts.

    Args:
        vocabulary: what was asked for; None: as many as there are.

    Raises:
        DataError: there are fewer pieces than were asked for.
    """
    found = tokenizer.get_vocab_size()
    if vocabulary is not None and found < vocabulary:
        raise DataError(
            "the training texts do not give so large a vocabulary",
            place=f"{PLACE}: vocabulary",
            found=f"{found:,} pieces that come at least {LEAST} times",
            expected=f"{vocabulary:,} pieces",
            fix=f"write vocabulary: {found}, or give more texts",
        )
    tokenizer.add_special_tokens(list(style.special))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=style.around,
        pair=style.pair,
        special_tokens=[(name, number) for number, name in enumerate(style.special) if name in style.around],
    )
    return tokenizer


def _too_small(vocabulary: int, least: int, what: str) -> RecipeError:
    return RecipeError(
        "the vocabulary is too small",
        place=f"{PLACE}: vocabulary",
        found=f"{vocabulary:,}",
        expected=f"at least {least:,}: {what}",
        fix=f"write a larger vocabulary, or model.tokenizer: {{bpe: {{vocabulary: {max(vocabulary, 300)}}}}}",
    )
