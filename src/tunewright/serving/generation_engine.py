"""Generate all texts in one thread, by continuous batching.

Requests wait in a bounded queue. Between two tokens the thread lets waiting ones join the batch, drops those that were
cancelled or are past their deadline, reads a part of a new prompt, and then makes one step for all texts of the batch. What
a text consists of depends on its own prompt and settings alone.

What is written reaches a request through a queue of its event loop; nobody waits for a client that reads slowly.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from tunewright.commands.chat import Detokenizer, Drawing, ends
from tunewright.limits import GENERATION_CACHE, GENERATION_QUEUE, GENERATION_SLOTS
from tunewright.models.hub.batched_decoding import DecodingBatch, decoding_batch
from tunewright.models.hub.generate import Draw, choose, read, uniforms
from tunewright.models.hub.hf_network import Transformer
from tunewright.tasks.language_model.encoder import CausalTextEncoder

# Tokens of new prompts that are processed between two steps of the batch (chunked prefill).
PREFILL_TOKENS = 256
# Seconds between heartbeats of an idle thread.
IDLE_SECONDS = 0.2
# Seconds after its deadline that a request waits for the thread to end it.
GRACE = 1.0


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """Define one text to generate."""

    ids: list[int]
    drawing: Drawing
    stop: tuple[str, ...] = ()
    """Stop texts, which are not part of the output."""
    bias: dict[int, float] = field(default_factory=dict[int, float])
    """Values added to the logits of tokens."""
    presence_penalty: float = 0.0
    """The value subtracted from the logits of tokens that were generated before."""
    frequency_penalty: float = 0.0
    """The value subtracted for each time that they were generated."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """Hold a new piece of a text, and the reason if the text ended."""

    index: int
    text: str
    tokens: int
    """The number of tokens generated so far, including an end token."""
    reason: Literal["stop", "length"] | None = None


class GenerationError(Exception):
    """Report that a text could not be completed."""

    def __init__(self, status: int, code: str, problem: str) -> None:
        self.status, self.code = status, code
        super().__init__(problem)


class QueueFull(Exception):
    """Report that the queue is full."""


class Generation:
    """Hold the texts of one request while they are generated. It belongs to an event loop."""

    def __init__(self, count: int, seconds: float) -> None:
        self.loop = asyncio.get_running_loop()
        self.events: asyncio.Queue[Written | GenerationError | None] = asyncio.Queue()
        self.unfinished = count
        self.seconds = seconds
        self.deadline = time.monotonic() + seconds
        self.cancelled = False
        """Checked by the thread at each token."""
        self.timer = self.loop.call_later(seconds + GRACE, self.events.put_nowait, self.late())

    def late(self) -> GenerationError:
        """Return the error after the deadline."""
        problem = f"the text was not finished within {self.seconds:g} s; ask for fewer tokens with max_tokens"
        return GenerationError(408, "deadline_exceeded", problem)

    def cancel(self) -> None:
        """Stop generating, and end the stream of events with an error."""
        self.timer.cancel()
        if not self.cancelled:
            self.cancelled = True
            self.events.put_nowait(None)

    def put(self, event: Written | GenerationError) -> None:
        """Pass an event from another thread."""
        with suppress(RuntimeError):  # the loop is closed: there is no reader
            self.loop.call_soon_threadsafe(self.events.put_nowait, event)

    async def __aiter__(self) -> AsyncIterator[Written]:
        """Yield events until each text is finished or the request is cancelled; pending events are yielded together.

        Raises:
            GenerationError: a text cannot be finished.
        """
        while self.unfinished:
            events = [await self.events.get()]
            while not self.events.empty():
                events.append(self.events.get_nowait())
            for event in _merged(events):
                if event is None:
                    return
                if isinstance(event, GenerationError):
                    raise event
                self.unfinished -= event.reason is not None
                yield event


def _merged(events: list[Written | GenerationError | None]) -> list[Written | GenerationError | None]:
    """Join the pieces of each text into one event."""
    found: list[Written | GenerationError | None] = []
    places: dict[int, int] = {}
    for event in events:
        if isinstance(event, Written) and event.index in places:
            held = found[places[event.index]]
            assert isinstance(held, Written)
            joined = Written(index=event.index, text=held.text + event.text, tokens=event.tokens, reason=event.reason)
            found[places[event.index]] = joined
            continue
        if isinstance(event, Written):
            places[event.index] = len(found)
        found.append(event)
    return found


class StopTexts:
    """Hold back text that may be the start of a stop text."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self.stops = stops
        self.held = ""

    def add(self, text: str) -> tuple[str, bool]:
        """Return the text that can be shown now, and whether a stop text was reached."""
        self.held += text
        places = [place for stop in self.stops if (place := self.held.find(stop)) >= 0]
        if places:
            return self.held[: min(places)], True
        kept = max((self._begun(stop) for stop in self.stops), default=0)
        shown, self.held = self.held[: len(self.held) - kept], self.held[len(self.held) - kept :]
        return shown, False

    def _begun(self, stop: str) -> int:
        """Return how many of the last characters are the first ones of `stop`."""
        longest = min(len(stop) - 1, len(self.held))
        return next((size for size in range(longest, 0, -1) if self.held.endswith(stop[:size])), 0)


class Sequence:
    """Hold the state of one text in progress."""

    def __init__(self, prompt: Prompt, index: int, request: Generation, tokenizer: Any) -> None:
        self.prompt, self.index, self.request = prompt, index, request
        self.known = list(prompt.ids)
        """Tokens that the network has processed or will process next."""
        self.cache: Any = None
        self.read = 0
        """How many of them are processed, during prefill."""
        self.counts: dict[int, int] = {}
        self.generated = 0
        self.uniforms = uniforms(prompt.drawing.seed, 0, prompt.drawing.most)
        self.text = Detokenizer(tokenizer)
        self.stops = StopTexts(prompt.stop)

    @property
    def over(self) -> bool:
        """Return whether the request is cancelled."""
        return self.request.cancelled or time.monotonic() > self.request.deadline

    @property
    def is_adjusted(self) -> bool:
        """Return whether the request has biases or penalties."""
        prompt = self.prompt
        return bool(prompt.bias or prompt.presence_penalty or prompt.frequency_penalty)

    def adjusted(self, logits: Tensor) -> Tensor:
        """Return the logits [V] with the request's biases and penalties."""
        prompt = self.prompt
        changes = dict(prompt.bias)
        if prompt.presence_penalty or prompt.frequency_penalty:
            for token, count in self.counts.items():
                penalty = prompt.presence_penalty + count * prompt.frequency_penalty
                changes[token] = changes.get(token, 0.0) - penalty
        if not changes:
            return logits
        places = torch.tensor(list(changes), device=logits.device)
        return logits.index_add(0, places, torch.tensor(list(changes.values()), device=logits.device))

    @property
    def draw(self) -> Draw:
        """Return the sampling settings."""
        drawing = self.prompt.drawing
        uniform = self.uniforms[self.generated]
        return Draw(temperature=drawing.temperature, top_p=drawing.top_p, uniform=uniform)

    def take(self, token: int, end: set[int]) -> bool:
        """Add the sampled token, and send the text that it adds; return whether the text continues."""
        drawing = self.prompt.drawing
        self.generated += 1
        self.counts[token] = self.counts.get(token, 0) + 1
        self.known.append(token)
        full = self.generated >= drawing.most
        shown, stopped = self.stops.add("" if token in end else self.text.add(token))
        if not stopped and (full or token in end):
            shown += self.stops.held
        reason = "stop" if stopped or token in end else "length" if full else None
        if shown or reason:
            self.request.put(Written(index=self.index, text=shown, tokens=self.generated, reason=reason))
        return reason is None


class Engine:
    """Run the generation thread and its queue."""

    def __init__(self, network: Transformer, encoder: CausalTextEncoder) -> None:
        self.network, self.encoder = network.eval(), encoder
        self.end = ends(network, encoder)
        self.slots, self.room, self.cached = GENERATION_SLOTS.value, GENERATION_QUEUE.value, GENERATION_CACHE.value
        self.waiting: deque[Sequence] = deque()
        self.prefilling: deque[Sequence] = deque()
        self.active: list[Sequence] = []
        """The rows of the batch."""
        self.changed = threading.Condition()
        self.stopping = False
        self.beat = float("-inf")
        self.thread = threading.Thread(target=self._work, name="generation", daemon=True)
        self.thread.start()
        atexit.register(self.stop)  # a thread inside torch at interpreter exit would abort the process

    def submit(self, prompts: list[Prompt], seconds: float) -> Generation:
        """Queue the texts of a request, all or none; called in its event loop.

        Raises:
            QueueFull: there is no room for them.
            GenerationError: the service is stopping.
        """
        with self.changed:
            if self.stopping or not self.thread.is_alive():
                raise _stopping()
            if len(self.waiting) + len(prompts) > self.room:
                raise QueueFull
            request = Generation(len(prompts), seconds)
            tokenizer = self.encoder.tokenizer
            self.waiting.extend(Sequence(prompt, index, request, tokenizer) for index, prompt in enumerate(prompts))
            self.changed.notify()
        return request

    def is_responsive(self, seconds: float = 1.0) -> bool:
        """Return whether the thread was active within the last seconds."""
        return self.thread.is_alive() and time.monotonic() - self.beat < seconds

    def stop(self, seconds: float = 2.0) -> None:
        """End all texts, and the thread."""
        self.begin_stop()
        self.thread.join(seconds)
        atexit.unregister(self.stop)

    def begin_stop(self) -> None:
        """End all texts at the next token; new ones are refused."""
        with self.changed:
            self.stopping = True
            self.changed.notify()

    def _work(self) -> None:
        # Leave one core to the event loop.
        torch.set_num_threads(min(torch.get_num_threads(), max(1, (os.cpu_count() or 1) - 1)))
        with torch.inference_mode():
            batch = decoding_batch(self.network, self.encoder.limit)
            while not self.stopping:
                self.beat = time.monotonic()
                if not self._admit(batch):
                    with self.changed:
                        if not (self.waiting or self.stopping):
                            self.changed.wait(IDLE_SECONDS)
                    continue
                self._prefill(batch)
                self._decode(batch)
        for sequence in [*self.active, *self.prefilling, *self.waiting]:
            sequence.request.put(_stopping())

    def _admit(self, batch: DecodingBatch) -> bool:
        """Drop cancelled texts, and fill free slots; return whether there is anything to do."""
        for row in reversed(range(len(self.active))):
            if self.active[row].over:
                _tell_late(self.active[row])
                self._leave(batch, row)
        with self.changed:
            for queue in (self.prefilling, self.waiting):
                for sequence in [entry for entry in queue if entry.over]:
                    queue.remove(sequence)
                    _tell_late(sequence)
            while self.waiting and self._has_room_for(self.waiting[0]):
                self.prefilling.append(self.waiting.popleft())
        return bool(self.active or self.prefilling)

    def _has_room_for(self, sequence: Sequence) -> bool:
        """Return whether there is a free slot, and the cache's rows, all as long as the longest, stay within the limit."""
        texts = [*self.active, *self.prefilling, sequence]
        longest = max(len(text.prompt.ids) + text.prompt.drawing.most for text in texts)
        tokens = len(texts) * min(longest, self.encoder.limit)
        return len(texts) == 1 or (len(texts) <= self.slots and tokens <= self.cached)

    def _leave(self, batch: DecodingBatch, row: int) -> None:
        """Free a row; the last one replaces it, as in the batch."""
        batch.leave(row)
        self.active[row] = self.active[-1]
        self.active.pop()

    def _prefill(self, batch: DecodingBatch) -> None:
        """Process a chunk of new prompts, in order of arrival; finished prompts join the batch."""
        budget = PREFILL_TOKENS
        while self.prefilling and budget > 0:
            sequence = self.prefilling[0]
            stop = sequence.read + budget if batch.in_parts else len(sequence.known)
            part = sequence.known[sequence.read : stop]
            budget -= len(part)
            try:
                logits, sequence.cache = read(self.network, part, sequence.cache)
                sequence.read += len(part)
                if sequence.read < len(sequence.known):
                    return
                self.prefilling.popleft()
                ids = list(sequence.known)
                if not self._take([sequence], logits[None])[0]:
                    continue
                if len(sequence.known) >= self.encoder.limit:
                    self._read_again(sequence)
                else:
                    batch.join(sequence.cache, ids)
                    self.active.append(sequence)
                    sequence.cache = None
            except Exception as error:  # of any kind: it ends this text, and the others continue
                if self.prefilling and self.prefilling[0] is sequence:
                    self.prefilling.popleft()
                sequence.request.put(_failure(error))

    def _decode(self, batch: DecodingBatch) -> None:
        """Generate one more token of each text."""
        if not self.active:
            return
        try:
            logits = batch.step([sequence.known[-1] for sequence in self.active])
        except Exception as error:  # such as out of memory: the cause cannot be attributed to one text
            for row in reversed(range(len(self.active))):
                self.active[row].request.put(_failure(error))
                self._leave(batch, row)
            return
        for row, goes_on in reversed(list(enumerate(self._take(self.active, logits)))):
            sequence = self.active[row]
            full = len(sequence.known) >= self.encoder.limit
            if not goes_on or full:
                self._leave(batch, row)
            if goes_on and full:
                self._read_again(sequence)

    def _take(self, sequences: list[Sequence], logits: Tensor) -> list[bool]:
        """Sample the next token of each text from its logits [B, V]; return whether each continues."""
        finite = logits.amax(1).isfinite().tolist()  # neither NaN nor infinity; −∞ is a token that the model excludes
        if any(sequence.is_adjusted for sequence in sequences):
            logits = torch.stack([sequence.adjusted(row) for sequence, row in zip(sequences, logits)])
        goes_on: list[bool] = []
        tokens = choose(logits, [sequence.draw for sequence in sequences])
        for sequence, token, usable in zip(sequences, tokens, finite):
            if not usable:
                problem = "the model's logits are not finite numbers for this text"
                sequence.request.put(GenerationError(500, "non_finite_logits", problem))
            goes_on.append(usable and sequence.take(token, self.end))
        return goes_on

    def _read_again(self, sequence: Sequence) -> None:
        """If the context is full, drop its older half and process the rest again, as `generate` does."""
        sequence.known = sequence.known[-(self.encoder.limit // 2) :]
        sequence.cache, sequence.read = None, 0
        self.prefilling.append(sequence)


def _tell_late(sequence: Sequence) -> None:
    if not sequence.request.cancelled:
        sequence.request.put(sequence.request.late())


def _stopping() -> GenerationError:
    return GenerationError(503, "stopping", "the service is stopping")


def _failure(error: Exception) -> GenerationError:
    if isinstance(error, GenerationError):
        return error
    return GenerationError(500, "generation_failed", f"the model failed on this text: {type(error).__name__}")
