"""Rows of a table."""

from __future__ import annotations

from tunewright.tasks.base.modality import Modality
from tunewright.tasks.table.encoder import fit_rows, load_rows, unused_columns
from tunewright.tasks.table.explain import explain_row
from tunewright.tasks.table.request import RowRequest

TABLE = Modality(
    name="table", fit=fit_rows, load=load_rows, request=RowRequest, explain=explain_row, unused=unused_columns
)
