"""Who chose what: users and items as whole numbers, what each user is known to have chosen, in which order, and what else is
known of them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from safetensors.numpy import load_file, save_file

from tunewright.data.batches.batch import Truth
from tunewright.data.batches.examples import TensorExamples
from tunewright.data.prepare.splits import time_values
from tunewright.data.prepared import Prepared
from tunewright.data.recommendation.column_roles import role_columns, time_column
from tunewright.errors import ArtifactError, DataError, RecipeError
from tunewright.models.backbone import Backbone
from tunewright.models.recommendation.registry import describe_recommender
from tunewright.recipe.schema import Recipe
from tunewright.tasks.base.encoders import Encoders, InputEncoder
from tunewright.tasks.recommendation.categorical_encoder import Field, fit_field
from tunewright.training.privacy.lineage import Statistic

# What a user said of an item afterwards is not known of either beforehand.
RATINGS = ("rating", "label", "click", "stars", "score")
NAMES_FILE, PAIRS_FILE = "entities.json", "interactions.safetensors"


@dataclass(frozen=True, kw_only=True)
class About:
    """Fields, and their values for each user or item, [N, C] int32."""

    fields: list[Field]
    values: np.ndarray


@dataclass(frozen=True, kw_only=True)
class InteractionEncoder(InputEncoder):
    """Columns of users and items; a user or item that no training row has is unknown, and its rows are skipped."""

    user: str
    """The column."""
    item: str
    users: list[str]
    items: list[str]
    learned: np.ndarray
    """[M, 2] int64: the pairs of the training rows; where the network looks at items, by user and in their order."""
    known: np.ndarray
    """[K, 2] int64: those of the validation rows too: what is not recommended again."""
    time: str | None = None
    """The column that says when; None: the order of the rows does."""
    length: int = 0
    """How many of a user's last items the network looks at; 0: it looks at none."""
    about: dict[str, About] = field(default_factory=dict)
    """What else is known of each "user" and "item". It is the network's after that, and not saved here."""
    plain_rows: ClassVar[int] = 1

    @property
    def input_shape(self) -> tuple[int]:
        return (2,)

    @cached_property
    def _numbers(self) -> tuple[pa.Array, pa.Array]:
        return pa.array(self.users, pa.string()), pa.array(self.items, pa.string())

    def pairs(self, table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """Return [M, 2] int64, and the places [M] of their rows; rows of unknown users or items are not among them.

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
        """Return [N] int64: each row's user; −1 where nothing was learned of one."""
        return _index(table[self.user], self._numbers[0])

    def keys(self, pairs: np.ndarray) -> np.ndarray:
        """Return [M] int64: one number for each pair."""
        return pairs[:, 0] * len(self.items) + pairs[:, 1]

    @property
    def objective(self) -> str:
        """What is minimised where the recipe does not say."""
        return "next_item" if self.length else "bpr"

    def ordered(self, table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """Return the same as `pairs`, each user's in the order of time, or of the rows where there is no time."""
        pairs, places = self.pairs(table)
        times = np.zeros(len(places))
        if self.time is not None and self.time in table.column_names:
            times = np.unique(time_values(table[self.time]), return_inverse=True)[1][places]
        order = np.lexsort((places, times, pairs[:, 0]))
        return pairs[order], places[order]

    def histories(self, users: np.ndarray, pairs: np.ndarray) -> np.ndarray:
        """Return [B, length] int64: the last items of each user among ordered pairs, counted from 1, with 0 in front.

        Args:
            users: [B], each once.
            pairs: [K, 2], by user, each user's in their order.
        """
        found = np.zeros((len(users), self.length), np.int64)
        for row, chosen in enumerate(_by_user(users, pairs)):
            last = chosen[-self.length :] + 1
            found[row, self.length - len(last) :] = last
        return found

    def sequences(self, table: pa.Table) -> TensorExamples:
        """For each user of the table [2, length]: items, and those that followed them, which are the table's own.

        Of rows that were not learned from, what was learned stands before them, and is not asked for.
        """
        own, places = self.ordered(table)
        users, first = np.unique(own[:, 0], return_index=True)
        fresh = not np.isin(self.keys(own), self.keys(self.learned)).all()
        before = _by_user(users, self.learned) if fresh else [np.zeros(0, np.int64)] * len(users)
        inputs = np.zeros((len(users), 2, self.length), np.int64)
        for row, (earlier, asked) in enumerate(zip(before, _by_user(users, own), strict=True)):
            whole = np.concatenate([earlier, asked]) + 1
            wanted = np.concatenate([np.zeros(len(earlier), np.int64), asked + 1])
            items, next_items = whole[:-1][-self.length :], wanted[1:][-self.length :]
            if len(items):
                inputs[row, 0, -len(items) :], inputs[row, 1, -len(items) :] = items, next_items
        kept = (inputs[:, 1] > 0).any(1)
        rows = np.asarray(table["_row"])[places[first]]
        return TensorExamples(torch.from_numpy(inputs[kept]), None, torch.tensor(rows[kept]))

    def examples(self, table: pa.Table, target: Truth) -> TensorExamples:
        """Return the pairs, or sequences where the network looks at them. Raises DataError when none of them is known."""
        pairs, places = self.pairs(table)
        if not len(pairs):
            raise DataError(
                "no row has a user and an item that are known from training",
                found=f"{table.num_rows:,} rows",
                fix="split within users: data.split: {by: within, column: USER}",
            )
        if self.length:
            return self.sequences(table)
        rows = torch.tensor(np.asarray(table["_row"])[places])
        return TensorExamples(torch.from_numpy(pairs), None, rows)

    def show(self, table: pa.Table, index: int) -> dict[str, Any]:
        return {"input": {name: table[name][index].as_py() for name in (self.user, self.item)}}

    def to_json(self) -> dict[str, Any]:
        return {"user": self.user, "item": self.item, "time": self.time, "length": self.length}

    def statistics(self, prepared: Prepared, owner: str | None) -> list[Statistic]:
        """Raises RecipeError: the training rows themselves stand in the model's folder."""
        raise RecipeError(
            "a recommender stores the interactions of its training users with its weights, so they would not be private",
            place="privacy",
            found="task: item-recommendation",
            expected="a task whose model keeps none of its rows",
            fix="leave privacy out, or train click-prediction on the same table",
        )

    def write(self, folder: Path) -> None:
        """The names of users and items, and their pairs."""
        folder.mkdir(parents=True, exist_ok=True)
        names = json.dumps({"users": self.users, "items": self.items}, ensure_ascii=False)
        (folder / NAMES_FILE).write_text(names, encoding="utf-8")
        save_file({"learned": self.learned, "known": self.known}, folder / PAIRS_FILE)


def recommender(preprocessor: Encoders) -> InteractionEncoder | None:
    """Return the encoder of a model that recommends items; None: it does not."""
    return preprocessor.inputs if isinstance(preprocessor.inputs, InteractionEncoder) else None


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
                f"cannot tell which column says {'who' if role == 'user' else 'what'}",
                file=prepared.manifest.source,
                found=", ".join(names),
                expected=f"a column named {role}, {role}_id or the like",
                fix=f"data.{role}: NAME OF THE COLUMN",
            )
    user, item = (name or "" for name in roles)
    time = time_column(recipe.data, names)
    columns = [user, item, *([time] if time is not None else [])]
    train = prepared.table("train", columns)
    users, items = (known.users, known.items) if known else (_values(train[user]), _values(train[item]))
    options = describe_recommender(recipe.model.backbone or "factors", users=0, items=0).facts
    empty = np.zeros((0, 2), np.int64)
    bare = InteractionEncoder(
        user=user,
        item=item,
        users=users,
        items=items,
        learned=empty,
        known=empty,
        time=time,
        length=known.length if known else options.get("length", 0),
    )
    both = [train, *([prepared.table("valid", columns)] if prepared.rows("valid") else [])]
    # Putting pairs in order takes memory and time that only a network needs which looks at them.
    read = bare.ordered if bare.length else bare.pairs
    about = _about(bare, prepared) if known is None and options.get("features") else {}
    return replace(
        bare,
        learned=np.ascontiguousarray(read(train)[0]),
        known=np.ascontiguousarray(read(pa.concat_tables(both))[0]),
        about=about,
    )


def _about(encoder: InteractionEncoder, prepared: Prepared) -> dict[str, About]:
    """Return the columns that are the same in all training rows of a user, or else of an item; the target is not one of them."""
    manifest = prepared.manifest
    kinds = {
        column.name: column.kind
        for column in manifest.columns
        if column.kind in ("category", "number", "labels")
        and column.name not in (encoder.user, encoder.item, encoder.time, *RATINGS)
    }
    table = prepared.table("train", [encoder.user, encoder.item, *kinds])
    numbers = {
        "user": encoder.user_numbers(table),
        "item": _index(table[encoder.item], pa.array(encoder.items, pa.string())),
    }
    firsts = {side: np.unique(values, return_index=True)[1] for side, values in numbers.items()}
    found: dict[str, list[str]] = {"user": [], "item": []}
    for name, kind in kinds.items():
        cells = (
            table[name] if kind != "labels" else pa.array(["\0".join(cell or ()) for cell in table[name].to_pylist()])
        )
        codes = np.unique(np.array([str(cell) for cell in cells.to_pylist()]), return_inverse=True)[1]
        for side, values in numbers.items():
            if (codes == codes[firsts[side]][values]).all() and len(np.unique(codes)) > 1:
                found[side].append(name)
                break
    result: dict[str, About] = {}
    for side, names in found.items():
        if names:
            each = table.take(pa.array(firsts[side]))
            fields = [fit_field(each, name, kinds[name], identity=False) for name in names]
            values = np.concatenate([entry.encode(each) for entry in fields], axis=1).astype(np.int32)
            result[side] = About(fields=fields, values=values)
    return result


def _by_user(users: np.ndarray, pairs: np.ndarray) -> list[np.ndarray]:
    """Return the items of each user, in the order of the pairs, whose users rise."""
    starts, ends = (np.searchsorted(pairs[:, 0], users, side=side) for side in ("left", "right"))
    return [pairs[start:end, 1] for start, end in zip(starts, ends, strict=True)]


def load_interactions(value: dict[str, Any], folder: Path) -> InteractionEncoder:
    """Load the encoder from its JSON and the files next to it. Raises ArtifactError when these are damaged."""
    try:
        names = json.loads((folder / NAMES_FILE).read_text(encoding="utf-8"))
        pairs = load_file(folder / PAIRS_FILE)
        encoder = InteractionEncoder(**value, **names, learned=pairs["learned"], known=pairs["known"])
        counts = np.array([len(encoder.users), len(encoder.items)])
        for numbers in (encoder.learned, encoder.known):
            if numbers.ndim != 2 or not ((numbers >= 0) & (numbers < counts)).all():
                raise ValueError(f"{PAIRS_FILE} has users or items that {NAMES_FILE} does not name")
        return encoder
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
