"""The networks that hear, by name, and what each of them reads."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from tunewright.errors import RecipeError
from tunewright.models.hub.untrusted_files import require_memory
from tunewright.models.speech.base import Recogniser
from tunewright.models.speech.conformer import Conformer, conformer
from tunewright.models.speech.deepspeech import DeepSpeech, deepspeech
from tunewright.models.speech.wav2vec2 import Heard, hubert, wav2vec2, wavlm
from tunewright.models.speech.whisper import Whisper, whisper
from tunewright.recipe.named import check_options, choose, parse_named
from tunewright.recipe.schema import Named

# Its options, and the class that builds it from them and a seed.
SPEECH_MODELS: dict[str, tuple[Callable[..., dict[str, Any]], Callable[[dict[str, Any], int], Recogniser]]] = {
    "deepspeech": (deepspeech, DeepSpeech),
    "conformer": (conformer, Conformer),
    "wav2vec2": (wav2vec2, Heard),
    "hubert": (hubert, Heard),
    "wavlm": (wavlm, Heard),
    "whisper": (whisper, Whisper),
}


def describe_speech(named: Named) -> dict[str, Any]:
    """What the recipe's network is, but for the numbers that it reads at a moment and its outputs: {"name", "reads", …}.

    Raises:
        RecipeError: no such network or option.
    """
    name, given = parse_named(named, "model.backbone")
    make, _ = choose(SPEECH_MODELS, name, "model.backbone")
    chosen = make(**check_options(make, given, f"model.backbone.{name}"))
    return {"name": name, **chosen}


def build_speech(described: dict[str, Any], *, seed: int) -> Recogniser:
    """The network of a description.

    Raises:
        RecipeError: its options do not fit each other.
        ArtifactError: it is larger than the machine's memory.
    """
    name = described["speech"]["name"]
    make = partial(SPEECH_MODELS[name][1], described, seed)
    try:
        require_memory(make, file=None)
    except ValueError as error:
        raise RecipeError(
            f"the network refuses its options: {error}",
            place=f"model.backbone.{name}",
            expected="options that fit each other, such as heads that divide the width",
            fix="correct the options, or leave them out",
        ) from error
    return make()
