"""Values that the recipe gives as public, in place of those that would be computed from private rows; and what is left of these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tunewright.data.manifest import Column
from tunewright.data.prepared import Prepared
from tunewright.errors import RecipeError
from tunewright.models.hub.untrusted_files import check_files
from tunewright.recipe.named import suggest
from tunewright.recipe.schema import PublicColumn, Recipe

PLACE = "privacy.public"
# Kinds of columns from which values are computed.
FITTED = ("number", "category", "array", "labels")


def public_column(recipe: Recipe, column: Column) -> PublicColumn | None:
    """Return what the recipe says of a column; None: nothing."""
    return recipe.privacy.public.get(column.name) if recipe.privacy is not None else None


def public_categories(given: PublicColumn, column: Column) -> list[str]:
    """Return the categories of a column, each once.

    Raises:
        RecipeError: there are none, or one stands there twice.
    """
    if given.categories is None or given.mean is not None or given.std is not None or given.edges is not None:
        raise _unfit(given, column, "categories", f"{{{column.name}: {{categories: [first, second]}}}}")
    if len(set(given.categories)) < len(given.categories):
        twice = next(name for name in given.categories if given.categories.count(name) > 1)
        raise RecipeError(
            "a category is listed twice",
            place=f"{PLACE}.{column.name}.categories",
            found=twice,
            expected="each category once",
            fix="delete one of the two",
        )
    return given.categories


def public_scaling(given: PublicColumn, column: Column, size: int = 1) -> tuple[list[float], list[float]]:
    """Mean and deviation of each of the `size` values of a cell.

    Raises:
        RecipeError: they are not given, or not for so many values.
    """
    example = f"{{{column.name}: {{mean: 0, std: 1}}}}"
    if given.mean is None or given.std is None or given.categories is not None or given.edges is not None:
        raise _unfit(given, column, "mean and std", example)
    found: list[list[float]] = []
    for name, value in (("mean", given.mean), ("std", given.std)):
        values = list(value) if isinstance(value, list) else [value] * size
        if len(values) != size:
            raise RecipeError(
                f"the column {column.name!r} has {size} values in each cell",
                place=f"{PLACE}.{column.name}.{name}",
                found=f"{len(values)} numbers",
                expected=f"one number for all of them, or {size}",
                fix=f"privacy: {{public: {example}}}",
            )
        found.append([float(number) for number in values])
    return found[0], found[1]


def public_edges(given: PublicColumn, column: Column) -> list[float]:
    """Return where the bins of a column begin, rising.

    Raises:
        RecipeError: they are not given, or do not rise.
    """
    if given.edges is None or given.categories is not None or given.mean is not None or given.std is not None:
        raise _unfit(given, column, "edges", f"{{{column.name}: {{edges: [0, 10, 100]}}}}")
    if any(not low < high for low, high in zip(given.edges, given.edges[1:])):
        raise RecipeError(
            "the edges do not increase",
            place=f"{PLACE}.{column.name}.edges",
            found=given.edges,
            expected="each larger than the one before",
            fix="put them in order, each once",
        )
    return given.edges


def public_tokenizer(prepared: Prepared, recipe: Recipe, columns: Sequence[str]) -> Path | None:
    """Return the folder of the tokenizer that is given for the text columns; None: none is.

    Raises:
        RecipeError: two columns have two, or it is no folder.
        ArtifactError: a file of it asks for code, or is damaged.
    """
    given = [public_column(recipe, prepared.manifest.column(name)) for name in columns]
    named = {entry.tokenizer for entry in given if entry is not None and entry.tokenizer is not None}
    if not named:
        return None
    folder = prepared.base / next(iter(named))
    if len(named) > 1 or not (folder / "tokenizer.json").is_file():
        raise RecipeError(
            "there is one tokenizer for all columns of text"
            if len(named) > 1
            else "there is no tokenizer in this folder",
            place=f"{PLACE}.{columns[0]}.tokenizer",
            found=", ".join(sorted(named)),
            expected="one folder with tokenizer.json and tokenizer_config.json",
            fix="name the folder of a public model, or leave tokenizer out",
        )
    check_files(folder)
    return folder


def _unfit(given: PublicColumn, column: Column, expected: str, example: str) -> RecipeError:
    said = ", ".join(given.model_fields_set) or "nothing"
    return RecipeError(
        f"the column {column.name!r} is of kind {column.kind}, and takes other public values",
        place=f"{PLACE}.{column.name}",
        found=said,
        expected=expected,
        fix=f"privacy: {{public: {example}}}",
    )


def with_public_classes(prepared: Prepared, recipe: Recipe) -> Prepared:
    """Return the data with the target's public classes in place of those that its rows have.

    Raises:
        RecipeError: `privacy.public` names a column that is not there, or whose values are not computed by this task.
    """
    public = recipe.privacy.public if recipe.privacy is not None else {}
    manifest = prepared.manifest
    used = [*manifest.input, *([manifest.target] if manifest.target is not None else [])]
    for name in public:
        if name not in used:
            raise RecipeError(
                "the data has no input or target column of this name",
                place=f"{PLACE}.{name}",
                found=name,
                expected=", ".join(used[:20]),
                fix=suggest(name, used),
            )
        column = manifest.column(name)
        if column.kind not in FITTED and not (column.kind == "text" and public[name].tokenizer is not None):
            raise RecipeError(
                f"no statistic is computed from a column of kind {column.kind}",
                place=f"{PLACE}.{name}",
                found=name,
                expected="columns of numbers, categories or arrays; of a text its tokenizer",
                fix=f"delete {name} from privacy.public",
            )
    if manifest.target in public and manifest.classes is not None:
        classes = public_categories(public[manifest.target], manifest.column(manifest.target))
        return replace(prepared, manifest=replace(manifest, classes=classes))
    return prepared


def outside(prepared: Prepared, recipe: Recipe) -> dict[str, int]:
    """For each input column with public categories, how many training rows have another value; columns without any are absent."""
    public = recipe.privacy.public if recipe.privacy is not None else {}
    given = {name: known.categories for name, known in public.items() if known.categories is not None}
    names = [name for name in given if name in prepared.manifest.input]
    if not names:
        return {}
    table = prepared.table("train", names)
    counts = {name: _strange(table[name].combine_chunks(), given[name] or []) for name in names}
    return {name: count for name, count in counts.items() if count}


def _strange(column: pa.Array, known: list[str]) -> int:
    if pa.types.is_list(column.type):
        values, rows = column.flatten(), pc.list_parent_indices(column)
    else:
        values, rows = column, pa.array(range(len(column)))
    strange = pc.and_(pc.is_valid(values), pc.invert(pc.is_in(values.cast(pa.string()), pa.array(known, pa.string()))))
    return len(pc.unique(rows.filter(strange)))


def held_by_one(prepared: Prepared, column: str, known: Sequence[str], owner: str | None = None) -> int:
    """Return how many of the known values only one training row has, or only the rows of one owner.

    Args:
        owner: the column that says whose a row is; None: each row is by itself.
    """
    table = prepared.table("train", list(dict.fromkeys([column, *([owner] if owner is not None else [])])))
    values, whose = table[column].combine_chunks(), np.arange(table.num_rows)
    if owner is not None:
        codes = table[owner].combine_chunks().dictionary_encode().indices
        whose = pc.fill_null(codes, -1).to_numpy(zero_copy_only=False)
    if pa.types.is_list(values.type):
        whose = whose[np.asarray(pc.list_parent_indices(values))]
        values = values.flatten()
    place = np.asarray(pc.fill_null(pc.index_in(values.cast(pa.string()), pa.array(known, pa.string())), -1))
    pairs = np.unique(np.stack([place, whose])[:, place >= 0], axis=1)
    return int((np.bincount(pairs[0]) == 1).sum()) if pairs.size else 0
