"""The export case of a model of speech."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import torch

from tunewright.models.core.network import Network
from tunewright.models.speech.whisper import Whisper
from tunewright.tasks.base.encoders import Encoders
from tunewright.tasks.base.export_case import Graph, HandedOn, Named, Trial, tensor_case
from tunewright.tasks.speech.evaluation import MOST_TOKENS

# Recordings that are transcribed at once.
AT_ONCE = 8


def export_transcriber(network: Network, preprocessor: Encoders, table: pa.Table) -> Trial:
    """Return a network by letters as it is; one that writes token by token with the tokens that it writes of each recording: if
    every next token of these is the same, so is the whole text."""
    case = tensor_case(network, preprocessor, table)
    if not isinstance(network, Whisper):
        return case
    written: list[list[int]] = []
    with torch.no_grad():
        for ids in torch.arange(case.count).split(AT_ONCE):
            written += network.dictate(case.batch(ids.tolist()), MOST_TOKENS)
    start, end = network.facts["start"], network.facts["end"]

    def with_tokens(ids: list[int]) -> Named:
        longest = max(1, *(len(written[index]) for index in ids))
        rows = [[*start, *written[index], *[end] * (longest - len(written[index]))] for index in ids]
        return {**case.batch(ids), "tokens": torch.tensor(rows)}

    def graphs(trial: Trial) -> list[Graph]:
        """Return an encoder, computed once for a recording, and a decoder, computed once for each token."""
        inputs = trial.longest
        sound = {name: inputs[name] for name in ("features", "lengths")}
        with torch.no_grad():
            text = {"tokens": inputs["tokens"], "heard": network.heard(sound)}
        encode = HandedOn(
            network, list(sound), lambda features, lengths: network.heard({"features": features, "lengths": lengths})
        )
        return [
            Graph(
                stem="encoder", module=encode, inputs=sound, free={name: free[name] for name in sound}, output="heard"
            ),
            Graph(
                stem="model",
                module=HandedOn(network, list(text), network.following),
                inputs=text,
                free={"tokens": free["tokens"], "heard": [0]},
            ),
        ]

    free = {"features": [0, 1], "lengths": [0], "tokens": [0, 1]}
    return replace(case, module=HandedOn(network, list(free)), batch=with_tokens, target=None, axes=free, split=graphs)
