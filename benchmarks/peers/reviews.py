"""The prepared reviews: texts, and 0 or 1."""

from pathlib import Path

import pyarrow.parquet as pq


def load(folder: str, part: str) -> tuple[list[str], list[int]]:
    tables = [pq.read_table(file) for file in sorted(Path(folder).glob(f"{part}*.parquet"))]
    texts = [text for table in tables for text in table["text"].to_pylist()]
    return texts, [int(label == "pos") for table in tables for label in table["label"].to_pylist()]
