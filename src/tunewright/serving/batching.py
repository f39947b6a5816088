"""Batch concurrent requests into one pass of the network."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from tunewright.serving.request_limits import LAST_SECONDS

# A function from a table to one answer per row.
Answer = Callable[[pa.Table], list[dict[str, Any]]]


@dataclass(frozen=True)
class Job:
    """Hold the rows of one request."""

    table: pa.Table
    answer: Answer
    done: Future[list[dict[str, Any]]] = field(default_factory=Future)


class Batcher:
    """Answer requests in one thread, with all waiting requests in a batch, up to `most` rows.

    Nobody waits for others to come: a lone request is answered at once, and while it is, the next batch gathers.

    Args:
        seen: called with the rows and the seconds of each batch.
    """

    def __init__(self, most: int, seen: Callable[[int, float], None]) -> None:
        self.most, self.seen = most, seen
        self.waiting: queue.Queue[Job | None] = queue.Queue()
        self.began: float | None = None
        """When the current pass started, by the monotonic clock; None if there is none."""
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def submit(self, table: pa.Table, answer: Answer) -> Future[list[dict[str, Any]]]:
        """Return the answers to a table's rows."""
        job = Job(table, answer)
        self.waiting.put(job)
        return job.done

    def is_responsive(self, seconds: float = 1.0) -> bool:
        """Return whether the thread is alive, and the current pass takes no longer than that."""
        began = self.began
        return self.thread.is_alive() and (began is None or time.monotonic() - began <= seconds)

    def begin_stop(self) -> None:
        """Do nothing: waiting requests are still answered, which takes a moment."""

    def stop(self, seconds: float = LAST_SECONDS) -> None:
        """Answer waiting requests, and end; do not wait longer than that for the current pass."""
        self.waiting.put(None)
        self.thread.join(seconds)

    def _work(self) -> None:
        held: Job | None = None
        while True:
            job = held or self.waiting.get()
            held = None
            if job is None:
                return
            jobs = [job]
            while sum(entry.table.num_rows for entry in jobs) < self.most:
                try:
                    other = self.waiting.get_nowait()
                except queue.Empty:
                    break
                if other is None:
                    self.waiting.put(None)
                    break
                if other.table.schema != job.table.schema or other.answer != job.answer:
                    held = other
                    break
                jobs.append(other)
            self.began = time.monotonic()
            self._answer([entry for entry in jobs if entry.done.set_running_or_notify_cancel()])
            self.began = None

    def _answer(self, jobs: Sequence[Job]) -> None:
        if not jobs:
            return
        started = time.perf_counter()
        try:
            answers = jobs[0].answer(pa.concat_tables([job.table for job in jobs]))
        except Exception as error:  # of any kind: it becomes the answer, and the thread continues
            if len(jobs) > 1:  # a request that fails must not affect the others
                for job in jobs:
                    self._answer_one(job)
                return
            jobs[0].done.set_exception(error)
            return
        self.seen(len(answers), time.perf_counter() - started)
        start = 0
        for job in jobs:
            job.done.set_result(answers[start : start + job.table.num_rows])
            start += job.table.num_rows

    def _answer_one(self, job: Job) -> None:
        try:
            job.done.set_result(job.answer(job.table))
        except Exception as error:
            job.done.set_exception(error)
