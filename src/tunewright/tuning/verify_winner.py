"""Verify the winner of a search: train and test it and the unchanged recipe with several seeds."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from tunewright.console import Console, silent
from tunewright.evaluation.intervals import Estimate, over_seeds
from tunewright.evaluation.metrics import METRICS
from tunewright.files import write_record
from tunewright.run_recipe import run
from tunewright.runs.folder import read_json
from tunewright.runs.summary.stage import read_summary
from tunewright.tuning.search import Search


def verify_winner(search: Search, winner: list[str], seeds: int, console: Console) -> dict[str, Any]:
    """Train and test the winner and the unchanged recipe with `seeds` seeds each; return and write the paired difference."""
    found: dict[str, list[float]] = {}
    for name, more in (("unchanged", []), ("tuned", winner)):
        console.info(f"{name}: {seeds} seeds")
        overrides = [*search.overrides, *more, f"eval.seeds={seeds}", f"name={'default' if not more else 'tuned'}"]
        place = search.folder / "held" / hashlib.sha256("\n".join(more).encode()).hexdigest()[:12]
        result = _finished(place) or run(search.recipe, overrides=overrides, runs=place, console=silent()).folder
        stage = read_json(result / "run.json", "a run")["stages"][-1]
        summary = read_summary(result / stage)
        assert summary.evaluation is not None
        measured = summary.evaluation.metrics
        metric = search.metric if search.metric in measured else next(iter(measured))
        if summary.seeds is not None and metric in summary.seeds.metrics:
            found[name] = summary.seeds.metrics[metric].values
        else:
            value = measured[metric].value
            found[name] = [] if value is None else [value]
        found.setdefault("metric", [metric])  # pyright: ignore[reportArgumentType]
    metric = str(found.pop("metric")[0])
    difference = over_seeds([b - a for a, b in zip(found["unchanged"], found["tuned"], strict=True)])
    console.info(_sentence(metric, difference))
    held = {
        "metric": metric,
        "as_it_is": found["unchanged"],
        "tuned": found["tuned"],
        "difference": difference.to_json(),
    }
    write_record(search.folder / "held.json", held)
    return {**held, "sentence": _sentence(metric, difference)}


def _finished(place: Path) -> Path | None:
    """Return the folder of a run that is finished in `place`, if any."""
    runs = [path.parent for path in place.glob("*/run.json")]
    return next((folder for folder in runs if read_json(folder / "run.json", "a run").get("complete")), None)


def _sentence(metric: str, difference: Estimate) -> str:
    value, low, high = difference.value, difference.low, difference.high
    assert value is not None
    if low is None or high is None:
        return f"tuned against unchanged: {metric} {value:+.4f} on the test rows, of one seed: no interval"
    if low <= 0 <= high:
        verdict = "no real difference"
    else:
        verdict = "better" if (low > 0) == METRICS[metric].greater_is_better else "worse"
    return f"tuned against unchanged: {verdict}: {metric} {value:+.4f} [{low:+.4f}, {high:+.4f}] on the test rows over seeds"
