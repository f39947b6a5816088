"""Explain the next token by the text before it."""

from __future__ import annotations

import pyarrow as pa
import torch

from tunewright.errors import DataError
from tunewright.models.core.network import Network
from tunewright.models.hub.hf_network import Transformer
from tunewright.tasks.base.encoders import Encoders
from tunewright.tasks.base.explain import Question
from tunewright.tasks.language_model.encoder import CausalEncoder
from tunewright.tasks.text.explain import token_question


def explain_next_token(network: Network, preprocessor: Encoders, table: pa.Table, wanted: str | None) -> Question:
    encoder = preprocessor.inputs
    assert isinstance(encoder, CausalEncoder) and isinstance(network, Transformer)
    text = encoder.texts(table, encoder.column)[0]
    ids = [*encoder.begin, *encoder.tokenizer(text, add_special_tokens=False)["input_ids"]][-encoder.max_length :]
    if len(ids) < 2:
        raise DataError(
            "there is no text to explain", found=text, fix="give the text that the model is to write on from"
        )
    inputs = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.int64)}
    with torch.inference_mode():
        chances = network(inputs)[0, -1].log_softmax(0)
    likely = int(chances.argmax())
    if wanted is not None:
        pieces = encoder.tokenizer(wanted, add_special_tokens=False)["input_ids"]
        likely = pieces[0] if pieces else likely
    # Why this token and not the next best one? What both need, such as the end of a word, has no part in that (Yin and Neubig
    # 2022, section 2).
    best = chances.topk(2).indices.tolist()
    other = best[0] if best[0] != likely else best[1]
    name, instead = (encoder.tokenizer.decode([token]) for token in (likely, other))
    there = torch.ones(len(ids), dtype=torch.bool)
    there[: len(encoder.begin)] = False
    sure, unsure = (f"{float(chances[token].exp()):.1%}" for token in (likely, other))
    said = ["{} comes next, {}; {}, {}", repr(name), sure, repr(instead), unsure]
    what = ["log p of {} less that of {} as the next token", repr(name), repr(instead)]
    return token_question(
        network, encoder.tokenizer, inputs, there, lambda found: found[:, -1, likely] - found[:, -1, other], said, what
    )
