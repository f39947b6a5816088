"""Print notes to the user that do not affect the result."""

from __future__ import annotations

import logging


def note(line: str) -> None:
    """Print a note to standard error, or to the program's logging if it is set up."""
    logging.getLogger("tunewright").warning("note: %s", line)
