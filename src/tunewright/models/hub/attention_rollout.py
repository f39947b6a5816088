"""Where a transformer's attention comes to lie, through all layers: a view of the network, no explanation of its answer."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from tunewright.errors import ArtifactError
from tunewright.models.core.network import Inputs, evaluating
from tunewright.models.hub.hf_files import merged
from tunewright.models.hub.hf_network import Transformer, quiet


def attention_rollout(network: Transformer, inputs: Inputs) -> Tensor:
    """Return the share of each place of one example [T] in what the head reads, if every layer did nothing but attend: the product
    of (A + 1)/2 over layers, A the mean over heads (Abnar and Zuidema 2020, section 3).

    The head is taken to read the first place, or the last where no token looks ahead; all of them where the model takes the mean.

    Args:
        inputs: a batch of one example without padding.

    Raises:
        ArtifactError: the network has no attention from each place to each.
    """
    maps = _attentions(network, inputs)
    places = maps[0].shape[-1] if maps else 0
    if not maps or any(found.shape[-2:] != (places, places) or len(found) != 1 for found in maps):
        raise ArtifactError(
            "attention roll-out needs full attention, which this network does not have",
            found=type(network.core).__name__,
            expected="an encoder or decoder of plain attention, such as BERT, ViT or a gpt",
            fix="leave --method out",
        )
    whole = torch.eye(places)
    for found in maps:
        whole = (found[0].float().mean(0) + torch.eye(places)) / 2 @ whole
    if getattr(network.core.config, "classifier_pooling", "cls") == "mean":
        return whole.mean(0)
    ahead = any(bool(found.triu(1).any()) for found in maps)
    return whole[0] if ahead else whole[-1]


def _attentions(network: Transformer, inputs: Inputs) -> list[Tensor]:
    """Return [1, H, T, T] of each layer, computed by the library in plain products, which alone gives them out."""
    model: Any = merged(copy.deepcopy(network)).model
    named = {"pixel_values": inputs} if isinstance(inputs, Tensor) else inputs
    from tunewright.models.language.gpt import GPT  # lazily, as all that imports the library

    with quiet(), evaluating(model), torch.inference_mode():
        if isinstance(model, GPT):
            from transformers import LlamaForCausalLM

            same = LlamaForCausalLM(model.config)  # pyright: ignore[reportArgumentType]
            same.load_state_dict(model.state_dict())
            model = same.eval()
        try:
            model.set_attn_implementation("eager")
            found = model(**named, output_attentions=True).attentions
        except (TypeError, ValueError, AttributeError):
            return []
    return [layer for layer in found or () if layer is not None and layer.dim() == 4]
