"""What a request may cost, and how one is refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from starlette.responses import JSONResponse

from tunewright import limits as table
from tunewright.errors import UserError

# What this machine calls itself; a service that anybody may ask answers under these names alone.
LOCAL = ["127.0.0.1", "localhost", "[::1]"]
# Seconds that requests in progress have after a stop was asked for.
LAST_SECONDS = 20


def _of(limit: table.Limit) -> Any:
    """A field whose default is the bound in force."""
    return field(default_factory=lambda: limit.value)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a request may cost; each default stands in the table of limits."""

    body: int = _of(table.REQUEST_BODY)
    """Bytes."""
    bodies: int = _of(table.REQUEST_BODIES)
    """Bytes of all requests together."""
    rows: int = _of(table.REQUEST_ROWS)
    """In one request, and in one pass of the network."""
    columns: int = _of(table.REQUEST_COLUMNS)
    values: int = _of(table.REQUEST_VALUES)
    """In the JSON of a request, and in the cells of its rows."""
    text: int = _of(table.REQUEST_TEXT)
    """Characters of one."""
    seconds_of_sound: float = _of(table.REQUEST_SOUND)
    samples: int = _of(table.REQUEST_SAMPLES)
    """Of one recording, all channels together."""
    tokens: int = _of(table.REQUEST_TOKENS)
    """That are written at most."""
    waiting: int = _of(table.REQUESTS_AT_ONCE)
    """Requests at the same time; more are turned away."""
    seconds: float = _of(table.REQUEST_SECONDS)
    """Until an answer has to be there."""
    headers_seconds: float = _of(table.HEADERS_SECONDS)
    """Until a request's headers have to be there, counted from the connection or the previous response."""
    body_seconds: float = _of(table.BODY_SECONDS)
    """Until a request's body has to be there, counted from its headers."""
    reader_seconds: float = _of(table.READER_SECONDS)
    """That a client may read nothing of what it is sent."""
    connections: int = _of(table.CONNECTIONS)


class Refused(Exception):
    """A request that is not answered: status, problem and the way to mend it."""

    def __init__(self, status: int, problem: str, fix: str) -> None:
        self.status, self.problem, self.fix = status, problem, fix
        super().__init__(problem)

    @classmethod
    def because(cls, error: UserError, fix: str = "correct the rows") -> Refused:
        """The refusal of a request whose content the model cannot take."""
        where = f"{error.place}: " if error.place else ""
        found = f" (found: {error.found})" if error.found else ""
        return cls(422, f"{where}{error.problem}{found}", error.fix or error.expected or fix)

    @property
    def response(self) -> JSONResponse:
        """The refusal as it is sent; after a deadline the connection ends, because the rest may still be on its way."""
        headers = {401: {"WWW-Authenticate": "Bearer"}, 408: {"Connection": "close"}}.get(self.status)
        content = {"error": {"message": self.problem, "fix": self.fix, "code": self.status}}
        return JSONResponse(content, status_code=self.status, headers=headers)
