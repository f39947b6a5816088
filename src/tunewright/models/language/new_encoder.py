"""New networks of the Transformers library's architectures: a size from the recipe, no weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from tunewright.cached import cached_folder
from tunewright.errors import RecipeError
from tunewright.files import cache_dir, write_json
from tunewright.recipe.named import check_options
from tunewright.recipe.schema import LayerCount

Positive = Annotated[int, Field(gt=0, strict=True)]
Share = Annotated[float, Field(ge=0, lt=1)]


def bert(
    *,
    layers: LayerCount = 4,
    width: Positive = 256,
    heads: Positive = 4,
    positions: Positive = 512,
    dropout: Share = 0.1,
) -> dict[str, Any]:
    """BERT (Devlin et al. 2019, section 3), four times the width inside each layer; the defaults are BERT-mini's (Turc et
    al. 2019, table 1).

    Raises:
        RecipeError: the heads do not divide the width.
    """
    _require_divisible("bert", width, heads)
    return {
        "model_type": "bert",
        "num_hidden_layers": layers,
        "hidden_size": width,
        "num_attention_heads": heads,
        "intermediate_size": 4 * width,
        "max_position_embeddings": positions,
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout,
    }


def gpt(
    *,
    layers: LayerCount = 4,
    width: Positive = 128,
    heads: Positive = 4,
    kv_heads: Positive | None = None,
    inner: Positive | None = None,
    context: Positive = 256,
    tied: bool = True,
    theta: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 10_000.0,
    base_width: Positive | None = None,
) -> dict[str, Any]:
    """A decoder of the Llama family, see `models/language/gpt.py`.

    Args:
        kv_heads: heads of keys and values, shared by the others; as many as heads when left out.
        inner: the width inside a feed-forward layer; 8/3 of the width, up to a multiple of 8, when left out.
        tied: the output matrix is the embedding's.
        base_width: muP: the learning rate is one for a network of that width with heads of the same size.

    Raises:
        RecipeError: sizes that do not divide, or muP with a tied output matrix.
    """
    _require_divisible("gpt", width, heads)
    kv_heads = kv_heads or heads
    if heads % kv_heads or (width // heads) % 2:
        raise RecipeError(
            "the heads do not fit",
            place="model.backbone.gpt",
            found=f"{heads} heads of {width // heads} dimensions, {kv_heads} of them with keys and values",
            expected="heads of an even size, their number a multiple of kv_heads",
            fix="leave kv_heads out, or choose another number of heads",
        )
    if base_width is not None and tied:
        raise RecipeError(
            "muP scales the output matrix, which a tied one cannot be without the embedding",
            place="model.backbone.gpt.base_width",
            found="tied: true",
            expected="tied: false",
            fix="write tied: false, or leave base_width out",
        )
    return {
        "model_type": "llama",
        "num_hidden_layers": layers,
        "hidden_size": width,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": width // heads,
        "intermediate_size": inner or -(-8 * width // 24) * 8,
        "max_position_embeddings": context,
        "tie_word_embeddings": tied,
        "rope_parameters": {"rope_theta": theta, "rope_type": "default"},
        **({"base_width": base_width} if base_width is not None else {}),
    }


def _require_divisible(name: str, width: int, heads: int) -> None:
    if width % heads:
        raise RecipeError(
            "the heads do not divide the width",
            place=f"model.backbone.{name}",
            found=f"{heads} heads, width {width}",
            expected="a width that is a multiple of the heads",
            fix=f"width: {heads * max(1, round(width / heads))}",
        )


# Each gives the values of a config.json; the vocabulary is the tokenizer's.
ENCODERS: dict[str, Callable[..., dict[str, Any]]] = {"bert": bert, "gpt": gpt}


def encoder_folder(name: str, options: dict[str, Any]) -> Path:
    """A folder with the configuration of a new network.

    Raises:
        RecipeError: an unknown option, or sizes that do not fit together.
    """
    config = ENCODERS[name](**check_options(ENCODERS[name], options, f"model.backbone.{name}"))
    key = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:32]
    return cached_folder(cache_dir() / "encoders" / key, lambda folder: write_json(folder / "config.json", config))
