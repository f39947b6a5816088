"""Whether a tokenizer.json can be trusted with texts: at once where it consists of well-known parts, else by a trial.

A regular expression that backtracks, replacements that double a text thirty times, or a damaged table can hang, fill the memory or
end the process, and only a trial shows it. It imports no more than it needs: a child process starts with it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

# Parts that take time and memory in proportion to the text, whatever their options.
PLAIN = {
    *("BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "StripAccents", "Strip", "Nmt", "ByteLevel"),
    *("Whitespace", "WhitespaceSplit", "BertPreTokenizer", "Metaspace", "Digits", "Punctuation", "UnicodeScripts"),
    *("BertProcessing", "RobertaProcessing", "WordPiece", "BPEDecoder", "ByteFallback", "Fuse", "CTC", "Sequence"),
}
PARTS = ("normalizers", "pretokenizers", "processors", "decoders")
MODELS = ("BPE", "WordPiece", "WordLevel")
# The regular expressions by which well-known models split a text.
_ENDS = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
KNOWN_PATTERNS = {
    "[\\s\\S]",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    # Llama 3 and GPT-4; Qwen 2
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*" + _ENDS,
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*" + _ENDS,
}
LONGEST_LIST, MOST_GROWTH, MOST_ADDED, LONGEST_WORD = 20, 16, 1_000, 1_000
# The trial's texts: characters of each, how many tokens there may be for one, and tokens that every text gets.
LENGTH, MOST_TOKENS, MOST_AROUND = 10_000, 64, 1_000
COMMON = " aA0.,-_'\n\té中🙂▁#"


def is_plain(told: Any) -> bool:
    """Return whether a tokenizer.json has none but well-known parts, so that no trial is needed."""
    if not isinstance(told, dict) or len(told.get("added_tokens") or ()) > MOST_ADDED:
        return False
    model = told.get("model")
    if not isinstance(model, dict) or model.get("type") not in MODELS:
        return False
    if not 0 <= model.get("max_input_chars_per_word", 0) <= LONGEST_WORD:
        return False
    parts = [told.get(name) for name in ("normalizer", "pre_tokenizer", "post_processor", "decoder")]
    flat = [entry for part in parts for entry in _flat(part)]
    growth = 1.0
    for entry in flat:
        growth *= _growth(entry)
    return len(flat) <= LONGEST_LIST and growth <= MOST_GROWTH


def try_tokenizer(file: str) -> None:
    """Tokenise long runs of common characters, and of those that the tokenizer itself names.

    Raises:
        ValueError: a text becomes far longer.
        Exception: whatever the library raises.
    """
    from tokenizers import Tokenizer

    tokenizer: Any = Tokenizer.from_file(file)
    told = json.loads(Path(file).read_bytes())
    around = len(tokenizer.encode("").ids) + len(tokenizer.encode("", "").ids)
    if around > MOST_AROUND:
        raise ValueError(f"it puts {around:,} tokens around a text")
    every = "".join(map(chr, [*range(1, 0xD800), *range(0xE000, 0x10000)]))
    if tokenizer.normalizer is not None and len(tokenizer.normalizer.normalize_str(every)) > 2 * len(every):
        raise ValueError("it makes ordinary characters into far more of them")
    for probe in _probes(told):
        found = len(tokenizer.encode(probe).ids)
        if found > MOST_TOKENS * len(probe) + MOST_AROUND:
            raise ValueError(f"it makes {found:,} tokens of {len(probe):,} characters")


def try_folder(folder: str) -> None:
    """Open a tokenizer that has no tokenizer.json by the Transformers library, and tokenise the same runs."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    for probe in _probes({}):
        if len(tokenizer(probe, verbose=False)["input_ids"]) > MOST_TOKENS * len(probe) + MOST_AROUND:
            raise ValueError(f"it makes too many tokens of {len(probe):,} characters")


def _probes(told: Any) -> list[str]:
    """Runs of characters, and of each short text that stands in the normalizer or the pre-tokenizer."""
    named = _strings([told.get("normalizer"), told.get("pre_tokenizer")])[:LONGEST_LIST]
    runs = [*COMMON, *dict.fromkeys("".join(named)[: 4 * LONGEST_LIST]), *(text[:LENGTH] for text in named)]
    texts = [(run * LENGTH)[:LENGTH] for run in dict.fromkeys(runs) if run]
    # A run that ends otherwise is what a pattern backtracks over; words are what a merge or a score is looked up for.
    return [*texts, *(text[:1_000] + "!x" for text in texts), "the quick brown fox; 12,345 — 你好 ½ ﷺ \u0378\n" * 200]


def _strings(value: Any) -> list[str]:
    """Return the texts in lists and objects, but for the names of kinds and the tables in base64."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [
            text
            for key, entry in value.items()
            if key not in ("type", "precompiled_charsmap")
            for text in _strings(entry)
        ]
    return [text for entry in value for text in _strings(entry)] if isinstance(value, list) else []


def _flat(part: Any) -> list[Any]:
    """Return a part, or the parts that a sequence consists of."""
    if not isinstance(part, dict):
        return [] if part is None else [part]
    inner = [entry for name in PARTS for entry in part.get(name) or ()] if part.get("type") == "Sequence" else []
    return [part, *(found for entry in inner[: LONGEST_LIST + 1] for found in _flat(entry))]


def _growth(part: Any) -> float:
    """Return how many times as long a part may make a text; infinity where that is not known."""
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in PLAIN:
        return 1
    pattern = part.get("pattern") if isinstance(part, dict) else None
    pattern = pattern if isinstance(pattern, dict) else {}
    if kind == "Replace" and isinstance(old := pattern.get("String"), str) and old:
        return max(1.0, len(part.get("content", "")) / len(old))
    if kind == "Split" and (pattern.get("Regex") in KNOWN_PATTERNS or pattern.get("String")):
        return 1
    if kind == "Prepend" and len(part.get("prepend", "")) <= LONGEST_LIST:
        return 1
    if kind == "TemplateProcessing" and len([*part.get("single", ()), *part.get("pair", ())]) <= LONGEST_LIST:
        return 1
    return float("inf")
