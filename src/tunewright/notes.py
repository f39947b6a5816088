"""What the user should know and no result depends on, from wherever it is found out."""

from __future__ import annotations

import logging


def note(line: str) -> None:
    """Tell the user, on standard error unless the program has set up its logging."""
    logging.getLogger("tunewright").warning("note: %s", line)
