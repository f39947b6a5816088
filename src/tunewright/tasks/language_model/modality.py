"""What language models read: documents one after the other, conversations, and pairs of answers."""

from __future__ import annotations

import pyarrow.compute as pc

from tunewright.data.batches.batch import Examples
from tunewright.data.batches.mixing import MixedExamples, mixed
from tunewright.data.batches.packing import PackedExamples
from tunewright.data.prepared import Prepared
from tunewright.data.source import ROW
from tunewright.data.sources.mixed import SOURCE
from tunewright.recipe.schema import Recipe
from tunewright.tasks.base.modality import Modality
from tunewright.tasks.language_model.chat_encoder import fit_chat, load_chat
from tunewright.tasks.language_model.describe import (
    describe_chat,
    describe_documents,
    describe_pairs,
    preview_chat,
    preview_pairs,
)
from tunewright.tasks.language_model.encoder import CausalEncoder, fit_causal, load_causal
from tunewright.tasks.language_model.explain import explain_next_token
from tunewright.tasks.language_model.export import export_language_model
from tunewright.tasks.language_model.preference_encoder import fit_preferences, load_preferences
from tunewright.tasks.language_model.request import ChatRequest
from tunewright.tasks.text.request import TextRequest

NAME = "language model"


def mix_sources(examples: Examples, prepared: Prepared, recipe: Recipe) -> MixedExamples:
    """Return the training rows of a mix, each source as often as its weight says."""
    assert isinstance(examples, PackedExamples)
    table = prepared.table("train", [SOURCE])
    weights = {recipe.data.source: 1.0} | {part.source: part.weight for part in recipe.data.mix}
    places = {name: pc.index(table[SOURCE], name).as_py() for name in weights}
    present = {name: place for name, place in places.items() if place >= 0}
    first = [table[ROW][place].as_py() for place in present.values()]
    return mixed(examples, first, {name: weights[name] for name in present}, recipe.seed)


LANGUAGE_MODEL = Modality(
    name=NAME,
    fit=fit_causal,
    load=load_causal,
    request=TextRequest,
    describe=describe_documents,
    explain=explain_next_token,
    export_case=export_language_model,
    mix=mix_sources,
    documents=CausalEncoder.documents,
)
CHAT = Modality(
    name=NAME,
    fit=fit_chat,
    load=load_chat,
    request=ChatRequest,
    describe=describe_chat,
    preview=preview_chat,
    export_case=export_language_model,
    finds_columns=True,
)
PAIRS = Modality(
    name=NAME,
    fit=fit_preferences,
    load=load_preferences,
    request=ChatRequest,
    describe=describe_pairs,
    preview=preview_pairs,
    export_case=export_language_model,
    finds_columns=True,
)
