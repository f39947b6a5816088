"""Networks on samples of the Transformers library: wav2vec 2.0, HuBERT and WavLM, with a letter or nothing for each moment.

What is new here is small, of the kind that is normed over features, so that padding does nothing (Baevski et al. 2020; Hsu et al.
2021; Chen et al. 2022); pretrained weights come from a folder of the library's.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from tunewright.models.core.layers import seeded
from tunewright.models.core.network import Block
from tunewright.models.speech.base import Recogniser, present
from tunewright.random import mix
from tunewright.recipe.schema import LayerCount

Positive = Annotated[int, Field(gt=0)]
LIBRARY_KINDS = ("wav2vec2", "hubert", "wavlm", "whisper")
# No masks and no layers left out by the library itself: what changes the recordings in training is `train.augment`.
NOTHING_OF_ITS_OWN = {"apply_spec_augment": False, "mask_time_prob": 0.0, "mask_feature_prob": 0.0, "layerdrop": 0.0}


class Heard(Recogniser):
    """The network of a description, whose "config" is the library's."""

    def __init__(self, described: dict[str, Any], seed: int) -> None:
        super().__init__(described)
        from transformers import AutoConfig, AutoModel

        given = {name: value for name, value in self.facts["config"].items() if name != "model_type"}
        config = AutoConfig.for_model(self.facts["name"], **{**given, **NOTHING_OF_ITS_OWN})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mix(seed, "body"))
            self.body = AutoModel.from_config(config)
        self.head: nn.Module = seeded(mix(seed, "head"), lambda: nn.Linear(config.hidden_size, self.facts["outputs"]))

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        samples, lengths = inputs["features"], inputs["lengths"]
        mask = present(lengths, samples.shape[1]).long()
        return self.head(self.body(samples, attention_mask=mask).last_hidden_state).float().log_softmax(-1)

    def moments(self, lengths: Tensor) -> Tensor:
        config = self.body.config
        for kernel, step in zip(config.conv_kernel, config.conv_stride, strict=True):
            lengths = torch.div(lengths - kernel, step, rounding_mode="floor") + 1
        return lengths.clamp(min=0)

    def blocks(self) -> list[Block]:
        body: Any = self.body
        layers = {f"layer{number}": layer for number, layer in enumerate(body.encoder.layers, start=1)}
        around = nn.ModuleDict({name: part for name, part in body.named_children() if name != "encoder"})
        before = nn.ModuleDict({name: part for name, part in body.encoder.named_children() if name != "layers"})
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
        """Take the body's weights from a folder of the library's, which was checked."""
        from transformers import AutoModel

        body = AutoModel.from_pretrained(
            os.fspath(folder), config=self.body.config, local_files_only=True, use_safetensors=True
        )
        self.body.load_state_dict(body.state_dict())


def _described(model_type: str, layers: int, width: int, heads: int, conv: int) -> dict[str, Any]:
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


def wav2vec2(
    *, layers: LayerCount = 4, width: Positive = 256, heads: Positive = 4, conv: Positive = 128
) -> dict[str, Any]:
    """The options of a new one: `conv` channels of the seven convolutions over samples."""
    return _described("wav2vec2", layers, width, heads, conv)


def hubert(
    *, layers: LayerCount = 4, width: Positive = 256, heads: Positive = 4, conv: Positive = 128
) -> dict[str, Any]:
    """Likewise."""
    return _described("hubert", layers, width, heads, conv)


def wavlm(
    *, layers: LayerCount = 4, width: Positive = 256, heads: Positive = 4, conv: Positive = 128
) -> dict[str, Any]:
    """Likewise."""
    return _described("wavlm", layers, width, heads, conv)


def described_folder(config: dict[str, Any]) -> dict[str, Any]:
    """What the network of a library's folder is, likewise."""
    if config["model_type"] == "whisper":
        return {"name": "whisper", "reads": "whisper", "moment": 2, "config": config}
    return {"name": config["model_type"], "reads": "samples", "moment": 320, "config": config}
