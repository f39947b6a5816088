"""Configure new networks of the Transformers library's architectures: sizes from the recipe, no pretrained weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol

from pydantic import Field

from tunewright.cached import cached_folder
from tunewright.errors import RecipeError
from tunewright.files import cache_dir, write_json
from tunewright.models.core.spec import Facts
from tunewright.recipe.named import check_options
from tunewright.recipe.schema import LayerCount

Positive = Annotated[int, Field(gt=0, strict=True)]
Share = Annotated[float, Field(ge=0, lt=1)]


class NewEncoder(Protocol):
    """Hold the options of a new network."""

    def config(self) -> Facts:
        """Return the values of a config.json; the vocabulary size comes from the tokenizer.

        Raises:
            RecipeError: sizes that do not fit together.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Bert:
    """Configure BERT (Devlin et al. 2019, section 3) with feed-forward layers of four times the width.

    The defaults are BERT-mini's (Turc et al. 2019, table 1).
    """

    layers: LayerCount = 4
    width: Positive = 256
    heads: Positive = 4
    positions: Positive = 512
    dropout: Share = 0.1

    def config(self) -> Facts:
        _require_divisible("bert", self.width, self.heads)
        return {
            "model_type": "bert",
            "num_hidden_layers": self.layers,
            "hidden_size": self.width,
            "num_attention_heads": self.heads,
            "intermediate_size": 4 * self.width,
            "max_position_embeddings": self.positions,
            "hidden_dropout_prob": self.dropout,
            "attention_probs_dropout_prob": self.dropout,
        }


@dataclass(frozen=True, kw_only=True)
class Gpt:
    """Configure a decoder of the Llama family, see `models/language/gpt.py`."""

    layers: LayerCount = 4
    width: Positive = 128
    heads: Positive = 4
    kv_heads: Positive | None = None
    """The number of key and value heads, shared by the query heads; by default the same number."""
    inner: Positive | None = None
    """The width inside a feed-forward layer; by default 8/3 of the width, rounded up to a multiple of 8."""
    context: Positive = 256
    tied: bool = True
    """Whether the output matrix is the embedding's."""
    theta: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 10_000.0
    base_width: Positive | None = None
    """For muP, the width of the network for which the learning rate was chosen, with heads of the same size."""

    def config(self) -> Facts:
        self._check()
        return {
            "model_type": "llama",
            "num_hidden_layers": self.layers,
            "hidden_size": self.width,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads or self.heads,
            "head_dim": self.width // self.heads,
            "intermediate_size": self.inner or -(-8 * self.width // 24) * 8,
            "max_position_embeddings": self.context,
            "tie_word_embeddings": self.tied,
            "rope_parameters": {"rope_theta": self.theta, "rope_type": "default"},
            **({"base_width": self.base_width} if self.base_width is not None else {}),
        }

    def _check(self) -> None:
        """Raise a RecipeError for sizes that do not divide, or muP with a tied output matrix."""
        _require_divisible("gpt", self.width, self.heads)
        kv_heads = self.kv_heads or self.heads
        size = self.width // self.heads
        if self.heads % kv_heads or size % 2:
            raise RecipeError(
                "the heads do not fit",
                place="model.backbone.gpt",
                found=f"{self.heads} heads of {size} dimensions, {kv_heads} of them with keys and values",
                expected="heads of an even size, their number a multiple of kv_heads",
                fix="remove kv_heads, or choose another number of heads",
            )
        if self.base_width is not None and self.tied:
            raise RecipeError(
                "muP scales the output matrix, and a tied one would scale the embedding too",
                place="model.backbone.gpt.base_width",
                found="tied: true",
                expected="tied: false",
                fix="write tied: false, or remove base_width",
            )


def _require_divisible(name: str, width: int, heads: int) -> None:
    if width % heads:
        raise RecipeError(
            "the heads do not divide the width",
            place=f"model.backbone.{name}",
            found=f"{heads} heads, width {width}",
            expected="a width that is a multiple of the heads",
            fix=f"width: {heads * max(1, round(width / heads))}",
        )


ENCODERS: dict[str, Callable[..., NewEncoder]] = {"bert": Bert, "gpt": Gpt}


def encoder_folder(name: str, options: Facts) -> Path:
    """Return a cached folder with the configuration of a new network.

    Raises:
        RecipeError: an unknown option, or sizes that do not fit together.
    """
    config = ENCODERS[name](**check_options(ENCODERS[name], options, f"model.backbone.{name}")).config()
    key = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:32]
    return cached_folder(cache_dir() / "encoders" / key, lambda folder: write_json(folder / "config.json", config))
