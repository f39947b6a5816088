"""Pairs of answers as a chat model reads them: each pair in a row of its own, the chosen conversation before the rejected one,
and of both only the answer counts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from tunewright.data.batches.batch import BaseExamples, Batch, Truth
from tunewright.data.prepared import Prepared
from tunewright.data.text.preferences import Preference, preference, recognise_preferences
from tunewright.errors import DataError
from tunewright.models.backbone import Backbone
from tunewright.recipe.schema import Recipe
from tunewright.tasks.language_model.chat_encoder import ChatEncoder, ChatExamples, talk_settings
from tunewright.tasks.language_model.chat_template import Rendered
from tunewright.tasks.text.encoder import load_tokenizer
from tunewright.training.objectives.preference import REFERENCE


@dataclass(frozen=True, kw_only=True)
class PreferenceExamples(BaseExamples):
    """Rows of two conversations. A batch's inputs and target are those of `ChatExamples`: document 1 is the chosen one."""

    texts: ChatExamples
    reference: Tensor | None = None
    """[N, 2]: the log probabilities of both answers by the network as it was, where the objective asks for them."""

    @property
    def rows(self) -> Tensor:
        return self.texts.rows

    @property
    def target(self) -> None:
        return None

    @property
    def lengths(self) -> Tensor:
        return self.texts.lengths

    @property
    def augmented(self) -> bool:
        return True

    def __len__(self) -> int:
        return len(self.texts)

    def to(self, device: torch.device) -> PreferenceExamples:
        return replace(self, texts=self.texts.to(device))

    def batch(self, ids: Tensor, epoch: int | None = None) -> Batch:
        found = self.texts.batch(ids, epoch)
        if self.reference is None:
            return found
        reference = self.reference[ids].to(self.texts.device)
        return replace(found, inputs={**found.named, REFERENCE: reference})

    def with_reference(self, reference: Tensor) -> PreferenceExamples:
        """Return the same pairs with what the network as it was gives to their answers, [N, 2]."""
        return replace(self, reference=reference)


@dataclass(frozen=True, kw_only=True)
class PreferenceEncoder(ChatEncoder):
    """Two answers to one question, of which the first is the better one."""

    def examples(self, table: pa.Table, target: Truth) -> PreferenceExamples:
        """Return the pairs of a table. Raises DataError when one does not fit the template or the context."""
        rows = table["_row"].to_pylist()
        pairs = self.read(table, preference)
        chosen = self._answers(rows, pairs, [pair.chosen for pair in pairs])
        rejected = self._answers(rows, pairs, [pair.rejected for pair in pairs])
        texts = ChatExamples(
            conversations=[entry for pair in zip(chosen, rejected, strict=True) for entry in pair],
            numbers=torch.tensor(np.asarray(table["_row"])).repeat_interleave(2),
            bins=[[2 * index, 2 * index + 1] for index in range(len(rows))],
        )
        return PreferenceExamples(texts=texts)

    def sequences(self, table: pa.Table) -> list[list[int]]:
        return [list(entry.ids) for entry in self.examples(table, None).texts.conversations]

    def _answers(self, rows: list[int], pairs: list[Preference], answers: list[Any]) -> list[Rendered]:
        """Return each pair's conversation with one of its answers, of which that answer alone counts."""
        found = self.render(rows, [[*pair.prompt, *answer] for pair, answer in zip(pairs, answers, strict=True)])
        alone: list[Rendered] = []
        for entry, pair in zip(found, pairs, strict=True):
            said = sum(turn.role == "assistant" for turn in pair.prompt)
            begin = entry.prompts[said]
            trained = [counts and place >= begin for place, counts in enumerate(entry.trained)]
            alone.append(replace(entry, trained=trained))
        self.require_answers(rows, alone)
        return alone


def fit_preferences(prepared: Prepared, recipe: Recipe, backbone: Backbone | None, known: Any) -> PreferenceEncoder:
    """Fit the encoder for the pairs of a prepared set; see `talk_settings`.

    Raises:
        DataError: the columns hold no pairs.
        RecipeError: as `talk_settings`.
    """
    names = [column.name for column in prepared.manifest.columns]
    shape = recognise_preferences(names)
    if shape is None:
        raise DataError(
            "the data holds no pairs of answers",
            file=prepared.manifest.source,
            found=", ".join(names),
            expected="the columns chosen and rejected, and prompt where these are answers alone",
            fix="rename the columns to these",
        )
    return PreferenceEncoder(**talk_settings(shape, prepared, recipe, backbone, known))


def load_preferences(value: dict[str, Any], folder: Path) -> PreferenceEncoder:
    """Load the encoder from its JSON and the tokenizer's files."""
    return PreferenceEncoder(**value, tokenizer=load_tokenizer(folder))
