"""Configure and save tiny backbones of many architectures, with random weights, in the format of Transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tiny import SPECIAL, WORDS, tiny_tokenizer
from tunewright.models.hub.purposes import IMAGE_CLASSIFICATION, TEXT_CLASSIFICATION, Purpose

VOCABULARY = len(SPECIAL) + len(WORDS)
TEXT: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 80,
    "pad_token_id": 0,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
IMAGE: dict[str, Any] = {
    "image_size": 32,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "patch_size": 8,
}

# model_type: configuration, and the names of the backbone's blocks in order.
TEXTS: dict[str, tuple[dict[str, Any], str]] = {
    "bert": (TEXT, "embeddings encoder.layer.0 encoder.layer.1 encoder.layer.2 pooler"),
    "roberta": (TEXT, "embeddings encoder.layer.0 encoder.layer.1 encoder.layer.2"),
    "xlm-roberta": (TEXT, "embeddings encoder.layer.0 encoder.layer.1 encoder.layer.2"),
    "distilbert": (
        {
            "vocab_size": VOCABULARY,
            "max_position_embeddings": 80,
            "dim": 16,
            "n_layers": 3,
            "n_heads": 2,
            "hidden_dim": 32,
            "pad_token_id": 0,
        },
        "embeddings transformer.layer.0 transformer.layer.1 transformer.layer.2",
    ),
    "deberta-v2": (
        {
            **TEXT,
            "relative_attention": True,
            "position_buckets": 8,
            "pos_att_type": ["p2c", "c2p"],
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "type_vocab_size": 0,
            "position_biased_input": False,
        },
        "embeddings encoder.rel_embeddings encoder.LayerNorm encoder.layer.0 encoder.layer.1 encoder.layer.2",
    ),
    "modernbert": (
        {**TEXT, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3, "mlp_dropout": 0.1},
        "embeddings layers.0 layers.1 layers.2 final_norm",
    ),
    "electra": (
        {**TEXT, "embedding_size": 8},
        "embeddings embeddings_project encoder.layer.0 encoder.layer.1 encoder.layer.2",
    ),
    "albert": (
        {**TEXT, "embedding_size": 8, "bos_token_id": 2, "eos_token_id": 3, "hidden_dropout_prob": 0.1},
        # One layer, applied three times.
        "embeddings encoder.embedding_hidden_mapping_in encoder.albert_layer_groups.0 pooler",
    ),
    "mpnet": (TEXT, "embeddings encoder.relative_attention_bias encoder.layer.0 encoder.layer.1 encoder.layer.2"),
}
IMAGES: dict[str, tuple[dict[str, Any], str]] = {
    "resnet": (
        {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [2, 1], "layer_type": "basic"},
        "embedder encoder.stages.0.layers.0 encoder.stages.0.layers.1 encoder.stages.1.layers.0",
    ),
    "vit": (IMAGE, "embeddings layers.0 layers.1 layers.2 layernorm"),
    "deit": (IMAGE, "embeddings layers.0 layers.1 layers.2 layernorm"),
    "convnext": (
        {"hidden_sizes": [8, 16], "depths": [2, 1], "num_stages": 2, "image_size": 32, "drop_path_rate": 0.5},
        "embeddings encoder.stages.0.layers.0 encoder.stages.0.layers.1 encoder.stages.1.downsampling_layer encoder.stages.1.layers.0 layernorm",
    ),
    "swin": (
        {
            "embed_dim": 8,
            "depths": [2, 1],
            "num_heads": [2, 2],
            "window_size": 4,
            "image_size": 32,
            "patch_size": 4,
            "drop_path_rate": 0.5,
        },
        "embeddings encoder.layers.0.blocks.0 encoder.layers.0.blocks.1 encoder.layers.0.downsample encoder.layers.1.blocks.0 layernorm",
    ),
    "mobilenet_v2": (
        {"image_size": 32, "depth_multiplier": 0.35},
        " ".join(["conv_stem", *(f"layer.{index}" for index in range(16)), "conv_1x1"]),
    ),
}
ARCHITECTURES = {**TEXTS, **IMAGES}


def purpose_of(kind: str) -> Purpose:
    """Return the purpose of a classifier of this architecture."""
    return TEXT_CLASSIFICATION if kind in TEXTS else IMAGE_CLASSIFICATION


def config_of(kind: str) -> dict[str, Any]:
    """Return the content of config.json of a tiny network."""
    from transformers import CONFIG_MAPPING

    return CONFIG_MAPPING[kind](**ARCHITECTURES[kind][0]).to_dict()


def make_backbone(folder: Path, kind: str, *, seed: int = 0) -> Path:
    """Save a tiny backbone without a head, with its tokenizer or image processor; return the folder."""
    import torch
    from transformers import CONFIG_MAPPING, AutoModel

    torch.manual_seed(seed)
    options = (
        {} if kind in TEXTS or kind in ("resnet", "convnext", "mobilenet_v2", "swin") else {"add_pooling_layer": False}
    )
    AutoModel.from_config(CONFIG_MAPPING[kind](**ARCHITECTURES[kind][0]), **options).save_pretrained(folder)
    if kind in TEXTS:
        tiny_tokenizer().save_pretrained(folder)
    else:
        facts = {"do_resize": True, "size": {"height": 32, "width": 32}, "do_rescale": True, "do_normalize": True}
        norms = {
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.25, 0.25, 0.25],
            "image_processor_type": "ViTImageProcessor",
        }
        (folder / "preprocessor_config.json").write_text(json.dumps({**facts, **norms}))
    return folder


def make_inputs(kind: str, count: int = 4, *, length: int = 12, seed: int = 0) -> Any:
    """Return a batch that the architecture reads: images, or texts of up to `length` tokens."""
    import torch

    draw = torch.Generator().manual_seed(seed)
    if kind in IMAGES:
        return torch.rand(count, 3, 32, 32, generator=draw)
    ids = torch.randint(len(SPECIAL), VOCABULARY, (count, length), generator=draw)
    lengths = torch.randint(4, length + 1, (count,), generator=draw)
    mask = (torch.arange(length) < lengths[:, None]).long()
    ids[:, 0] = 2
    return {"input_ids": ids * mask, "attention_mask": mask}
