"""A language model that writes: its network and encoder, for what needs both."""

from __future__ import annotations

from dataclasses import dataclass

from tunewright.models.core.network import Network
from tunewright.models.hub.hf_network import Transformer
from tunewright.tasks.base.encoders import Encoders
from tunewright.tasks.language_model.encoder import CausalTextEncoder
from tunewright.tasks.text.encoder import TokenEncoder


@dataclass(frozen=True)
class LanguageModel:
    """A network that writes, and the encoder of its texts."""

    network: Transformer
    encoder: CausalTextEncoder


@dataclass(frozen=True)
class TextModel:
    """A network that reads tokens, and the encoder of its texts."""

    network: Transformer
    encoder: TokenEncoder


def language_model(network: Network, preprocessor: Encoders) -> LanguageModel | None:
    """Return the model as one that writes; None: it does not."""
    encoder = preprocessor.inputs
    if not isinstance(network, Transformer) or not isinstance(encoder, CausalTextEncoder):
        return None
    return LanguageModel(network, encoder)


def text_model(network: Network, preprocessor: Encoders) -> TextModel | None:
    """Return the model as one that reads texts; None: it does not."""
    encoder = preprocessor.inputs
    if not isinstance(network, Transformer) or not isinstance(encoder, TokenEncoder):
        return None
    return TextModel(network, encoder)
