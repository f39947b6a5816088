"""Render chat templates in a separate process.

A chat template is a program that comes with a model. The sandbox of the Transformers library keeps it from files and the
network, but not from running forever or filling the memory; a process can be bounded in both, and killed.

This file is the parent's side and, run as a module, the process: one JSON object per line in each direction.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
import time
from typing import Any

from tunewright.limits import PROMPT_CHARACTERS, TEMPLATE_BYTES, TEMPLATE_SECONDS

# Seconds for a new process to import the library.
START_SECONDS = 30


class TemplateError(Exception):
    """Report that the template cannot render a conversation."""


class ChatTemplate:
    """Render conversations with a tokenizer's chat template, one at a time."""

    def __init__(self, tokenizer: Any) -> None:
        self.setup: dict[str, Any] = {
            "template": tokenizer.get_chat_template(),
            "tokens": dict(tokenizer.special_tokens_map),
            "bytes": TEMPLATE_BYTES.value,
            "characters": PROMPT_CHARACTERS.value,
            "seconds": TEMPLATE_SECONDS.value,
        }
        self.lock = threading.Lock()
        self.process: subprocess.Popen[bytes] | None = None

    def render(self, messages: list[dict[str, str]]) -> str:
        """Render a conversation up to the start of the model's answer.

        Raises:
            TemplateError: the template refuses it, or takes too much time or memory.
        """
        with self.lock:
            try:
                if self.process is None or self.process.poll() is not None:
                    self._start()
                self._write({"messages": messages})
                answer = self._answer(time.monotonic() + self.setup["seconds"])
            except TimeoutError:
                self.stop()
                raise TemplateError(
                    f"rendering took longer than {self.setup['seconds']} s (limit {TEMPLATE_SECONDS.name})"
                ) from None
            except (OSError, ValueError):
                self.stop()
                raise TemplateError(
                    f"rendering failed; it may use {TEMPLATE_BYTES.value:,} bytes (limit {TEMPLATE_BYTES.name})"
                ) from None
        if "error" in answer:
            raise TemplateError(answer["error"])
        return answer["text"]

    def stop(self) -> None:
        """End the process."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.communicate()

    def _start(self) -> None:
        command = [sys.executable, "-P", "-m", "tunewright.serving.template_process"]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
        )
        self._write(self.setup)
        self._answer(time.monotonic() + START_SECONDS)

    def _write(self, value: dict[str, Any]) -> None:
        assert self.process is not None and self.process.stdin is not None
        self.process.stdin.write(json.dumps(value, default=str).encode() + b"\n")
        self.process.stdin.flush()

    def _answer(self, until: float) -> dict[str, Any]:
        assert self.process is not None and self.process.stdout is not None
        found = bytearray()
        while not found.endswith(b"\n"):
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                raise TimeoutError
            part = os.read(self.process.stdout.fileno(), 2**16)
            if not part:
                raise OSError("the process has ended")
            found += part
        return json.loads(found)


def _serve() -> None:
    """Render conversations from standard input, until it is closed."""
    import resource
    import signal

    from transformers.utils.chat_template_utils import render_jinja_template

    setup = json.loads(sys.stdin.readline())
    resource.setrlimit(resource.RLIMIT_AS, (setup["bytes"], setup["bytes"]))
    print("{}", flush=True)
    for line in sys.stdin:
        signal.alarm(2 * setup["seconds"])  # ends the process if the parent is gone
        try:
            texts, _ = render_jinja_template(
                conversations=[json.loads(line)["messages"]],
                chat_template=setup["template"],
                add_generation_prompt=True,
                **setup["tokens"],
            )
            if len(texts[0]) > setup["characters"]:
                raise ValueError(f"it is longer than {setup['characters']:,} characters (limit prompt_characters)")
            answer = {"text": texts[0]}
        except MemoryError:
            answer = {"error": f"it takes more than {setup['bytes']:,} bytes (limit template_bytes)"}
        except Exception as error:  # a template is a program, and may raise anything
            answer = {"error": (str(error).strip().splitlines() or [type(error).__name__])[0][:500]}
        signal.alarm(0)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _serve()
