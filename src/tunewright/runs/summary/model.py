"""The network of a stage, how its saved folder is opened, and what stayed frozen."""

from __future__ import annotations

from dataclasses import dataclass, field

from tunewright.runs.records import Amount, Count


@dataclass(frozen=True, kw_only=True)
class LayerSummary:
    """One block of the network."""

    block: str
    """Part and name: "backbone.1_dense"."""
    kind: str
    output_shape: list[int]
    parameters: Count
    flops: Amount
    trained: bool
    """Whether it was trained in the epoch whose weights are kept."""
    trainable: Count | None = None
    """How many of its parameters are trained."""
    from_epoch: Count | None = None
    """The first epoch that trains it."""
    lr: float | None = None
    """Its learning rate; None: it is frozen."""


@dataclass(frozen=True, kw_only=True)
class ParameterCounts:
    """How many parameters a network has."""

    total: Count
    trainable: Count
    frozen: Count


@dataclass(frozen=True, kw_only=True)
class PretrainedModel:
    """A published model that the weights come from."""

    name: str
    hub: str | None = None
    """Its name on the Hugging Face hub."""
    licence: str | None = None


@dataclass(frozen=True, kw_only=True)
class OpeningSummary:
    """By which library the saved folder is opened, and how."""

    library: str = "tunewright"
    made_from: PretrainedModel | None = None
    own_head: bool = False
    """Whether the head is one that Transformers has no class for."""
    model_class: str | None = None
    """The class of Transformers that opens it."""
    tokenizer: bool = False
    """Whether a tokenizer is saved with it."""
    named_classes: bool = False
    """Whether its head has the classes of the target."""
    base: str | None = None
    """The model that an adapter belongs to."""
    quantize: str | None = None
    """How the base was quantized while the adapter was trained."""


@dataclass(frozen=True, kw_only=True)
class ModelSummary:
    """The layers, their sizes, and the diagram."""

    title: str
    parameters: ParameterCounts
    flops_per_example: Amount
    layers: list[LayerSummary] = field(default_factory=list)
    flops_of: str | None = None
    """What one example is, where its length varies."""
    svg: str | None = None
    opening: OpeningSummary = field(default_factory=OpeningSummary)


@dataclass(frozen=True, kw_only=True)
class FrozenBlock:
    """What a certificate says of a block's frozen tensors."""

    block: str
    tensors: Count
    parameters: Count
    identical: bool
    """Whether every parameter and buffer has the same bytes as before."""


@dataclass(frozen=True, kw_only=True)
class TrainedBlock:
    """What a certificate says of a block's trained tensors."""

    block: str
    tensors: Count
    parameters: Count
    changed: Count
    unchanged: list[str] = field(default_factory=list)
    """The names of trained tensors that have the same bytes as before."""


@dataclass(frozen=True, kw_only=True)
class CertificateSummary:
    """The freeze certificate."""

    frozen: list[FrozenBlock] = field(default_factory=list)
    trained: list[TrainedBlock] = field(default_factory=list)
    passed: bool
    warnings: list[str] = field(default_factory=list)

    @property
    def intact(self) -> bool | None:
        """Whether what was frozen is bit-identical to its source; None: nothing was frozen."""
        return self.passed and all(block.identical for block in self.frozen) if self.frozen else None
