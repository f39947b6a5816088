"""The service: what it answers for each kind of model, what it refuses, what it never opens, and batches."""

from __future__ import annotations

import io
import json
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest
import soundfile
from fastapi.testclient import TestClient
from PIL import Image

from small_recipes import train_model
from tunewright.console import silent
from tunewright.errors import UserError
from tunewright.inference.model import load_model, predict
from tunewright.serving.app import Reading, make_app
from tunewright.serving.batching import Batcher
from tunewright.serving.request_limits import Limits
from tunewright.serving.start import serve

KINDS = ("pictures", "rows", "texts", "talk", "factors", "conformer", "hidden")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: train_model(tmp_path_factory.mktemp(name), name) for name in KINDS}


def client_of(folder: Path, **options: Any) -> TestClient:
    return TestClient(
        make_app(load_model(folder), name="it", **options), raise_server_exceptions=False, base_url="http://127.0.0.1"
    )


def picture(size: int = 8) -> bytes:
    held = io.BytesIO()
    Image.fromarray(np.arange(size * size, dtype=np.uint8).reshape(size, size)).save(held, "PNG")
    return held.getvalue()


def test_rows_get_the_answers_that_predict_gives(models: dict[str, Path]) -> None:
    rows = [{"size": 3, "colour": "red"}, {"size": 90, "colour": "blue"}]
    with client_of(models["rows"]) as client:
        found = client.post("/predict", json={"inputs": rows}).json()["predictions"]
        assert client.get("/health").json()["task"] == "tabular-regression"
        mixed = client.post("/predict", json={"inputs": [rows[0], {"size": "much", "colour": "red"}]}).json()
        written = client.get("/metrics").text
    table = pa.table({"size": pa.array([3.0, 90.0]), "colour": ["red", "blue"]})
    ours = [entry["prediction"] for entry in found]
    assert ours == pytest.approx([entry["prediction"] for entry in predict(models["rows"], table)], rel=1e-5)
    assert len(mixed["predictions"]) == 1 and "much" in mixed["left_out"][0]
    assert 'tunewright_requests_total{path="/predict",status="200"} 2.0' in written


def test_pictures_and_recordings_are_sent_as_they_are(models: dict[str, Path]) -> None:
    with client_of(models["pictures"]) as client:
        answer = client.post("/predict", content=picture(), headers={"Content-Type": "image/png"})
        assert answer.status_code == 200 and set(answer.json()["predictions"][0]) == {
            "prediction",
            "confidence",
            "probabilities",
        }
        assert client.post("/predict", content=b"no picture", headers={"Content-Type": "image/png"}).status_code == 422
        assert client.post("/predict", json={"inputs": ["/etc/passwd"]}).status_code == 415
        assert 'accept="image/*"' in client.get("/").text
    held = io.BytesIO()
    soundfile.write(held, np.random.default_rng(0).normal(0, 0.1, 16_000), 16_000, format="WAV")
    with client_of(models["conformer"], limits=Limits(seconds_of_sound=2, samples=50_000)) as client:
        answer = client.post("/predict", content=held.getvalue(), headers={"Content-Type": "audio/wav"})
        assert answer.status_code == 200 and "text" in answer.json()["predictions"][0]
        long = io.BytesIO()
        soundfile.write(long, np.zeros(48_001), 16_000, format="WAV")
        assert (
            client.post("/predict", content=long.getvalue(), headers={"Content-Type": "audio/wav"}).status_code == 413
        )
        assert client.post("/predict", content=b"RIFF", headers={"Content-Type": "audio/wav"}).status_code == 422
        for rate, channels, frames, status in ((2**31 - 1, 1, 1600, 422), (96_000, 2, 30_000, 413)):
            odd = io.BytesIO()
            soundfile.write(odd, np.zeros((frames, channels)), rate, format="WAV")
            answer = client.post("/predict", content=odd.getvalue(), headers={"Content-Type": "audio/wav"})
            assert answer.status_code == status and "samples" in answer.json()["error"]["message"]


def test_texts_users_and_embeddings(models: dict[str, Path]) -> None:
    with client_of(models["texts"]) as client:
        found = client.post("/predict", json={"inputs": ["a good film", {"text": "a bad one"}]}).json()["predictions"]
        assert [entry["prediction"] in ("good", "bad") for entry in found] == [True, True]
        vectors = client.post("/v1/embeddings", json={"input": ["a good film", "bad"], "model": "it"}).json()
        assert [len(entry["embedding"]) for entry in vectors["data"]] == [32, 32] and vectors["usage"][
            "total_tokens"
        ] > 4
        for kind, body, status in (
            ("text/plain", b"{}", 415),
            ("application/json", b'{"input": "a", "input": "b"}', 400),
        ):
            answer = client.post("/v1/embeddings", content=body, headers={"Content-Type": kind})
            assert answer.status_code == status and answer.json()["error"]["message"]
        assert client.post("/v1/chat/completions", json={}).status_code == 404
    with client_of(models["factors"]) as client:
        (answer,) = client.post("/predict", json={"inputs": ["u3"]}).json()["predictions"]
        assert answer["items"]
        assert client.post("/predict", json={"inputs": ["nobody"]}).status_code == 200


def test_openai_s_own_client_talks_to_it(models: dict[str, Path]) -> None:
    """The shapes that its client reads, whole and streamed; the client itself is tried in the benchmark."""
    turns = [{"role": "user", "content": "3+4?"}]
    with client_of(models["talk"], limits=Limits(tokens=8)) as client:
        assert client.get("/v1/models").json()["data"][0]["id"] == "it"
        given = {"model": "it", "messages": turns, "temperature": 0, "max_tokens": 6}
        whole = client.post("/v1/chat/completions", json=given).json()
        text = whole["choices"][0]["message"]["content"]
        assert whole["object"] == "chat.completion" and whole["usage"]["completion_tokens"] <= 6
        streamed = client.post("/v1/chat/completions", json={**given, "stream": True})
        events = [line.removeprefix("data: ") for line in streamed.text.splitlines() if line]
        assert events[-1] == "[DONE]" and streamed.headers["content-type"].startswith("text/event-stream")
        deltas = [json.loads(event)["choices"][0] for event in events[:-1]]
        assert (
            "".join(delta["delta"].get("content", "") for delta in deltas) == text
            and deltas[-1]["finish_reason"] == whole["choices"][0]["finish_reason"]
        )
        plain = client.post("/v1/completions", json={"prompt": "3+", "max_tokens": 4, "temperature": 0}).json()
        assert plain["object"] == "text_completion" and isinstance(plain["choices"][0]["text"], str)
        for wrong in (
            {"messages": []},
            {"messages": [{"role": "robot", "content": "x"}]},
            {"messages": turns, "temperature": -1},
        ):
            answer = client.post("/v1/chat/completions", json=wrong)
            assert answer.status_code == 400 and answer.json()["error"]["message"]


def test_limits_and_tokens(models: dict[str, Path]) -> None:
    row = {"size": 3, "colour": "red"}
    with client_of(models["rows"], limits=Limits(body=500, rows=3), token="secret") as client:
        assert client.post("/predict", json={"inputs": [row]}).status_code == 401
        assert client.get("/health").status_code == 200 and client.get("/metrics").status_code == 401
        client.headers["Authorization"] = "Bearer secret"
        assert client.post("/predict", json={"inputs": [row]}).status_code == 200
        assert client.post("/predict", json={"inputs": [row] * 4}).status_code == 413
        assert (
            client.post("/predict", content=b"x" * 501, headers={"Content-Type": "application/json"}).status_code == 413
        )
        for body in (
            b"",
            b"{",
            b"[]",
            b'{"inputs": []}',
            b'{"inputs": [3]}',
            b'{"inputs": [{}]}',
            b'{"inputs": [{"size": "x"}]}',
            b"\xff",
        ):
            answer = client.post("/predict", content=body, headers={"Content-Type": "application/json"})
            assert answer.status_code in (400, 422) and answer.json()["error"]["message"], body
    with client_of(models["rows"], limits=Limits(waiting=0)) as client:
        assert client.post("/predict", json={"inputs": [row]}).status_code == 503


@pytest.mark.parametrize("name", ["rows", "texts", "talk", "factors", "pictures"])
def test_whatever_is_sent_is_answered_or_refused(models: dict[str, Path], name: str) -> None:
    """Never an error of the server's own; and no name of a file is ever opened."""
    draw = random.Random(0)
    strange: list[Any] = [
        None, True, 0, -1, 1e308, 2**70, "", "x" * 3000, "\x00", "\ud83d\ude00", "/etc/passwd", "file:///etc/passwd", "hub:a/b", "digits",
        [], {}, [[]], {"a": {"b": []}}, {"text": None}, {"text": 3}, {"text": ["x"]}, {"size": "nan", "colour": 3}, {"_row": 1}, {"user": []},
        {"prompt": "x"}, {"size": [1, 2], "colour": {}}, ["a", "b"], {"size": "1e999", "colour": "red"}, {"": ""},
    ]  # fmt: skip
    with client_of(models[name], limits=Limits(tokens=2)) as client:
        statuses: dict[int, int] = {}
        for number in range(150):
            entry = draw.choice(strange)
            path = draw.choice(
                ["/predict", "/predict", "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/nowhere"]
            )
            body: Any = draw.choice(
                [
                    {"inputs": entry},
                    {"inputs": [entry, draw.choice(strange)]},
                    {"messages": entry},
                    {"messages": [{"role": "user", "content": entry}]},
                    {"prompt": entry, "max_tokens": draw.choice([1, 0, "x", None])},
                    {"input": entry},
                    entry,
                ]
            )
            content = (
                json.dumps(body).encode()
                if number % 5
                else bytes(draw.randrange(256) for _ in range(draw.randrange(60)))
            )
            kind = draw.choice(["application/json", "application/json", "image/png", "audio/wav", "text/plain", ""])
            answer = client.post(path, content=content, headers={"Content-Type": kind})
            statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
            assert answer.status_code < 500, (path, content, kind, answer.text)
            assert "root:" not in answer.text
        assert any(status >= 400 for status in statuses)


def test_what_waits_goes_together() -> None:
    sizes: list[int] = []
    gate = threading.Event()

    def answer(table: pa.Table) -> list[dict[str, Any]]:
        gate.wait(5)
        return [{"double": 2 * value} for value in table["x"].to_pylist()]

    batcher = Batcher(4, lambda rows, seconds: sizes.append(rows))
    waiting = [batcher.submit(pa.table({"x": [number]}), answer) for number in range(10)]
    gate.set()
    assert [job.result(5)[0]["double"] for job in waiting] == [2 * number for number in range(10)]
    assert max(sizes) == 4 and sum(sizes) == 10
    batcher.stop()


def test_requests_to_one_model_go_together(models: dict[str, Path]) -> None:
    """Each request names the model's `predict` anew, which is another object each time."""
    model = load_model(models["rows"])
    sizes: list[int] = []
    batcher = Batcher(100, lambda rows, seconds: sizes.append(rows))
    table = pa.table({"size": [3.0], "colour": ["red"], "_row": [1]})
    waiting = [batcher.submit(table, model.predict) for _ in range(30)]
    answers = [job.result(10)[0]["prediction"] for job in waiting]
    assert answers == pytest.approx([answers[0]] * 30, rel=1e-5)
    assert sum(sizes) == 30 and max(sizes) > 1
    batcher.stop()


def test_pictures_of_one_size_go_together(models: dict[str, Path]) -> None:
    model = load_model(models["pictures"])
    pieces = [model.preprocessor.request.content(picture(size)) for size in (8, 20)]
    first, second = (Reading(model, piece.inputs) for piece in pieces)
    assert first == second
    sizes: list[int] = []
    batcher = Batcher(100, lambda rows, seconds: sizes.append(rows))
    waiting = [batcher.submit(pieces[0].table, Reading(model, pieces[0].inputs)) for _ in range(30)]
    assert len({job.result(10)[0]["prediction"] for job in waiting}) == 1
    assert sum(sizes) == 30 and max(sizes) > 1
    batcher.stop()


def test_one_that_fails_does_not_spoil_the_others() -> None:
    gate = threading.Event()

    def answer(table: pa.Table) -> list[dict[str, Any]]:
        gate.wait(5)
        if 3 in table["x"].to_pylist():
            raise ValueError("three")
        return [{"x": value} for value in table["x"].to_pylist()]

    batcher = Batcher(100, lambda rows, seconds: None)
    waiting = [batcher.submit(pa.table({"x": [number]}), answer) for number in range(6)]
    gate.set()
    for number, job in enumerate(waiting):
        if number == 3:
            with pytest.raises(ValueError, match="three"):
                job.result(5)
        else:
            assert job.result(5) == [{"x": number}]
    batcher.stop()


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


@pytest.fixture
def running(models: dict[str, Path]) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    port = free_port()
    code = "from tunewright.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "serve", str(models["rows"]), f"--port={port}"], stdout=subprocess.PIPE, text=True
    )
    address = f"http://127.0.0.1:{port}"
    for _ in range(200):
        try:
            httpx.get(f"{address}/health")
            break
        except httpx.TransportError:
            time.sleep(0.1)
    yield address, process
    if process.poll() is None:
        process.kill()
    process.communicate()


def test_it_serves_many_and_ends_gracefully(running: tuple[str, subprocess.Popen[str]]) -> None:
    address, process = running

    def ask(number: int) -> float:
        answer = httpx.post(f"{address}/predict", json={"inputs": [{"size": number, "colour": "red"}]}, timeout=30)
        assert answer.status_code == 200
        return answer.json()["predictions"][0]["prediction"]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(60)))
    assert len(set(answers)) > 50
    assert re.search(r"tunewright_batch_rows_sum 60", httpx.get(f"{address}/metrics").text)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) in (0, -signal.SIGTERM)


def test_others_are_let_in_with_a_token_alone(models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TUNEWRIGHT_TOKEN", raising=False)
    with pytest.raises(UserError, match="without a token"):
        serve(models["rows"], host="0.0.0.0", port=1, token_file=None, console=silent())
