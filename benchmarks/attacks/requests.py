"""Hostile requests to a service and to the page of runs: bodies, headers, paths and clients that do not behave."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass

HUGE = 10**400
JSON = "application/json"


@dataclass(frozen=True)
class Request:
    """Bytes to send to a path; the whole answer is read. Sent by a client that obeys HTTP, unless `raw` is given."""

    name: str
    path: str
    body: bytes = b""
    kind: str | None = JSON
    method: str = "POST"
    headers: tuple[tuple[str, str], ...] = ()
    raw: Callable[[str, int], bytes] | None = None


def requests() -> Iterator[Request]:
    """Every hostile request to the service of a language model."""
    for path in ("/predict", "/v1/completions", "/v1/chat/completions"):
        for name, body in BODIES.items():
            yield Request(f"{path}: {name}", path, body)
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", None):
            yield Request(f"{path}: sent as {kind}", path, b'{"prompt": "a", "messages": [], "inputs": ["a"]}', kind)
        for name, headers in HEADERS.items():
            yield Request(f"{path}: {name}", path, b'{"prompt": "a", "inputs": ["a"]}', JSON, headers=headers)
    for name, value in FIELDS:
        body = json.dumps({"prompt": "to be", "max_tokens": 2, name: value}).encode()
        yield Request(f"/v1/completions: {name} = {str(value)[:30]}", "/v1/completions", body)
    for path in PATHS:
        yield Request(f"GET {path[:60]}", path, kind=None, method="GET")
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "HEAD", "X" * 50):
        yield Request(f"{method} /predict", "/predict", b"{}", method=method)
    for name, content in RAW.items():
        yield Request(f"raw: {name}", "", raw=content)
    for kind, content in FILES.items():
        yield Request(f"/predict: {kind}", "/predict", content, kind)


BODIES: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"{",
    "null": b"null",
    "a list": b"[]",
    "a number": b"1e999",
    "depth": b"[" * 100_000,
    "depth of maps": b'{"a":' * 50_000,
    "300,000 keys": json.dumps({f"k{n}": 1 for n in range(300_000)}).encode(),
    "keys twice": b'{"prompt": "a", "prompt": "b", "inputs": ["a"], "inputs": ["b"]}',
    "a lone surrogate": b'{"prompt": "\\ud800", "inputs": ["\\ud800"], "messages": [{"role": "user", "content": "\\ud800"}]}',
    "null bytes": b'{"prompt": "\\u0000", "inputs": ["\\u0000"]}',
    "not utf-8": b'{"prompt": "\xff\xfe"}',
    "a prompt of 9 MB": json.dumps({"prompt": "a " * 4_500_000, "inputs": ["a " * 4_500_000]}).encode(),
    "a message of 9 MB": json.dumps({"messages": [{"role": "user", "content": "a " * 4_500_000}]}).encode(),
    "a body of 40 MB": b'{"prompt": "' + b"a" * 40_000_000 + b'"}',
    "900 turns": json.dumps({"messages": [{"role": "user", "content": "a"}] * 900}).encode(),
    "inputs of other types": b'{"inputs": [1, null, true, [], {}]}',
    "a file": b'{"inputs": ["/etc/passwd"], "prompt": "file:///etc/passwd"}',
    "a digit string": b'{"inputs": [' + b"9" * 100_000 + b"]}",
    "100,000 inputs": json.dumps({"inputs": ["a"] * 100_000}).encode(),
    "NaN": b'{"inputs": [NaN], "temperature": NaN, "prompt": "a"}',
    "dunder": b'{"__class__": "os.system", "inputs": [{"__class__": 1}]}',
}
HEADERS: dict[str, tuple[tuple[str, str], ...]] = {
    "a foreign origin": (("Origin", "http://evil.example"),),
    "a null origin": (("Origin", "null"),),
    "a foreign host": (("Host", "evil.example"),),
    "a cross-site fetch": (("Sec-Fetch-Site", "cross-site"),),
    "an encoding": (("Content-Encoding", "gzip"),),
    "a header of 60 KB": (("X-Long", "x" * 60_000),),
    "200 headers": tuple((f"X-{n}", "x") for n in range(200)),
    "a forwarded host": (("X-Forwarded-Host", "evil.example"), ("X-Forwarded-For", "6.6.6.6")),
}
FIELDS: list[tuple[str, object]] = [
    ("n", 1000),
    ("n", 0),
    ("best_of", 50),
    ("max_tokens", 10**9),
    ("max_tokens", -1),
    ("temperature", 1e308),
    ("temperature", -1),
    ("top_p", 0),
    ("stop", ["x"] * 1000),
    ("stop", 5),
    ("logit_bias", {"999999999": 100}),
    ("logit_bias", {"a": "b"}),
    ("logprobs", 5),
    ("echo", True),
    ("suffix", "x"),
    ("stream", "yes"),
    ("stream_options", {"include_usage": 3}),
    ("presence_penalty", 1e9),
    ("frequency_penalty", "x"),
    ("seed", 2**70),
    ("seed", -1),
    ("user", ["x"]),
    ("response_format", {"type": "json_object"}),
    ("tools", [{}]),
    ("unknown_field", 1),
    ("model", "../../x"),
]
PATHS = [
    "/../../etc/passwd",
    "/..%2f..%2fetc/passwd",
    "/%2e%2e/%2e%2e/etc/passwd",
    "/static/../../../etc/passwd",
    "/docs/../../etc/passwd",
    "/" + "a" * 60_000,
    "/predict?" + "a=1&" * 5000,
    "/%00",
    "/%ff%fe",
    "//evil.example/",
    "/openapi.json",
    "/docs",
    "/metrics",
    "/health",
    "/ready",
    "/",
    "/.git/config",
    "/predict",
]
FILES: dict[str, bytes] = {
    "image/png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n",
    "image/svg+xml": b"<svg/>",
    "image/gif": b"GIF89a\xff\xff\xff\xff\xf7\0\0" + bytes(500),
    "audio/wav": b"RIFF\xff\xff\xff\xffWAVE",
    "text/csv": b"a,b\n" * 1000,
    "application/octet-stream": bytes(1000),
    "application/pdf": b"%PDF",
}


def _raw(text: str, body: bytes = b"") -> Callable[[str, int], bytes]:
    return lambda host, port: text.replace("\n", "\r\n").format(host=f"{host}:{port}").encode("latin-1") + body


RAW: dict[str, Callable[[str, int], bytes]] = {
    "half a header": _raw("POST /predict HTTP/1.1\nHost: {host}\n"),
    "a line that never ends": lambda host, port: b"GET /" + b"a" * 200_000,
    "headers that never end": lambda host, port: b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20_000,
    "two lengths": _raw("POST /predict HTTP/1.1\nHost: {host}\nContent-Length: 5\nContent-Length: 9\n\n", b"hello"),
    "a length below zero": _raw("POST /predict HTTP/1.1\nHost: {host}\nContent-Length: -5\n\n"),
    "a length that lies": _raw("POST /predict HTTP/1.1\nHost: {host}\nContent-Type: application/json\nContent-Length: 900\n\n", b"{}"),
    "a length of 10^18": _raw("POST /predict HTTP/1.1\nHost: {host}\nContent-Type: application/json\nContent-Length: 1000000000000000000\n\n", b"{}"),
    "chunks that lie": _raw("POST /predict HTTP/1.1\nHost: {host}\nTransfer-Encoding: chunked\n\n", b"ffffffffffffffff\r\nhello"),
    "length and chunks": _raw("POST /predict HTTP/1.1\nHost: {host}\nContent-Length: 5\nTransfer-Encoding: chunked\n\n", b"0\r\n\r\nGET /x HTTP/1.1\r\n\r\n"),
    "a wait for leave": _raw("POST /predict HTTP/1.1\nHost: {host}\nExpect: 100-continue\nContent-Length: 100\n\n"),
    "an upgrade": _raw("GET / HTTP/1.1\nHost: {host}\nUpgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Key: x\nSec-WebSocket-Version: 13\n\n"),
    "HTTP/0.9": lambda host, port: b"GET /\r\n",
    "HTTP/9.9": _raw("GET / HTTP/9.9\nHost: {host}\n\n"),
    "TLS": lambda host, port: bytes.fromhex("1603010200010001fc0303") + bytes(500),
    "noise": lambda host, port: bytes(range(256)) * 50,
    "no host": _raw("GET / HTTP/1.1\n\n"),
    "an absolute address": _raw("GET http://evil.example/ HTTP/1.1\nHost: {host}\n\n"),
    "a folded header": _raw("GET / HTTP/1.1\nHost: {host}\nX: a\n b\n\n"),
    "a header split": _raw("GET /%0d%0aSet-Cookie:%20x HTTP/1.1\nHost: {host}\n\n"),
}  # fmt: skip


def send_raw(host: str, port: int, content: bytes, seconds: float) -> bytes:
    """What comes back within `seconds` to bytes that no HTTP client would send; empty where the connection is only closed."""
    answer = b""
    with socket.create_connection((host, port), timeout=seconds) as connection:
        try:
            connection.sendall(content)
            while len(answer) < 2**20 and (part := connection.recv(65_536)):
                answer += part
        except TimeoutError:
            raise
        except OSError:  # closed while we were sending: a refusal
            pass
    return answer
