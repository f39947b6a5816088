"""Texts, or pairs of texts, as input: a pretrained tokenizer's ids, cut at a length and never padded beforehand."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from tunewright.data.batching import Ragged, TokenExamples
from tunewright.data.prepare import Prepared
from tunewright.errors import DataError, RecipeError
from tunewright.models.pretrained import Backbone
from tunewright.models.transformer import quiet
from tunewright.recipe.schema import Recipe

# Texts that are tokenised in one call: enough for every core, few enough that memory stays flat.
CHUNK = 10_000
USUAL_LENGTH = 128
# The character n-grams of the baseline: hashed into so many features.
FEATURES = 2**18


@dataclass(frozen=True, kw_only=True)
class TextEncoder:
    """Token ids, [CLS] and [SEP] as the tokenizer sets them, at most `max_length` of them."""

    columns: list[str]
    """One column, or two whose texts are read as a pair."""
    max_length: int
    tokenizer: Any = field(repr=False, compare=False)
    plain_name: str = "logistic regression on character n-grams"
    plain_rows: int = 50_000

    @property
    def input_shape(self) -> tuple[int]:
        return (self.max_length,)

    def examples(self, table: pa.Table, target: Tensor | None) -> TokenExamples:
        """The rows as tokens. Raises DataError when a column is missing."""
        texts = [self._texts(table, name) for name in self.columns]
        ids: list[np.ndarray] = []
        types: list[np.ndarray] = []
        cut = 0
        for start in range(0, table.num_rows, CHUNK):
            part = [column[start : start + CHUNK] for column in texts]
            found = self.tokenizer(*part, truncation=True, max_length=self.max_length)
            ids += [np.asarray(entry, np.int32) for entry in found["input_ids"]]
            if "token_type_ids" in found and len(texts) == 2:
                types += [np.asarray(entry, np.int32) for entry in found["token_type_ids"]]
            cut += sum(bool(encoding.overflowing) for encoding in found.encodings)
        return TokenExamples(
            tokens=_ragged(ids),
            types=_ragged(types) if types else None,
            target=target,
            rows=torch.tensor(np.asarray(table["_row"])),
            padding=self.tokenizer.pad_token_id or 0,
            cut=cut,
        )

    def plain(self, train: pa.Table, test: pa.Table) -> tuple[Any, Any]:
        """Counts of the character 1- to 4-grams within words, weighed by rarity, sparse [N, 2¹⁸]."""
        from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

        counts = HashingVectorizer(analyzer="char_wb", ngram_range=(1, 4), n_features=FEATURES, alternate_sign=False)
        rarity = TfidfTransformer(sublinear_tf=True)
        joined = [
            [" ¦ ".join(row) for row in zip(*(self._texts(part, name) for name in self.columns))]
            for part in (train, test)
        ]
        known = rarity.fit_transform(counts.transform(joined[0]))
        return known, rarity.transform(counts.transform(joined[1]))

    def show(self, table: pa.Table, index: int) -> dict[str, Any]:
        return {"input": {name: table[name][index].as_py() for name in self.columns}}

    def continue_from(self, known: TextEncoder) -> TextEncoder:
        """A network goes on with the tokenizer that it was trained with; the columns are the data's."""
        return TextEncoder(columns=self.columns, max_length=self.max_length, tokenizer=known.tokenizer)

    def to_json(self) -> dict[str, Any]:
        return {"columns": self.columns, "max_length": self.max_length}

    def write(self, folder: Path) -> None:
        """The tokenizer's files, in the library's format."""
        with quiet():
            self.tokenizer.save_pretrained(folder)

    def _texts(self, table: pa.Table, name: str) -> list[str]:
        if name not in table.column_names:
            raise DataError(
                f"the data has no column {name!r}",
                found=", ".join(table.column_names),
                expected=f"a text in a column {name!r}, as the model was trained on",
                fix="rename the column, or name it with data.input",
            )
        return pc.fill_null(table[name].cast(pa.string()), "").to_pylist()


def fit_tokens(prepared: Prepared, recipe: Recipe, backbone: Backbone | None) -> TextEncoder:
    """The encoder for the text columns of a prepared set.

    Raises:
        DataError: there is no text column, or too many.
        RecipeError: the recipe names no pretrained backbone to take the tokenizer from.
    """
    if backbone is None:
        raise RecipeError(
            "a text task needs a backbone with a tokenizer",
            place="model.backbone",
            expected="a name of the catalog, a folder, or a hub id",
            fix="model.backbone: minilm",
        )
    columns = _text_columns(prepared, recipe)
    tokenizer = load_tokenizer(backbone.folder)
    # Some tokenizers say 10³⁰ for "no limit"; the position embeddings are the limit then.
    limit = min(int(tokenizer.model_max_length), int(backbone.config.get("max_position_embeddings", 10**9)))
    wanted = recipe.model.max_length or min(USUAL_LENGTH, limit)
    if wanted > limit:
        raise RecipeError(
            "the backbone does not read texts as long as that",
            place="model.max_length",
            found=wanted,
            expected=f"at most {limit} tokens",
            fix=f"model.max_length: {limit}",
        )
    return TextEncoder(columns=columns, max_length=wanted, tokenizer=tokenizer)


def load_tokens(value: dict[str, Any], folder: Path) -> TextEncoder:
    """The encoder from its JSON and the tokenizer's files beside it."""
    return TextEncoder(columns=value["columns"], max_length=value["max_length"], tokenizer=load_tokenizer(folder))


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model folder.

    Raises:
        DataError: it has none that can be read.
    """
    from transformers import AutoTokenizer

    try:
        with quiet():
            return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:
        raise DataError(
            f"the backbone's tokenizer cannot be read: {str(error).strip().splitlines()[0]}",
            file=folder,
            expected="tokenizer.json and tokenizer_config.json",
            fix="take a backbone that comes with its tokenizer",
        ) from None


def _text_columns(prepared: Prepared, recipe: Recipe) -> list[str]:
    manifest = prepared.manifest
    kinds = {column.name: column.kind for column in manifest.columns}
    texts = [name for name in manifest.input if kinds[name] in ("text", "category")]
    # Unless columns are named, those that hold free text are meant, not the categories beside them.
    if recipe.data.input is None:
        texts = [name for name in texts if kinds[name] == "text"] or texts
    if len(texts) not in (1, 2) or (recipe.data.input is not None and len(texts) != len(manifest.input)):
        raise DataError(
            f"a text task needs one column of text, or two for pairs; the data has {len(texts)}",
            file=manifest.source,
            found=", ".join(f"{name} ({kind})" for name, kind in kinds.items()),
            expected="one or two text columns",
            fix="name them: data.input: TEXT, or data.input: [FIRST, SECOND]",
        )
    return texts


def _ragged(rows: list[np.ndarray]) -> Ragged:
    starts = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(row) for row in rows], out=starts[1:])
    values = np.concatenate(rows) if rows else np.empty(0, np.int32)
    return Ragged(torch.from_numpy(values), torch.from_numpy(starts))
