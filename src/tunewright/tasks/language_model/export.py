"""The export case of a language model."""

from __future__ import annotations

import pyarrow as pa
import torch

from tunewright.models.hub.hf_network import Transformer
from tunewright.tasks.base.export_case import HandedOn, Named, Trial
from tunewright.tasks.language_model.chat_encoder import ChatEncoder
from tunewright.tasks.language_model.encoder import CausalEncoder


def export_language_model(network: Transformer, encoder: CausalEncoder | ChatEncoder, table: pa.Table) -> Trial:
    """Texts, each a document of its own, filled up at their ends."""
    if isinstance(encoder, CausalEncoder):
        texts = [ids[: encoder.limit].tolist() for ids in encoder.documents(table) if len(ids) > 1]
    else:
        examples = encoder.examples(table, None)
        texts = [list(entry.ids) for entry in examples.conversations]  # pyright: ignore[reportAttributeAccessIssue]  of conversations

    def batch(ids: list[int]) -> Named:
        longest = max(len(texts[index]) for index in ids)
        tokens, mask = torch.zeros(2, len(ids), longest, dtype=torch.int64).unbind(0)
        for row, index in enumerate(ids):
            tokens[row, : len(texts[index])] = torch.tensor(texts[index])
            mask[row, : len(texts[index])] = 1
        return {"input_ids": tokens, "attention_mask": mask}

    return Trial(
        module=HandedOn(network, ["input_ids", "attention_mask"]),
        count=len(texts),
        batch=batch,
        target=None,
        tokenizer=encoder.tokenizer,
    )
