"""Which parts of a text are entities, and of which type? Learned from the tags of words, or from spans of characters.

Tags follow IOB1, IOB2 (BIO), IOBES or BILOU; the network learns IOB2. Entities are compared as conlleval does (Tjong Kim Sang and
De Meulder 2003, "Introduction to the CoNLL-2003 shared task"): an entity is right when its type and both ends are.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.nn import functional as F

from tunewright.console import Console
from tunewright.data.batches.batch import Batch, Examples, Inputs, Truth
from tunewright.data.batches.examples import Ragged, TokenExamples, moved
from tunewright.data.batches.sampler import EVALUATION_BATCH, in_order
from tunewright.data.manifest import Rejects
from tunewright.data.prepared import Prepared
from tunewright.data.source import ROW
from tunewright.errors import DataError
from tunewright.evaluation.baselines import Baseline
from tunewright.evaluation.metrics import Metric, Outcome
from tunewright.models.backbone import Backbone
from tunewright.models.core.network import Network, evaluating
from tunewright.models.hub.purposes import Purpose
from tunewright.recipe.schema import Recipe
from tunewright.runs.summary.data import TextSummary
from tunewright.runs.summary.evaluation import LabelSummary, Mistake, TaskFindings
from tunewright.runs.summary.facts import Title
from tunewright.tasks.base.encoders import Encoders
from tunewright.tasks.base.evaluation import MISTAKES, Evaluation, Measured
from tunewright.tasks.base.targets import Target, TargetEncoder
from tunewright.tasks.base.task import About, Architecture, Task
from tunewright.tasks.text.describe import describe_texts
from tunewright.tasks.text.encoder import CHUNK, TextEncoder, fit_text_columns, load_tokenizer
from tunewright.tasks.text.modality import TEXT
from tunewright.tasks.text.request import TextRequest
from tunewright.training.objectives.base import Objective, Scalar
from tunewright.training.privacy.lineage import Statistic

OUTSIDE = "O"
# The target of tokens that the loss does not count: special tokens, and all but the first of a word.
IGNORED = -100
TOKEN_CLASSIFICATION = Purpose(
    name="token-classification", auto_class="AutoModelForTokenClassification", adapter_type="TOKEN_CLS"
)

Entity = tuple[int, int, str]
"""Start and end, in words or characters, and type."""


# Tags and spans


def entities_of_tags(tags: Sequence[str]) -> list[Entity]:
    """Return the entities of a sentence's tags, by conlleval's rules for tags that do not fit together.

    A tag continues an entity when it begins with I, E or L and follows a B or I of its own type. Every other tag but O begins one.

    Raises:
        ValueError: a tag is not O and has no prefix.
    """
    found: list[list[Any]] = []
    before, kind_before = OUTSIDE, ""
    for place, tag in enumerate(tags):
        prefix, kind = _divide(tag)
        if prefix in ("I", "E", "L") and before in ("B", "I") and kind == kind_before:
            found[-1][1] = place + 1
        elif prefix != OUTSIDE:
            found.append([place, place + 1, kind])
        before, kind_before = prefix, kind
    return [(start, end, kind) for start, end, kind in found]


def _divide(tag: str) -> tuple[str, str]:
    if tag == OUTSIDE:
        return OUTSIDE, ""
    prefix, line, kind = tag.partition("-")
    if prefix not in ("B", "I", "E", "L", "S", "U") or not line or not kind:
        raise ValueError(f"{tag!r} is neither O nor a type with a prefix, such as B-PER")
    return prefix, kind


def _entities(cell: Sequence[Any]) -> list[Entity]:
    """Return the entities of a cell: the tags of its words, or spans {start, end, label}.

    Raises:
        ValueError: it holds something else, or two spans overlap.
    """
    if all(isinstance(entry, str) for entry in cell):
        return entities_of_tags(cell)
    spans: list[Entity] = []
    for entry in cell:
        if not isinstance(entry, dict) or not {"start", "end", "label"} <= set(entry):
            raise ValueError(f"{json.dumps(entry, ensure_ascii=False)} is not a span with start, end and label")
        start, end, kind = entry["start"], entry["end"], entry["label"]
        if not isinstance(start, int) or not isinstance(end, int) or not 0 <= start < end or not kind:
            raise ValueError(f"the span from {start} to {end} of {kind!r} is empty or has no label")
        spans.append((start, end, str(kind)))
    spans.sort()
    for one, other in zip(spans, spans[1:]):
        if other[0] < one[1]:
            raise ValueError(f"the spans {one} and {other} overlap, and each token has one tag")
    return spans


@dataclass(frozen=True, kw_only=True)
class EntityTarget(TargetEncoder):
    """Entities of a text; `classes` are the tags of IOB2."""

    classes: list[str] = field()

    @property
    def outputs(self) -> int:
        return len(self.classes)

    @property
    def kinds(self) -> list[str]:
        """The types of entities."""
        return [tag[2:] for tag in self.classes if tag.startswith("B-")]

    def entities(self, table: pa.Table) -> list[list[Entity]]:
        """Return the entities of each row.

        Raises:
            DataError: a cell has neither tags nor spans, or a type that the training rows lack.
        """
        known = set(self.kinds)
        found: list[list[Entity]] = []
        for row, cell in zip(table[ROW].to_pylist(), table[self.column].to_pylist(), strict=True):
            entities = _read(cell, row, self.column)
            for _, _, kind in entities:
                if kind not in known:
                    raise DataError(
                        f"the target {self.column!r} has a type of entity that is not in the training rows",
                        place=f"row {row}",
                        found=kind,
                        expected=f"one of {', '.join(self.kinds[:20])}",
                        fix="correct the tag, or put such rows into the training split",
                    )
            found.append(entities)
        return found

    def encode(self, table: pa.Table) -> list[Tensor]:
        """Return [entities, 3] int64 for each row: start, end and the index of the type's B tag."""
        place = {tag[2:]: index for index, tag in enumerate(self.classes) if tag.startswith("B-")}
        return [
            torch.tensor([(start, end, place[kind]) for start, end, kind in row], dtype=torch.int64).reshape(-1, 3)
            for row in self.entities(table)
        ]

    def statistic(self, prepared: Prepared, owner: str | None) -> Statistic:
        return Statistic(column=self.column, kind="classes", count=len(self.kinds))


def _read(cell: Any, row: int, column: str) -> list[Entity]:
    try:
        return _entities(cell or [])
    except ValueError as error:
        raise DataError(
            f"the target {column!r} cannot be read: {error}",
            place=f"row {row}",
            expected="tags such as O, B-PER, I-PER, or spans such as {start: 0, end: 6, label: PER}",
            fix="correct the row",
        ) from None


def _fit_entities(prepared: Prepared, recipe: Recipe | None) -> EntityTarget:
    """Collect the types of the training rows.

    Raises:
        DataError: there is none, or a cell cannot be read.
    """
    column = prepared.manifest.target or ""
    kinds: Counter[str] = Counter()
    for table in prepared.pieces("train", [column]):
        for row, cell in zip(table[ROW].to_pylist(), table[column].to_pylist(), strict=True):
            kinds.update(kind for _, _, kind in _read(cell, row, column))
    if not kinds:
        raise DataError(
            f"the target {column!r} has no entity in any training row",
            file=prepared.manifest.source,
            expected="tags such as B-PER, or spans with start, end and label",
            fix="name another column with data.target",
        )
    tags = [f"{prefix}-{kind}" for kind in sorted(kinds) for prefix in "BI"]
    return EntityTarget(column=column, classes=[OUTSIDE, *tags])


# Inputs


@dataclass(frozen=True)
class TaggedExamples(TokenExamples):
    """Texts as tokens, with the place of each token in its text and the tag to be predicted."""

    places: Ragged | None = None
    """[ΣT, 2]: start and end of each token that has a tag, in words or characters; (−1, −1) for the others."""
    tags: Ragged | None = None
    """[ΣT]: tag indices, `IGNORED` for tokens without one; None: the texts have no target."""
    inexact: int = 0
    """Entities that begin or end within a token."""

    def batch(self, ids: Tensor, epoch: int | None = None) -> Batch:
        found = super().batch(ids, epoch)
        if self.tags is None:
            return found
        target = self.tags.padded(ids, IGNORED, found.named["input_ids"].shape[1]).to(torch.int64)
        return replace(found, target=moved(target, self.device))


@dataclass(frozen=True, kw_only=True)
class TaggedEncoder(TextEncoder):
    """One column of texts, or of texts that are divided into words."""

    words: bool
    """The column holds lists of words, and entities are counted in words; otherwise in characters."""

    @property
    def column(self) -> str:
        return self.columns[0]

    def examples(self, table: pa.Table, target: Truth) -> TaggedExamples:
        """Return the rows as tokens; those without a token that could have a tag are no examples.

        Args:
            target: what `EntityTarget.encode` gave, or None.

        Raises:
            DataError: the column is missing, or an entity lies outside its text.
        """
        texts = self.texts(table, self.column)
        rows = table[ROW].to_pylist()
        held: list[tuple[np.ndarray, np.ndarray, np.ndarray, int]] = []
        cut = inexact = 0
        for index, (ids, places, complete) in enumerate(self._tokens(table, texts)):
            cut += not complete
            tags = np.full(len(ids), IGNORED)
            if target is not None:
                length = len(table[self.column][index].as_py() or []) if self.words else len(texts[index])
                _require_within(target[index], length, rows[index])
                inexact += _set_tags(tags, places, target[index].tolist(), complete)
            if (places[:, 0] >= 0).any():
                held.append((ids, places, tags, rows[index]))
        return TaggedExamples(
            tokens=_ragged([ids for ids, *_ in held], torch.int32),
            types=None,
            target=None,
            rows=torch.tensor([row for *_, row in held], dtype=torch.int64),
            padding=self.tokenizer.pad_token_id or 0,
            cut=cut,
            empty=table.num_rows - len(held),
            places=_ragged([places for _, places, *_ in held], torch.int64),
            tags=None if target is None else _ragged([tags for _, _, tags, _ in held], torch.int64),
            inexact=inexact,
        )

    def show(self, table: pa.Table, index: int) -> dict[str, Any]:
        return {"input": {self.column: self.texts(table.slice(index, 1), self.column)[0]}}

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), "words": self.words}

    def _tokens(self, table: pa.Table, texts: list[str]) -> Iterator[tuple[np.ndarray, np.ndarray, bool]]:
        """Yield of each text its token ids [T], the places [T, 2] of tokens with a tag, and whether all of it was read."""
        for start in range(0, len(texts), CHUNK):
            part = texts[start : start + CHUNK]
            found = self.tokenizer(part, truncation=True, max_length=self.max_length)
            for index, encoding in enumerate(found.encodings):
                offsets = np.asarray(encoding.offsets, np.int64).reshape(-1, 2)
                special = np.asarray(encoding.special_tokens_mask, bool) | (offsets[:, 0] == offsets[:, 1])
                places = np.where(special[:, None], -1, offsets)
                if self.words:
                    words = table[self.column][start + index].as_py() or []
                    places = _first_tokens(places, [len(word or "") for word in words])
                yield np.asarray(encoding.ids, np.int32), places, not encoding.overflowing


def _first_tokens(places: np.ndarray, lengths: list[int]) -> np.ndarray:
    """Turn characters of the words joined by spaces into words; only the first token of each word has a place."""
    begins = np.cumsum([0, *(length + 1 for length in lengths)])
    word = np.searchsorted(begins, places[:, 0], side="right") - 1
    word[places[:, 0] < 0] = -1
    first = np.r_[True, word[1:] != word[:-1]] & (word >= 0)
    return np.where(first[:, None], np.stack([word, word + 1], 1), -1)


def _require_within(entities: Tensor, length: int, row: int) -> None:
    if len(entities) and int(entities[:, 1].max()) > length:
        raise DataError(
            "an entity ends after the end of its text",
            place=f"row {row}",
            found=f"an end at {int(entities[:, 1].max())}",
            expected=f"at most {length}",
            fix="correct the row: ends are exclusive, and counted in characters of a text or in words of a list",
        )


def _set_tags(tags: np.ndarray, places: np.ndarray, entities: list[list[int]], complete: bool) -> int:
    """Write the tags of entities to the tokens that they share a place with; return how many do not fit the tokens."""
    placed = places[:, 0] >= 0
    tags[placed] = 0
    inexact = 0
    for start, end, begin_tag in entities:
        inside = np.flatnonzero(placed & (places[:, 0] < end) & (places[:, 1] > start))
        if not len(inside):
            inexact += complete  # otherwise it is in the part that is cut
            continue
        tags[inside] = begin_tag + 1
        tags[inside[0]] = begin_tag
        inexact += complete and (places[inside[0], 0] != start or places[inside[-1], 1] != end)
    return inexact


def _ragged(parts: list[np.ndarray], dtype: torch.dtype) -> Ragged:
    starts = np.cumsum([0, *map(len, parts)])
    values = np.concatenate(parts) if parts else np.zeros(0)
    return Ragged(torch.from_numpy(values).to(dtype), torch.from_numpy(starts))


def fit_tagged(
    prepared: Prepared, recipe: Recipe, backbone: Backbone | None, known: TextEncoder | None
) -> TaggedEncoder:
    """Fit the encoder for the one column of texts or words.

    Raises:
        DataError: there is another number of such columns.
    """
    manifest = prepared.manifest
    columns = {name: manifest.column(name) for name in manifest.input}
    texts = [name for name, column in columns.items() if column.kind == "text" or column.form == ["string"]]
    if len(texts) != 1:
        raise DataError(
            f"the task needs one column of texts or of lists of words; the data has {len(texts)}",
            file=manifest.source,
            found=", ".join(f"{name} ({column.kind})" for name, column in columns.items()),
            expected="one column",
            fix="name it with data.input",
        )
    found = fit_text_columns(texts, prepared, recipe, backbone, known)
    return TaggedEncoder(
        columns=texts,
        max_length=found.max_length,
        limit=found.limit,
        tokenizer=found.tokenizer,
        words=columns[texts[0]].kind != "text",
    )


def load_tagged(value: dict[str, Any], folder: Path) -> TaggedEncoder:
    """Return the encoder from its JSON and the tokenizer's files."""
    return TaggedEncoder(**value, tokenizer=load_tokenizer(folder))


def describe_tagged(encoder: TaggedEncoder, prepared: Prepared, train: Examples, console: Console) -> TextSummary:
    """Print and return how many texts and tokens there are, and warn of entities that tokens cannot express."""
    assert isinstance(train, TaggedExamples)
    if train.inexact:
        console.warning(
            f"{train.inexact:,} entities of the training rows begin or end within a token of this tokenizer, "
            "so they cannot be predicted exactly"
        )
    return describe_texts(encoder, prepared, train, console)


class TaggedRequest(TextRequest[TaggedEncoder]):
    """Bare texts, lists of words, or rows by their columns. A text is divided at spaces and around punctuation where the model
    reads words."""

    def record(self, value: Any) -> dict[str, Any] | None:
        if self.encoder.words and isinstance(value, list) and all(isinstance(word, str) for word in value):
            return {self.encoder.column: value}
        return super().record(value)

    def readable(self, table: pa.Table, rejects: Rejects) -> pa.Table:
        table = super().readable(table, rejects)
        column = self.encoder.column
        if not self.encoder.words or column not in table.column_names or not pa.types.is_string(table[column].type):
            return table
        words = pa.array([_words_of(cell) for cell in table[column].to_pylist()], pa.list_(pa.string()))
        return table.set_column(table.column_names.index(column), column, words)


def _words_of(cell: str | None) -> list[str]:
    """Return the words of a cell: a JSON list as it is, else those of the text."""
    try:
        value = json.loads(cell or "[]")
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, list):
        return [str(word) for word in value]
    return re.findall(r"\w+|[^\w\s]", cell or "")


TAGGED_TEXT = replace(
    TEXT, fit=fit_tagged, load=load_tagged, request=TaggedRequest, describe=describe_tagged, explain=None, texts=None
)


# Objective


@dataclass(frozen=True, kw_only=True)
class TokenCrossEntropy:
    """Compute the cross entropy of the tags, over all tokens that have one."""

    def weight(self, batch: Batch) -> float:
        """Return the number of tokens with a tag."""
        return float((batch.target != IGNORED).sum())

    def loss_sum(self, model: Callable[[Inputs], Tensor], batch: Batch, epoch: int) -> Scalar:
        """Return the sum over the tokens of −log p(tag); logits are [batch, time, tags]."""
        logits = model(batch.inputs)
        return F.cross_entropy(logits.flatten(0, 1), batch.target.flatten(), ignore_index=IGNORED, reduction="sum")


def token_cross_entropy(encoder: object) -> Objective:
    """Predict the tag of each token."""
    return Objective(name="token_cross_entropy", supervised=True, bind=lambda seed, device: TokenCrossEntropy())


# Evaluation: outputs [N, 2] are the entities that are right and those that are predicted; the target [N] is how many there are.


def _entity_ratio(outcome: Outcome, weights: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return right entities over `whole` [N] for each of the weights [R, N]: 0 where there is none, NaN where nothing is one."""
    right, sums = weights @ outcome.outputs[:, 0], weights @ whole
    empty = weights @ (outcome.outputs[:, 1] + outcome.target) == 0
    return np.where(empty, np.nan, right / np.maximum(sums, 1e-12))


def entity_f1(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """F1 of entities, counted over all texts: 2 · right / (predicted + actual)."""
    return _entity_ratio(outcome, weights, (outcome.outputs[:, 1] + outcome.target) / 2)


def entity_precision(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """Return the share of the predicted entities that are right."""
    return _entity_ratio(outcome, weights, outcome.outputs[:, 1])


def entity_recall(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """Return the share of the actual entities that are predicted."""
    return _entity_ratio(outcome, weights, outcome.target)


@dataclass(frozen=True)
class Predicted:
    """An entity that the network finds in a text."""

    entity: Entity
    score: float
    """The mean probability of its tokens' tags."""


class EntityEvaluation(Evaluation):
    """Compare predicted entities with actual ones."""

    kind = "entities"
    compares_with_start = False
    select = "entity_f1"

    def outputs(self, network: Network, before: Network | None, preprocessor: Encoders, table: pa.Table) -> Measured:
        actual = _target(preprocessor).entities(table)
        return _counts(actual, [[found.entity for found in row] for row in find_entities(network, preprocessor, table)])

    def predictions(self, network: Network, preprocessor: Encoders, table: pa.Table) -> list[dict[str, Any]]:
        """Return {"entities": [{"start", "end", "label", "text", "score"}]} for each row; a model of words also gives "words"."""
        encoder = preprocessor.inputs_as(TaggedEncoder)
        return [
            _answer(encoder, cell, row)
            for cell, row in zip(
                table[encoder.column].to_pylist(), find_entities(network, preprocessor, table), strict=True
            )
        ]

    def baselines(self, preprocessor: Encoders, prepared: Prepared, table: pa.Table, seed: int) -> list[Baseline]:
        train = self.sampled(preprocessor, prepared, seed)
        found = _by_dictionary(preprocessor, train, table)
        return [Baseline("most frequent tag of each word", _counts(_target(preprocessor).entities(table), found)[0])]

    def facts(
        self, network: Network, preprocessor: Encoders, prepared: Prepared, table: pa.Table, outcome: Outcome
    ) -> TaskFindings:
        """Return the result for each type, and the texts with most wrong entities."""
        actual = _target(preprocessor).entities(table)
        predicted = [[found.entity for found in row] for row in find_entities(network, preprocessor, table)]
        wrong = [len(set(one) ^ set(other)) for one, other in zip(actual, predicted, strict=True)]
        worst = [index for index in np.argsort(-np.array(wrong), kind="stable")[:MISTAKES].tolist() if wrong[index]]
        encoder = preprocessor.inputs_as(TaggedEncoder)
        cells = table[encoder.column].to_pylist()
        return TaskFindings(
            labels=[_of_kind(kind, actual, predicted) for kind in _target(preprocessor).kinds],
            mistakes=[
                Mistake(
                    row=table[ROW][index].as_py(),
                    target=[_named(encoder, cells[index], entity) for entity in actual[index]],
                    prediction=[_named(encoder, cells[index], entity) for entity in predicted[index]],
                    loss=float(wrong[index]),
                    **encoder.show(table, index),
                )
                for index in worst
            ],
        )


def find_entities(network: Network, preprocessor: Encoders, table: pa.Table) -> list[list[Predicted]]:
    """Return the entities that the likeliest tags of each row's tokens name."""
    classes = _target(preprocessor).classes
    examples = preprocessor.inputs_as(TaggedEncoder).examples(table, None)
    position = {row: index for index, row in enumerate(table[ROW].to_pylist())}
    found: list[list[Predicted]] = [[] for _ in range(table.num_rows)]
    assert examples.places is not None
    with evaluating(network), torch.inference_mode():
        for batch in in_order(examples.to(next(network.parameters()).device), EVALUATION_BATCH):
            chances, tags = network(batch.inputs).float().softmax(2).max(2)
            for index, scores, row in zip(batch.ids.tolist(), chances.cpu().numpy(), tags.cpu().numpy(), strict=True):
                places = examples.places.values[
                    examples.places.starts[index] : examples.places.starts[index + 1]
                ].numpy()
                placed = np.flatnonzero(places[:, 0] >= 0)
                found[position[int(examples.rows[index])]] = [
                    Predicted(
                        (int(places[placed[start], 0]), int(places[placed[end - 1], 1]), kind),
                        float(scores[placed[start:end]].mean()),
                    )
                    for start, end, kind in entities_of_tags([classes[tag] for tag in row[placed]])
                ]
    return found


def _target(preprocessor: Encoders) -> EntityTarget:
    assert isinstance(preprocessor.target, EntityTarget)
    return preprocessor.target


def _counts(actual: list[list[Entity]], predicted: list[list[Entity]]) -> Measured:
    outputs = [(len(set(one) & set(other)), len(other)) for one, other in zip(actual, predicted, strict=True)]
    return np.array(outputs, np.float64).reshape(-1, 2), np.array([len(row) for row in actual], np.int64)


def _of_kind(kind: str, actual: list[list[Entity]], predicted: list[list[Entity]]) -> LabelSummary:
    one, other = ([[entity for entity in row if entity[2] == kind] for row in rows] for rows in (actual, predicted))
    outputs, target = _counts(one, other)
    right, found, there = outputs[:, 0].sum(), outputs[:, 1].sum(), target.sum()
    return LabelSummary(
        label=kind,
        rows=int(there),
        predicted=int(found),
        precision=float(right / found) if found else None,
        recall=float(right / there) if there else None,
        f1=float(2 * right / (found + there)) if found + there else None,
        average_precision=None,
    )


def _by_dictionary(preprocessor: Encoders, train: pa.Table, table: pa.Table) -> list[list[Entity]]:
    """Return the entities of a table when each word gets its most frequent tag in the training rows."""
    encoder, target = preprocessor.inputs_as(TaggedEncoder), _target(preprocessor)
    seen: defaultdict[str, Counter[int]] = defaultdict(Counter)
    for words, tags in _surfaces(encoder, encoder.examples(train, target.encode(train)), train):
        for (word, _), tag in zip(words, tags, strict=True):
            seen[word][tag] += 1
    usual = {word: target.classes[counts.most_common(1)[0][0]] for word, counts in seen.items()}
    position = {row: index for index, row in enumerate(table[ROW].to_pylist())}
    found: list[list[Entity]] = [[] for _ in range(table.num_rows)]
    examples = encoder.examples(table, None)
    for row, (words, _) in zip(examples.rows.tolist(), _surfaces(encoder, examples, table), strict=True):
        named = entities_of_tags([usual.get(word, OUTSIDE) for word, _ in words])
        found[position[row]] = [(words[start][1][0], words[end - 1][1][1], kind) for start, end, kind in named]
    return found


def _surfaces(
    encoder: TaggedEncoder, examples: TaggedExamples, table: pa.Table
) -> Iterator[tuple[list[tuple[str, tuple[int, int]]], list[int]]]:
    """Yield of each example its words, or tokens, with their places, and their tags."""
    cells = dict(zip(table[ROW].to_pylist(), table[encoder.column].to_pylist(), strict=True))
    assert examples.places is not None
    for index, row in enumerate(examples.rows.tolist()):
        part = slice(int(examples.places.starts[index]), int(examples.places.starts[index + 1]))
        places = examples.places.values[part].numpy()
        placed = places[:, 0] >= 0
        tags = [] if examples.tags is None else examples.tags.values[part].numpy()[placed].tolist()
        yield [(_part(encoder, cells[row], start, end), (start, end)) for start, end in places[placed].tolist()], tags


def _part(encoder: TaggedEncoder, cell: Any, start: int, end: int) -> str:
    return " ".join(cell[start:end]) if encoder.words else cell[start:end]


def _named(encoder: TaggedEncoder, cell: Any, entity: Entity) -> str:
    return f"{_part(encoder, cell, entity[0], entity[1])} ({entity[2]})"


def _answer(encoder: TaggedEncoder, cell: Any, found: list[Predicted]) -> dict[str, Any]:
    entities = [
        {
            "start": entry.entity[0],
            "end": entry.entity[1],
            "label": entry.entity[2],
            "text": _part(encoder, cell, entry.entity[0], entry.entity[1]),
            "score": entry.score,
        }
        for entry in found
    ]
    return {"words": cell or [], "entities": entities} if encoder.words else {"entities": entities}


def _metric(name: str, en: str, zh: str, formula: Callable[[Outcome, np.ndarray], np.ndarray], hub: str) -> Metric:
    return Metric(
        name=name,
        title=Title(en=en, zh=zh),
        kinds=("entities",),
        greater_is_better=True,
        formula=formula,
        style="percent",
        hub_name=hub,
    )


TASK = Task(
    name="token-classification",
    summary="the entities of a text, such as names of people and places, by tags of words or by spans",
    about=About(en="named entity recognition", zh="命名实体识别", hub_task="token-classification"),
    inputs=TAGGED_TEXT,
    target=Target(
        kind="structure",
        objective="token_cross_entropy",
        fit=_fit_entities,
        load=lambda value: EntityTarget(**value),
    ),
    network=Architecture(default={"backbone": "minilm"}, purpose=TOKEN_CLASSIFICATION),
    objectives={"token_cross_entropy": token_cross_entropy},
    own_metrics=(
        _metric("entity_f1", "entity F1", "实体 F1", entity_f1, "f1"),
        _metric("entity_precision", "entity precision", "实体精确率", entity_precision, "precision"),
        _metric("entity_recall", "entity recall", "实体召回率", entity_recall, "recall"),
    ),
    metrics=("entity_f1", "entity_precision", "entity_recall"),
    evaluation=EntityEvaluation(),
    defaults={
        "train": {
            "epochs": 3,
            "batch_size": 32,
            "optimizer": "adamw",
            "schedule": "linear",
            "warmup": 0.1,
            "clip_norm": 1.0,
        },
        "stages": ["finetune"],
    },
)
