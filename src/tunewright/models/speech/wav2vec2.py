"""Build the Transformers library's networks on waveforms, trained with CTC: wav2vec 2.0, HuBERT and WavLM.

New networks are small and of the variant with layer norms, which padding does not affect (Baevski et al. 2020; Hsu et al. 2021;
Chen et al. 2022). Pretrained weights come from a folder of the library.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, cast

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from tunewright.models.core.layers import seeded
from tunewright.models.core.network import Block
from tunewright.models.core.spec import Facts
from tunewright.models.speech.base import Lengths, Recogniser, Recordings, SpeechSpec, present
from tunewright.random import mix
from tunewright.recipe.schema import LayerCount

Positive = Annotated[int, Field(gt=0)]
LIBRARY_KINDS = ("wav2vec2", "hubert", "wavlm", "whisper")
# Disables the library's own masking and layer dropout: augmentation is `train.augment`.
WITHOUT_AUGMENTATION = {"apply_spec_augment": False, "mask_time_prob": 0.0, "mask_feature_prob": 0.0, "layerdrop": 0.0}


class WaveformCTC(Recogniser):
    """Build one of these networks from its spec, whose "config" is the library's."""

    def __init__(self, spec: SpeechSpec, seed: int) -> None:
        super().__init__(spec)
        from transformers import AutoConfig, AutoModel

        given = {name: value for name, value in self.facts["config"].items() if name != "model_type"}
        config = AutoConfig.for_model(self.facts["name"], **{**given, **WITHOUT_AUGMENTATION})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mix(seed, "body"))
            self.body = AutoModel.from_config(config)
        self.head: nn.Module = seeded(mix(seed, "head"), lambda: nn.Linear(config.hidden_size, self.facts["outputs"]))

    def forward(self, inputs: Recordings) -> Float[Tensor, "batch steps classes"]:
        """Compute log probabilities; "features" are samples [batch, time]."""
        samples, lengths = inputs["features"], inputs["lengths"]
        mask = present(lengths, samples.shape[1]).long()
        return self.head(self.body(samples, attention_mask=mask).last_hidden_state).float().log_softmax(-1)

    def moments(self, lengths: Lengths) -> Lengths:
        config = self.body.config
        for kernel, step in zip(config.conv_kernel, config.conv_stride, strict=True):
            lengths = torch.div(lengths - kernel, step, rounding_mode="floor") + 1
        return lengths.clamp(min=0)

    def blocks(self) -> list[Block]:
        encoder = cast(nn.Module, self.body.encoder)
        layers = {f"layer{number}": layer for number, layer in enumerate(cast(nn.ModuleList, encoder.layers), start=1)}
        around = nn.ModuleDict({name: part for name, part in self.body.named_children() if name != "encoder"})
        before = nn.ModuleDict({name: part for name, part in encoder.named_children() if name != "layers"})
        found = [
            *(Block(name, part, "backbone", f"body.{name}.") for name, part in around.items()),
            *(Block(name, part, "backbone", f"body.encoder.{name}.") for name, part in before.items()),
            *(
                Block(name, layer, "backbone", f"body.encoder.layers.{place}.")
                for place, (name, layer) in enumerate(layers.items())
            ),
            Block("head", self.head, "head", "head."),
        ]
        return [block for block in found if next(block.module.parameters(), None) is not None]

    def read_weights(self, folder: Path) -> None:
        """Load the body's weights from a checked folder of the library."""
        from transformers import AutoModel

        body = AutoModel.from_pretrained(
            os.fspath(folder), config=self.body.config, local_files_only=True, use_safetensors=True
        )
        self.body.load_state_dict(body.state_dict())


def _spec(model_type: str, layers: int, width: int, heads: int, conv: int) -> Facts:
    config = {
        "model_type": model_type,
        "num_hidden_layers": layers,
        "hidden_size": width,
        "num_attention_heads": heads,
        "intermediate_size": 4 * width,
        "conv_dim": [conv] * 7,
        "feat_extract_norm": "layer",
        "do_stable_layer_norm": True,
        "num_conv_pos_embeddings": 32,
    }
    return {"reads": "samples", "moment": 320, "config": config}


def wav2vec2(*, layers: LayerCount = 4, width: Positive = 256, heads: Positive = 4, conv: Positive = 128) -> Facts:
    """Return the options of a new wav2vec 2.0.

    Args:
        conv: the channels of each of the seven convolutions over samples.
    """
    return _spec("wav2vec2", layers, width, heads, conv)


def hubert(*, layers: LayerCount = 4, width: Positive = 256, heads: Positive = 4, conv: Positive = 128) -> Facts:
    """Return the options of a new HuBERT, see `wav2vec2`."""
    return _spec("hubert", layers, width, heads, conv)


def wavlm(*, layers: LayerCount = 4, width: Positive = 256, heads: Positive = 4, conv: Positive = 128) -> Facts:
    """Return the options of a new WavLM, see `wav2vec2`."""
    return _spec("wavlm", layers, width, heads, conv)


def described_folder(config: Facts) -> Facts:
    """Return the spec of the network in a folder of the library, from its configuration."""
    if config["model_type"] == "whisper":
        return {"name": "whisper", "reads": "whisper", "moment": 2, "config": config}
    return {"name": config["model_type"], "reads": "samples", "moment": 320, "config": config}
