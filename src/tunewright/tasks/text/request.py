"""Read texts that a person asks about."""

from __future__ import annotations

from typing import TypeVar

import pyarrow as pa

from tunewright.data.manifest import Rejects
from tunewright.data.source import ROW
from tunewright.tasks.base.request import Request
from tunewright.tasks.text.encoder import TokenEncoder

Tokens = TypeVar("Tokens", bound=TokenEncoder)


class TextRequest(Request[Tokens]):
    """Bare texts, or pairs of them as lists, besides rows by their columns."""

    kind = "text"
    reads_lines = True

    @property
    def wanted(self) -> str:
        return 'a pair such as ["first", "second"]' if len(self.encoder.columns) > 1 else super().wanted

    @property
    def columns(self) -> list[str]:
        return self.encoder.columns

    def readable(self, table: pa.Table, rejects: Rejects) -> pa.Table:
        """Return the table; its only column, whatever its name, is the one that is read."""
        names = [name for name in table.column_names if name != ROW]
        if len(self.encoder.columns) == 1 and len(names) == 1:
            table = table.rename_columns(
                [self.encoder.columns[0] if name != ROW else ROW for name in table.column_names]
            )
        return table
