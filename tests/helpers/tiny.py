"""Make a tiny pretrained BERT in the format of Transformers, its tokenizer, and texts that it can learn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

WORDS = [
    "the",
    "a",
    "film",
    "book",
    "room",
    "was",
    "is",
    "very",
    "quite",
    "not",
    "good",
    "bad",
    "fine",
    "poor",
    "warm",
    "cold",
    "great",
    "awful",
    "nice",
    "dull",
    "plot",
    "food",
]
GOOD = {"good", "fine", "warm", "great", "nice"}
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def tiny_bert(folder: Path, *, layers: int = 3, seed: int = 0, **config: Any) -> Path:
    """Save a BERT with random weights and the tokenizer of WORDS; return the folder."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)
    given = {
        "vocab_size": len(SPECIAL) + len(WORDS),
        "hidden_size": 32,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
        **config,
    }
    BertModel(BertConfig(**given)).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def tiny_tokenizer() -> Any:
    """Return a word tokenizer with the vocabulary SPECIAL and WORDS."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    known = {word: index for index, word in enumerate([*SPECIAL, *WORDS])}
    tokenizer = Tokenizer(models.WordPiece(known, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **names)


def texts(path: Path, count: int = 120) -> Path:
    """Write random reviews as JSON lines, labelled good where good words outnumber bad ones; return the file."""
    import numpy as np

    draw = np.random.default_rng(0)
    lines: list[str] = []
    for _ in range(count):
        words = [str(draw.choice(WORDS)) for _ in range(int(draw.integers(3, 12)))]
        good = sum((word in GOOD) - (word in {"bad", "poor", "cold", "awful", "dull"}) for word in words)
        lines.append(json.dumps({"text": " ".join(words), "label": "good" if good > 0 else "bad"}))
    path.write_text("\n".join(lines) + "\n")
    return path
