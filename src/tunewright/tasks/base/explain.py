"""What of each kind of input is a unit, what takes an absent unit's place, and which number of the answer is explained.

texts: tokens, behind [MASK], or the mean of all embeddings where the tokenizer has none. Pictures: patches, in their own median
colour. Rows: columns, at the training mean, or no category. Fields of clicks: columns, unknown. Sound: tenths of a second, as the
recording's quietest one. Histories: the items chosen before, not chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tunewright.errors import ArtifactError, DataError
from tunewright.evaluation.attribution import Explained
from tunewright.models.core.network import AnyNetwork
from tunewright.models.hub.attention_rollout import attention_rollout
from tunewright.models.hub.hf_network import Transformer
from tunewright.models.recommendation.base import Recommender
from tunewright.models.speech.base import Recogniser
from tunewright.tasks.base.targets import TargetEncoder
from tunewright.tasks.base.task import Preprocessor
from tunewright.tasks.image.encoder import PixelEncoder
from tunewright.tasks.language_model.encoder import CausalEncoder
from tunewright.tasks.recommendation.categorical_encoder import FILLING, FieldEncoder
from tunewright.tasks.recommendation.interaction_encoder import InteractionEncoder
from tunewright.tasks.speech.encoder import SpeechEncoder
from tunewright.tasks.table.encoder import RowEncoder
from tunewright.tasks.text.encoder import TextEncoder
from tunewright.training.objectives.ctc import BLANK

AT_ONCE = 64
# A picture is divided into so many patches each way, at most.
GRID = 8
# Hundredths of a second in a unit of sound.
MOMENT = 10


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked of a model about one row."""

    explained: Explained
    answer: Sequence[str]
    """What the model says, for people: a phrase, and what stands for its {}."""
    usual: str
    """The method of `evaluation/attribution.py` that fits such inputs."""
    look: Literal["units", "text"] = "units"
    """text: the units are pieces of a running text."""
    shape: tuple[int, int] | None = None
    """Of a picture: its rows and columns of patches."""

    @property
    def said(self) -> str:
        """The answer in words."""
        return self.answer[0].format(*self.answer[1:])


def questions(network: AnyNetwork, preprocessor: Preprocessor, table: pa.Table, wanted: str | None) -> list[Question]:
    """One question for each row of the table.

    Args:
        wanted: the class, label, item or continuation that is explained; None: the model's own answer.

    Raises:
        DataError: there is no such class or item.
        ArtifactError: the model answers in a way that cannot be explained by its input.
    """
    for kind, ask in ASK.items():
        if isinstance(preprocessor.inputs, kind):
            return [ask(network, preprocessor, table.slice(row, 1), wanted) for row in range(table.num_rows)]
    raise ArtifactError(
        "such a model's answers are not explained yet",
        found=preprocessor.task.name,
        expected="a model of classes, numbers, the next token, transcripts, clicks or items",
    )


# The number that is explained


def _quantity(
    network: AnyNetwork, preprocessor: Preprocessor, inputs: Any, wanted: str | None
) -> tuple[Any, list[str], list[str]]:
    """(outputs [B, K] → f [B], the answer, what f is) for tasks with a target."""
    target = preprocessor.target
    assert target is not None
    with torch.inference_mode():
        outputs = network(inputs)
    if target.classes is None:
        spread, centre = target.std, target.mean
        said = ["{}", f"{float(outputs.reshape(-1)[0]) * spread + centre:.4g}"]
        return (lambda found: found.reshape(-1) * spread + centre), said, ["the predicted {}", target.column]
    chosen = int(outputs[0].argmax()) if wanted is None else _index(wanted, target.classes, "class")
    name = target.classes[chosen]
    chances = outputs[0].sigmoid() if target.several else outputs[0].softmax(0)
    said = ["{}, {}", name, f"{float(chances[chosen]):.1%}"]
    return log_odds(target, chosen), said, ["the log odds of {}", name]


def log_odds(target: TargetEncoder, chosen: int) -> Callable[[Tensor], Tensor]:
    """Outputs [B, K] → the log odds of one of the K classes [B]."""
    if target.several:
        return lambda found: found[:, chosen]
    others = [place for place in range(target.outputs) if place != chosen]
    return lambda found: found[:, chosen] - found[:, others].logsumexp(1)


def _index(wanted: str, names: list[str], what: str) -> int:
    if wanted not in names:
        raise DataError(
            f"there is no {what} of this name",
            place="--target",
            found=wanted,
            expected=", ".join(names[:20]),
            fix="take one of these",
        )
    return names.index(wanted)


def _in_parts(compute: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The same for any number of rows, a few at once, without gradients."""

    def value(present: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat([compute(part).detach() for part in present.split(AT_ONCE)])

    return value


# Pictures, rows and sound: numbers, between which there is a way


def _of_numbers(
    whole: Tensor, nothing: Tensor, group: Tensor, count: int, f: Callable[[Tensor], Tensor]
) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """`value` and `along` for an input [...] whose elements belong to units.

    Args:
        group: [...] the unit of each element, −1 where an element is always there.
        f: inputs [B, ...] → [B].
    """
    place = group.clamp(min=0)

    def compute(present: Tensor) -> Tensor:
        return f(torch.where(present[:, place] | (group < 0), whole, nothing))

    def along(places: Tensor) -> Tensor:
        found: list[Tensor] = []
        for part in places.split(AT_ONCE):
            t = part.reshape(-1, *[1] * whole.dim())
            between = torch.where(group < 0, whole, nothing + t * (whole - nothing)).requires_grad_(True)
            (slope,) = torch.autograd.grad(f(between).sum(), between)
            shares = (slope * (whole - nothing) * (group >= 0)).flatten(1)
            found.append(shares.new_zeros(len(part), count).index_add_(1, place.flatten(), shares))
        return torch.cat(found)

    return _in_parts(compute), along


def _picture(network: AnyNetwork, preprocessor: Preprocessor, table: pa.Table, wanted: str | None) -> Question:
    inputs = preprocessor.inputs.examples(table, None).batch(torch.tensor([0])).pixels
    f, said, what = _quantity(network, preprocessor, inputs, wanted)
    whole = inputs[0]
    height, width = whole.shape[-2:]
    rows, columns = min(GRID, height), min(GRID, width)
    down = torch.arange(height) * rows // height
    right = torch.arange(width) * columns // width
    group = (down[:, None] * columns + right).expand(whole.shape)
    nothing = whole.flatten(1).median(1).values[:, None, None].expand_as(whole)
    value, along = _of_numbers(whole, nothing, group, rows * columns, lambda found: f(network(found)))
    units = [f"row {1 + unit // columns}, column {1 + unit % columns}" for unit in range(rows * columns)]
    explained = Explained(
        units=units,
        value=value,
        along=along,
        what=what,
        absent="the picture's median colour",
        attended=(lambda: on_patches(network, inputs, rows, columns)) if isinstance(network, Transformer) else None,
    )
    return Question(explained=explained, answer=said, usual="integrated-gradients", shape=(rows, columns))


def on_patches(network: Transformer, inputs: Tensor, rows: int, columns: int) -> Tensor:
    """Attention to the network's own patches, gathered into ours."""
    found = attention_rollout(network, inputs)
    height, width = inputs.shape[-2:]
    down = round((len(found) * height / width) ** 0.5)
    own = found[len(found) - down * (len(found) // down) :].reshape(1, 1, down, -1)  # the first are no patches
    return F.interpolate(own, (rows, columns), mode="area").flatten()


def _row(network: AnyNetwork, preprocessor: Preprocessor, table: pa.Table, wanted: str | None) -> Question:
    encoder = preprocessor.inputs
    assert isinstance(encoder, RowEncoder)
    inputs = encoder.encode(table)
    f, said, what = _quantity(network, preprocessor, inputs, wanted)
    widths = torch.tensor([feature.width for feature in encoder.features])
    group = torch.repeat_interleave(torch.arange(len(widths)), widths)
    value, along = _of_numbers(
        inputs[0], torch.zeros_like(inputs[0]), group, len(widths), lambda found: f(network(found))
    )
    cells = [f"{feature.column} = {_short(table[feature.column][0].as_py())}" for feature in encoder.features]
    absent = "the mean of the training rows, or no category"
    explained = Explained(units=cells, value=value, along=along, what=what, absent=absent)
    return Question(explained=explained, answer=said, usual="integrated-gradients")


def _sound(network: AnyNetwork, preprocessor: Preprocessor, table: pa.Table, wanted: str | None) -> Question:
    encoder = preprocessor.inputs
    assert isinstance(encoder, SpeechEncoder)
    if not isinstance(network, Recogniser):
        raise ArtifactError(
            "only a recogniser that is trained by connectionist temporal classification is explained",
            found=type(network).__name__,
            fix="take a model of deepspeech, conformer or wav2vec2",
        )
    batch = encoder.heard(table).batch(torch.tensor([0]))
    inputs, lengths = batch.named["features"], batch.named["lengths"]
    with torch.inference_mode():
        best = network(batch.inputs)[0].argmax(1)
    letters = [int(number) for number in torch.unique_consecutive(best) if number != BLANK]
    said = encoder.read(letters)
    asked = torch.tensor(encoder.numbers(wanted) if wanted is not None else letters, dtype=torch.int64)
    if not len(asked):
        raise DataError("nothing was heard that could be explained", fix="--target TEXT: what should have been heard")
    whole = inputs[0]
    step = MOMENT if whole.dim() == 2 else MOMENT * 160
    group = (torch.arange(len(whole)) // step).reshape(-1, *[1] * (whole.dim() - 1)).expand(whole.shape)
    count = int(group.max()) + 1
    # The quietest stretch as it is, over and over: a made-up one, such as its mean, sounds like nothing that was ever learned.
    loudness = whole.reshape(len(whole), -1).mean(1) if whole.dim() == 2 else whole.square()
    first = int(loudness.unfold(0, min(step, len(whole)), 1).mean(1).argmin())
    quiet = whole[first + torch.arange(len(whole)) % min(step, len(whole))]

    def f(found: Tensor) -> Tensor:
        size = len(found)
        log_chances = network({"features": found, "lengths": lengths.expand(size)}).transpose(0, 1)
        moments = network.moments(lengths.expand(size))
        long = torch.full((size,), len(asked))
        return -F.ctc_loss(log_chances, asked.expand(size, -1), moments, long, blank=BLANK, reduction="none")

    value, along = _of_numbers(whole, quiet, group, count, f)
    units = [f"{number * MOMENT / 100:.1f} s" for number in range(count)]
    what = ["log p of {}", repr(encoder.read(asked.tolist()))]
    explained = Explained(
        units=units, value=value, along=along, what=what, absent="the recording's quietest tenth of a second"
    )
    return Question(explained=explained, answer=["{}", said], usual="shapley")


# Texts: tokens, by their embeddings


def _text(network: AnyNetwork, preprocessor: Preprocessor, table: pa.Table, wanted: str | None) -> Question:
    encoder = preprocessor.inputs
    assert isinstance(encoder, TextEncoder)
    inputs = encoder.examples(table, None).batch(torch.tensor([0])).named
    ids = inputs["input_ids"][0]
    special = torch.isin(ids, torch.tensor(sorted(set(encoder.tokenizer.all_special_ids))))
    f, said, what = _quantity(network, preprocessor, inputs, wanted)
    return _of_tokens(network, encoder.tokenizer, inputs, ~special, f, said, what)


def _writing(network: AnyNetwork, preprocessor: Preprocessor, table: pa.Table, wanted: str | None) -> Question:
    encoder = preprocessor.inputs
    assert isinstance(encoder, CausalEncoder) and isinstance(network, Transformer)
    text = encoder.texts(table, encoder.column)[0]
    ids = [*encoder.begin, *encoder.tokenizer(text, add_special_tokens=False)["input_ids"]][-encoder.max_length :]
    if len(ids) < 2:
        raise DataError(
            "there is no text to be explained", found=text, fix="give the text that the model is to write on from"
        )
    inputs = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.int64)}
    with torch.inference_mode():
        chances = network(inputs)[0, -1].log_softmax(0)
    likely = int(chances.argmax())
    if wanted is not None:
        pieces = encoder.tokenizer(wanted, add_special_tokens=False)["input_ids"]
        likely = pieces[0] if pieces else likely
    # Why this token and not the next best one? What both need, such as the end of a word, has no part in that (Yin and Neubig
    # 2022, section 2).
    best = chances.topk(2).indices.tolist()
    other = best[0] if best[0] != likely else best[1]
    name, instead = (encoder.tokenizer.decode([token]) for token in (likely, other))
    there = torch.ones(len(ids), dtype=torch.bool)
    there[: len(encoder.begin)] = False
    sure, unsure = (f"{float(chances[token].exp()):.1%}" for token in (likely, other))
    said = ["{} comes next, {}; {}, {}", repr(name), sure, repr(instead), unsure]
    what = ["log p of {} less that of {} as the next token", repr(name), repr(instead)]
    return _of_tokens(
        network, encoder.tokenizer, inputs, there, lambda found: found[:, -1, likely] - found[:, -1, other], said, what
    )


def _of_tokens(
    network: AnyNetwork,
    tokenizer: Any,
    inputs: dict[str, Tensor],
    counts: Tensor,
    f: Callable[[Tensor], Tensor],
    said: Sequence[str],
    what: Sequence[str],
) -> Question:
    """The question about the tokens [T] that count; the others are always there."""
    if not isinstance(network, Transformer):
        raise ArtifactError("only encoders of the Transformers library are explained", found=type(network).__name__)
    table = network.core.get_input_embeddings()
    assert isinstance(table, nn.Embedding)
    if not counts.any():
        raise DataError("there is no token to be explained", fix="give a text with words")
    whole = table.weight[inputs["input_ids"][0]].detach()
    mask = tokenizer.mask_token_id
    nothing = (table.weight.mean(0) if mask is None else table.weight[mask]).detach().expand_as(whole)
    unit = torch.where(counts, counts.cumsum(0) - 1, -1)
    group = unit[:, None].expand_as(whole)

    def outputs(embedded: Tensor) -> Tensor:
        hook = table.register_forward_hook(lambda _module, _inputs, _output: embedded)
        try:
            return f(network({name: value.expand(len(embedded), -1) for name, value in inputs.items()}))
        finally:
            hook.remove()

    value, along = _of_numbers(whole, nothing, group, int(counts.sum()), outputs)
    names = [tokenizer.decode([token]).strip() or "␣" for token in inputs["input_ids"][0][counts].tolist()]
    absent = "the mean of all embeddings" if mask is None else tokenizer.mask_token
    explained = Explained(
        units=names,
        value=value,
        along=along,
        what=what,
        absent=absent,
        attended=lambda: attention_rollout(network, inputs)[counts],
    )
    return Question(explained=explained, answer=said, usual="shapley", look="text")


# Names: nothing lies between them


def _fields(network: AnyNetwork, preprocessor: Preprocessor, table: pa.Table, wanted: str | None) -> Question:
    encoder = preprocessor.inputs
    assert isinstance(encoder, FieldEncoder)
    inputs = encoder.encode(table)
    f, said, what = _quantity(network, preprocessor, inputs, wanted)
    counts = [field.count for field in encoder.fields]
    group = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    unknown = torch.tensor([FILLING if field.kind == "labels" else 0 for field in encoder.fields], dtype=inputs.dtype)
    value = _in_parts(lambda present: f(network(torch.where(present[:, group], inputs[0], unknown[group]))))
    cells = [f"{field.column} = {_short(table[field.column][0].as_py())}" for field in encoder.fields]
    explained = Explained(units=cells, value=value, along=None, what=what, absent="an unknown value")
    return Question(explained=explained, answer=said, usual="shapley")


def _history(network: AnyNetwork, preprocessor: Preprocessor, table: pa.Table, wanted: str | None) -> Question:
    encoder = preprocessor.inputs
    assert isinstance(encoder, InteractionEncoder) and isinstance(network, Recommender)
    if network.length == 0:
        raise ArtifactError(
            "this network knows a user by a vector of their own, and looks at nothing that they chose",
            found=network.described["recommender"].get("name", type(network).__name__),
            expected="a network that reads what was chosen before",
            fix="model: {backbone: sasrec}",
        )
    (user,) = encoder.user_numbers(table).tolist()
    if user < 0:
        raise DataError("nothing is known of this user", found=table[encoder.user][0].as_py(), fix="name another one")
    history = encoder.histories(np.array([user]), encoder.known[encoder.known[:, 0] == user])[0]
    items = history[history > 0]
    who = torch.zeros(1, dtype=torch.int64)

    def scores(rows: Tensor) -> Tensor:
        return network.all_scores(who.expand(len(rows)), rows)

    with torch.no_grad():
        found = scores(torch.from_numpy(history)[None])[0]
    found[torch.from_numpy(encoder.known[encoder.known[:, 0] == user][:, 1])] = -torch.inf
    chosen = int(found.argmax()) if wanted is None else _index(wanted, list(encoder.items), "item")
    name = encoder.items[chosen]

    def compute(present: Tensor) -> Tensor:
        rows = torch.zeros(len(present), len(history), dtype=torch.int64)
        for number, there in enumerate(present.numpy()):
            kept = items[there]
            rows[number, len(history) - len(kept) :] = torch.from_numpy(kept)
        return scores(rows).log_softmax(1)[:, chosen]

    units = [str(encoder.items[item - 1]) for item in items.tolist()]
    what = ["log p of {} among all items", name]
    explained = Explained(units=units, value=_in_parts(compute), along=None, what=what, absent="not chosen")
    return Question(explained=explained, answer=["{}, the best of what was not chosen", name], usual="shapley")


def _short(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 40 else text[:39] + "…"


ASK: dict[type, Callable[[AnyNetwork, Preprocessor, pa.Table, str | None], Question]] = {
    PixelEncoder: _picture,
    RowEncoder: _row,
    TextEncoder: _text,
    CausalEncoder: _writing,
    FieldEncoder: _fields,
    InteractionEncoder: _history,
    SpeechEncoder: _sound,
}
