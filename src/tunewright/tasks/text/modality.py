"""Texts, and pairs of texts."""

from __future__ import annotations

from tunewright.tasks.base.modality import Modality
from tunewright.tasks.text.describe import describe_texts
from tunewright.tasks.text.encoder import fit_tokens, load_tokens, text_columns
from tunewright.tasks.text.explain import explain_text
from tunewright.tasks.text.request import TextRequest

TEXT = Modality(
    name="text",
    fit=fit_tokens,
    load=load_tokens,
    request=TextRequest,
    describe=describe_texts,
    explain=explain_text,
    texts=text_columns,
)
