"""What is said in this recording?"""

from __future__ import annotations

from tunewright.tasks.base import Examination, Task
from tunewright.tasks.recordings import fit_recordings, load_recordings
from tunewright.tasks.transcription import transcribed, transcription_baselines, transcription_outputs
from tunewright.training.ctc import TRANSCRIPTIONS

TASK = Task(
    name="speech-recognition",
    summary="what is said in a recording; Deep Speech 2 by CTC",
    target_kind=None,
    fit_inputs=fit_recordings,
    load_inputs=load_recordings,
    default_model={"backbone": "deepspeech"},
    defaults={
        "data": {"labelled": False, "format": "speech"},
        "train": {
            "epochs": 20,
            "batch_size": 16,
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
        select="wer",
    ),
    metrics=("wer", "cer"),
)
