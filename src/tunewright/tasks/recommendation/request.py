"""Read what a person asks about clicks and items."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from tunewright.data.manifest import Column, Rejects
from tunewright.data.prepare.row_filter import usable_rows
from tunewright.tasks.base.request import Record, Request
from tunewright.tasks.recommendation.categorical_encoder import FieldEncoder
from tunewright.tasks.recommendation.interaction_encoder import InteractionEncoder


class FieldRequest(Request[FieldEncoder]):
    """Rows by their columns, in which a cell of text may hold a list."""

    def readable(self, table: pa.Table, rejects: Rejects) -> pa.Table:
        """Return the rows with lists as lists and numbers as numbers; the others are skipped and counted."""
        table = self.encoder.with_lists(table)
        known = {
            field.column: Column(name=field.column, kind=field.kind)
            for field in self.encoder.fields
            if field.column in table.column_names
        }
        return usable_rows(table, known, set(known), None, rejects)


class UserRequest(Request[InteractionEncoder]):
    """Users by their names or numbers."""

    kind = "user"

    @property
    def columns(self) -> list[str]:
        return [self.encoder.user]

    def record(self, value: Any) -> Record | None:
        return super().record(str(value) if isinstance(value, int) else value)
