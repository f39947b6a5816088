"""Isolate the service from other sites: their pages cannot send requests or frame ours, and ours load nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
from urllib.parse import urlsplit

from fastapi.responses import HTMLResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tunewright.serving.request_limits import Refused

POLICY = "Content-Security-Policy"
# Default headers of every response.
SAFE = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    POLICY: "default-src 'none'; frame-ancestors 'none'",
}


class SameOrigin:
    """Refuse requests from pages of other sites, and add the headers in SAFE to every response."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SAFE.items():
                    headers.setdefault(name, value)
            await send(message)

        if is_cross_site(scope["method"], Headers(scope=scope)):
            refusal = Refused(
                403,
                "the request comes from a page of another site",
                "send it from a page of this server, or from a program",
            )
            await refusal.response(scope, receive, safely)
        else:
            await self.app(scope, receive, safely)


def is_cross_site(method: str, headers: Headers) -> bool:
    """Return whether the headers show a request from another site's page; links to our pages may be followed from anywhere."""
    host = headers.get("host", "").lower()
    if any(_host_of(origin) != host for origin in headers.getlist("origin")):
        return True
    follows_link = (
        method == "GET" and headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    )
    return headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not follows_link


def _host_of(origin: str) -> str | None:
    """Return host and port of an origin; None if it has none, such as "null"."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None


def page_response(html: str, script: str | None = None) -> HTMLResponse:
    """Return a page that may run its inline `script`, and nothing else."""
    scripts = f"script-src '{_digest(script)}'; connect-src 'self'; " if script is not None else ""
    rest = "style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    return HTMLResponse(html, headers={POLICY: f"default-src 'none'; {scripts}{rest}"})


def _digest(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
