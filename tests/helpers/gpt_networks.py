"""Build small GPTs with random weights, tokens for them, and open them with Transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tunewright.models.hub.hf_network import Transformer, build_transformer, describe_transformer
from tunewright.models.hub.purposes import CAUSAL_LM
from tunewright.models.language.new_encoder import Gpt

SIZES: dict[str, Any] = {"layers": 3, "width": 32, "heads": 4, "context": 40}


def gpt_network(**sizes: Any) -> Transformer:
    """Build a GPT of SIZES, changed by `sizes`, with a vocabulary of 50 tokens."""
    config = {
        **Gpt(**{**SIZES, **sizes}).config(),
        "vocab_size": 50,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 2,
    }
    return build_transformer(describe_transformer(CAUSAL_LM, config, head=None, classes=None), seed=1)


def random_tokens(count: int = 2, length: int = 20) -> Tensor:
    """Return token ids [count, length], the same ones each time."""
    return torch.randint(5, 50, (count, length), generator=torch.Generator().manual_seed(0))


def hub_causal_lm(folder: Path) -> Any:
    """Open a saved model with Transformers alone."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
