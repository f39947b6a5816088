"""Authenticate requests, and limit their cost."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Callable, Collection

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tunewright.serving.request_limits import Limits, Refused


class Guard:
    """Check the token, and limit the size and time of bodies and the number of requests.

    A request takes one of the places for requests in progress once its body is there: what only drips in, and what has no
    body to wait for, keeps nobody out.

    Args:
        open_to_all: paths that are answered without a token.
        seen: called with the path, the status and the seconds of each request.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        token: str | None,
        limits: Limits,
        open_to_all: Collection[str],
        seen: Callable[[str, int, float], None],
    ) -> None:
        self.app, self.limits, self.open_to_all, self.seen = app, limits, open_to_all, seen
        self.token = None if token is None else token.encode("utf-8", "surrogateescape")
        self.running = 0
        self.held = 0
        """Bytes of the bodies of all requests in progress."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        arrival = Arrival(self, receive)
        try:
            if (refusal := self._refusal(scope)) is not None:
                await refusal.response(scope, receive, noted)
            else:
                await self.app(scope, arrival.receive, noted)
        finally:
            arrival.release()
            self.seen(scope["path"], status, time.perf_counter() - started)

    def _refusal(self, scope: Scope) -> Refused | None:
        headers = Headers(scope=scope)
        if self.token is not None and scope["path"] not in self.open_to_all and not has_token(headers, self.token):
            return Refused(401, "the token is missing or wrong", "send the header Authorization: Bearer TOKEN")
        if headers.get("content-encoding", "identity").strip().lower() != "identity":
            return Refused(415, "the body is compressed", "send it uncompressed, without Content-Encoding")
        if int(headers.get("content-length", 0)) > self.limits.body:
            return _too_long(self.limits)
        return None


class Arrival:
    """Count the bytes of one request."""

    def __init__(self, guard: Guard, receive: Receive) -> None:
        self.guard, self._receive = guard, receive
        self.until = asyncio.get_running_loop().time() + guard.limits.body_seconds
        self.size, self.has_place, self.is_complete = 0, False, False

    async def receive(self) -> Message:
        """Receive the next part of the request.

        Raises:
            Refused: it is too long or too slow, or there are too many requests.
        """
        if self.is_complete:
            return await self._receive()
        limits = self.guard.limits
        try:
            async with asyncio.timeout_at(self.until):
                message = await self._receive()
        except TimeoutError:
            raise Refused(
                408, f"the body did not arrive within {limits.body_seconds:g} s", "send it faster, or less of it"
            ) from None
        self._count(len(message.get("body", b"")))
        if message["type"] == "http.request" and not message.get("more_body", False):
            self.is_complete = True
            if self.guard.running >= limits.waiting:
                raise Refused(503, "too many requests at the same time", "try again in a moment")
            self.guard.running += 1
            self.has_place = True
        return message

    def _count(self, size: int) -> None:
        self.size += size
        self.guard.held += size
        if self.size > self.guard.limits.body:
            raise _too_long(self.guard.limits)
        if self.guard.held > self.guard.limits.bodies:
            raise Refused(503, "too many large requests at the same time", "try again in a moment")

    def release(self) -> None:
        """Release the capacity of the request."""
        self.guard.held -= self.size
        self.guard.running -= self.has_place


def _too_long(limits: Limits) -> Refused:
    return Refused(413, f"the body is longer than {limits.body:,} bytes", "send less at a time")


def has_token(headers: Headers, token: bytes) -> bool:
    """Return whether a request's only Authorization header has the token, compared in constant time."""
    given = [value for name, value in headers.raw if name.lower() == b"authorization"]
    if len(given) != 1:
        return False
    scheme, _, credentials = given[0].strip().partition(b" ")
    return hmac.compare_digest(credentials.strip(), token) and scheme.lower() == b"bearer"
