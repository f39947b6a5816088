"""Run blocking calls in one thread outside of the event loop, with a bounded queue."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Found = TypeVar("Found")


class ExecutorFull(Exception):
    """Report that the queue is full."""


class BoundedExecutor:
    """Run calls sequentially in a separate thread.

    Args:
        name: of the thread.
        room: calls that may wait or run at the same time.
    """

    def __init__(self, name: str, room: int) -> None:
        self.pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self.room = room
        self.running = 0
        self.stopped = False

    async def run(self, call: Callable[[], Found]) -> Found:
        """Run a call, and return or raise what it returns or raises.

        Raises:
            ExecutorFull: there is no room for it, or the executor was stopped.
        """
        if self.running >= self.room or self.stopped:
            raise ExecutorFull
        self.running += 1
        future = self.pool.submit(call)
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda _: _tell(loop, self._finished))
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if self.stopped:  # cancelled by `stop`, not by its caller
                raise ExecutorFull from None
            raise

    def stop(self) -> None:
        """Cancel waiting calls; the running one finishes."""
        self.stopped = True
        self.pool.shutdown(wait=False, cancel_futures=True)

    def _finished(self) -> None:
        self.running -= 1


def _tell(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(call)
