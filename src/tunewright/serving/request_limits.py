"""Define the limits of requests, and refuse requests."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from starlette.responses import JSONResponse

from tunewright import limits as table
from tunewright.errors import UserError

# Names of this machine; a service without a token answers only under these.
LOCAL = ["127.0.0.1", "localhost", "[::1]"]
# Seconds for requests in progress after a stop.
LAST_SECONDS = 20


def _of(limit: table.Limit) -> Any:
    """Return a field whose default is the limit in force."""
    return field(default_factory=lambda: limit.value)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Hold the limits of requests; defaults are in the table of limits."""

    body: int = _of(table.REQUEST_BODY)
    """Bytes."""
    bodies: int = _of(table.REQUEST_BODIES)
    """Bytes of all requests together."""
    rows: int = _of(table.REQUEST_ROWS)
    """Rows in a request, and in a batch."""
    columns: int = _of(table.REQUEST_COLUMNS)
    values: int = _of(table.REQUEST_VALUES)
    """Values in the JSON of a request, and cells of its rows."""
    text: int = _of(table.REQUEST_TEXT)
    """Characters of a text."""
    seconds_of_sound: float = _of(table.REQUEST_SOUND)
    samples: int = _of(table.REQUEST_SAMPLES)
    """Samples of a recording, over all channels."""
    tokens: int = _of(table.REQUEST_TOKENS)
    """The most tokens to generate."""
    waiting: int = _of(table.REQUESTS_AT_ONCE)
    """Concurrent requests; more are refused."""
    seconds: float = _of(table.REQUEST_SECONDS)
    """Seconds until the answer."""
    headers_seconds: float = _of(table.HEADERS_SECONDS)
    """Seconds for a request's headers, from the connection or the previous response."""
    body_seconds: float = _of(table.BODY_SECONDS)
    """Seconds for a request's body, from its headers."""
    reader_seconds: float = _of(table.READER_SECONDS)
    """Seconds that a client may stop reading its response."""
    connections: int = _of(table.CONNECTIONS)


class Refused(Exception):
    """Refuse a request, with a status, a problem and a fix."""

    def __init__(self, status: int, problem: str, fix: str) -> None:
        self.status, self.problem, self.fix = status, problem, fix
        super().__init__(problem)

    @classmethod
    def because(cls, error: UserError, fix: str = "correct the rows") -> Refused:
        """Return the refusal of a request whose content the model cannot process."""
        where = f"{error.place}: " if error.place else ""
        found = f" (found: {error.found})" if error.found else ""
        return cls(422, f"{where}{error.problem}{found}", error.fix or error.expected or fix)

    @property
    def response(self) -> JSONResponse:
        """Return the response; after a deadline the connection is closed, because the rest of the request may still arrive."""
        headers = {401: {"WWW-Authenticate": "Bearer"}, 408: {"Connection": "close"}}.get(self.status)
        content = {"error": {"message": self.problem, "fix": self.fix, "code": self.status}}
        return JSONResponse(content, status_code=self.status, headers=headers)
