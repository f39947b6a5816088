"""List the speech recognition networks by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tunewright.errors import RecipeError
from tunewright.models.core.spec import Facts
from tunewright.models.hub.untrusted_files import require_memory
from tunewright.models.speech.base import Recogniser, SpeechSpec
from tunewright.models.speech.conformer import Conformer, conformer
from tunewright.models.speech.deepspeech import DeepSpeech, deepspeech
from tunewright.models.speech.wav2vec2 import WaveformCTC, hubert, wav2vec2, wavlm
from tunewright.models.speech.whisper import Whisper, whisper
from tunewright.recipe.named import check_options, choose, parse_named
from tunewright.recipe.schema import Named

# Its options, and the class that builds it from them and a seed.
SPEECH_MODELS: dict[str, tuple[Callable[..., Facts], Callable[[SpeechSpec, int], Recogniser]]] = {
    "deepspeech": (deepspeech, DeepSpeech),
    "conformer": (conformer, Conformer),
    "wav2vec2": (wav2vec2, WaveformCTC),
    "hubert": (hubert, WaveformCTC),
    "wavlm": (wavlm, WaveformCTC),
    "whisper": (whisper, Whisper),
}


def describe_speech(named: Named) -> Facts:
    """Return the spec of the recipe's network, {"name", "reads", …}, without the number of bands and outputs.

    Raises:
        RecipeError: no such network or option.
    """
    name, given = parse_named(named, "model.backbone")
    make, _ = choose(SPEECH_MODELS, name, "model.backbone")
    chosen = make(**check_options(make, given, f"model.backbone.{name}"))
    return {"name": name, **chosen}


def build_speech(spec: SpeechSpec, *, seed: int) -> Recogniser:
    """Build a network from its spec.

    Raises:
        RecipeError: its options do not fit each other.
        ArtifactError: it is larger than the machine's memory.
    """
    name = spec.facts["name"]
    make = partial(SPEECH_MODELS[name][1], spec, seed)
    try:
        require_memory(make, file=None)
    except ValueError as error:
        raise RecipeError(
            f"the network does not accept its options: {error}",
            place=f"model.backbone.{name}",
            expected="options that fit each other, such as heads that divide the width",
            fix="correct the options, or remove them",
        ) from error
    return make()
