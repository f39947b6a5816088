"""Who chose what: users and items as whole numbers, and what each user is known to have chosen."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor

from tunewright.data.batching import TensorExamples
from tunewright.data.prepare import Prepared
from tunewright.data.roles import role_columns
from tunewright.errors import ArtifactError, DataError
from tunewright.models.pretrained import Backbone
from tunewright.recipe.schema import Recipe

NAMES_FILE, PAIRS_FILE = "entities.json", "interactions.safetensors"


@dataclass(frozen=True, kw_only=True)
class InteractionEncoder:
    """Columns of users and items; a user or item that no training row has is not known, and its rows are left out."""

    user: str
    """The column."""
    item: str
    users: list[str]
    items: list[str]
    learned: np.ndarray
    """[M, 2] int64: the pairs of the training rows."""
    known: np.ndarray
    """[K, 2] int64: those of the validation rows too: what is not recommended again."""
    plain_name: str = "popularity"
    plain_rows: int = 1

    @property
    def input_shape(self) -> tuple[int]:
        return (2,)

    @cached_property
    def _numbers(self) -> tuple[pa.Array, pa.Array]:
        return pa.array(self.users, pa.string()), pa.array(self.items, pa.string())

    def pairs(self, table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """[M, 2] int64, and the places [M] of their rows; rows of unknown users or items are not among them.

        Raises:
            DataError: a column is missing.
        """
        for name in (self.user, self.item):
            if name not in table.column_names:
                raise DataError(
                    f"the data has no column {name!r}",
                    found=", ".join(table.column_names),
                    expected=f"{self.user} and {self.item}",
                    fix="rename the column, or name it with data.user and data.item",
                )
        users, items = (_index(table[name], known) for name, known in zip((self.user, self.item), self._numbers))
        there = (users >= 0) & (items >= 0)
        return np.stack([users[there], items[there]], axis=1), np.flatnonzero(there)

    def user_numbers(self, table: pa.Table) -> np.ndarray:
        """[N] int64: each row's user; −1 where nothing was learned of one."""
        return _index(table[self.user], self._numbers[0])

    def keys(self, pairs: np.ndarray) -> np.ndarray:
        """[M] int64: one number for each pair."""
        return pairs[:, 0] * len(self.items) + pairs[:, 1]

    def examples(self, table: pa.Table, target: Tensor | None) -> TensorExamples:
        """The pairs. Raises DataError when none of them is known."""
        pairs, places = self.pairs(table)
        if not len(pairs):
            raise DataError(
                "no row has a user and an item that are known from training",
                found=f"{table.num_rows:,} rows",
                fix="split within users: data.split: {by: within, column: USER}",
            )
        rows = torch.tensor(np.asarray(table["_row"])[places])
        return TensorExamples(torch.from_numpy(pairs), None, rows)

    def plain(self, train: pa.Table, test: pa.Table) -> tuple[Any, Any]:
        raise NotImplementedError  # its baselines are of its examination

    def show(self, table: pa.Table, index: int) -> dict[str, Any]:
        return {"input": {name: table[name][index].as_py() for name in (self.user, self.item)}}

    def to_json(self) -> dict[str, Any]:
        return {"user": self.user, "item": self.item}

    def write(self, folder: Path) -> None:
        """The names of users and items, and their pairs."""
        folder.mkdir(parents=True, exist_ok=True)
        names = json.dumps({"users": self.users, "items": self.items}, ensure_ascii=False)
        (folder / NAMES_FILE).write_text(names, encoding="utf-8")
        save_file({"learned": self.learned, "known": self.known}, folder / PAIRS_FILE)


def fit_interactions(
    prepared: Prepared, recipe: Recipe, backbone: Backbone | None, known: InteractionEncoder | None
) -> InteractionEncoder:
    """Learn who and what there is from the training split, unless a network was trained on known ones.

    Raises:
        DataError: no column says who, or none says what.
    """
    names = [column.name for column in prepared.manifest.columns]
    roles = role_columns(recipe.data, names)
    for role, name in zip(("user", "item"), roles, strict=True):
        if name is None:
            raise DataError(
                f"it is not seen which column says {'who' if role == 'user' else 'what'}",
                file=prepared.manifest.source,
                found=", ".join(names),
                expected=f"a column named {role}, {role}_id or the like",
                fix=f"data.{role}: NAME OF THE COLUMN",
            )
    user, item = (name or "" for name in roles)
    train = prepared.table("train", [user, item])
    users, items = (known.users, known.items) if known else (_values(train[user]), _values(train[item]))
    empty = np.zeros((0, 2), np.int64)
    bare = InteractionEncoder(user=user, item=item, users=users, items=items, learned=empty, known=empty)
    learned, _ = bare.pairs(train)
    valid = bare.pairs(prepared.table("valid", [user, item]))[0] if prepared.rows("valid") else empty
    return InteractionEncoder(
        user=user,
        item=item,
        users=users,
        items=items,
        learned=np.ascontiguousarray(learned),
        known=np.concatenate([learned, valid]),
    )


def load_interactions(value: dict[str, Any], folder: Path) -> InteractionEncoder:
    """The encoder from its JSON and the files beside it. Raises ArtifactError when these are damaged."""
    try:
        names = json.loads((folder / NAMES_FILE).read_text(encoding="utf-8"))
        pairs = load_file(folder / PAIRS_FILE)
        return InteractionEncoder(**value, **names, learned=pairs["learned"], known=pairs["known"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"the users and items of the model cannot be read: {error}",
            file=folder,
            expected=f"{NAMES_FILE} and {PAIRS_FILE}",
            fix="restore them from a copy, or train again",
        ) from error


def _values(column: pa.ChunkedArray) -> list[str]:
    return sorted(pc.unique(column.cast(pa.string()).drop_null()).to_pylist())


def _index(column: pa.ChunkedArray, known: pa.Array) -> np.ndarray:
    place = pc.fill_null(pc.index_in(column.cast(pa.string()), value_set=known), -1)
    return np.asarray(place).astype(np.int64)
