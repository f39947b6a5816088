"""Name the parameter groups of optimisers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Group = dict[str, Any]
"""{"params": a list of parameters, "lr": their learning rate, …}, as torch.optim defines it."""
Groups = Sequence[Group]
