"""What is said in this recording?"""

from __future__ import annotations

from tunewright.data.audio.features import WIDTHS
from tunewright.errors import RecipeError
from tunewright.models.backbone import Backbone, weights_folder
from tunewright.models.core.network import Network
from tunewright.models.speech.base import Recogniser, SpeechSpec
from tunewright.models.speech.registry import build_speech, describe_speech
from tunewright.models.speech.wav2vec2 import LIBRARY_KINDS, described_folder
from tunewright.random import mix
from tunewright.recipe.schema import Recipe
from tunewright.tasks.base.encoders import Encoders
from tunewright.tasks.base.task import About, Architecture, StartingModel, Task
from tunewright.tasks.speech.encoder import SpeechEncoder
from tunewright.tasks.speech.evaluation import (
    TranscriptEvaluation,
)
from tunewright.tasks.speech.modality import SPEECH
from tunewright.tasks.speech.seq2seq_encoder import Seq2SeqSpeechEncoder, configured
from tunewright.training.objectives.seq2seq import TRANSCRIPTIONS


def recogniser(
    recipe: Recipe, encoders: Encoders, backbone: Backbone | None, start: StartingModel | None
) -> tuple[Network, str | None]:
    """Return a new speech network, or that of a stage before, with a new head where there are other letters.

    Raises:
        RecipeError: the pretrained backbone is not a speech model.
    """
    inputs = encoders.inputs_as(SpeechEncoder)
    seed, sizes = mix(recipe.seed, "weights"), {"width": WIDTHS[inputs.reads], "outputs": inputs.outputs}
    if start is not None and isinstance(start.network, Recogniser):
        if start.preprocessor.inputs_as(SpeechEncoder).letters == inputs.letters:
            return start.network, None
        return _with_new_head(start.network, inputs, sizes, seed)
    kind = None if backbone is None else backbone.config.get("model_type")
    if backbone is not None and kind not in LIBRARY_KINDS:
        raise RecipeError(
            "the backbone is not a speech model",
            place="model.backbone",
            found=kind,
            expected=", ".join(LIBRARY_KINDS),
            fix="model.backbone: deepspeech",
        )
    facts = (
        describe_speech(recipe.model.backbone or "deepspeech")
        if backbone is None
        else described_folder(backbone.config)
    )
    facts |= sizes
    if isinstance(inputs, Seq2SeqSpeechEncoder):
        facts |= {**inputs.facts(), "config": configured(facts["config"], inputs)}
    network = build_speech(SpeechSpec(facts), seed=seed)
    if backbone is None or recipe.model.weights == "random":
        return network, None
    network.read_weights(weights_folder(backbone))
    if isinstance(inputs, Seq2SeqSpeechEncoder):
        return network, None
    return network, f"new head on {backbone.name}: {len(inputs.letters)} characters"


def _with_new_head(
    network: Recogniser, inputs: SpeechEncoder, sizes: dict[str, int], seed: int
) -> tuple[Recogniser, str | None]:
    if isinstance(inputs, Seq2SeqSpeechEncoder):
        if inputs.tokenizer is not None:
            return network, None  # its pieces write any letters
        raise RecipeError(
            "Whisper's alphabet is fixed, and the data has other characters",
            place="model.weights",
            expected="the characters that it was trained with",
            fix="train a new model, or fine-tune deepspeech, which gets a new head",
        )
    fresh = build_speech(SpeechSpec({**network.facts, **sizes}), seed=seed)
    kept = {name: value for name, value in network.state_dict().items() if not name.startswith("head.")}
    fresh.load_state_dict(kept, strict=False)
    return fresh, f"new head: {len(inputs.letters)} characters, other than before"


TASK = Task(
    name="speech-recognition",
    summary="what is said in a recording; Deep Speech 2 by CTC",
    about=About(
        en="speech recognition",
        zh="语音识别",
        hub_task="automatic-speech-recognition",
        intended_use="It transcribes speech like that of the training recordings. It was not tested on other languages, accents or noise.",
    ),
    inputs=SPEECH,
    target=None,
    network=Architecture(default={"backbone": "deepspeech"}, build=recogniser),
    defaults={
        "data": {"labelled": False, "format": "speech"},
        "train": {
            "epochs": 20,
            "batch_size": 16,
            "augment": ["stripes"],
            "optimizer": "adamw",
            "lr": 1e-3,
            "schedule": "cosine",
            "warmup": 0.05,
            "clip_norm": 1.0,
        },
    },
    objectives=TRANSCRIPTIONS,
    metrics=("wer", "cer"),
    evaluation=TranscriptEvaluation(),
)
