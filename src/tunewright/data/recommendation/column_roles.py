"""Which column of interactions says who, and which says what."""

from __future__ import annotations

from collections.abc import Iterable

from tunewright.data.column_types import missing_column
from tunewright.errors import DataError
from tunewright.recipe.schema import Data

USER_NAMES = ("user", "user_id", "userid", "uid", "customer", "customer_id", "member_id", "visitor_id")
ITEM_NAMES = (
    "item",
    "item_id",
    "itemid",
    "iid",
    "movie_id",
    "movieid",
    "product_id",
    "book_id",
    "track_id",
    "article_id",
)

TIME_NAMES = ("timestamp", "time", "datetime", "date", "created_at", "unixreviewtime")
SPEAKER_NAMES = ("speaker", "speaker_id", "voice", "client_id", "reader")


def role_columns(data: Data, names: Iterable[str]) -> tuple[str | None, str | None]:
    """Return the columns with the user and with the item: the recipe's, or those with a usual name; None: there is none.

    Raises:
        DataError: the recipe names one that is not there, or the same for both.
    """
    known = list(names)
    found: list[str | None] = []
    for role, named, usual in (("user", data.user, USER_NAMES), ("item", data.item, ITEM_NAMES)):
        if named is not None and named not in known:
            raise missing_column(f"data.{role}", named, known, data.source)
        fitting = [name for wanted in usual for name in known if name.lower() == wanted]
        found.append(named or next(iter(fitting), None))
    if found[0] is not None and found[0] == found[1]:
        raise DataError(
            "one column cannot say both who and what",
            file=data.source,
            place="data.user and data.item",
            found=found[0],
            expected="two columns",
            fix="name the other one",
        )
    return found[0], found[1]


def speaker_column(names: Iterable[str]) -> str | None:
    """Return the column that says who speaks, by a usual name; None: there is none."""
    known = list(names)
    return next((name for name in SPEAKER_NAMES if name in known), None)


def time_column(data: Data, names: Iterable[str]) -> str | None:
    """Return the column that says when: the recipe's, or one with a usual name; None: there is none.

    Raises:
        DataError: the recipe names one that is not there.
    """
    known = list(names)
    if data.time is not None and data.time not in known:
        raise missing_column("data.time", data.time, known, data.source)
    return data.time or next((name for wanted in TIME_NAMES for name in known if name.lower() == wanted), None)
