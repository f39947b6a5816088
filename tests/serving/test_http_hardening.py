"""The servers against strangers: slow, half-sent, malformed, oversized and cross-site requests, over real sockets."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import re
import resource
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest
import torch
import uvicorn
from fastapi.testclient import TestClient
from starlette.types import ASGIApp

from small_recipes import train_model
from summaries import stage_summary
from tunewright.commands.predict import print_predictions
from tunewright.console import silent
from tunewright.errors import DataError, UserError
from tunewright.inference.model import Model, load_model
from tunewright.limits import LIMITS, SHOWN_FILE
from tunewright.serving.app import make_app
from tunewright.serving.batching import Batcher
from tunewright.serving.listening import Server, options
from tunewright.serving.request_limits import Limits, Refused
from tunewright.serving.runs_app import make_ui
from tunewright.serving.start import read_token, serve
from tunewright.serving.strict_json import parse_json

ROW = {"size": 3, "colour": "red"}
JSON = {"Content-Type": "application/json"}
QUICK = Limits(headers_seconds=1, body_seconds=1, reader_seconds=1, connections=300, waiting=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_model(tmp_path_factory.mktemp("rows"), "rows")


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return load_model(folder)


def client_of(model: Model, **given: Any) -> TestClient:
    app = make_app(model, name="it", **given)
    return TestClient(app, raise_server_exceptions=False, base_url="http://127.0.0.1")


@contextmanager
def listening(app: ASGIApp, limits: Limits) -> Iterator[int]:
    """The port of a real server that keeps to the limits."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(uvicorn.Config(app, **options(limits)), begin_stop=lambda: None)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(30)


def asked(port: int, sent: bytes, seconds: float = 5) -> bytes:
    """All that comes back until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        connection.sendall(sent)
        found = b""
        try:
            while part := connection.recv(65536):
                found += part
        except ConnectionResetError:
            pass
        return found


def request(path: str, body: bytes, *headers: str, method: str = "POST") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", *headers]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


# Slow and half-sent.


def test_half_open_connections_and_slow_bodies_keep_nobody_out(model: Model) -> None:
    row = json.dumps({"inputs": [ROW]}).encode()
    half = b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n{"
    with listening(make_app(model, name="it", limits=QUICK), QUICK) as port, ExitStack() as open_ones:
        for sent in [b"", b"GET / HT", half, half] * 100:  # more than there may be connections, and than may wait
            connection = open_ones.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
            connection.sendall(sent)
        started = time.perf_counter()
        for path in ("/health", "/ready"):
            assert httpx.get(f"http://127.0.0.1:{port}{path}", timeout=5).status_code == 200
        answer = httpx.post(f"http://127.0.0.1:{port}/predict", content=row, headers=JSON, timeout=5)
        assert answer.status_code == 200 and time.perf_counter() - started < 3


def test_few_descriptors_are_enough() -> None:
    """With more clients than the process may open files; and Ctrl-C ends it without a word."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    code = f"""
from starlette.responses import PlainTextResponse
from tunewright.serving.request_limits import Limits
from tunewright.serving.listening import listen
listen(PlainTextResponse("yes"), host="127.0.0.1", port={port}, limits=Limits(), begin_stop=lambda: None)
"""
    few = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (80, 80))
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, preexec_fn=few)
    try:
        for _ in range(200):
            with suppress(httpx.TransportError):
                httpx.get(f"http://127.0.0.1:{port}")
                break
            time.sleep(0.1)
        with ExitStack() as open_ones:
            for _ in range(120):
                connection = open_ones.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
                connection.sendall(b"GET / HT")
            assert httpx.get(f"http://127.0.0.1:{port}", timeout=10).text == "yes"
    finally:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 0 and not said


@pytest.mark.parametrize("sent", [b"", b"GET /health HTTP/1.1\r\nHost: 127.0.", b"POST /predict"])
def test_headers_have_a_deadline(model: Model, sent: bytes) -> None:
    with listening(make_app(model, name="it", limits=QUICK), QUICK) as port:
        started = time.perf_counter()
        answer = asked(port, sent)
        assert 0.8 < time.perf_counter() - started < 3
        assert answer.startswith(b"HTTP/1.1 408") if sent else answer == b""


def test_dripping_does_not_move_a_deadline(model: Model) -> None:
    starts = {
        "headers": (b"GET /health HTTP/1.1\r\nX: ", b"a"),
        "body": (b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 999\r\n\r\n", b" "),
        "second headers": (b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /health HTTP/1.1\r\nX: ", b"a"),
        "body that nobody reads": (b"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999\r\n\r\n", b" "),
    }  # fmt: skip
    with listening(make_app(model, name="it", limits=QUICK), QUICK) as port:
        for name, (first, drop) in starts.items():
            with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                started = time.perf_counter()
                connection.sendall(first)
                try:
                    while time.perf_counter() - started < 5:
                        connection.sendall(drop)
                        time.sleep(0.05)
                    pytest.fail(f"{name}: the connection is still open")
                except (BrokenPipeError, ConnectionResetError):
                    assert time.perf_counter() - started < 3.5, name


def test_a_body_in_crumbs_is_refused(model: Model, capfd: pytest.CaptureFixture[str]) -> None:
    start = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Type: "
    row = json.dumps({"inputs": [ROW]}).encode()
    crumbs = b"".join(b"1\r\n%c\r\n" % byte for byte in row)
    with listening(make_app(model, name="it", limits=QUICK), QUICK) as port:
        assert status_of(asked(port, start + b"application/json\r\n\r\n" + crumbs + b"0\r\n\r\n")) == 200
        answer = asked(port, start + b"application/json\r\n\r\n" + b"1\r\n \r\n" * 5000)
        assert not answer or status_of(answer) == 400
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:  # answered before it is malformed
            connection.sendall(start + b"text/plain\r\n\r\n")
            found = b""
            while not found.endswith(b"}}"):
                found += connection.recv(65536)
            assert status_of(found) == 415
            connection.sendall(b"zz\r\n")
            assert connection.recv(65536) == b""
    assert "Traceback" not in capfd.readouterr().err


def test_a_client_that_reads_nothing_is_left(model: Model) -> None:
    async def endless(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            watching = asyncio.create_task(watch(receive))
            while not gone.is_set():
                await send({"type": "http.response.body", "body": bytes(2**20), "more_body": True})
                await asyncio.sleep(0)
            await watching

    async def watch(receive: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        gone.set()

    gone = threading.Event()
    with listening(endless, QUICK) as port, socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert gone.wait(5)


def test_limits_of_requests_do_not_silence_health(model: Model) -> None:
    with client_of(model, limits=Limits(waiting=1, bodies=100)) as client:
        assert client.post("/predict", content=b" " * 101, headers=JSON).status_code == 503
        assert client.post("/predict", json={"inputs": [ROW]}).status_code == 200
    with client_of(model, limits=Limits(waiting=0)) as client:
        refused = client.post("/predict", json={"inputs": [ROW]})
        assert refused.status_code == 503
    with client_of(model, limits=Limits(bodies=1)) as client:
        assert client.get("/health").status_code == 200 and client.get("/ready").status_code == 200


def test_a_stuck_pass_is_not_ready(model: Model) -> None:
    gate = threading.Event()

    def stuck(table: pa.Table) -> list[dict[str, Any]]:
        gate.wait(10)
        return [{}] * table.num_rows

    batcher = Batcher(4, lambda rows, seconds: None)
    assert batcher.is_responsive(0.1)
    answer = batcher.submit(pa.table({"x": [1]}), stuck)
    time.sleep(0.3)
    assert not batcher.is_responsive(0.1) and batcher.is_responsive(60)
    batcher.stop(0.1)  # does not wait for it
    gate.set()
    assert answer.result(5) == [{}]
    batcher.thread.join(5)
    assert not batcher.is_responsive(60)


class Stuck(torch.nn.Module):
    """A network whose pass does not end before the gate opens."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.gate.wait(10)
        return inputs[:, :1]


def test_a_service_with_a_stuck_network_says_that_it_is_not_ready(model: Model) -> None:
    network = Stuck()
    with client_of(replace(model, network=network), limits=Limits(seconds=0.2)) as client:
        assert client.get("/ready").status_code == 200
        refused = client.post("/predict", json={"inputs": [ROW]})
        assert refused.status_code == 503 and "no answer within 0.2 s" in refused.json()["error"]["message"]
        time.sleep(1)
        assert client.get("/ready").status_code == 503 and client.get("/health").json()["status"] == "alive"
        network.gate.set()
        time.sleep(0.2)
        assert client.get("/ready").status_code == 200
        assert client.post("/predict", json={"inputs": [ROW]}).status_code == 200


# Malformed.


def test_odd_requests_are_refused_properly(model: Model) -> None:
    row = json.dumps({"inputs": [ROW]}).encode()
    kind = "Content-Type: application/json"
    chunked = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{kind}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    cases: list[tuple[bytes, int]] = [
        (request("/predict?x=1&x=%00%ff", row, kind), 200),
        (chunked + f"{len(row):x}\r\n".encode() + row + b"\r\n0\r\n\r\n", 200),
        (request("/predict", row, kind, "Expect: 100-continue"), 100),
        (request("/predict", row, f"{kind}; charset=utf-8"), 200),
        (request("/predict", b"", kind), 400),
        (request("/predict", row), 415),
        (request("/predict", row, "Content-Type: text/plain"), 415),
        (request("/predict", row, kind, "Content-Type: text/plain"), 415),
        (request("/predict", b"inputs=1", "Content-Type: application/x-www-form-urlencoded"), 415),
        (request("/predict", b"--x--", "Content-Type: multipart/form-data; boundary=x"), 415),
        (request("/predict", row, kind, "Content-Encoding: gzip"), 415),
        (request("/predict", row, kind, method="PUT"), 405),
        (request("/predict", b"", method="GET"), 405),
        (request("/health", b"", method="HEAD"), 405),
        (request("/health", b"", method="OPTIONS"), 405),
        (request("/health", b"", method="TRACE"), 405),
        (request("/../../etc/passwd", b"", method="GET"), 404),
        (request("/%2e%2e/%2e%2e/etc/passwd", b"", method="GET"), 404),
        (request("/predict/", row, kind), 404),
        (request("/health", b"", "X: " + "a" * 2**20, method="GET"), 400),
        (request("/" + "a" * 2**20, b"", method="GET"), 400),
        (request("/health", b"", "Host: localhost", method="GET"), 400),
        (b"GET /health HTTP/1.0\r\n\r\n", 400),
        (chunked + b"zz\r\n", 400),
        (b"\x16\x03\x01\x00", 400),
        (b"nonsense\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n", 400),
        (b"POST /predict HTTP/1.1\r\nHost: localhost\r\n" + kind.encode() + b"\r\nContent-Length: 9999\r\n\r\n" + row, 408),
    ]  # fmt: skip
    with listening(make_app(model, name="it", limits=QUICK), QUICK) as port:
        for sent, expected in cases:
            answer = asked(port, sent)
            if answer or len(sent) < 2**20:  # of what is far too long the answer may be lost with the connection
                assert status_of(answer) == expected, (sent[:200], answer[:300])
            assert b"Traceback" not in answer and b"root:" not in answer
        assert httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"inputs": [{"size": NaN}]}', "NaN is not JSON"),
        (b'{"inputs": [{"size": -Infinity}]}', "Infinity is not JSON"),
        (b'{"inputs": [{"size": 1e999}]}', "too large"),
        (b'{"inputs": [{"size": 9223372036854775808}]}', "64 bits"),
        (b'{"inputs": [{"size": ' + b"9" * 100_000 + b"}]}", "64 bits"),
        (b'{"inputs": [1], "inputs": [2]}', "is duplicated"),
        (b'{"inputs": ["\\ud800"]}', "surrogate"),
        (b'{"\\uDC00": 1}', "surrogate"),
        (b"[" * 100_000, "nested"),
        (b'{"a":' * 100_000, "nested"),
        (b"[" * 100_000 + b"]" * 100_000, "nested"),
        (b"[" + b"[]," * 3_000_000 + b"[]]", "1,000,000 values"),
        (b"\xff\xfe{\x00}\x00", "UTF-8"),
        (b'\xef\xbb\xbf{"inputs": [1]}', "not JSON"),
        (b"", "not JSON"),
    ],
)  # fmt: skip
def test_json_that_readers_disagree_about_is_refused(model: Model, body: bytes, words: str) -> None:
    started = time.perf_counter()
    with pytest.raises(Refused, match=words):
        parse_json(body, Limits())
    with client_of(model) as client:
        answer = client.post("/predict", content=body, headers=JSON)
        assert 400 <= answer.status_code < 500 and words in answer.json()["error"]["message"]
    assert time.perf_counter() - started < 3


def test_sound_json_is_read_as_it_is() -> None:
    text = '{"a": [1, -9223372036854775808, 1e308, null, true, "\\ud83d\\ude00 \\\\ud800"], "b": {"a": {}}}'
    assert parse_json(text.encode(), Limits()) == json.loads(text)


def test_rows_of_too_many_columns_are_refused_at_once(model: Model) -> None:
    many = [{f"c{number}": 1 for number in range(300_000)}]
    each_its_own = [{f"c{row}_{number}": 1 for number in range(50)} for row in range(1000)]
    bodies = [json.dumps({"inputs": rows}).encode() for rows in (many, each_its_own)]
    row = json.dumps({f"c{number}": 1 for number in range(2000)}).encode()
    with client_of(model) as client:
        for body in (*bodies, b'{"inputs": [' + b",".join([row] * 505) + b"]}"):
            started = time.perf_counter()
            answer = client.post("/predict", content=body, headers=JSON)
            assert answer.status_code == 413 and time.perf_counter() - started < 3
        text = client.post("/predict", json={"inputs": [{"size": "x" * 10_000_000, "colour": "red"}]})
        assert text.status_code == 413 and "10,000,000 characters" in text.json()["error"]["message"]


# Overflow.


def test_overflow_is_an_error_that_names_row_and_column(model: Model, folder: Path, tmp_path: Path) -> None:
    with client_of(model) as client:
        for number in (1e308, -1e300, "1e200"):
            answer = client.post("/predict", json={"inputs": [ROW, {"size": number, "colour": "red"}]})
            message = answer.json()["error"]["message"]
            assert answer.status_code == 422 and "row 2, column 'size'" in message and "null" not in answer.text
        left = client.post("/predict", json={"inputs": [{"size": "1e999", "colour": "red"}, ROW]}).json()
        assert "row 1" in left["left_out"][0] and len(left["predictions"]) == 1
        overflows = client.post("/predict", json={"inputs": [{"size": 3e38, "colour": "red"}]})
        assert overflows.status_code in (200, 422) and "null" not in overflows.text
    table = tmp_path / "rows.jsonl"
    table.write_text('{"size": 1e308, "colour": "red"}\n')
    with pytest.raises(DataError, match="row 1, column 'size'"):
        print_predictions(folder, str(table))


def test_an_output_that_is_not_finite_is_an_error(folder: Path) -> None:
    model = load_model(folder)
    for weights in model.network.parameters():
        weights.data.fill_(float("nan"))
    with pytest.raises(DataError, match="row 1: the network's output is not finite"):
        model.predict(pa.table({"size": [3.0], "colour": ["red"]}))
    with client_of(model) as client:
        answer = client.post("/predict", json={"inputs": [ROW]})
        assert answer.status_code == 422 and "not finite" in answer.json()["error"]["message"]


# Other sites, and tokens.


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"Origin": "http://127.0.0.1"}, True),
        ({"Origin": "http://127.0.0.1", "Sec-Fetch-Site": "same-origin"}, True),
        ({"Origin": "http://elsewhere.example"}, False),
        ({"Origin": "http://127.0.0.1:3000"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "http://["}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
    ],
)
def test_pages_of_other_sites_get_nothing(model: Model, headers: dict[str, str], allowed: bool) -> None:
    with client_of(model) as client:
        answer = client.post("/predict", json={"inputs": [ROW]}, headers=headers)
        assert answer.status_code == (200 if allowed else 403)
        assert client.get("/", headers=headers).status_code == (200 if allowed else 403)
        assert "access-control-allow-origin" not in answer.headers


def test_a_link_from_elsewhere_opens_the_page(model: Model) -> None:
    followed = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    with client_of(model) as client:
        assert client.get("/", headers=followed).status_code == 200
        assert client.get("/", headers={**followed, "Sec-Fetch-Dest": "iframe"}).status_code == 403
        assert client.post("/predict", json={"inputs": [ROW]}, headers=followed).status_code == 403


@pytest.mark.parametrize("token", ["secret", "geheimé", "秘密"])
def test_tokens_of_any_letters(model: Model, token: str) -> None:
    with client_of(model, token=token) as client:

        def status(*values: bytes) -> int:
            return client.get("/metrics", headers=[(b"Authorization", value) for value in values]).status_code

        right = token.encode()
        assert status() == 401 and client.get("/metrics").headers["www-authenticate"] == "Bearer"
        for scheme in (b"Bearer", b"bearer", b"BEARER"):
            assert status(scheme + b" " + right) == 200
        for wrong in (right, b"Basic " + right, b"Bearer", b"Bearer x", b"Bearer \xff\xfe", b"Bearer " + right + b"x"):
            assert status(wrong) == 401
        assert status(b"Bearer " + right, b"Bearer x") == 401
        for path, answer in (("/", 200), ("/health", 200), ("/ready", 200), ("/docs", 401), ("/openapi.json", 401)):
            assert client.get(path).status_code == answer


def test_tokens_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    console = silent()
    console.log = said.append
    file = tmp_path / "token"
    file.write_text("secret\n")
    file.chmod(0o600)
    assert read_token(file, console) == "secret" and not said
    file.chmod(0o644)
    assert read_token(file, console) == "secret" and "chmod 600" in said[0]
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    for content in (b"", b" \n", b"two words", b"a\nb", b"x" * 5000):
        file.write_bytes(content)
        with pytest.raises(UserError, match="empty or invalid"):
            read_token(file, console)
    with pytest.raises(UserError, match="cannot be read"):
        read_token(tmp_path / "none", console)
    monkeypatch.setenv("TUNEWRIGHT_TOKEN", "other")
    assert read_token(None, console) == "other"
    monkeypatch.setenv("TUNEWRIGHT_TOKEN", "")
    with pytest.raises(UserError, match="empty or invalid"):
        read_token(None, console)
    monkeypatch.delenv("TUNEWRIGHT_TOKEN")
    assert read_token(None, console) is None


def test_a_port_that_is_taken_is_said(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UserError, match="cannot listen"):
        serve(folder, host="127.0.0.1", port=taken.getsockname()[1], token_file=None, console=silent())


# Pages.


def test_pages_load_nothing_from_elsewhere(model: Model, tmp_path: Path) -> None:
    pages: dict[str, str] = {}
    for app in (make_app(model, name="<it>"), make_ui(tmp_path)):
        with TestClient(app, base_url="http://127.0.0.1") as client:
            for path in ("/", "/docs", "/?lang=zh"):
                answer = client.get(path)
                policy = answer.headers["content-security-policy"]
                assert policy.startswith("default-src 'none'") and "frame-ancestors 'none'" in policy
                assert "unsafe-inline" not in policy.replace("style-src 'unsafe-inline'", "")
                assert answer.headers["x-content-type-options"] == "nosniff"
                assert answer.headers["referrer-policy"] == "no-referrer"
                if answer.status_code == 200:
                    pages[f"{app.title} {path}"] = answer.text
                    for script in re.findall(r"<script>(.*?)</script>", answer.text, re.DOTALL):
                        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
                        assert f"script-src 'sha256-{digest}';" in policy
    assert len(pages) == 5
    for name, text in pages.items():
        for link in re.findall(r"""(?:src|href|action)\s*=\s*["']?([^"'\s>]+)|url\(([^)]*)\)""", text):
            assert not re.match(r"""\s*["']?(?:[a-z]+:)?//""", "".join(link), re.IGNORECASE), (name, link)
        assert "cdn" not in text.lower() and "<script src" not in text and "@import" not in text
    docs = next(text for name, text in pages.items() if name.endswith("/docs"))
    assert "POST /predict" in docs and "GET /ready" in docs and "inputs" in docs and "<script" not in docs


# The page of all runs, of a stranger's runs.


@pytest.fixture
def strange(tmp_path: Path) -> Path:
    """A folder of runs, of which one is sound."""
    runs = tmp_path / "runs"
    outside = tmp_path / "outside"
    outside.mkdir(parents=True)
    (outside / "report.html").write_text("secret")
    (outside / "summary.json").write_text('{"task": "secret"}')
    (outside / "metrics.jsonl").write_text('{"kind": "step", "step": 1, "loss": 0.5}\n')

    def made(name: str, record: Any, **files: str) -> Path:
        folder = runs / name
        (folder / "pretrain").mkdir(parents=True)
        (folder / "run.json").write_text(record if isinstance(record, str) else json.dumps(record))
        for file, content in files.items():
            (folder / "pretrain" / file.replace("_", ".")).write_text(content)
        return folder

    sound = {"stages": ["pretrain"], "complete": True}
    made("good", sound, summary_json=json.dumps(stage_summary().to_json()))
    for number, stage in enumerate(["../../outside", "..", "/etc", str(outside), "a/b", "a\0b"]):
        made(f"leads-out-{number}", {"stages": [stage]})
    made("cut", '{"stages": ["pre')
    made("deep", "[" * 100_000)
    made(
        "deep-metrics",
        sound,
        metrics_jsonl="[" * 100_000 + "\n" + '{"kind": "step", "step": 1, "loss": 1, "lr": 0.1}\n',
    )
    made("list", [1])
    made("half-characters", '{"stages": ["pretrain", "\\ud800"]}', summary_json='{"task": "\\ud800"}')
    (runs / os.fsdecode(b"not-\xff-utf8")).mkdir()
    (runs / os.fsdecode(b"not-\xff-utf8") / "run.json").write_text("{}")
    made("many", {"stages": [f"s{number}" for number in range(1000)]})
    made("long", {"stages": ["x" * 5000]})
    for number, value in enumerate([None, 3, "x", {}, [None, 3, {}, [], ""], [["pretrain"]]]):
        made(f"types-{number}", {"stages": value, "complete": value})
    for number, value in enumerate([None, [], {}, "x", -1, 1e300, True, [[]]]):
        parts = {
            "data": value,
            "model": value,
            "training": value,
            "task": value,
            "evaluation": {"metrics": {"m": {"value": value, "low": value}}},
        }
        made(f"summary-{number}", sound, summary_json=json.dumps(parts))
        line = {"kind": "epoch", "step": 1, "train_loss": value, "valid": value}
        (runs / f"summary-{number}" / "pretrain" / "metrics.jsonl").write_text(json.dumps(line) + '\n{"kind": "ep')
        (runs / f"summary-{number}" / "plan.json").write_text(
            json.dumps({"stages": {"pretrain": value, "../x": value}})
        )
    made("summary-cut", sound, summary_json='{"task"')
    (made("plan-cut", sound) / "plan.json").write_text('{"stages"')
    huge = made("huge", sound, summary_json="{}")
    with (huge / "pretrain" / "summary.json").open("r+b") as file:
        file.truncate(SHOWN_FILE.default + 1)
    links = made("links", sound)
    (links / "report.html").symlink_to(outside / "report.html")
    (links / "pretrain" / "metrics.jsonl").symlink_to(outside / "metrics.jsonl")
    stage_link = made("stage-link", {"stages": ["link"]})
    (stage_link / "link").symlink_to(outside)
    (outside / "run.json").write_text(json.dumps(sound))
    (runs / "folder-link").symlink_to(outside)
    os.mkfifo(made("pipe", sound) / "pretrain" / "summary.json")
    return runs


def test_a_stranger_s_runs_are_shown_as_far_as_they_can_be_read(strange: Path) -> None:
    with TestClient(make_ui(strange), base_url="http://127.0.0.1") as client:
        listed = client.get("/api/runs")
        assert listed.status_code == 200 and "secret" not in listed.text
        found = {entry["name"]: entry for entry in listed.json()}
        assert set(found) == {folder.name.replace("\udcff", "\\udcff") for folder in strange.iterdir()}
        assert found["good"]["status"] == "finished" and found["good"]["task"] == "image-classification"
        damaged = {name for name, entry in found.items() if entry["status"] == "damaged"}
        assert {
            "cut",
            "deep",
            "list",
            "many",
            "long",
            "summary-cut",
            "huge",
            "stage-link",
            "folder-link",
            "pipe",
        } <= damaged
        assert {name for name in found if name.startswith("leads-out")} <= damaged and "good" not in damaged
        assert all(found[name]["problem"] for name in damaged)
        for name in found:
            one = client.get(f"/api/runs/{name}")
            assert one.status_code == 200 and "secret" not in one.text, name
            assert isinstance(one.json()["stages"], list) and isinstance(one.json()["problems"], list)
            report = client.get(f"/report/{name}")
            assert report.status_code in (404, 422) and "secret" not in report.text, name
            assert client.get("/api/diff", params={"a": name, "b": "good"}).json()["problems"]
        assert "link" in client.get("/api/runs/links").json()["problems"][0]
        assert client.get("/api/runs/deep-metrics").json()["stages"][0]["curves"] == {"loss of steps": [[1, 1]]}


def test_reports_run_nothing(strange: Path) -> None:
    (strange / "good" / "report.html").write_text("<script>alert(1)</script>")
    with TestClient(make_ui(strange), base_url="http://127.0.0.1") as client:
        policy = client.get("/report/good").headers["content-security-policy"]
        assert policy.startswith("sandbox;") and "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
        assert "allow-" not in policy and "script-src" not in policy


# One table.


def test_the_limits_of_a_service_stand_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {limit.name for limit in LIMITS}
    assert {
        "request_body",
        "request_rows",
        "requests_at_once",
        "connections",
        "headers_seconds",
        "body_seconds",
    } <= names
    monkeypatch.setenv("TUNEWRIGHT_LIMIT_REQUEST_BODY", "77")
    assert Limits().body == 77


def test_connections_take_at_most_half_of_the_descriptors() -> None:
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert options(Limits(connections=10**9))["http"].keywords["limits"].connections == descriptors // 2
