"""What a request may cost, and how one is refused."""

from __future__ import annotations

from dataclasses import dataclass

# What this machine calls itself; a service that anybody may ask answers under these names alone.
LOCAL = ["127.0.0.1", "localhost", "[::1]"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a request may cost."""

    body: int = 10 * 2**20
    """Bytes."""
    rows: int = 1024
    """In one request, and in one pass of the network."""
    seconds_of_sound: float = 120.0
    tokens: int = 512
    """That are written at most."""
    waiting: int = 256
    """Requests at the same time; more are turned away."""
    seconds: float = 60.0
    """Until an answer has to be there."""


class Refused(Exception):
    """A request that is not answered: status, problem and the way to mend it."""

    def __init__(self, status: int, problem: str, fix: str) -> None:
        self.status, self.problem, self.fix = status, problem, fix
        super().__init__(problem)
