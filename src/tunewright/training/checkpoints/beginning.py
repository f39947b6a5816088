"""What a training began with: stored in its checkpoints, so that it resumes from the same weights and files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tunewright.errors import ArtifactError
from tunewright.runs.folder import changed_files


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """The state of the network and of the files it came from before the first step."""

    files: dict[str, str]
    """The SHA-256 of each file of the model that the stage starts from, by name."""
    tensors: dict[str, str]
    """The SHA-256 of each parameter and buffer, by name; empty where no process holds the network whole."""

    def require_same(self, now: Beginning, folder: Path | None) -> None:
        """Check that what was loaded now is what the training began with.

        Args:
            folder: the folder of the files.

        Raises:
            ArtifactError: names the files, or else the tensors, that differ.
        """
        changed = changed_files(self.files, now.files)
        what = "files" if changed else "tensors"
        if not changed and self.tensors and now.tensors:
            changed = changed_files(self.tensors, now.tensors)
        if changed:
            raise ArtifactError(
                "the model that this stage began with has changed since, so its checkpoint does not belong to it",
                file=folder,
                found=f"other {what}: {', '.join(changed[:5])}{', …' if len(changed) > 5 else ''}",
                expected="the weights, configuration and tokenizer as they were when the stage began",
                fix="restore them, or start a new run under another name: name: NAME in the recipe",
            )
