"""Our GPT is the library's Llama: the same logits, files and next tokens; with several documents in a row, and muP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import DynamicCache

from gpt_networks import SIZES, gpt_network, hub_causal_lm, random_tokens
from tunewright.errors import RecipeError
from tunewright.models.hub.generate import Sampling, generate
from tunewright.models.hub.hf_files import load_backbone, write_transformer
from tunewright.models.hub.hf_network import build_transformer, describe_transformer, make_config
from tunewright.models.hub.purposes import CAUSAL_LM
from tunewright.models.language.gpt import GPT, is_plain
from tunewright.models.language.new_encoder import Gpt


@pytest.mark.parametrize("sizes", [{}, {"kv_heads": 2}, {"tied": False}, {"theta": 500.0, "inner": 40}])
def test_saved_it_is_the_librarys_llama(tmp_path: Path, sizes: dict[str, Any]) -> None:
    network = gpt_network(**sizes).eval()
    assert isinstance(network.core, GPT)
    write_transformer(tmp_path, network)
    theirs = hub_causal_lm(tmp_path)
    assert type(theirs).__name__ == "LlamaForCausalLM" and theirs.config.architectures == ["LlamaForCausalLM"]
    ids = random_tokens()
    with torch.no_grad():
        assert torch.allclose(network({"input_ids": ids}), theirs(input_ids=ids).logits, atol=1e-5)
    again = load_backbone(tmp_path, network.spec, seed=7)
    assert not again.new and isinstance(again.network.core, GPT)
    for name, value in network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[name]), name


@pytest.mark.parametrize("kind", ["gpt", "library"])
def test_documents_in_a_row_do_not_see_each_other(kind: str) -> None:
    network = gpt_network().eval()
    if kind == "library":
        from transformers import GPT2Config

        config = GPT2Config(n_layer=2, n_embd=32, n_head=4, vocab_size=50, n_positions=40).to_dict()
        network = build_transformer(describe_transformer(CAUSAL_LM, config, head=None, classes=None), seed=1).eval()
    first, second = random_tokens(1, 8), random_tokens(1, 13)[:, 2:]
    packed = {
        "input_ids": torch.cat([first, second], dim=1),
        "document": torch.tensor([[1] * 8 + [2] * 11]),
        "position": torch.tensor([[*range(8), *range(11)]]),
    }
    with torch.no_grad():
        found = network(packed)
        assert torch.allclose(found[:, :8], network({"input_ids": first}), atol=1e-5)
        assert torch.allclose(found[:, 8:], network({"input_ids": second}), atol=1e-5)
        changed = {**packed, "input_ids": torch.cat([first.flip(1), second], dim=1)}
        assert torch.equal(network(changed)[:, 8:], found[:, 8:])


def test_what_was_read_is_kept() -> None:
    network = gpt_network(kv_heads=2).eval()
    ids, cache = random_tokens(), DynamicCache()
    with torch.no_grad():
        whole = network({"input_ids": ids})
        parts = [network.model(ids[:, :7], cache=cache).logits, network.model(ids[:, 7:11], cache=cache).logits]
        parts += [network.model(ids[:, place : place + 1], cache=cache).logits for place in range(11, 20)]
    assert torch.allclose(torch.cat(parts, dim=1), whole, atol=1e-5)


def test_it_writes_what_the_library_writes(tmp_path: Path) -> None:
    network = gpt_network().eval()
    write_transformer(tmp_path, network)
    ids = random_tokens(1, 6)
    theirs = hub_causal_lm(tmp_path).generate(
        ids, max_new_tokens=25, do_sample=False, eos_token_id=None, pad_token_id=2
    )
    ours = list(generate(network, ids[0].tolist(), end=(), most=25, context=40))
    assert ours == theirs[0, 6:].tolist()
    from transformers import GPT2Config

    config = GPT2Config(n_layer=2, n_embd=32, n_head=4, vocab_size=50, n_positions=40).to_dict()
    other = build_transformer(describe_transformer(CAUSAL_LM, config, head=None, classes=None), seed=1).eval()
    theirs = other.model.generate(ids, max_new_tokens=9, do_sample=False, eos_token_id=None, pad_token_id=2)  # pyright: ignore
    assert list(generate(other, ids[0].tolist(), end=(), most=9, context=40)) == theirs[0, 6:].tolist()


def test_it_ends_where_it_should_and_forgets_when_full() -> None:
    network = gpt_network()
    plain = list(generate(network, [7, 8, 9], end=(), most=100, context=40))
    assert len(plain) == 100
    ended = list(generate(network, [7, 8, 9], end={plain[5]}, most=100, context=40))
    assert ended == plain[: plain.index(plain[5])]


def test_drawing() -> None:
    network = gpt_network()

    def drawn(seed: int, **options: Any) -> list[int]:
        return list(
            generate(
                network, [7, 8], end=(), most=30, context=40, sampling=Sampling(temperature=1.0, seed=seed, **options)
            )
        )

    assert drawn(1) == drawn(1) != drawn(2)
    likeliest = list(generate(network, [7, 8], end=(), most=30, context=40))
    assert drawn(1, top_k=1) == likeliest == drawn(2, top_p=1e-6)


def test_what_is_no_plain_llama_is_left_to_the_library() -> None:
    plain = Gpt(**SIZES).config()
    assert is_plain(make_config({**plain, "vocab_size": 50}))
    for other in (
        {"attention_bias": True},
        {"rope_parameters": {"rope_theta": 1e4, "rope_type": "linear", "factor": 2.0}},
        {"hidden_act": "gelu"},
    ):
        config = {**plain, "vocab_size": 50, **other}
        assert not is_plain(make_config(config))
        network = build_transformer(describe_transformer(CAUSAL_LM, config, head=None, classes=None), seed=1)
        assert type(network.core).__name__ == "LlamaForCausalLM"


def test_blocks() -> None:
    names = [block.title for block in gpt_network().blocks()]
    layers = [f"backbone.layers.{number}" for number in range(3)]
    assert names == ["backbone.embed_tokens", *layers, "backbone.norm", "head.lm_head"]


def test_mup_keeps_the_size_of_the_outputs() -> None:
    """Coordinate check (Yang et al. 2022, appendix D.1): after a few steps of Adam the logits are as large at any width."""

    def moved(width: int, **options: Any) -> float:
        network = gpt_network(width=width, heads=width // 8, tied=False, **options)
        rates = {id(value): 0.01 * network.rate_of(name) for name, value in network.model.named_parameters()}
        groups = [{"params": [value], "lr": rates[id(value)]} for value in network.parameters()]
        optimizer = torch.optim.Adam(groups)
        ids = random_tokens(8, 20)
        before = network({"input_ids": ids}).detach()
        for _ in range(4):
            optimizer.zero_grad()
            logits = network({"input_ids": ids[:, :-1]})
            torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).backward()
            optimizer.step()
        return (network({"input_ids": ids}).detach() - before).std().item()

    scaled = [moved(width, base_width=32) for width in (32, 256)]
    plain = [moved(width) for width in (32, 256)]
    assert 0.5 < scaled[1] / scaled[0] < 2
    assert plain[1] / plain[0] > 2


@pytest.mark.parametrize(
    "sizes", [{"heads": 5}, {"heads": 4, "kv_heads": 3}, {"width": 36, "heads": 12}, {"base_width": 16}]
)
def test_sizes_that_do_not_fit(sizes: dict[str, Any]) -> None:
    with pytest.raises(RecipeError) as caught:
        Gpt(**{**SIZES, **sizes}).config()
    assert caught.value.fix


def test_the_output_matrix_is_found_whatever_the_precision() -> None:
    network = gpt_network()
    network.reduced = True
    assert network.output_weight is network.core.get_output_embeddings().weight and network.reduced
