"""A process that decodes files ahead of this one, so that a file that is made to do harm does it there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import weakref
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tunewright.data.sources import decode_process
from tunewright.errors import DataError
from tunewright.files import regular
from tunewright.limits import COLUMNS, DECODE_BYTES, DECODE_SECONDS, EXPANSION

# Bytes that Python and pyarrow take themselves.
OWN_BYTES = 256 << 20
# Bytes that any files may expand to, and files of which so many bytes are decoded in a second at least.
ALWAYS_ALLOWED = 256 << 20
SLOWEST = 4 << 20
# Files that are decoded at once, so that nothing is begun with those that expand to far more.
SMALL = 8 << 20


class Guard:
    """Knows how many rows of some Parquet or Arrow files can be decoded without harm.

    Args:
        files: those that are read, in this order; they are decoded once, whatever else is read of them.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        size = sum(regular(file).stat().st_size for file in files)
        numbers = (
            DECODE_BYTES.value + OWN_BYTES,
            DECODE_SECONDS.value + size // SLOWEST,
            COLUMNS.value,
            ALWAYS_ALLOWED + EXPANSION.value * size,
        )
        self._size = size
        self._process = subprocess.Popen(
            [sys.executable, "-I", decode_process.__file__, *map(str, numbers)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # One memory pool that gives back what it no longer needs.
            env={**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"},
        )
        self._finalizer = weakref.finalize(self, _end, self._process)
        assert self._process.stdin is not None
        with suppress(BrokenPipeError), self._process.stdin as stdin:
            stdin.write(json.dumps([str(file) for file in files]).encode())
        self._done = 0
        self._ended = False
        self.rows = self._next() or 0
        """How many rows may be decoded at once."""
        if size < SMALL:
            self.require(sys.maxsize)

    def require(self, rows: int) -> None:
        """Wait until the first `rows` rows, or all that there are, were decoded without harm.

        Raises:
            DataError: they are damaged, or take more than they may.
        """
        while not self._ended and self._done < rows:
            self._done = self._next() or self._done

    def _next(self) -> int | None:
        assert self._process.stdout is not None and self._process.stderr is not None
        if number := self._process.stdout.read(8):
            return int.from_bytes(number, "little")
        self._ended = True
        message = self._process.stderr.read()
        if status := self._process.wait():
            self._raise(status, message)
        return None

    def _raise(self, status: int, message: bytes) -> None:
        try:
            facts: list[Any] = json.loads(message)
        except ValueError:
            facts = [None, message.decode(errors="replace")]
        file, found = facts
        if status == decode_process.COLUMNS:
            COLUMNS.require(found, "the table has too many columns", file=file)
        if status == decode_process.EXPANDED:
            EXPANSION.require(found / max(1, self._size), "the file expands to far more than its size", file=file)
        if status == decode_process.MEMORY:
            DECODE_BYTES.require(float("inf"), "some rows of the file take too much memory", file=file)
        if status == -signal.SIGXCPU:
            DECODE_SECONDS.require(float("inf"), "the file takes too long to decode", file=file)
        if status == decode_process.DAMAGED:
            raise DataError(
                f"the file is not a whole Parquet or Arrow file: {found}",
                file=file,
                expected="a Parquet or Arrow file",
                fix="restore it from a copy, or write it again",
            )
        raise DataError(
            "the file makes its decoder crash", file=file, found=found or f"status {status}", fix="write it again"
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()
