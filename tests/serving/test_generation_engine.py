"""The generation engine behind real sockets: many texts at once are those of one at a time, clients that leave, bounds, and each field."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
import uvicorn
from fastapi.testclient import TestClient

from small_recipes import train_model
from tunewright.commands.chat import Detokenizer, Drawing, pieces
from tunewright.inference.model import Model, load_model
from tunewright.models.hub.batched_decoding import SeparateCaches, SharedCache, decoding_batch
from tunewright.models.hub.generate import Draw, Sampling, choose, generate, read, uniforms
from tunewright.models.hub.hf_network import Transformer, build_transformer, describe_transformer
from tunewright.models.hub.purposes import CAUSAL_LM
from tunewright.models.language.new_encoder import Gpt
from tunewright.serving.app import make_app
from tunewright.serving.generation_engine import StopTexts
from tunewright.serving.request_limits import Limits
from tunewright.serving.template_process import ChatTemplate, TemplateError

PROMPTS = ["3+4?", "1", "what is 11+7? and then 5+6?", "7+7", "0", "2+2? 3+3?", "9+1? 8", "11+5?"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_model(tmp_path_factory.mktemp("talk"), "talk")


@pytest.fixture
def model(folder: Path) -> Model:
    """With random weights, so that what it writes varies."""
    found = load_model(folder)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in found.network.named_parameters():
            if "norm" not in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.3)
    return found


@contextmanager
def served(model: Model, **options: Any) -> Generator[str]:
    """The service at an address of this machine, until the end of the block."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    app = make_app(model, name="it", **options)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="critical"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{port}"
    wait_until(lambda: is_ready(address))
    try:
        yield address
    finally:
        app.state.begin_stop()
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


def is_ready(address: str) -> bool:
    try:
        return httpx.get(f"{address}/ready", timeout=1).status_code == 200
    except httpx.TransportError:
        return False


def wait_until(true: Callable[[], bool], seconds: float = 8.0) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.02)


def slow(model: Model, seconds: float) -> None:
    """Let each pass take longer."""
    model.network.model.register_forward_pre_hook(lambda *_: time.sleep(seconds))  # pyright: ignore


def gated(model: Model) -> threading.Event:
    """Let passes wait until the event is set."""
    gate = threading.Event()
    gate.set()
    model.network.model.register_forward_pre_hook(lambda *_: gate.wait(20) and None)  # pyright: ignore
    return gate


def events_of(text: str) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def streamed(address: str, body: dict[str, Any]) -> tuple[str, str]:
    """What a stream says, and why it ended."""
    answer = httpx.post(f"{address}/v1/completions", json={**body, "stream": True}, timeout=20)
    assert answer.status_code == 200, answer.text
    choices = [event["choices"][0] for event in events_of(answer.text)]
    return "".join(choice["text"] for choice in choices), choices[-1]["finish_reason"]


@pytest.mark.parametrize("temperature", [0, 1.0])
def test_eight_streams_at_once_say_what_each_says_alone(model: Model, temperature: float) -> None:
    network, encoder = model.network, model.preprocessor.inputs
    sizes = [5, 60, 17, 300, 33, 1, 44, 9]  # one exceeds the context of 256 tokens
    expected: list[str] = []
    for number, (prompt, most) in enumerate(zip(PROMPTS, sizes)):
        ids = encoder.begin + encoder.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        drawing = Drawing(temperature=temperature, top_p=0.9, most=most, seed=number)
        expected.append("".join(pieces(network, encoder, ids, drawing)))  # pyright: ignore
    assert len(set(expected)) > 4
    bodies = [
        {"prompt": prompt, "max_tokens": most, "temperature": temperature, "top_p": 0.9, "seed": number}
        for number, (prompt, most) in enumerate(zip(PROMPTS, sizes))
    ]
    with served(model) as address, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda body: streamed(address, body), bodies))
        whole = httpx.post(f"{address}/v1/completions", json=bodies[1]).json()
    assert [text for text, _ in found] == expected
    assert {reason for _, reason in found} <= {"stop", "length"}
    assert whole["choices"][0]["text"] == expected[1] and whole["choices"][0]["finish_reason"] == found[1][1]
    assert whole["usage"]["completion_tokens"] <= 60


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_slot(model: Model, monkeypatch: pytest.MonkeyPatch, stream: bool) -> None:
    monkeypatch.setenv("TUNEWRIGHT_LIMIT_GENERATION_SLOTS", "1")
    slow(model, 0.03)
    long = {"prompt": "3", "max_tokens": 400, "temperature": 2, "logit_bias": bias(model), "stream": stream}
    with served(model) as address:
        if stream:
            with httpx.stream("POST", f"{address}/v1/completions", json=long, timeout=10) as answer:
                next(answer.iter_lines())
        else:
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(f"{address}/v1/completions", json=long, timeout=0.5)
        began = time.monotonic()
        streamed(address, {"prompt": "4", "max_tokens": 3})
        assert time.monotonic() - began < 3  # 400 tokens would take 12 s


def bias(model: Model) -> dict[str, float]:
    """Against ending."""
    return {str(model.preprocessor.inputs.end): -100.0}


def test_ready_says_no_while_the_worker_is_stuck_and_health_says_yes(model: Model) -> None:
    gate = gated(model)
    with served(model) as address, ThreadPoolExecutor(1) as pool:
        gate.clear()
        answer = pool.submit(httpx.post, f"{address}/v1/completions", json={"prompt": "3", "max_tokens": 2}, timeout=20)
        wait_until(lambda: httpx.get(f"{address}/ready").status_code == 503)
        began = time.monotonic()
        assert httpx.get(f"{address}/health").json()["status"] == "alive"
        assert time.monotonic() - began < 0.5
        gate.set()
        assert answer.result(10).status_code == 200
        wait_until(lambda: is_ready(address))


def test_a_full_queue_refuses(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEWRIGHT_LIMIT_GENERATION_SLOTS", "1")
    monkeypatch.setenv("TUNEWRIGHT_LIMIT_GENERATION_QUEUE", "2")
    gate = gated(model)
    body = {"prompt": "3", "max_tokens": 2}
    with served(model) as address, ThreadPoolExecutor(8) as pool:
        gate.clear()
        waiting = [pool.submit(httpx.post, f"{address}/v1/completions", json=body, timeout=20) for _ in range(8)]
        wait_until(lambda: sum(answer.done() for answer in waiting) >= 5)  # one in work, two wait
        gate.set()
        answers = [answer.result(10) for answer in waiting]
        assert httpx.post(f"{address}/v1/completions", json=body).status_code == 200
    refused = [answer for answer in answers if answer.status_code == 503]
    assert len(refused) >= 5 and sum(answer.status_code == 200 for answer in answers) == 8 - len(refused) >= 2
    assert all(answer.headers["retry-after"] and answer.json()["error"]["code"] == "queue_full" for answer in refused)


def test_texts_wait_while_the_cache_has_no_room_for_them(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEWRIGHT_LIMIT_GENERATION_CACHE", "30")
    body = {"prompt": "3", "max_tokens": 20, "logit_bias": bias(model)}
    sizes: list[int] = []
    model.network.model.register_forward_pre_hook(  # pyright: ignore
        lambda _, __, inputs: sizes.append(len(inputs["input_ids"])), with_kwargs=True
    )
    with served(model) as address, ThreadPoolExecutor(4) as pool:
        sizes.clear()
        texts = list(pool.map(lambda _: streamed(address, body), range(4)))
    assert len(set(texts)) == 1 and set(sizes) == {1}


def test_deadlines(model: Model) -> None:
    slow(model, 0.05)
    body = {"prompt": "3", "max_tokens": 100, "logit_bias": bias(model)}
    with served(model, limits=Limits(seconds=0.6)) as address:
        whole = httpx.post(f"{address}/v1/completions", json=body)
        assert whole.status_code == 408 and whole.json()["error"]["code"] == "deadline_exceeded"
        stream = httpx.post(f"{address}/v1/completions", json={**body, "stream": True}).text
        last = [line for line in stream.splitlines() if line][-1]
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "deadline_exceeded"


def test_open_streams_end_when_the_service_stops(model: Model) -> None:
    slow(model, 0.05)
    body = {"prompt": "3", "max_tokens": 400, "stream": True, "logit_bias": bias(model)}
    with served(model) as address:
        found: list[str] = []
        thread = threading.Thread(
            target=lambda: found.append(httpx.post(f"{address}/v1/completions", json=body, timeout=20).text)
        )
        thread.start()
        time.sleep(0.5)
        began = time.monotonic()
    assert time.monotonic() - began < 3
    thread.join(5)
    assert '"code": "stopping"' in found[0]


def test_numbers_that_are_not_finite_fail_one_text_alone(model: Model) -> None:
    """The cache row that such a text leaves behind spoils none of the texts that come after it."""
    tokenizer = model.preprocessor.inputs.tokenizer
    (bad,) = tokenizer("7", add_special_tokens=False)["input_ids"]

    def spoil(_module: Any, inputs: tuple[torch.Tensor], found: torch.Tensor) -> torch.Tensor:
        return found.masked_fill(inputs[0][..., None] == bad, float("nan"))

    model.network.core.get_input_embeddings().register_forward_hook(spoil)  # pyright: ignore
    good = {"prompt": "3+4", "max_tokens": 30, "temperature": 0, "logit_bias": {str(bad): -100}}
    with served(model) as address, ThreadPoolExecutor(8) as pool:
        alone = streamed(address, good)
        bodies = [good, {**good, "prompt": "3+7"}, good, {**good, "prompt": "7"}, good, good]
        answers = list(
            pool.map(lambda body: httpx.post(f"{address}/v1/completions", json=body, timeout=20), bodies * 3)
        )
        after = streamed(address, good)
    assert after == alone
    for body, answer in zip(bodies * 3, answers):
        if "7" in body["prompt"]:
            assert answer.status_code == 500 and answer.json()["error"]["code"] == "non_finite_logits"
        else:
            assert answer.json()["choices"][0]["text"] == alone[0]


@pytest.fixture
def client(model: Model) -> Generator[TestClient]:
    app = make_app(model, name="it", limits=Limits(tokens=40))
    with TestClient(app, raise_server_exceptions=False, base_url="http://127.0.0.1") as client:
        yield client


CHAT = {"messages": [{"role": "user", "content": "3+4?"}], "max_tokens": 4}
TEXT = {"prompt": "3+4?", "max_tokens": 4}
ACCEPTED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (CHAT, {"model": "it", "user": "u", "safety_identifier": "s", "prompt_cache_key": "k", "seed": -3}),
    (CHAT, {"temperature": None, "top_p": None, "n": None, "stop": None, "logit_bias": None, "stream": None}),
    (CHAT, {"logprobs": False, "top_logprobs": None, "store": False, "metadata": None, "service_tier": "auto"}),
    (CHAT, {"response_format": {"type": "text"}, "tools": [], "tool_choice": "none", "parallel_tool_calls": True}),
    (CHAT, {"modalities": ["text"], "audio": None, "prediction": None, "reasoning_effort": None, "functions": None}),
    (CHAT, {"max_tokens": None, "max_completion_tokens": 3, "presence_penalty": 0.5, "frequency_penalty": -0.5}),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "text", "text": "3"}, {"type": "text", "text": "4"}]}]}),
    (CHAT, {"messages": [{"role": "developer", "content": "add"}, {"role": "user", "content": "3", "name": None}]}),
    (CHAT, {"messages": [*CHAT["messages"], {"role": "assistant", "content": "7", "refusal": None, "tool_calls": None}, *CHAT["messages"]]}),
    (TEXT, {"best_of": 1, "echo": False, "suffix": None, "logprobs": None, "user": "u", "model": "it"}),
    (TEXT, {"prompt": ["3", "4+4"], "n": 2, "stream": True, "stream_options": {"include_usage": True}}),
]  # fmt: skip
REFUSED: list[tuple[dict[str, Any], str, Any]] = [
    (CHAT, "tools", [{"type": "function", "function": {"name": "f"}}]), (CHAT, "tool_choice", "required"),
    (CHAT, "functions", [{"name": "f"}]), (CHAT, "function_call", {"name": "f"}), (CHAT, "response_format", {"type": "json_object"}),
    (CHAT, "logprobs", True), (CHAT, "top_logprobs", 2), (CHAT, "metadata", {"a": "b"}), (CHAT, "store", True),
    (CHAT, "modalities", ["audio"]), (CHAT, "audio", {}), (CHAT, "prediction", {}), (CHAT, "reasoning_effort", "high"),
    (CHAT, "service_tier", "flex"), (CHAT, "parallel_tool_calls", False), (CHAT, "web_search_options", {}), (CHAT, "verbosity", "low"),
    (CHAT, "n", 0), (CHAT, "n", 17), (CHAT, "n", True), (CHAT, "temperature", -1), (CHAT, "temperature", "1"), (CHAT, "top_p", 0),
    (CHAT, "max_tokens", 41), (CHAT, "max_tokens", 0), (CHAT, "max_completion_tokens", 5), ({"messages": CHAT["messages"]}, "max_completion_tokens", 41), (CHAT, "presence_penalty", 3),
    (CHAT, "frequency_penalty", -3), (CHAT, "stop", ""), (CHAT, "stop", ["a"] * 5), (CHAT, "logit_bias", {"9999999": 1}),
    (CHAT, "logit_bias", {"x": 1}), (CHAT, "logit_bias", {"1": 101}), (CHAT, "seed", 0.5), (CHAT, "stream_options", {"nothing": 1}),
    (CHAT, "model", "gpt-4"), (CHAT, "unheard_of", 1), (CHAT, "prompt", "x"), (CHAT, "messages", []), (CHAT, "messages", None),
    (CHAT, "messages", [{"role": "tool", "content": "x"}]), (CHAT, "messages", [{"role": "user", "content": "x", "name": "n"}]),
    (CHAT, "messages", [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://127.0.0.1/"}}]}]),
    (CHAT, "messages", [{"role": "user", "content": [{"type": "text", "text": 3}]}]),
    (CHAT, "messages", [{"role": "assistant", "content": "x", "tool_calls": [{}]}]), (CHAT, "messages", [{"role": "user"}]),
    (TEXT, "best_of", 2), (TEXT, "echo", True), (TEXT, "suffix", "x"), (TEXT, "logprobs", 0), (TEXT, "prompt", [1, 2]),
    (TEXT, "prompt", []), (TEXT, "messages", []), (TEXT, "max_completion_tokens", 3), (TEXT, "tools", []), (TEXT, "prompt", ["x"] * 17),
]  # fmt: skip


def test_each_field_is_honoured_or_refused_by_its_name(client: TestClient) -> None:
    for base, more in ACCEPTED:
        path = "/v1/chat/completions" if base is CHAT else "/v1/completions"
        answer = client.post(path, json={**base, **more})
        assert answer.status_code == 200, (more, answer.text)
    for base, name, value in REFUSED:
        path = "/v1/chat/completions" if "messages" in base else "/v1/completions"
        answer = client.post(path, json={**base, name: value})
        assert answer.status_code == (404 if name == "model" else 400), (name, value, answer.text)
        error = answer.json()["error"]
        assert error.keys() == {"message", "type", "param", "code"} and error["type"] == "invalid_request_error"
        said = f"{error['param']} {error['message']}"
        assert name in said or (name == "max_completion_tokens" and "max_tokens" in said), (name, value, error)


def test_stop_texts_choices_usage_and_biases(client: TestClient, model: Model) -> None:
    body = {"prompt": "3+4?", "max_tokens": 40, "temperature": 0, "logit_bias": bias(model)}
    text = client.post("/v1/completions", json=body).json()["choices"][0]["text"]
    stop = text[7:10]
    before = text[: text.index(stop)]
    stopped = client.post("/v1/completions", json={**body, "stop": ["\x00never", stop]}).json()
    assert stopped["choices"][0]["text"] == before and stopped["choices"][0]["finish_reason"] == "stop"
    assert stopped["usage"]["completion_tokens"] < 40
    answer = client.post(
        "/v1/completions", json={**body, "stop": stop, "stream": True, "stream_options": {"include_usage": True}}
    )
    *chunks, last = events_of(answer.text)
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == before and chunks[-1]["usage"] is None
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert last["choices"] == [] and last["usage"] == stopped["usage"]
    several = client.post("/v1/completions", json={**body, "temperature": 1, "seed": 5, "n": 3}).json()["choices"]
    seventh = client.post("/v1/completions", json={**body, "temperature": 1, "seed": 7}).json()["choices"][0]
    assert [choice["index"] for choice in several] == [0, 1, 2] and several[2]["text"] == seventh["text"]
    assert len({choice["text"] for choice in several}) == 3
    end = {"logit_bias": {str(model.preprocessor.inputs.end): 100}}
    ended = client.post("/v1/completions", json={**body, **end}).json()
    assert ended["choices"][0] == {"index": 0, "text": "", "finish_reason": "stop", "logprobs": None}
    assert ended["usage"]["completion_tokens"] == 1
    penalised = client.post("/v1/completions", json={**body, "frequency_penalty": 2, "presence_penalty": 2}).json()
    assert penalised["choices"][0]["text"] != text
    full = client.post("/v1/completions", json={**body, "max_tokens": 3}).json()
    assert full["choices"][0]["finish_reason"] == "length" and full["usage"]["completion_tokens"] == 3


def test_long_prompts_are_refused_with_the_limit(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    for path, body in (
        ("/v1/completions", {"prompt": "x" * 9_500_000}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x" * 300_000}]}),
    ):
        began = time.monotonic()
        answer = client.post(path, json=body)
        assert answer.status_code == 413 and "262,144" in answer.json()["error"]["message"]
        assert time.monotonic() - began < 3
    answer = client.post("/v1/completions", json={"prompt": "3+" * 200})
    assert answer.status_code == 400 and answer.json()["error"]["code"] == "context_length_exceeded"
    monkeypatch.setenv("TUNEWRIGHT_LIMIT_PROMPT_TOKENS", "5")
    answer = client.post("/v1/completions", json={"prompt": "3+4" * 10})
    assert answer.status_code == 400 and "limit prompt_tokens" in answer.json()["error"]["message"]


def test_templates_are_bounded_in_time_memory_and_length(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEWRIGHT_LIMIT_TEMPLATE_SECONDS", "1")
    tokenizer = model.preprocessor.inputs.tokenizer
    turns = [{"role": "user", "content": "3+4?"}]
    plain = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    usual = ChatTemplate(tokenizer)
    assert usual.render(turns) == plain
    usual.stop()
    tokenizer.chat_template = (  # what the user says chooses among the ways to misbehave
        "{% set way = messages[0]['content'] %}"
        "{% if way == 'memory' %}{{ 'x' * 9999999999 }}{% elif way == 'length' %}{{ 'x' * 999999 }}"
        "{% elif way == 'error' %}{{ raise_exception('no system') }}{% elif way == 'fine' %}fine"
        "{% else %}{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}{% endif %}"
    )
    hostile = ChatTemplate(tokenizer)
    for way, problem in (
        ("memory", "limit template_bytes"),
        ("length", "limit prompt_characters"),
        ("error", "no system"),
        ("time", "longer than 1 s"),
    ):
        with pytest.raises(TemplateError, match=problem):
            hostile.render([{"role": "user", "content": way}])
    assert hostile.render([{"role": "user", "content": "fine"}]) == "fine"  # started again after it was killed
    hostile.stop()


def test_a_template_that_runs_forever_leaves_the_others_alone(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEWRIGHT_LIMIT_TEMPLATE_SECONDS", "1")
    model.preprocessor.inputs.tokenizer.chat_template = (
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    )
    with served(model) as address, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(httpx.post, f"{address}/v1/chat/completions", json=CHAT, timeout=20)
        time.sleep(0.3)
        began = time.monotonic()
        assert httpx.get(f"{address}/health").status_code == 200 and time.monotonic() - began < 0.5
        assert streamed(address, {"prompt": "3", "max_tokens": 1})  # after the template's second
        assert waiting.result().status_code == 400


def test_held_back_beginnings_of_stop_texts() -> None:
    stops = StopTexts(("END", "\n\n"))
    assert [stops.add(part) for part in ("aE", "N", "x\n", "b")] == [
        ("a", False),
        ("", False),
        ("ENx", False),
        ("\nb", False),
    ]
    assert stops.add("cEN") == ("c", False) and stops.add("D rest") == ("", True)


def test_text_grows_as_its_tokens_are_decoded(model: Model) -> None:
    tokenizer = model.preprocessor.inputs.tokenizer
    ids = tokenizer("naïve 日本語 \U0001f600 3+4 = 7.\n", add_special_tokens=False)["input_ids"] * 3
    text = Detokenizer(tokenizer)
    assert "".join(text.add(token) for token in ids) == tokenizer.decode(ids)


def network_of(kind: str) -> Transformer:
    from transformers import GPT2Config, GPTNeoConfig, MambaConfig, MistralConfig

    config: dict[str, Any] = {
        "gpt": {**Gpt(layers=2, width=32, heads=4, context=700).config(), "vocab_size": 50},
        "gpt2": GPT2Config(n_layer=2, n_embd=32, n_head=4, vocab_size=50, n_positions=700).to_dict(),
        "mistral": MistralConfig(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=64, vocab_size=50, sliding_window=16
        ).to_dict(),
        "gpt_neo": GPTNeoConfig(
            num_layers=2, attention_types=[[["global", "local"], 1]], hidden_size=32, num_heads=4, vocab_size=50, window_size=16, max_position_embeddings=700
        ).to_dict(),
        "mamba": MambaConfig(hidden_size=32, num_hidden_layers=2, vocab_size=50).to_dict(),
    }[kind]  # fmt: skip
    config |= {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 2}
    network = build_transformer(describe_transformer(CAUSAL_LM, config, head=None, classes=None), seed=1).eval()
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)) * 0.2)
    return network


def draw_of(seed: int, number: int) -> Draw:
    return Draw(temperature=1.0, top_p=0.95, uniform=uniforms(seed, number, 1)[0])


@pytest.mark.parametrize("kind", ["gpt", "gpt2", "mistral", "gpt_neo", "mamba"])
def test_texts_that_join_and_leave_are_those_of_each_alone(kind: str) -> None:
    """Learned and rotary positions share one cache; windows and recurrent states, which cannot, have their own."""
    network = network_of(kind)
    batch = decoding_batch(network, 700)
    assert isinstance(batch, SharedCache if kind in ("gpt", "gpt2") else SeparateCaches)
    draw = np.random.default_rng(0)
    prompts = [draw.integers(1, 50, size).tolist() for size in (3, 40, 11, 300, 25)]
    settings = {"temperature": 1.0, "top_k": None, "top_p": 0.95}
    expected = [
        list(generate(network, ids, end=(), most=12, context=700, sampling=Sampling(seed=number, **settings)))  # pyright: ignore
        for number, ids in enumerate(prompts)
    ]
    found: list[list[int]] = [[] for _ in prompts]
    active: list[int] = []
    with torch.inference_mode():
        for turn in range(40):
            if turn % 3 == 0 and turn // 3 < len(prompts):
                number = turn // 3
                logits, cache = read(network, prompts[number], None)
                found[number] += choose(logits[None], [draw_of(number, 0)])
                batch.join(cache, prompts[number])
                active.append(number)
            if not active:
                break
            logits = batch.step([found[number][-1] for number in active])
            tokens = choose(logits, [draw_of(number, len(found[number])) for number in active])
            for row in reversed(range(len(active))):
                number = active[row]
                found[number].append(tokens[row])
                if len(found[number]) == 12:
                    batch.leave(row)
                    active[row] = active[-1]
                    active.pop()
    assert found == expected
    assert not getattr(batch, "layers", [])  # an idle service holds no cache


def test_embeddings_are_honest(folder: Path, tmp_path: Path) -> None:
    model = load_model(train_model(tmp_path, "texts"))
    with TestClient(make_app(model, name="it"), base_url="http://127.0.0.1") as client:
        plain = client.post("/v1/embeddings", json={"input": "a good film"}).json()["data"][0]["embedding"]
        packed = client.post("/v1/embeddings", json={"input": ["a good film"], "encoding_format": "base64"}).json()
        import base64

        assert np.frombuffer(base64.b64decode(packed["data"][0]["embedding"]), "<f4").tolist() == plain
        for name, value in {
            "dimensions": 8,
            "input": [1, 2],
            "encoding_format": "int8",
            "model": "other",
            "x": 1,
        }.items():
            answer = client.post("/v1/embeddings", json={"input": "a", name: value})
            assert answer.status_code in (400, 404) and name in answer.json()["error"]["message"]
        assert client.post("/v1/embeddings", json={"input": "x" * 300_000}).status_code == 413
        with torch.no_grad():
            next(model.network.parameters()).fill_(float("nan"))
        assert client.post("/v1/embeddings", json={"input": "a"}).status_code == 500
