"""Write sums.csv: every sum of two numbers below 100, asked in Chinese, with its answer. No test sum is ever trained on."""

from __future__ import annotations

import csv
from pathlib import Path


def main() -> None:
    with (Path(__file__).parent / "sums.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt", "completion", "pair"])
        for first in range(100):
            for second in range(100):
                # 3加5 and 5加3 are kept together, or the test would leak.
                pair = f"{min(first, second)} {max(first, second)}"
                writer.writerow([f"{first}加{second}等于多少？", str(first + second), pair])


if __name__ == "__main__":
    main()
