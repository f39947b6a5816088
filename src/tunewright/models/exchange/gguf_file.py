"""Write a Llama with its byte-level tokenizer as a GGUF file for llama.cpp, with the `gguf` package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunewright.errors import ArtifactError

# Names of the library's Llama, and those of GGUF; {} is the layer.
NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
    "model.layers.{}.input_layernorm.weight": "blk.{}.attn_norm.weight",
    "model.layers.{}.self_attn.q_proj.weight": "blk.{}.attn_q.weight",
    "model.layers.{}.self_attn.k_proj.weight": "blk.{}.attn_k.weight",
    "model.layers.{}.self_attn.v_proj.weight": "blk.{}.attn_v.weight",
    "model.layers.{}.self_attn.o_proj.weight": "blk.{}.attn_output.weight",
    "model.layers.{}.post_attention_layernorm.weight": "blk.{}.ffn_norm.weight",
    "model.layers.{}.mlp.gate_proj.weight": "blk.{}.ffn_gate.weight",
    "model.layers.{}.mlp.up_proj.weight": "blk.{}.ffn_up.weight",
    "model.layers.{}.mlp.down_proj.weight": "blk.{}.ffn_down.weight",
}
# llama.cpp knows pre-tokenizers by name: single digits, then as GPT-2.
CUT = {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, {"type": "ByteLevel"}]}
CUT_NAME = "smollm"
# The key of the hash of the exported model.
ORIGIN = "tunewright.model_sha256"

# Objects of packages that are imported late: the library's configuration of a plain Llama and its tokenizer, and a GGUFWriter.
Config = Any
Tokenizer = Any
Writer = Any
TokenizerFile = dict[str, Any]
"""A tokenizer.json."""


def write_gguf(
    path: Path, config: Config, weights: dict[str, Tensor], tokenizer: Tokenizer, origin: str | None
) -> None:
    """Write the file with all weights as float32, which llama.cpp's own tool can quantize.

    Args:
        config: a plain Llama's.
        weights: by the library's names.
        origin: the hash of the model that is exported.

    Raises:
        ArtifactError: llama.cpp has no name for the tokenizer's pre-tokenizer.
    """
    import gguf

    told = json.loads(tokenizer.backend_tokenizer.to_str())
    _require_known(told)
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    size = config.head_dim or config.hidden_size // config.num_attention_heads
    writer.add_rope_dimension_count(size)
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    if origin is not None:
        writer.add_string(ORIGIN, origin)
    _add_tokenizer(writer, told, tokenizer, config)
    for name, value in named(weights, config.num_hidden_layers).items():
        heads = _heads(name, config)
        array = value.detach().float().contiguous().numpy()
        writer.add_tensor(name, array if heads is None else turned(array, heads))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read_gguf(path: Path, config: Config) -> dict[str, Tensor]:
    """Read the weights of such a file, by the library's names."""
    import gguf

    found: dict[str, Tensor] = {}
    theirs = {tensor.name: tensor for tensor in gguf.GGUFReader(str(path)).tensors}
    for layer in range(config.num_hidden_layers):
        for ours, name in NAMES.items():
            tensor = theirs.get(name.format(layer))
            if tensor is None:
                continue
            array = np.array(tensor.data).reshape([int(size) for size in reversed(tensor.shape)])
            heads = _heads(name, config)
            found[ours.format(layer)] = torch.from_numpy(array if heads is None else turned_back(array, heads))
    return found


def named(weights: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Rename weights to GGUF's names.

    Raises:
        ArtifactError: a plain Llama has no such weight.
    """
    known = {ours.format(layer): theirs.format(layer) for layer in range(layers) for ours, theirs in NAMES.items()}
    if strange := [name for name in weights if name not in known]:
        raise ArtifactError(
            "only Llama-architecture models can be exported to GGUF",
            found=", ".join(strange[:3]),
            expected="the weights of a Llama",
        )
    return {known[name]: value for name, value in weights.items()}


def turned(weight: np.ndarray, heads: int) -> np.ndarray:
    """Reorder the rows of each head's queries or keys for llama.cpp, which rotates adjacent pairs and not the two halves."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def turned_back(weight: np.ndarray, heads: int) -> np.ndarray:
    """Compute the inverse of `turned`."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _heads(name: str, config: Config) -> int | None:
    """Return the number of heads in a weight whose rows are reordered; None for other weights."""
    if name.endswith("attn_q.weight"):
        return config.num_attention_heads
    return config.num_key_value_heads if name.endswith("attn_k.weight") else None


def _require_known(told: TokenizerFile) -> None:
    """Check that llama.cpp tokenizes as this tokenizer does."""
    cut = told["pre_tokenizer"] or {}
    parts = [part.get("type") for part in cut.get("pretokenizers", [])]
    digits = next((part for part in cut.get("pretokenizers", []) if part.get("type") == "Digits"), {})
    wanted = [part["type"] for part in CUT["pretokenizers"]]  # pyright: ignore[reportArgumentType]
    if told["model"]["type"] != "BPE" or parts != wanted or not digits.get("individual_digits") or told["normalizer"]:
        raise ArtifactError(
            "llama.cpp would split texts differently from this model's tokenizer",
            found=f"{told['model']['type']}, {', '.join(map(str, parts)) or cut.get('type')}",
            expected="a tokenizer trained here: model: {tokenizer: bpe}",
            fix="llama.cpp's own converter knows many published tokenizers: it reads the model's folder",
        )


def _add_tokenizer(writer: Writer, told: TokenizerFile, tokenizer: Tokenizer, config: Config) -> None:
    """Write the vocabulary, the merges, the special tokens and the chat template."""
    import gguf

    by_id = {number: piece for piece, number in told["model"]["vocab"].items()}
    special = {entry["id"]: entry["content"] for entry in told["added_tokens"] if entry["special"]}
    tokens, kinds = [], []
    for number in range(config.vocab_size):
        tokens.append(special.get(number) or by_id.get(number) or f"<unused{number}>")
        kind = (
            gguf.TokenType.CONTROL
            if number in special
            else gguf.TokenType.NORMAL
            if number in by_id
            else gguf.TokenType.UNUSED
        )
        kinds.append(kind)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(CUT_NAME)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in told["model"]["merges"]])
    ends = (
        config.eos_token_id
        if isinstance(config.eos_token_id, int)
        else (config.eos_token_id or [tokenizer.eos_token_id])[0]
    )
    writer.add_bos_token_id(tokenizer.bos_token_id if tokenizer.bos_token_id is not None else ends)
    writer.add_eos_token_id(ends)
    if tokenizer.pad_token_id is not None:
        writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_add_bos_token(False)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)
