"""Decode Parquet and Arrow files in a process of its own: `python decode_process.py MEMORY SECONDS COLUMNS ALLOWED < FILES`.

Such files can be written so that a few bytes of them take any amount of memory or time, or crash the decoder. Here they
can: the process has bounds. It tells on standard output, in numbers of 8 bytes, how many rows to decode at once, and then
again and again how many rows were decoded without harm. Only pyarrow is imported, so that it starts at once.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

# Exit statuses: a file that is damaged, too many columns, too much that comes out of it, too much memory.
DAMAGED, COLUMNS, EXPANDED, MEMORY = 2, 3, 4, 5
BATCH_ROWS = 65_536
BATCH_BYTES = 128 << 20


def main() -> int:
    memory, seconds, columns, allowed = map(int, sys.argv[1:])
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    files: list[str] = json.load(sys.stdin)
    current = ""
    try:
        rows = BATCH_ROWS
        for current in files:
            if current.endswith(".arrow"):
                continue
            facts: Any = pq.read_metadata(current)
            if facts.num_columns > columns:
                return _end(COLUMNS, current, facts.num_columns)
            groups = [facts.row_group(index) for index in range(facts.num_row_groups)]
            size = max((group.total_byte_size // max(1, group.num_rows) for group in groups), default=0)
            rows = min(rows, max(1, BATCH_BYTES // max(1, size)))
        _tell(rows)
        done, expanded = 0, 0
        for current in files:
            for batch in _batches(current, rows):
                done += batch.num_rows
                expanded += batch.nbytes
                if expanded > allowed:
                    return _end(EXPANDED, current, expanded)
                _tell(done)
    except MemoryError:
        return _end(MEMORY, current, 0)
    except (pa.ArrowException, OSError, ValueError) as error:
        return _end(DAMAGED, current, str(error))
    return 0


def _batches(file: str, rows: int) -> Iterator[pa.RecordBatch]:
    if file.endswith(".arrow"):
        with pa.memory_map(file) as opened, pa.ipc.open_stream(opened) as reader:
            for batch in reader:
                batch.validate(full=True)
                yield batch
    else:
        with pq.ParquetFile(file) as parquet:
            yield from parquet.iter_batches(rows, use_threads=False)


def _tell(number: int) -> None:
    os.write(sys.stdout.fileno(), number.to_bytes(8, "little"))


def _end(status: int, file: str, found: int | str) -> int:
    sys.stderr.write(json.dumps([file, found]))
    return status


if __name__ == "__main__":
    sys.exit(main())
