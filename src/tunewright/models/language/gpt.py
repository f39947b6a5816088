"""Define our language model, a decoder of the Llama family, to be read from top to bottom.

    x = embedding(tokens)
    for each layer:  x = x + attention(norm(x));  x = x + mlp(norm(x))
    logits = norm(x) · output matrix

Root mean square norms (Zhang and Sennrich 2019), rotary positions (Su et al. 2021), keys and values shared by groups of
heads (Ainslie et al. 2023), gated feed-forward layers (Shazeer 2020). Names and weights are those of Llama in the
Transformers library, so that library opens a saved model, and any plain Llama can be trained here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Cache, DynamicCache, LlamaConfig, PretrainedConfig, PreTrainedModel, initialization
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput, CausalLMOutputWithPast

from tunewright.models.language.kernels import gated, rms_norm, rotate

# The library's name of the same architecture.
LIBRARY_NAME = "LlamaForCausalLM"
# The longest texts, in tokens, whose attention is computed with plain products on a CPU.
SHORT = 128

Hidden = Float[Tensor, "batch time features"]
TokenIds = Int[Tensor, "batch time"]
Heads = Float[Tensor, "batch heads _ head_size"]
Mask = Shaped[Tensor, "..."]
"""What `attention_mask` returns."""
Rotation = tuple[Float[Tensor, "rows time 1 head_size"], Float[Tensor, "rows time 1 head_size"]]
"""cos and sin of the angles, as `rotate` takes them; one row of them where all texts have the same positions."""


def is_plain(config: PretrainedConfig) -> bool:
    """Return whether a configuration is a Llama's that `GPT` computes: without scaled positions, biases and dropout."""
    rope = getattr(config, "rope_parameters", None) or {}
    return (
        config.model_type == "llama"
        and rope.get("rope_type", "default") == "default"
        and rope.get("partial_rotary_factor", 1.0) == 1.0
        and config.hidden_act == "silu"
        and not (config.attention_bias or config.mlp_bias or config.attention_dropout)
    )


class Norm(nn.Module):
    """Compute x / √(mean(x²) + ε), times a weight for each dimension."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch features"]:
        return rms_norm(x, self.weight, self.eps)


class Attention(nn.Module):
    """Attend from each token to the tokens before it, within its own document."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.size = config.head_dim or config.hidden_size // config.num_attention_heads
        self.shared = config.num_key_value_heads or config.num_attention_heads
        self.groups = config.num_attention_heads // self.shared
        queries, keys = config.num_attention_heads * self.size, self.shared * self.size
        self.q_proj = nn.Linear(config.hidden_size, queries, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, keys, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, keys, bias=False)
        self.o_proj = nn.Linear(queries, config.hidden_size, bias=False)

    def forward(self, x: Hidden, rotation: Rotation, mask: Mask | None, cache: Cache | None, layer: int) -> Hidden:
        heads = side_by_side(x, self.q_proj, self.k_proj, self.v_proj).unflatten(2, (-1, self.size))
        turned, value = heads.split([heads.shape[2] - self.shared, self.shared], dim=2)
        query, key = rotate(turned, *rotation).split([turned.shape[2] - self.shared, self.shared], dim=2)
        query, key, value = (part.transpose(1, 2) for part in (query, key, value))
        if cache is not None:
            key, value = cache.update(key, value, layer)
        if self.groups > 1:
            key, value = (part.repeat_interleave(self.groups, dim=1) for part in (key, value))
        found = attend(query, key, value, mask)
        return self.o_proj(found.transpose(1, 2).flatten(2))


def side_by_side(x: Hidden, *layers: nn.Module) -> Float[Tensor, "batch time _"]:
    """Concatenate the outputs of linear layers; computed as one matrix product, unless an adapter wraps one of them."""
    if not all(type(layer) is nn.Linear for layer in layers):
        return torch.cat([layer(x) for layer in layers], dim=-1)
    return F.linear(x, torch.cat([cast(nn.Linear, layer).weight for layer in layers]))


def attend(
    query: Float[Tensor, "batch heads time head_size"], key: Heads, value: Heads, mask: Mask | None
) -> Float[Tensor, "batch heads time head_size"]:
    """Compute softmax(q kᵀ / √head_size) v.

    On a CPU PyTorch's kernel gets float32, as it takes three times as long in bfloat16. Short texts use plain products,
    which take two thirds of its time.
    """
    heads, length = query.shape[1:3]
    causal = mask is None and length > 1
    if query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal)
    with torch.autocast("cpu", enabled=False):
        if mask is None or mask.dtype == torch.bool:
            query, key, value = query.float(), key.float(), value.float()
            return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal)
        query, key, value = (part.flatten(0, 1) for part in (query, key, value))
        scores = torch.baddbmm(mask.to(query.dtype), query, key.transpose(1, 2), alpha=query.shape[-1] ** -0.5)
        return (scores.softmax(-1) @ value).unflatten(0, (-1, heads))


def attention_mask(input_ids: TokenIds, document: TokenIds | None, heads: int) -> Mask | None:
    """Return which tokens each token attends to, the same for each layer; None: to itself and all before it.

    Args:
        document: the number of each token's document, where a row may hold several.

    Returns:
        For PyTorch's kernel [batch, 1, time, time], true where a token attends; for plain products
        [batch · heads, time, time], 0 there and −∞ elsewhere.
    """
    batch, length = input_ids.shape
    several = document is not None and bool((document != document[:, :1]).any())
    mask = within_documents(document) if document is not None and several else None
    if input_ids.device.type != "cpu" or not 1 < length <= SHORT:
        return mask
    if mask is None:
        mask = torch.ones(1, 1, length, length, dtype=torch.bool).tril()
    shut = torch.zeros(mask.shape).masked_fill_(~mask, -torch.inf)
    return shut.expand(batch, heads, length, length).flatten(0, 1)


class FeedForward(nn.Module):
    """Compute down(silu(gate(x)) · up(x))."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Hidden) -> Hidden:
        return self.down_proj(gated(side_by_side(x, self.gate_proj, self.up_proj)))


class Layer(GradientCheckpointingLayer):
    """Apply attention and feed-forward, each added to its input; recomputed in the backward pass with gradient checkpointing."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = FeedForward(config)
        self.input_layernorm = Norm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = Norm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: Hidden, rotation: Rotation, mask: Mask | None, cache: Cache | None, layer: int) -> Hidden:
        x = x + self.self_attn(self.input_layernorm(x), rotation, mask, cache, layer)
        return x + self.mlp(self.post_attention_layernorm(x))


def rotation_of(positions: Int[Tensor, "rows time"], size: int, theta: float) -> Rotation:
    """Return cosine and sine of the angles position · θ^(−2i/head_size) (Su et al. 2021, section 3.2.2)."""
    frequencies = theta ** (-torch.arange(0, size, 2, device=positions.device, dtype=torch.float32) / size)
    angles = positions[:, :, None, None].float() * frequencies
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1)


def within_documents(document: TokenIds) -> Bool[Tensor, "batch 1 time time"]:
    """Return a mask that is true where the second token belongs to the first one's document and does not come after it.

    Args:
        document: the number of each token's document.
    """
    same = document[:, :, None] == document[:, None, :]
    return same.tril().unsqueeze(1)


class Decoder(nn.Module):
    """Compute the states of all tokens, everything below the output matrix."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        self.theta = float(cast(dict[str, float], config.rope_parameters)["rope_theta"])
        self.size = config.head_dim or config.hidden_size // config.num_attention_heads
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = Norm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self,
        input_ids: TokenIds,
        document: TokenIds | None = None,
        position: Int[Tensor, "rows time"] | None = None,
        cache: Cache | None = None,
        attention_mask: Shaped[Tensor, "batch _"] | None = None,
        **_padding: object,
    ) -> BaseModelOutput:
        """Compute the states [batch, time, features].

        Args:
            document: the number of each token's document, where a row holds several; None: it holds one.
            position: each token's position in its document; None: counted from the first token.
            cache: keys and values of earlier tokens; those of these tokens are appended.
            attention_mask: true for the cached tokens that each row may attend to, for one new token (time = 1).

        Without a cache the attention mask is not used: padding comes after the text, and no token attends to what follows it.
        """
        before = cache.get_seq_length() if cache is not None else 0
        if position is None:
            position = torch.arange(before, before + input_ids.shape[1], device=input_ids.device)[None]
        mask = self._mask(input_ids, document, before, attention_mask if cache is not None else None)
        rotation = rotation_of(position, self.size, self.theta)
        x = self.embed_tokens(input_ids)
        for number, layer in enumerate(self.layers):
            x = layer(x, rotation, mask, cache, number)
        return BaseModelOutput(last_hidden_state=self.norm(x))

    def _mask(
        self, input_ids: TokenIds, document: TokenIds | None, before: int, cached: Shaped[Tensor, "batch _"] | None
    ) -> Mask | None:
        if cached is not None:
            return cached.bool()[:, None, None]
        length = input_ids.shape[1]
        if before and length > 1:  # the next chunk of a text: each token attends to all cached tokens and its own past
            return torch.ones(length, before + length, dtype=torch.bool, device=input_ids.device).tril(before)[
                None, None
            ]
        return attention_mask(input_ids, document, self.config.num_attention_heads)


class GPT(PreTrainedModel):
    """Compute a language model: a decoder and its output matrix, which may be the embedding's."""

    config_class = LlamaConfig
    base_model_prefix = "model"
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012 the library reads it from the class
    _supports_sdpa = True
    supports_gradient_checkpointing = True
    in_order = True
    """The forward pass reaches the modules in the order in which they are created below."""
    _no_split_modules = ["Layer"]  # noqa: RUF012 likewise

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.model = Decoder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        deep = config.initializer_range / (2 * config.num_hidden_layers) ** 0.5
        narrow = width_ratio(config) ** -0.5
        # Weak keys: a layer that is replaced is not kept alive.
        self.starts = WeakKeyDictionary[nn.Module, float]({self.model.embed_tokens: config.initializer_range})
        for module in self.model.layers.modules():
            if isinstance(module, nn.Linear):
                self.starts[module] = config.initializer_range * narrow
        for layer in self.model.layers:
            # 2L outputs are added up: each starts smaller by √(2L) (Radford et al. 2019, section 2.3).
            self.starts[layer.self_attn.o_proj] = self.starts[layer.mlp.down_proj] = deep * narrow  # pyright: ignore
        self.starts[self.lm_head] = config.initializer_range * narrow**2
        self.post_init()

    def forward(
        self,
        input_ids: TokenIds,
        cache: Cache | None = None,
        use_cache: bool = False,
        position_ids: Int[Tensor, "rows time"] | None = None,
        **inputs: Any,
    ) -> CausalLMOutputWithPast:
        """Compute the logits [batch, time, vocab]; other inputs as for the decoder.

        Args:
            use_cache: start a cache where none is given.
            position_ids: the library's name of the decoder's `position`.
        """
        if use_cache and cache is None:
            cache = DynamicCache()
        if position_ids is not None:
            inputs["position"] = position_ids
        states = self.model(input_ids, cache=cache, **inputs).last_hidden_state
        return CausalLMOutputWithPast(logits=self.lm_head(states), cache=cache)

    def rate_of(self, name: str) -> float:
        """Return the factor on the learning rate of a parameter: 1, unless the width was scaled (muP, for Adam).

        Yang and Hu et al. 2022 ("Tensor Programs V"), table 3: matrices whose input grows with the width, the output
        matrix among them, take the base rate divided by width / base width.
        """
        grows = name.endswith("proj.weight") or name == "lm_head.weight"
        return 1 / width_ratio(self.config) if grows else 1.0

    def tensor_parallel_plan(self) -> list[tuple[nn.Module, list[tuple[nn.Linear, int]]]]:
        """Attention and feed-forward part of each layer with its matrices: 0 where one is divided by rows, 1 by columns."""
        found: list[tuple[nn.Module, list[tuple[nn.Linear, int]]]] = []
        for layer in self.model.layers:
            attention: Any = layer.self_attn
            feed: Any = layer.mlp
            first = [(attention.q_proj, 0), (attention.k_proj, 0), (attention.v_proj, 0), (attention.o_proj, 1)]
            found += [(attention, first), (feed, [(feed.gate_proj, 0), (feed.up_proj, 0), (feed.down_proj, 1)])]
        return found

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if module in self.starts:
            initialization.normal_(module.weight, std=self.starts[module])  # pyright: ignore
        elif isinstance(module, Norm):
            initialization.ones_(module.weight)

    def save_pretrained(self, save_directory: Path | str, **options: Any) -> None:  # pyright: ignore
        """Save the model in the library's format."""
        super().save_pretrained(save_directory, **options)
        self.save_config(save_directory)

    def save_config(self, folder: Path | str) -> None:
        """Write the configuration that opens the weights."""
        self.config.architectures = [LIBRARY_NAME]
        self.config.save_pretrained(folder)


def width_ratio(config: PretrainedConfig) -> float:
    """Return the width divided by that of the network whose learning rate is used; 1 without muP."""
    return config.hidden_size / (getattr(config, "base_width", None) or config.hidden_size)
