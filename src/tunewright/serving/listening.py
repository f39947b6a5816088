"""Run the HTTP server with limits on connections and deadlines for clients."""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from types import FrameType
from typing import Any, cast

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from tunewright.errors import UserError
from tunewright.serving.request_limits import LAST_SECONDS, Limits

# Connections waiting to be accepted.
WAITING = 512
# The number of body parts of any size; further parts must have this many bytes on average.
FREE_PARTS, SMALL_PART = 1000, 64
# Seconds that an idle connection stays open.
IDLE_SECONDS = 5
# Seconds for a closed connection to receive the rest of its response.
FLUSH_SECONDS = 5


def listen(app: ASGIApp, *, host: str, port: int, limits: Limits, begin_stop: Callable[[], None]) -> None:
    """Serve an app until Ctrl-C or SIGTERM; requests in progress are still answered.

    Args:
        begin_stop: called at the signal, so that open streams come to an end.

    Raises:
        UserError: the port is taken, or this machine has no such address.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        raise UserError(
            f"the server cannot listen: {error.strerror}",
            place=f"{host}, port {port}",
            expected="an address of this machine, and a port that no other program uses",
            fix="name another one with --port",
        ) from None
    with listener, suppress(KeyboardInterrupt):
        Server(uvicorn.Config(app, **options(limits)), begin_stop).run([listener])


class Server(uvicorn.Server):
    """Accept few connections per iteration of the event loop, while many may wait in the kernel."""

    def __init__(self, config: uvicorn.Config, begin_stop: Callable[[], None]) -> None:
        super().__init__(config)
        self.begin_stop = begin_stop

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.begin_stop()
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or []:
            listener.listen(WAITING)  # asyncio set it to the backlog, which is also the number accepted per iteration


def options(limits: Limits) -> dict[str, Any]:
    """Configure uvicorn with the limits. Connections get at most half of the process's file descriptors."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    limits = replace(limits, connections=min(limits.connections, descriptors // 2))
    return {
        "http": cast(Any, partial(BoundedProtocol, limits=limits)),
        "ws": "none",
        "proxy_headers": False,
        "server_header": False,
        "access_log": False,
        "log_level": "error",
        # This many are accepted per iteration of the event loop; closing one too many takes several iterations.
        "backlog": max(1, min(128, descriptors // 16)),
        "timeout_keep_alive": IDLE_SECONDS,
        "timeout_graceful_shutdown": LAST_SECONDS,
    }


class Connection(h11.Connection):
    """Refuse a body in too many small parts: each costs the event loop as much as a large one."""

    parts, size = 0, 0

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, h11.Request):
            self.parts, self.size = 0, 0
        elif isinstance(event, h11.Data):
            self.parts += 1
            self.size += len(event.data)
            if self.parts > FREE_PARTS and self.size < self.parts * SMALL_PART:
                raise h11.RemoteProtocolError("the body arrives in too many small parts")
        return event


class BoundedProtocol(H11Protocol):
    """Handle a connection with deadlines for a request's headers, and for the client to read its response.

    Where there are more connections than may be, the one whose request has been on its way longest makes room.
    """

    def __init__(self, *args: Any, limits: Limits, **known: Any) -> None:
        super().__init__(*args, **known)
        self.conn = Connection(h11.SERVER)
        self.limits = limits
        self.since = self.loop.time()
        """When the wait for the current request started."""
        self.headers_deadline: asyncio.TimerHandle | None = None
        self.reader_deadline: asyncio.TimerHandle | None = None

    @property
    def is_arriving(self) -> bool:
        """Return whether (the rest of) a request is still to arrive."""
        return self.is_between_requests or self.cycle.more_body

    @property
    def is_between_requests(self) -> bool:
        """Return whether no request is being answered."""
        return cast(Any, self.cycle) is None or self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(transport)
        self._await_headers()
        if len(self.connections) > self.limits.connections:
            others = cast("set[BoundedProtocol]", self.connections)
            oldest = min((entry for entry in others if entry.is_arriving), key=lambda entry: entry.since)
            self.connections.discard(oldest)
            oldest.transport.abort()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self.is_between_requests:
            self._headers_are_there()

    def on_response_complete(self) -> None:
        self.since = self.loop.time()
        self._await_headers()
        super().on_response_complete()
        if not self.is_between_requests:  # the next request had been sent already
            self._headers_are_there()

    def send_400_response(self, msg: str) -> None:
        """Send an error; if the request has been answered already, close."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._headers_are_there()
        self.resume_writing()
        super().connection_lost(exc)

    def timeout_keep_alive_handler(self) -> None:
        self._end()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.reader_deadline = self.loop.call_later(self.limits.reader_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.reader_deadline is not None:
            self.reader_deadline.cancel()
            self.reader_deadline = None

    def _await_headers(self) -> None:
        self._headers_are_there()
        self.headers_deadline = self.loop.call_later(self.limits.headers_seconds, self._end)

    def _headers_are_there(self) -> None:
        if self.headers_deadline is not None:
            self.headers_deadline.cancel()
            self.headers_deadline = None

    def _end(self) -> None:
        """Close the connection, with the reason if a request has started to arrive."""
        if self.transport.is_closing():
            self.transport.abort()
            return
        if self.conn.our_state is h11.IDLE and self.conn.trailing_data[0]:
            self.transport.write(b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        self.transport.close()
        self.loop.call_later(FLUSH_SECONDS, self.transport.abort)
