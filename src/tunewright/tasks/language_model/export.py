"""The export case of a language model."""

from __future__ import annotations

import pyarrow as pa
import torch

from tunewright.models.core.network import Network
from tunewright.tasks.base.encoders import Encoders
from tunewright.tasks.base.export_case import HandedOn, Named, Trial
from tunewright.tasks.language_model.encoder import CausalTextEncoder

INPUTS = ["input_ids", "attention_mask"]


def export_language_model(network: Network, preprocessor: Encoders, table: pa.Table) -> Trial:
    """Return a network that reads texts, each a document of its own, padded at its end."""
    encoder = preprocessor.inputs
    assert isinstance(encoder, CausalTextEncoder)
    texts = encoder.sequences(table)

    def batch(ids: list[int]) -> Named:
        longest = max(len(texts[index]) for index in ids)
        tokens, mask = torch.zeros(2, len(ids), longest, dtype=torch.int64).unbind(0)
        for row, index in enumerate(ids):
            tokens[row, : len(texts[index])] = torch.tensor(texts[index])
            mask[row, : len(texts[index])] = 1
        return {"input_ids": tokens, "attention_mask": mask}

    return Trial(
        module=HandedOn(network, INPUTS), count=len(texts), batch=batch, target=None, tokenizer=encoder.tokenizer
    )
