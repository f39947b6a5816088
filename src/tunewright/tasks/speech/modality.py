"""Recordings of speech."""

from __future__ import annotations

from tunewright.data.audio.augmentation import SoundChanges, build_sound_changes
from tunewright.recipe.schema import Recipe
from tunewright.tasks.base.modality import Modality
from tunewright.tasks.base.targets import TargetEncoder
from tunewright.tasks.speech.describe import describe_recordings
from tunewright.tasks.speech.explain import explain_transcript
from tunewright.tasks.speech.export import export_transcriber
from tunewright.tasks.speech.fit_encoder import fit_recordings, load_recordings
from tunewright.tasks.speech.request import RecordingRequest
from tunewright.training.objectives.base import Objective


def augment_recordings(recipe: Recipe, objective: Objective, target: TargetEncoder | None) -> SoundChanges | None:
    """Return what `train.augment` asks for. Raises RecipeError: an unknown step."""
    return build_sound_changes(recipe.train.augment, seed=recipe.seed)


SPEECH = Modality(
    name="speech",
    fit=fit_recordings,
    load=load_recordings,
    request=RecordingRequest,
    describe=describe_recordings,
    explain=explain_transcript,
    export_case=export_transcriber,
    augment=augment_recordings,
    finds_columns=True,
)
