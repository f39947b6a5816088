"""`tunewright serve MODEL`: a saved model as a service on this machine."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from tunewright.errors import RecipeError, UserError
from tunewright.runs import read_json
from tunewright.stages.console import Screen
from tunewright.stages.predict import load_model

# Seconds that requests in progress have after a stop was asked for.
LAST_SECONDS = 20


def serve(folder: Path, *, host: str, port: int, token: str | None, screen: Screen) -> None:
    """Answer requests until Ctrl-C or SIGTERM; what is in progress then is still answered.

    Raises:
        UserError: what a service is made of is not installed, or others could reach it and nobody has to say who they are.
    """
    _require_installed()
    if token is None and host not in ("127.0.0.1", "localhost", "::1"):
        raise UserError(
            "other machines could use the model, and nobody has to say who they are",
            place="--host",
            found=host,
            expected="127.0.0.1, or a token",
            fix="set TUNEWRIGHT_TOKEN, which requests then have to send",
        )
    import uvicorn

    from tunewright.serving.app import make_app

    model = load_model(folder)
    name = name_of(folder)
    screen.say(f"{name} at http://{host}:{port}: a page to try it; /predict, /docs, /health, /metrics")
    app = make_app(model, name=name, token=token)
    uvicorn.run(
        app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=LAST_SECONDS, access_log=False
    )


def _require_installed() -> None:
    missing = [name for name in ("fastapi", "uvicorn", "prometheus_client") if find_spec(name) is None]
    if missing:
        raise RecipeError(f"this needs {', '.join(missing)}, not installed here", fix='pip install "tunewright[serve]"')


def name_of(folder: Path) -> str:
    """What a service calls the model: its run's name and stage, or its folder's."""
    place = folder.resolve()
    summary = place.parent / "summary.json"
    if place.name == "model" and summary.exists():
        return f"{place.parent.parent.name}-{read_json(summary, 'a stage')['stage']}"
    return place.name


def show_runs(runs: Path, port: int, screen: Screen) -> None:
    """All runs of a folder on a local page, until Ctrl-C.

    Raises:
        UserError: there is no such folder, or what a service is made of is not installed.
    """
    _require_installed()
    if not runs.is_dir():
        raise UserError(
            "there is no such folder of runs",
            file=runs,
            fix="tunewright run RECIPE makes one; or name another with --runs",
        )
    import uvicorn

    from tunewright.serving.runs_app import make_ui

    screen.say(f"all runs of {runs} at http://127.0.0.1:{port}")
    uvicorn.run(make_ui(runs), host="127.0.0.1", port=port, log_level="warning", access_log=False)
