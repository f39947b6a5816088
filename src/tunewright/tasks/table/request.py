"""Read rows of a table that a person asks about."""

from __future__ import annotations

import pyarrow as pa

from tunewright.data.manifest import Column, Rejects
from tunewright.data.prepare.row_filter import usable_rows
from tunewright.tasks.base.request import Request
from tunewright.tasks.table.encoder import RowEncoder


class RowRequest(Request[RowEncoder]):
    """Rows by their columns."""

    def readable(self, table: pa.Table, rejects: Rejects) -> pa.Table:
        """Return the rows whose numbers are numbers; the others are skipped and counted."""
        known = {
            feature.column: Column(name=feature.column, kind=feature.kind)
            for feature in self.encoder.features
            if feature.column in table.column_names
        }
        return usable_rows(table, known, set(known), None, rejects)
