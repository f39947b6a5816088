"""Which explanation and which export case belong to which kind of input."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import torch
from torch import Tensor

from tunewright.data.batches.batch import Examples
from tunewright.errors import ArtifactError
from tunewright.models.core.network import Network
from tunewright.models.hub.hf_network import Transformer
from tunewright.models.recommendation.base import Recommender
from tunewright.models.speech.whisper import Whisper
from tunewright.tasks.base.explain import Question
from tunewright.tasks.base.export_case import SINGLE, HandedOn, Named, Trial
from tunewright.tasks.base.task import Preprocessor
from tunewright.tasks.image.encoder import PixelEncoder
from tunewright.tasks.image.explain import explain_image
from tunewright.tasks.language_model.chat_encoder import ChatEncoder
from tunewright.tasks.language_model.encoder import CausalEncoder
from tunewright.tasks.language_model.explain import explain_next_token
from tunewright.tasks.language_model.export import export_language_model
from tunewright.tasks.recommendation.categorical_encoder import FieldEncoder
from tunewright.tasks.recommendation.explain import explain_click, explain_recommendation
from tunewright.tasks.recommendation.export import export_recommender
from tunewright.tasks.recommendation.interaction_encoder import InteractionEncoder
from tunewright.tasks.speech.encoder import SpeechEncoder
from tunewright.tasks.speech.explain import explain_transcript
from tunewright.tasks.speech.export import export_seq2seq
from tunewright.tasks.table.encoder import RowEncoder
from tunewright.tasks.table.explain import explain_row
from tunewright.tasks.text.encoder import TextEncoder
from tunewright.tasks.text.explain import explain_text


def questions(network: Network, preprocessor: Preprocessor, table: pa.Table, wanted: str | None) -> list[Question]:
    """One question for each row of the table.

    Args:
        wanted: the class, label, item or continuation that is explained; None: the model's own answer.

    Raises:
        DataError: there is no such class or item.
        ArtifactError: the model answers in a way that cannot be explained by its input.
    """
    for kind, ask in ASK.items():
        if isinstance(preprocessor.inputs, kind):
            return [ask(network, preprocessor, table.slice(row, 1), wanted) for row in range(table.num_rows)]
    raise ArtifactError(
        "such a model's answers are not explained yet",
        found=preprocessor.task.name,
        expected="a model of classes, numbers, the next token, transcripts, clicks or items",
    )


ASK: dict[type, Callable[[Network, Preprocessor, pa.Table, str | None], Question]] = {
    PixelEncoder: explain_image,
    RowEncoder: explain_row,
    TextEncoder: explain_text,
    CausalEncoder: explain_next_token,
    FieldEncoder: explain_click,
    InteractionEncoder: explain_recommendation,
    SpeechEncoder: explain_transcript,
}


def handed_on(network: Network, preprocessor: Preprocessor, table: pa.Table) -> Trial:
    """A saved model as it is handed on, with the rows of a table as examples."""
    inputs = preprocessor.inputs
    if isinstance(network, Recommender):
        return export_recommender(network, table.num_rows)
    if isinstance(inputs, CausalEncoder | ChatEncoder):
        assert isinstance(network, Transformer)
        return export_language_model(network, inputs, table)
    known = preprocessor.target is not None and preprocessor.target.column in table.column_names
    target = preprocessor.target.encode(table) if known and preprocessor.target is not None else None
    examples: Examples = inputs.examples(table, target)

    def batch(ids: list[int]) -> Named:
        found = examples.batch(torch.tensor(ids)).inputs
        return {SINGLE: found} if isinstance(found, Tensor) else dict(found)

    if isinstance(network, Whisper):
        return export_seq2seq(network, len(examples), batch)
    names = list(batch([0]))
    return Trial(module=HandedOn(network, names), count=len(examples), batch=batch, target=examples.target)
