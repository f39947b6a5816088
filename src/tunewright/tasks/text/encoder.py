"""Texts, or pairs of texts, as input: a tokenizer's ids, cut at a length and never padded beforehand."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch

from tunewright.data.batches.batch import Truth
from tunewright.data.batches.examples import Ragged, TokenExamples
from tunewright.data.prepared import Prepared
from tunewright.data.text.tokenizer import as_texts, is_trained_here, trained_tokenizer
from tunewright.errors import ArtifactError, DataError, RecipeError, UserError
from tunewright.models.backbone import Backbone
from tunewright.models.core.network import Network
from tunewright.models.hub.hf_network import quiet
from tunewright.recipe.schema import Named, Recipe
from tunewright.tasks.base.encoders import InputEncoder
from tunewright.tasks.base.public_statistics import public_tokenizer
from tunewright.tasks.text.untrusted_tokenizer import check_loaded, check_tokenizer
from tunewright.training.objectives.corruption import Vocabulary
from tunewright.training.privacy.lineage import Statistic

# Texts that are tokenised in one call: enough for every core, few enough that memory stays flat.
CHUNK = 10_000
USUAL_LENGTH = 128
# What a new encoder gets unless the recipe says otherwise.
USUAL_TOKENIZER = "wordpiece"
# The character n-grams of the baseline: hashed into so many features.
FEATURES = 2**18


@dataclass(frozen=True, kw_only=True)
class TokenEncoder(InputEncoder):
    """What all encoders of texts have: columns, a tokenizer, and how much the network reads at once."""

    columns: list[str]
    """Those that hold the texts."""
    max_length: int
    """Tokens that the network reads at once."""
    limit: int
    """The most that it can read."""
    tokenizer: Any = field(repr=False, compare=False)
    special_roles: ClassVar[tuple[str, ...]]
    """The special tokens that a network's configuration names."""

    @property
    def input_shape(self) -> tuple[int]:
        return (self.max_length,)

    def texts(self, table: pa.Table, name: str) -> list[str]:
        """Return the texts of a column, empty where one is missing. Raises DataError when there is no such column."""
        if name not in table.column_names:
            raise DataError(
                f"the data has no column {name!r}",
                found=", ".join(table.column_names),
                expected=f"a text in a column {name!r}, as the model was trained on",
                fix="rename the column, or name it with data.input",
            )
        return as_texts(table[name])

    def show(self, table: pa.Table, index: int) -> dict[str, Any]:
        return {"input": {name: table[name][index].as_py() for name in self.columns}}

    def statistics(self, prepared: Prepared, owner: str | None) -> list[Statistic]:
        if not is_trained_here(self.tokenizer):
            return []
        return [Statistic(column=name, kind="vocabulary", count=len(self.tokenizer)) for name in self.columns]

    def backbone_config(self, recipe: Recipe, backbone: Backbone) -> dict[str, Any]:
        """Return the backbone's configuration; where a tokenizer was trained here, with the size of its vocabulary."""
        if tokenizer_to_train(recipe, backbone) is None:
            return backbone.config
        ids = {f"{role}_token_id": getattr(self.tokenizer, f"{role}_token_id") for role in self.special_roles}
        return {**backbone.config, "vocab_size": len(self.tokenizer), **ids}

    def check_network(self, network: Network, folder: Path) -> None:
        """See that the tokenizer makes no token that the network has no embedding for.

        Raises:
            ArtifactError: it does.
        """
        known = network.vocabulary_size
        highest = max(self.tokenizer.get_vocab().values(), default=0)
        if known is not None and highest >= known:
            raise ArtifactError(
                "the tokenizer makes tokens that the network does not know",
                file=folder / "tokenizer.json",
                found=f"token {highest}",
                expected=f"tokens below {known}, the size of the network's vocabulary",
                fix="restore the folder from a copy, or train again",
            )

    def write(self, folder: Path) -> None:
        """The tokenizer's files, in the library's format."""
        with quiet():
            self.tokenizer.save_pretrained(folder)


@dataclass(frozen=True, kw_only=True)
class TextEncoder(TokenEncoder):
    """One column of texts, or two that are read as pairs: token ids, [CLS] and [SEP] as the tokenizer sets them, at most
    `max_length` of them."""

    passages: bool = False
    """A longer text becomes several examples, so that nothing of it is lost; otherwise it is cut."""
    plain_name: ClassVar[str] = "linear model on character n-grams"
    special_roles: ClassVar[tuple[str, ...]] = ("pad", "cls", "sep")

    @property
    def cuts_texts(self) -> bool:
        return not self.passages

    @property
    def vocabulary(self) -> Vocabulary:
        """The tokenizer's ids, as far as hiding tokens goes.

        Raises:
            RecipeError: it has no token to hide others behind.
        """
        if self.tokenizer.mask_token_id is None:
            raise RecipeError(
                "the backbone's tokenizer has no [MASK], so no token can be hidden",
                place="model.backbone",
                found=type(self.tokenizer).__name__,
                expected="a tokenizer with a mask token, as BERT's or RoBERTa's",
                fix="take another backbone",
            )
        special = sorted(set(self.tokenizer.all_special_ids))
        ordinary = sorted(set(self.tokenizer.get_vocab().values()) - set(special))
        return Vocabulary(
            mask=self.tokenizer.mask_token_id, ordinary=torch.tensor(ordinary), special=torch.tensor(special)
        )

    def examples(self, table: pa.Table, target: Truth) -> TokenExamples:
        """Return the rows as tokens. Raises DataError when a column is missing."""
        if self.passages:
            return self._passages(table)
        texts = [self.texts(table, name) for name in self.columns]
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
            [" ¦ ".join(row) for row in zip(*(self.texts(part, name) for name in self.columns))]
            for part in (train, test)
        ]
        known = rarity.fit_transform(counts.transform(joined[0]))
        return known, rarity.transform(counts.transform(joined[1]))

    def to_json(self) -> dict[str, Any]:
        facts = {"columns": self.columns, "max_length": self.max_length, "limit": self.limit}
        return {**facts, "passages": self.passages}

    def _passages(self, table: pa.Table) -> TokenExamples:
        """Return each text as one example or several; one without a token is no example, and counted."""
        (texts,) = (self.texts(table, name) for name in self.columns)
        rows = np.asarray(table["_row"])
        special = self.vocabulary.special.numpy()
        ids: list[np.ndarray] = []
        sources: list[int] = []
        for start in range(0, table.num_rows, CHUNK):
            part = texts[start : start + CHUNK]
            found = self.tokenizer(part, truncation=True, max_length=self.max_length, return_overflowing_tokens=True)
            for entry, text in zip(found["input_ids"], found["overflow_to_sample_mapping"], strict=True):
                passage = np.asarray(entry, np.int32)
                if not np.isin(passage, special).all():
                    ids.append(passage)
                    sources.append(start + text)
        if not ids:
            raise DataError(
                "there is no token in these texts that could be hidden",
                found=f"{table.num_rows:,} texts, empty or of characters that the tokenizer does not know",
                expected="texts in a language that the tokenizer knows",
                fix="check data.input, or train a tokenizer on these texts: model: {weights: random, tokenizer: wordpiece}",
            )
        return TokenExamples(
            tokens=_ragged(ids),
            types=None,
            target=None,
            rows=torch.from_numpy(rows[sources]),
            padding=self.tokenizer.pad_token_id or 0,
            empty=table.num_rows - len(set(sources)),
        )


def fit_tokens(prepared: Prepared, recipe: Recipe, backbone: Backbone | None, known: TextEncoder | None) -> TextEncoder:
    """Fit the encoder for the text columns of a prepared set, with the backbone's tokenizer, one that is trained on the
    training texts, or the one that the network was trained with.

    Raises:
        DataError: there is no text column, or too many.
        RecipeError: the recipe names no backbone to take the tokenizer from, or one that has none.
    """
    return fit_text_columns(text_columns(prepared, recipe), prepared, recipe, backbone, known)


def fit_text_columns(
    columns: list[str], prepared: Prepared, recipe: Recipe, backbone: Backbone | None, known: TextEncoder | None
) -> TextEncoder:
    """Fit the encoder for columns of texts, or of texts that are divided into words.

    Raises:
        RecipeError: the recipe names no backbone to take the tokenizer from, or one that has none.
    """
    if known is not None:
        length = _length(recipe, known.limit, known.max_length)
        return TextEncoder(columns=columns, max_length=length, limit=known.limit, tokenizer=known.tokenizer)
    if backbone is None:
        raise RecipeError(
            "a text task needs a backbone with a tokenizer",
            place="model.backbone",
            expected="a name of the catalog, a folder, a hub id, or a new encoder",
            fix="model.backbone: minilm",
        )
    limit = int(backbone.config.get("max_position_embeddings", 10**9))
    trained = tokenizer_to_train(recipe, backbone)
    folder = public_tokenizer(prepared, recipe, columns) if trained is not None else backbone.folder
    if folder is None:
        folder = trained_tokenizer(prepared, columns, trained or USUAL_TOKENIZER, limit)
    tokenizer = load_tokenizer(folder)
    # Some tokenizers say 10³⁰ for "no limit"; the position embeddings are the limit then.
    limit = min(int(tokenizer.model_max_length), limit)
    length = _length(recipe, limit, min(USUAL_LENGTH, limit))
    return TextEncoder(columns=columns, max_length=length, limit=limit, tokenizer=tokenizer)


def tokenizer_to_train(recipe: Recipe, backbone: Backbone, usual: Named = USUAL_TOKENIZER) -> Named | None:
    """Return the tokenizer that is to be trained on the training texts; None: the backbone comes with one.

    Args:
        usual: what a new network gets where the recipe says nothing.

    Raises:
        RecipeError: pretrained weights, which go with the tokenizer that they were trained with.
    """
    random = recipe.model.weights == "random" or not backbone.pretrained
    if recipe.model.tokenizer is not None and not random:
        raise RecipeError(
            "pretrained weights need their own tokenizer",
            place="model.tokenizer",
            found=recipe.model.tokenizer,
            fix="leave model.tokenizer out; or begin with random weights: model.weights: random",
        )
    return recipe.model.tokenizer or (None if backbone.pretrained else usual)


def _length(recipe: Recipe, limit: int, usual: int) -> int:
    """Return how many tokens of a text are read.

    Raises:
        RecipeError: more than the network can.
    """
    wanted = recipe.model.max_length or usual
    if wanted > limit:
        raise RecipeError(
            "the backbone's context is shorter",
            place="model.max_length",
            found=wanted,
            expected=f"at most {limit} tokens",
            fix=f"model.max_length: {limit}",
        )
    return wanted


def load_tokens(value: dict[str, Any], folder: Path) -> TextEncoder:
    """Load the encoder from its JSON and the tokenizer's files."""
    return TextEncoder(**value, tokenizer=load_tokenizer(folder))


def load_tokenizer(folder: Path) -> Any:
    """Load the tokenizer of a model folder.

    Raises:
        DataError: it has none that can be read.
        ArtifactError: it is too large or too slow, crashes, or has ids that the network does not know.
    """
    from transformers import AutoTokenizer

    check_tokenizer(folder)
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
            check_loaded(tokenizer, folder)
    except (UserError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of a library in Rust is no Exception
        raise DataError(
            f"the tokenizer cannot be read: {(str(error).strip() or type(error).__name__).splitlines()[0]}",
            file=folder / "tokenizer.json",
            expected="tokenizer.json and tokenizer_config.json",
            fix="restore the file from a copy, or take a model that comes with its tokenizer",
        ) from None
    return tokenizer


def text_columns(prepared: Prepared, recipe: Recipe) -> list[str]:
    """Return the one or two columns that hold the texts.

    Raises:
        DataError: there is none, or there are more.
    """
    manifest = prepared.manifest
    kinds = {column.name: column.kind for column in manifest.columns}
    texts = [name for name in manifest.input if kinds[name] in ("text", "category")]
    # Unless columns are named, those of free text are the inputs, not the categorical ones.
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
