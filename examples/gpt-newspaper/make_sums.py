"""Write sums.csv, every sum of two numbers below 100 as a Chinese question with its answer, and pairs.csv, the same sums with the
right answer and a slightly wrong one. No test sum is in the training split: 3加5 and 5加3 share a group, by which the rows are split.
"""

from __future__ import annotations

import csv
import random
from pathlib import Path

HERE = Path(__file__).parent
# The error of a wrong answer: one digit, as in typical mistakes.
OFF = (-10, -1, 1, 10)


def main() -> None:
    draw = random.Random(0)
    with (
        (HERE / "sums.csv").open("w", encoding="utf-8", newline="") as sums,
        (HERE / "pairs.csv").open("w", encoding="utf-8", newline="") as pairs,
    ):
        asked, compared = csv.writer(sums), csv.writer(pairs)
        asked.writerow(["prompt", "completion", "sum"])
        compared.writerow(["prompt", "chosen", "rejected", "sum"])
        for first in range(100):
            for second in range(100):
                question, name = f"{first}加{second}等于多少？", f"{min(first, second)} {max(first, second)}"
                right = first + second
                asked.writerow([question, right, name])
                wrong = draw.choice([right + off for off in OFF if right + off >= 0])
                compared.writerow([question, right, wrong, name])


if __name__ == "__main__":
    main()
