"""What a tokenizer and a chat template of a stranger may cost: judged by looking where that is enough, else by a trial."""

from __future__ import annotations

import json
from collections.abc import Sized
from pathlib import Path
from typing import Any

from tunewright.bounded import TrialFailed, try_once
from tunewright.errors import ArtifactError
from tunewright.limits import ADDED_TOKENS, CHAT_TEMPLATE_CHARACTERS
from tunewright.runs.folder import read_json
from tunewright.tasks.text.known_templates import CHATML, PLAIN
from tunewright.tasks.text.template_trial import try_template
from tunewright.tasks.text.tokenizer_trial import is_plain, try_folder, try_tokenizer

FILE = "tokenizer.json"
# Where tokens besides the vocabulary are listed: file, and key in it; None: the file is the list.
ADDED = (
    (FILE, "added_tokens"),
    ("tokenizer_config.json", "added_tokens_decoder"),
    ("tokenizer_config.json", "additional_special_tokens"),
    ("tokenizer_config.json", "extra_special_tokens"),
    ("special_tokens_map.json", "additional_special_tokens"),
    ("added_tokens.json", None),
)
PROBE = "Some text, 123 — 你好 🙂 \u0378\n"


def check_tokenizer(folder: Path) -> None:
    """Look at a folder's tokenizer before it is opened, and try it where it has parts that may take for ever.

    Raises:
        ArtifactError: it is too large, too slow, or crashes.
    """
    told: dict[str, Any] = {}
    for name, key in ADDED:
        if not (folder / name).exists():
            continue
        if name not in told:
            told[name] = read_json(folder / name, "a tokenizer")
        listed = told[name] if key is None else told[name].get(key)
        count = len(listed) if isinstance(listed, Sized) else 0
        ADDED_TOKENS.require(
            count, "the tokenizer has too many added tokens", error=ArtifactError, file=folder / name, place=key
        )
    tables = sorted(folder.glob("*.model"))
    try:
        if FILE in told:
            if not is_plain(told[FILE]):
                try_once(try_tokenizer, str((folder / FILE).resolve()), (folder / FILE).read_bytes())
        elif tables:
            content = [path.read_bytes() for path in (*tables, *sorted(folder.glob("*token*.json")))]
            try_once(try_folder, str(folder.resolve()), b"".join(content))
    except TrialFailed as error:
        raise _refused("tokenizer", folder / FILE if FILE in told else tables[0], str(error)) from None


def check_loaded(tokenizer: Any, folder: Path) -> None:
    """See that an opened tokenizer works, that the network knows its ids, and that its chat template comes to an end.

    Raises:
        ArtifactError: it does not.
    """
    tokenizer(PROBE, add_special_tokens=True, verbose=False)
    rows, highest = _embeddings(folder), max(tokenizer.get_vocab().values(), default=0)
    if rows is not None and highest >= rows:
        raise ArtifactError(
            "the tokenizer has ids for which the network has no embedding",
            file=folder / FILE,
            found=f"the id {highest:,}",
            expected=f"ids below {rows:,}, as vocab_size says",
            fix="take the tokenizer that belongs to these weights",
        )
    templates = tokenizer.chat_template or {}
    for template in templates.values() if isinstance(templates, dict) else [templates]:
        _check_template(template, tokenizer, folder)


def _check_template(template: str, tokenizer: Any, folder: Path) -> None:
    if template in (CHATML, PLAIN):
        return
    CHAT_TEMPLATE_CHARACTERS.require(
        len(template), "the chat template is too long", error=ArtifactError, file=folder, place="chat_template"
    )
    tokens = {name: str(value) for name, value in tokenizer.special_tokens_map.items() if isinstance(value, str)}
    given = {"template": template, "tokens": tokens}
    try:
        try_once(try_template, given, json.dumps(given, sort_keys=True).encode())
    except TrialFailed as error:
        raise _refused("chat template", folder, str(error)) from None


def _embeddings(folder: Path) -> int | None:
    """Return how many ids the network of a model folder knows; None: the folder does not say."""
    for name, keys in (("tunewright.json", ("network", "config")), ("config.json", ())):
        if not (folder / name).exists():
            continue
        found: Any = read_json(folder / name, "a model folder")
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        rows = found.get("vocab_size") if isinstance(found, dict) else None
        if isinstance(rows, int):
            return rows
    return None


def _refused(what: str, file: Path, reason: str) -> ArtifactError:
    return ArtifactError(
        f"the {what} failed on a trial text: {reason}",
        file=file,
        expected=f"a {what} that is done with a short text in seconds",
        fix="take a model from a source that you trust; a trial's bounds are trial_seconds and trial_bytes of `tunewright doctor`",
    )
