"""Whisper: an encoder that hears, and a decoder that writes one token after the other (Radford et al. 2023).

The Transformers library's network, new and small on letters of ours, or with pretrained weights and its own tokenizer.
Shapes: B recordings, T moments of 10 ms, M bands, L tokens, V tokens to choose from.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from tunewright.models.core.network import Block
from tunewright.models.speech.base import Recogniser, present
from tunewright.random import mix
from tunewright.recipe.schema import LayerCount

Positive = Annotated[int, Field(gt=0)]
# Silence is so far below the loudest, in units of the features.
FLOOR = 2.0


class Whisper(Recogniser):
    """The network of a description, whose "config" is the library's; "start" are the tokens that each text begins with, "end" the
    one that ends it; only tokens below "words", and the end, are written."""

    def __init__(self, described: dict[str, Any], seed: int) -> None:
        super().__init__(described)
        from transformers import WhisperConfig, WhisperModel

        quiet: dict[str, Any] = {"apply_spec_augment": False, "encoder_layerdrop": 0.0, "decoder_layerdrop": 0.0}
        config = WhisperConfig(**{**self.facts["config"], **quiet})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mix(seed, "body"))
            self.body: Any = WhisperModel(config)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """{"features": [B, T, M], "lengths": [B], "tokens": [B, L]} to logits [B, L, V] of the token that follows each."""
        return self.following(inputs["tokens"], self.heard(inputs))

    def following(self, tokens: Tensor, heard: Tensor) -> Tensor:
        """[B, L, V]: the logits of the token that follows each of [B, L], with what was heard [B, S, D]."""
        return self._logits(self._written(tokens, heard))

    def heard(self, inputs: dict[str, Tensor]) -> Tensor:
        """[B, S, D]: what the encoder makes of the recordings, each followed by silence up to the length that it always reads."""
        features, lengths = inputs["features"], inputs["lengths"]
        longest = 2 * self.body.config.max_source_positions
        there = present(lengths, features.shape[1])
        loudest = features.masked_fill(~there[..., None], -torch.inf).amax((1, 2))
        silent = (loudest - FLOOR)[:, None, None]
        x = torch.where(there[..., None], features, silent)[:, :longest]
        x = torch.cat([x, silent.expand(len(x), longest - x.shape[1], x.shape[2])], 1)
        return self.body.encoder(x.transpose(1, 2)).last_hidden_state

    def _written(self, tokens: Tensor, heard: Tensor, cache: Any = None) -> Tensor:
        found = self.body.decoder(
            input_ids=tokens, encoder_hidden_states=heard, cache=cache, use_cache=cache is not None
        )
        return found.last_hidden_state

    def _logits(self, states: Tensor) -> Tensor:
        """[..., D] to [..., V]: the output matrix is the embedding's."""
        return (states @ self.body.decoder.embed_tokens.weight.T).float()

    def dictate(self, inputs: dict[str, Tensor], most: int) -> list[list[int]]:
        """The tokens of each recording: the likeliest each time, until the end or `most` of them."""
        from transformers import DynamicCache, EncoderDecoderCache

        heard = self.heard(inputs)
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        tokens = torch.tensor(self.facts["start"], device=heard.device).expand(len(heard), -1)
        end = self.facts["end"]
        written: list[Tensor] = []
        ended = torch.zeros(len(heard), dtype=torch.bool, device=heard.device)
        most = min(most, self.body.config.max_target_positions - tokens.shape[1])
        for _ in range(most):
            logits = self._logits(self._written(tokens, heard, cache)[:, -1])
            last = logits[:, end].clone()
            logits[:, self.facts["words"] :] = -torch.inf
            logits[:, end] = last
            best = logits.argmax(-1).masked_fill(ended, end)
            ended |= best == end
            if ended.all():
                break
            written.append(best)
            tokens = best[:, None]
        rows = torch.stack(written, 1).tolist() if written else [[] for _ in range(len(heard))]
        return [row[: row.index(end)] if end in row else row for row in rows]

    def moments(self, lengths: Tensor) -> Tensor:
        return (lengths + 1) // 2

    def blocks(self) -> list[Block]:
        encoder, decoder = self.body.encoder, self.body.decoder
        found: list[Block] = []
        for part, role, name in ((encoder, "backbone", "encoder"), (decoder, "head", "decoder")):
            at = f"body.{name}."
            named = [
                (child, module, f"{at}{child}.")
                for child, module in part.named_children()
                if child not in ("layers", "layer_norm")
            ]
            named += [(str(place + 1), layer, f"{at}layers.{place}.") for place, layer in enumerate(part.layers)]
            named.append(("norm", part.layer_norm, f"{at}layer_norm."))
            found += [
                Block(f"{name}_{child}", module, "backbone" if role == "backbone" else "head", prefix)
                for child, module, prefix in named
                if next(module.parameters(), None) is not None
            ]
        return found

    def example(self) -> dict[str, Tensor]:
        tokens = torch.tensor([self.facts["start"]], device=next(self.parameters()).device)
        return {**super().example(), "tokens": tokens}

    def read_weights(self, folder: Path) -> None:
        """Take the weights from a folder of the library's, which was checked."""
        from transformers import WhisperModel

        body = WhisperModel.from_pretrained(
            os.fspath(folder), config=self.body.config, local_files_only=True, use_safetensors=True
        )
        self.body.load_state_dict(body.state_dict())


def whisper(
    *,
    layers: LayerCount = 3,
    width: Positive = 192,
    heads: Positive = 4,
    seconds: Annotated[int, Field(gt=0, le=30)] = 10,
) -> dict[str, Any]:
    """The options of a new one, which writes letters: `layers` of each side, and the longest recording in seconds."""
    config = {
        "model_type": "whisper",
        "encoder_layers": layers,
        "decoder_layers": layers,
        "d_model": width,
        "encoder_attention_heads": heads,
        "decoder_attention_heads": heads,
        "encoder_ffn_dim": 4 * width,
        "decoder_ffn_dim": 4 * width,
        "max_source_positions": 50 * seconds,
        "max_target_positions": 40 * seconds,
        "dropout": 0.1,
    }
    return {"reads": "whisper", "moment": 2, "config": config}
