"""Build Whisper: an audio encoder, and a decoder that generates one token after another (Radford et al. 2023).

The network is the Transformers library's: new and small on our characters, or with pretrained weights and its own tokenizer.
Inputs are frames of 10 ms.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from tunewright.models.core.network import Block
from tunewright.models.core.spec import Facts
from tunewright.models.speech.base import Lengths, Recogniser, Recordings, SpeechSpec, present
from tunewright.random import mix
from tunewright.recipe.schema import LayerCount

Positive = Annotated[int, Field(gt=0)]
# How far silence is below the loudest frame, in units of the features.
FLOOR = 2.0

Tokens = Int[Tensor, "batch tokens"]
States = Float[Tensor, "batch steps features"]
"""The encoder's output."""


class Whisper(Recogniser):
    """Build Whisper from its spec.

    Its "config" is the library's. "start" are the tokens that each text begins with, "end" the token that ends it; only tokens
    below "words", and the end, are generated.
    """

    def __init__(self, spec: SpeechSpec, seed: int) -> None:
        super().__init__(spec)
        from transformers import WhisperConfig, WhisperModel

        quiet: Facts = {"apply_spec_augment": False, "encoder_layerdrop": 0.0, "decoder_layerdrop": 0.0}
        config = WhisperConfig(**{**self.facts["config"], **quiet})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mix(seed, "body"))
            self.body: Any = WhisperModel(config)

    def forward(self, inputs: Recordings) -> Float[Tensor, "batch tokens vocab"]:
        """Compute the logits of the token after each of inputs["tokens"], [batch, tokens]."""
        return self.following(inputs["tokens"], self.heard(inputs))

    def following(self, tokens: Tokens, heard: States) -> Float[Tensor, "batch tokens vocab"]:
        """Compute the logits of the token after each given token, from the encoder's output."""
        return self._logits(self._decode(tokens, heard))

    def heard(self, inputs: Recordings) -> States:
        """Encode the recordings, each padded with silence to the encoder's fixed length."""
        features, lengths = inputs["features"], inputs["lengths"]
        longest = 2 * self.body.config.max_source_positions
        there = present(lengths, features.shape[1])
        loudest = features.masked_fill(~there[..., None], -torch.inf).amax((1, 2))
        silent = (loudest - FLOOR)[:, None, None]
        x = torch.where(there[..., None], features, silent)[:, :longest]
        x = torch.cat([x, silent.expand(len(x), longest - x.shape[1], x.shape[2])], 1)
        return self.body.encoder(x.transpose(1, 2)).last_hidden_state

    def _decode(self, tokens: Tokens, heard: States, cache: object = None) -> Float[Tensor, "batch tokens features"]:
        found = self.body.decoder(
            input_ids=tokens, encoder_hidden_states=heard, cache=cache, use_cache=cache is not None
        )
        return found.last_hidden_state

    def _logits(self, states: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch vocab"]:
        """Compute logits; the output matrix is the embedding's."""
        return (states @ self.body.decoder.embed_tokens.weight.T).float()

    def dictate(self, inputs: Recordings, most: int) -> list[list[int]]:
        """Decode each recording greedily, until the end token or `most` tokens."""
        from transformers import DynamicCache, EncoderDecoderCache

        heard = self.heard(inputs)
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        tokens = torch.tensor(self.facts["start"], device=heard.device).expand(len(heard), -1)
        end = self.facts["end"]
        written: list[Tensor] = []
        ended = torch.zeros(len(heard), dtype=torch.bool, device=heard.device)
        most = min(most, self.body.config.max_target_positions - tokens.shape[1])
        for _ in range(most):
            logits = self._logits(self._decode(tokens, heard, cache)[:, -1])
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

    def moments(self, lengths: Lengths) -> Lengths:
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

    def example(self) -> Recordings:
        tokens = torch.tensor([self.facts["start"]], device=next(self.parameters()).device)
        return {**super().example(), "tokens": tokens}

    def read_weights(self, folder: Path) -> None:
        """Load the weights from a checked folder of the library."""
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
) -> Facts:
    """Return the options of a new Whisper, which generates characters.

    Args:
        layers: of the encoder and of the decoder.
        seconds: the length of the longest recording.
    """
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
