"""What is said in this recording?"""

from __future__ import annotations

from tunewright.data.hearing import WIDTHS
from tunewright.data.sound_changes import build_sound_changes
from tunewright.errors import RecipeError
from tunewright.models.heard import LIBRARY_KINDS, Heard, described_folder
from tunewright.models.network import AnyNetwork
from tunewright.models.pretrained import Backbone, weights_folder
from tunewright.models.recogniser import Recogniser
from tunewright.models.speech_models import build_speech, describe_speech
from tunewright.random import mix
from tunewright.recipe.schema import Recipe
from tunewright.tasks.base import Examination, Started, Task
from tunewright.tasks.recordings import SpeechEncoder, fit_recordings, load_recordings
from tunewright.tasks.transcription import listened, transcribed, transcription_baselines, transcription_outputs
from tunewright.training.ctc import TRANSCRIPTIONS


def recogniser(
    recipe: Recipe, inputs: SpeechEncoder, backbone: Backbone | None, start: Started | None
) -> tuple[AnyNetwork, str | None]:
    """A network that hears, or that of a stage before; with a new head where other letters are to be learned.

    Raises:
        RecipeError: the pretrained backbone is none that hears.
    """
    seed, sizes = mix(recipe.seed, "weights"), {"width": WIDTHS[inputs.reads], "outputs": inputs.outputs}
    if start is not None and isinstance(start.network, Recogniser):
        if start.inputs.letters == inputs.letters:
            return start.network, None
        network = build_speech({"speech": {**start.network.facts, **sizes}}, seed=seed)
        kept = {name: value for name, value in start.network.state_dict().items() if not name.startswith("head.")}
        network.load_state_dict(kept, strict=False)
        return network, f"new head: {len(inputs.letters)} letters are to be learned, others than before"
    if backbone is None:
        facts = {**describe_speech(recipe.model.backbone or "deepspeech"), **sizes}
        return build_speech({"speech": facts}, seed=seed), None
    kind = backbone.config.get("model_type")
    if kind not in LIBRARY_KINDS:
        raise RecipeError(
            "this backbone is none that hears",
            place="model.backbone",
            found=kind,
            expected=", ".join(LIBRARY_KINDS),
            fix="model.backbone: deepspeech",
        )
    network = Heard({"speech": {**described_folder(backbone.config), **sizes}}, seed)
    if recipe.model.weights == "random":
        return network, None
    network.read_weights(weights_folder(backbone))
    return network, f"new head on {backbone.name}: {len(inputs.letters)} letters"


TASK = Task(
    name="speech-recognition",
    summary="what is said in a recording; Deep Speech 2 by CTC",
    target_kind=None,
    fit_inputs=fit_recordings,
    load_inputs=load_recordings,
    network=recogniser,
    augment=lambda steps, seed: build_sound_changes(steps, seed=seed),
    default_model={"backbone": "deepspeech"},
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
    objective="ctc",
    objectives=TRANSCRIPTIONS,
    examination=Examination(
        kind="transcripts",
        measure=transcription_outputs,
        baselines=transcription_baselines,
        answer=transcribed,
        facts=listened,
        select="wer",
    ),
    metrics=("wer", "cer"),
)
