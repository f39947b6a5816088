"""Run `tunewright serve MODEL` and `tunewright ui`."""

from __future__ import annotations

import gc
import os
import stat
from importlib.util import find_spec
from pathlib import Path

from tunewright.console import Console
from tunewright.errors import RecipeError, UserError
from tunewright.inference.model import load_model
from tunewright.runs.summary.stage import SUMMARY_FILE, open_summary

# The environment variable of the token.
TOKEN = "TUNEWRIGHT_TOKEN"
# The most bytes of a token file.
TOKEN_SIZE = 4096


def serve(folder: Path, *, host: str, port: int, token_file: Path | None, console: Console) -> None:
    """Serve a model until Ctrl-C or SIGTERM; requests in progress are still answered.

    Args:
        token_file: holds what requests have to send; None: TUNEWRIGHT_TOKEN does, or nobody has to send anything.

    Raises:
        UserError: the token is none; what a service is made of is not installed, or others could reach it and nobody has to say who they are.
    """
    _require_installed()
    token = read_token(token_file, console)
    if token is None and host not in ("127.0.0.1", "localhost", "::1"):
        raise UserError(
            "other machines could use the model without a token",
            place="--host",
            found=host,
            expected="127.0.0.1, or a token",
            fix=f"set {TOKEN}, or name a file with --token-file; requests then have to send it",
        )
    from tunewright.serving.app import make_app
    from tunewright.serving.listening import listen
    from tunewright.serving.request_limits import Limits

    model = load_model(folder)
    name = name_of(folder)
    console.info(f"{name} at http://{host}:{port}: a page to try it; /predict, /docs, /health, /ready, /metrics")
    limits = Limits()
    app = make_app(model, name=name, token=token, limits=limits)
    # Exclude loaded objects from garbage collection, which would delay answers by tenths of a second.
    gc.freeze()
    listen(app, host=host, port=port, limits=limits, begin_stop=app.state.begin_stop)


def read_token(file: Path | None, console: Console) -> str | None:
    """Read the token from a file, or else from the environment; None without either.

    Raises:
        UserError: there is no token in it, or one that no request can send.
    """
    if file is None:
        given = os.environ.get(TOKEN)
        return None if given is None else _checked_token(given, TOKEN)
    try:
        with file.open("rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            content = opened.read(TOKEN_SIZE + 1)
    except OSError as error:
        raise UserError(
            f"the token cannot be read: {error.strerror}", file=file, place="--token-file", fix="name a readable file"
        ) from None
    if stat.S_ISREG(mode) and mode & 0o077:
        console.warning(f"other users of this machine can read the token; chmod 600 {file}")
    return _checked_token(content.decode("utf-8", "surrogateescape"), str(file))


def _checked_token(given: str, place: str) -> str:
    token = given.strip()
    if not token or len(token) > TOKEN_SIZE or any(sign.isspace() or sign < " " for sign in token):
        raise UserError(
            "the token is empty or invalid",
            place=place,
            expected=f"one line of 1 to {TOKEN_SIZE:,} letters and digits",
            fix='python -c "import secrets; print(secrets.token_urlsafe())" makes one',
        )
    return token


def _require_installed() -> None:
    missing = [name for name in ("fastapi", "uvicorn", "prometheus_client") if find_spec(name) is None]
    if missing:
        raise RecipeError(
            f"this needs {', '.join(missing)}, which is not installed", fix='pip install "tunewright[serve]"'
        )


def name_of(folder: Path) -> str:
    """Return the model's name in the service: its run's name and stage, or its folder's."""
    place = folder.resolve()
    summary = place.parent / SUMMARY_FILE
    name = place.name
    if name == "model" and summary.exists():
        name = f"{place.parent.parent.name}-{open_summary(summary).stage}"
    return name.encode("utf-8", "backslashreplace").decode()  # a folder's name may contain bytes that are not UTF-8


def show_runs(runs: Path, port: int, console: Console) -> None:
    """Serve a local page of all runs in a folder, until Ctrl-C.

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
    from tunewright.serving.listening import listen
    from tunewright.serving.request_limits import Limits
    from tunewright.serving.runs_app import make_ui

    console.info(f"all runs of {runs} at http://127.0.0.1:{port}")
    listen(make_ui(runs), host="127.0.0.1", port=port, limits=Limits(), begin_stop=lambda: None)
