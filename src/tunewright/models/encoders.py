"""New encoders of the Transformers library's architectures: a size from the recipe, no weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from tunewright.errors import RecipeError
from tunewright.files import cache_dir, write_json
from tunewright.recipe.named import check_options

Positive = Annotated[int, Field(gt=0, strict=True)]
Share = Annotated[float, Field(ge=0, lt=1)]


def bert(
    *, layers: Positive = 4, width: Positive = 256, heads: Positive = 4, positions: Positive = 512, dropout: Share = 0.1
) -> dict[str, Any]:
    """BERT (Devlin et al. 2019, section 3), four times the width inside each layer; the defaults are BERT-mini's (Turc et
    al. 2019, table 1).

    Raises:
        RecipeError: the heads do not divide the width.
    """
    if width % heads:
        raise RecipeError(
            "the heads do not divide the width",
            place="model.backbone.bert",
            found=f"{heads} heads, width {width}",
            expected="a width that is a multiple of the heads",
            fix=f"width: {heads * max(1, round(width / heads))}",
        )
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


# Each gives the values of a config.json; the vocabulary is the tokenizer's.
ENCODERS: dict[str, Callable[..., dict[str, Any]]] = {"bert": bert}


def encoder_folder(name: str, options: dict[str, Any]) -> Path:
    """A folder with the configuration of a new encoder.

    Raises:
        RecipeError: an unknown option, or sizes that do not fit together.
    """
    config = ENCODERS[name](**check_options(ENCODERS[name], options, f"model.backbone.{name}"))
    key = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:32]
    folder = cache_dir() / "encoders" / key
    if not (folder / "config.json").exists():
        write_json(folder / "config.json", config)
    return folder
