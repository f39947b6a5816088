"""Encode transcripts for an encoder-decoder network: as characters, or as tokens of its own tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from tunewright.data.audio.transcript_text import spoken
from tunewright.tasks.speech.encoder import SpeechEncoder

LONGEST = 30.0


@dataclass(frozen=True, kw_only=True)
class Seq2SeqSpeechEncoder(SpeechEncoder):
    """Number 0 ends a text and letter k has number k + 1; the number behind the letters begins one."""

    longest: float = LONGEST
    """Recordings are at most so many seconds long."""
    tokenizer: Any = None
    """The library's; None: letters."""

    @property
    def objective(self) -> str:
        return "dictation"

    @property
    def end(self) -> int:
        return 0 if self.tokenizer is None else int(self.tokenizer.eos_token_id)

    @property
    def start(self) -> list[int]:
        """What every text begins with: of the library's the marks that say transcribe, without times."""
        if self.tokenizer is None:
            return [len(self.letters) + 1]
        several = self.tokenizer.convert_tokens_to_ids("<|zh|>") not in (None, self.tokenizer.unk_token_id)
        marks = ["<|startoftranscript|>", *(["<|transcribe|>"] if several else []), "<|notimestamps|>"]
        return [int(self.tokenizer.convert_tokens_to_ids(mark)) for mark in marks]

    @property
    def outputs(self) -> int:
        return len(self.letters) + 2 if self.tokenizer is None else len(self.tokenizer)

    @property
    def words(self) -> int:
        """Numbers from this one on are marks, and no text."""
        return self.outputs - 1 if self.tokenizer is None else self.end

    def numbers(self, text: str) -> list[int]:
        if self.tokenizer is None:
            return super().numbers(text)
        return self.tokenizer.encode(" " + spoken(text), add_special_tokens=False)

    def read(self, numbers: Sequence[int]) -> str:
        if self.tokenizer is None:
            return super().read([number for number in numbers if 0 < number <= len(self.letters)])
        return spoken(self.tokenizer.decode(list(numbers), skip_special_tokens=True))

    def fits(self, letters: Tensor, seconds: float) -> bool:
        return seconds <= self.longest

    def facts(self) -> dict[str, Any]:
        """Return what the network is to know of the tokens."""
        return {"start": self.start, "end": self.end, "words": self.words, "outputs": self.outputs}

    def to_json(self) -> dict[str, Any]:
        return {
            **super().to_json(),
            "longest": self.longest,
            "dictates": "letters" if self.tokenizer is None else "pieces",
        }

    def write(self, folder: Path) -> None:
        """The tokenizer."""
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(folder)


def configured(config: dict[str, Any], encoder: Seq2SeqSpeechEncoder) -> dict[str, Any]:
    """Return the library's configuration with the encoder's tokens, where they are letters of ours."""
    if encoder.tokenizer is not None:
        return config
    marks = {"pad_token_id": 0, "eos_token_id": 0, "bos_token_id": encoder.start[0]}
    return {**config, **marks, "decoder_start_token_id": encoder.start[0], "vocab_size": encoder.outputs}


def open_tokenizer(folder: Path) -> Any:
    """Open the tokenizer of a folder that was checked."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
