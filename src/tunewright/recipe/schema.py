"""Define the schema of a recipe, which describes the whole life of a model as plain data.

Blocks are pydantic models that refuse unknown keys. The schema checks structure and types only; whether a
name exists (an optimizer, a task, a layer) is decided by the table of these names.
"""

from __future__ import annotations

import math
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from tunewright.limits import (
    BATCH_EXAMPLES,
    EPOCHS,
    IMAGE_SIDE,
    MODEL_LAYERS,
    PROCESSES,
    RECIPE_LAYERS,
    RECIPE_NUMBER,
    RECIPE_OPTION,
    RECIPE_STAGES,
    SEEDS,
    TEXT_TOKENS,
    THREADS,
    Limit,
)
from tunewright.plugins import Registry

# Limits of file systems.
LONGEST_PATH, LONGEST_NAME = 4096, 255


def _at_most(limit: Limit) -> AfterValidator:
    """Check that a number, or the length of a list, is at most the limit."""

    def check(value: Any) -> Any:
        if (len(value) if isinstance(value, list) else value) > (most := limit.value):
            fix = f"correct it; or, if you trust the recipe, set {limit.variable} to a larger number"
            expected = f"at most {most:,} {limit.unit}".rstrip()
            raise PydanticCustomError("limit", "beyond the limit", {"expected": expected, "fix": fix})
        return value

    return AfterValidator(check)


# The formats of data that Tunewright reads itself; packages add others (entry point group `tunewright.sources`).
FORMATS = ("csv", "tsv", "jsonl", "parquet", "images", "idx", "npz", "text", "conll", "hub", "atomic", "speech")


def _is_format(name: str) -> str:
    """Check that a format is built in, or that an installed package reads it."""
    known = Registry("tunewright.sources", dict.fromkeys(FORMATS))
    if name not in known:
        near = get_close_matches(name, list(known), n=1)
        expected = {"expected": ", ".join(known), "fix": f"did you mean {near[0]}?" if near else "choose one of these"}
        raise PydanticCustomError("format", "not a format that can be read", expected)
    return name


Format = Annotated[str, AfterValidator(_is_format)]


def _in_bounds(value: Any) -> Any:
    """Check that all numbers in a component's options are finite, integers are at most RECIPE_OPTION, and texts are short."""
    if isinstance(value, str):
        _is_path(value)  # many names may be folders
    if isinstance(value, float) and not math.isfinite(value):
        raise PydanticCustomError("finite_number", "not finite")
    if isinstance(value, int):
        _at_most(RECIPE_OPTION).func(abs(value))  # pyright: ignore[reportCallIssue]
    for entry in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
        _in_bounds(entry)
    return value


def _is_path(value: str) -> str:
    """Check that a file of this name can exist."""
    try:
        parts = value.encode().split(b"/")
    except UnicodeEncodeError:
        parts = [b"\0"]
    if len(value) > LONGEST_PATH or any(b"\0" in part or len(part) > LONGEST_NAME for part in parts):
        expected = f"at most {LONGEST_PATH:,} characters, {LONGEST_NAME} bytes from / to /, none of them NUL"
        raise PydanticCustomError("path", "not a path", {"expected": expected})
    return value


def _one_or_many(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


# A component chosen by name, with or without options: `adam`, or `{sgd: {momentum: 0.9}}`.
Named = Annotated[str | dict[str, dict[str, Any]], AfterValidator(_in_bounds)]

# One layer of a network: `flatten`, or `{dense: 128, activation: relu}` (the first key is the kind).
Layer = Annotated[str | dict[str, Any], AfterValidator(_in_bounds)]
Layers = Annotated[list[Layer], _at_most(RECIPE_LAYERS)]

PathText = Annotated[str, AfterValidator(_is_path)]
Names = Annotated[list[str], BeforeValidator(_one_or_many)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Whole = Annotated[int, Field(gt=0, strict=True)]
Positive = Annotated[Whole, _at_most(RECIPE_NUMBER)]
Epochs = Annotated[Whole, _at_most(EPOCHS)]
Examples = Annotated[Whole, _at_most(BATCH_EXAMPLES)]
Processes = Annotated[Whole, _at_most(PROCESSES)]
LayerCount = Annotated[Whole, _at_most(MODEL_LAYERS)]
Side = Annotated[Whole, _at_most(IMAGE_SIDE)]


def _each_once(names: list[str]) -> list[str]:
    """Refuse a list with duplicate names."""
    if len(set(names)) < len(names):
        raise PydanticCustomError("twice", "a name is duplicated", {"expected": "each name once"})
    return names


class Block(BaseModel):
    """Configure the blocks of a recipe: immutable, with finite numbers; an unknown key is an error."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, hide_input_in_errors=True, allow_inf_nan=False
    )


class Split(Block):
    """How rows are split. A source with its own test split keeps it, regardless of `test`."""

    valid: Fraction = 0.1
    """The fraction of rows for validation, which selects the best weights and the calibration temperature."""
    test: Fraction = 0.1
    """The fraction of rows for the test, which is evaluated once, at the end."""
    by: Literal["random", "stratified", "group", "time", "within", "last"] | None = None
    """random; stratified (each class in proportion); group (a group is never split); time (the latest rows are the test); within
    (each group's rows are split, such as each user's); last (each group's last row is the test, the one before it the
    validation). Default: random; by speaker for recordings with a column of speakers."""
    column: str | None = None
    """The column with the group or the time, for `by: group`, within, last and time."""
    order: str | None = None
    """`by: within` and `by: last`: the column with the time: each group's latest rows are the test. Default: at random."""


class Clean(Block):
    """Quality filters of a text corpus, applied once, when the data is prepared; removed texts are counted by reason."""

    rules: Annotated[list[Literal["gopher", "fineweb"]], BeforeValidator(_one_or_many)] = []
    """The quality rules of published corpora: gopher, fineweb, or both."""
    limits: dict[str, float | None] = {}
    """Thresholds that differ from the defaults, by rule name; null switches a rule off."""
    near_duplicates: bool = False
    """Remove near duplicates of earlier texts (MinHash of 5-grams of words, 14 bands of 8)."""
    contamination: bool = False
    """Remove training texts that share a 13-gram of words with a validation or test text."""


class Liked(Block):
    """Convert ratings to implicit feedback, yes or no; rows between the two thresholds are skipped and counted."""

    at_least: float
    """Ratings of at least this are yes."""
    not_at_most: float | None = None
    """Ratings of at most this are no. Default: all ratings below `at_least`."""


class Mixed(Block):
    """One more source of texts, with its weight."""

    source: PathText
    """A file, a folder, a named sample set, or hub:owner/name."""
    format: Format | None = None
    """Default: detected from the source."""
    input: str = "text"
    """The column with the texts."""
    weight: Annotated[float, Field(gt=0, le=100)] = 1.0
    """How often an epoch reads it: 2 twice, 0.5 every second epoch."""
    limit: Positive | None = None
    """Use at most this many rows, from the start."""


class Data(Block):
    """The data, its inputs and its target."""

    source: PathText
    """A file, a folder, a named sample set, or hub:owner/name."""
    format: Format | None = None
    """csv, tsv, jsonl, parquet, images, idx, npz, text, conll, hub, atomic, speech, or the format of an installed package. Default:
    detected from the source."""
    input: Names | None = None
    """The input column or columns. Default: every column but the target."""
    target: str | Annotated[list[str], Field(min_length=2)] | None = None
    """The column to predict. Default: inferred, and reported. For multi-label classification also a list of columns of
    0 and 1."""
    separator: Annotated[str, Field(min_length=1)] | None = None
    """Multi-label classification: the separator of labels in a text cell. Default: detected from the data."""
    labelled: bool = True
    """false: there is no target; self-supervised pretraining only."""
    liked: Liked | None = None
    """Convert a rating target to the classes yes and no (implicit feedback)."""
    user: str | None = None
    """Recommendation: the column of users. Default: detected by its name."""
    item: str | None = None
    """Recommendation: the column of items. Default: detected by its name."""
    time: str | None = None
    """Recommendation: the column of times. Default: detected by its name."""
    users: PathText | None = None
    """A table of user features, joined by the column of `user`."""
    items: PathText | None = None
    """A table of item features, joined by the column of `item`."""
    core: Positive | None = None
    """Repeatedly remove users and items with fewer interactions until none is left (the k-core); they are counted."""
    split: Split = Split()
    resize: tuple[Side, Side] | None = None
    """The [height, width] of the network's input images: resized (bilinear), or, with a pretrained backbone, resized and
    cropped by the backbone's own preprocessing."""
    limit: Positive | None = None
    """Use at most this many rows, from the start; per split, if the source has its own splits."""
    mix: list[Mixed] = []
    """More sources of texts for a language model, each with its weight; the weight of `source` is 1."""
    clean: Clean | None = None
    """Quality filters of a text corpus."""
    disjoint: bool = False
    """Your statement that no row of this data, and no user, is in other data that the model learned from before; the privacy
    budget is then counted separately. Default: data that is not known to be disjoint counts as shared."""


class Beside(Data):
    """Data that a model is evaluated on and never trained on."""

    labelled: bool = False
    """There is no target to predict."""
    split: Split = Split(valid=0.0, test=0.0)
    """All rows are evaluated; if there are test rows, these alone."""


class Model(Block):
    """The network: a layer list or a named backbone, and its head."""

    layers: Layers | None = None
    """The network as a list of layers. Without `head`, its last layer is the head."""
    backbone: Named | None = None
    """A built-in network (`mlp`, `resnet20`, `{mlp: {hidden: [512, 512]}}`); a pretrained one: a catalog name
    (`minilm`, `efficientnet-lite0`), or a model of the Transformers library by its folder or hub id; or a new encoder of
    that library, `{bert: {layers: 4, width: 256}}`."""
    weights: PathText | None = None
    """A model folder to start from; a later stage starts from the best weights of the previous one. For a pretrained
    backbone: pretrained (default) or random."""
    head: Layers | None = None
    """The layers after the backbone; the size `auto` is taken from the data."""
    max_length: Annotated[int, Field(ge=4, strict=True), _at_most(TEXT_TOKENS)] | None = None
    """Text: the maximum number of tokens; longer texts are truncated, and counted."""
    decoding: Named | None = None
    """Speech: greedy, or {beam: {width: 16, words: train, hot_words: [...]}}, a beam search with an n-gram language model."""
    tokenizer: Named | None = None
    """Train a tokenizer on the training texts, for a backbone without pretrained weights: wordpiece, bpe, unigram, or
    {wordpiece: {vocabulary: 8000}}."""


class Unfreeze(Block):
    """Gradual unfreezing: from the start of this epoch, the last backbone blocks are trained as well."""

    epoch: Epochs
    """Counted from 1."""
    layers: Positive | Literal["all"]
    """How many blocks, counted from the head; or all."""


class Tune(Block):
    """What is trained in a fine-tune, and how."""

    method: Literal["gradient", "features", "contrastive"] | None = None
    """gradient; features: a logistic regression on the frozen network's features becomes its last layer; contrastive:
    pairs of examples train the encoder first. Default: features below 64 examples per class, else gradient."""
    freeze: int | float | str | list[str] = "none"
    """none, backbone, embeddings, a number of blocks from the input, a fraction of them, names, or re:PATTERN."""
    unfreeze: list[Unfreeze] = []
    """Gradual unfreezing, from the head towards the input."""
    layer_lr_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Layer-wise learning rate decay: each block's learning rate is that of the block above it times this."""
    head_lr_multiplier: Annotated[float, Field(gt=0)] = 1.0
    """The head's learning rate, as a multiple of `train.lr`."""
    adapter: Named | None = None
    """Train an adapter and the head instead of the weights: lora, ia3, bitfit, or {lora: {r: 16, dora: true}}."""
    quantize: Literal["nf4", "int8"] | None = None
    """Quantization, with lora or ia3: the backbone's matrices are stored in 4 bits (nf4; with lora: QLoRA) or 8 bits (int8)."""


class Regularization(Block):
    """L1 and L2 penalties, which are terms of the loss, and weight decay, which acts on the weights directly (AdamW, SGDW)."""

    l1: Annotated[float, Field(ge=0)] = 0.0
    """λ of λ‖θ‖₁, added to the loss."""
    l2: Annotated[float, Field(ge=0)] = 0.0
    """λ of λ‖θ‖₂², added to the loss."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled weight decay (Loshchilov and Hutter 2017)."""


class EarlyStopping(Block):
    """Stop when the selection metric has not improved for `patience` epochs."""

    patience: Epochs = 3
    """Epochs to wait for an improvement."""


class Train(Block):
    """Training: epochs, batches, optimizer, learning rate schedule and regularization."""

    epochs: Epochs = 5
    """The number of passes over the training data."""
    batch_size: Examples = 32
    """The number of examples in a batch."""
    batch_seconds: Annotated[float, Field(gt=0)] | None = None
    """Speech: the most seconds of audio in a batch, padding included, in place of `batch_size`."""
    augment: list[Layer] = []
    """Data augmentation of training images: flip, crop, resized_crop, color, randaugment, mixup, cutmix; with options
    {crop: 4}, {randaugment: {n: 2, m: 9}}. Of recordings: noise, speed, gain, stripes (SpecAugment)."""
    objective: Named | None = None
    """The loss that is minimised. Default: that of the task. masked, denoising and masked_tokens need no labels."""
    optimizer: Named = "adam"
    """sgd, adam, adamw, adagrad, rmsprop, muon, adamw_8bit, or {sgd: {momentum: 0.9}}."""
    lr: Annotated[float, Field(gt=0)] | None = None
    """The peak learning rate. Default: by optimizer and by what is trained."""
    schedule: Named = "constant"
    """constant, linear, cosine, one_cycle, wsd, step, or {step: {every: 10}}."""
    warmup: Annotated[float, Field(ge=0)] = 0.0
    """Linear warmup of the learning rate: below 1 a fraction of all steps, otherwise a number of steps."""
    regularization: Regularization = Regularization()
    class_weights: Literal["balanced"] | dict[str, float] | None = None
    """balanced, or a weight for each class by name."""
    label_smoothing: Fraction = 0.0
    """The fraction of the target's weight that is spread over all classes."""
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    """Gradient clipping: the maximum global L2 norm."""
    accumulate: Examples = 1
    """Gradient accumulation: the number of batches per optimizer step."""
    early_stopping: EarlyStopping | None = None
    select: str | None = None
    """The validation metric that selects the best weights. Default: that of the task."""
    checkpoint_steps: Positive | None = None
    """Write a checkpoint after this many steps as well; one is always written after every epoch."""


class PublicColumn(Block):
    """Public statistics of a column, used in place of statistics of the private rows."""

    mean: float | list[float] | None = None
    """Numbers: the mean; for an array one number, or one for each of its values. With `std`."""
    std: Annotated[float, Field(gt=0)] | list[Annotated[float, Field(gt=0)]] | None = None
    """Numbers: the standard deviation."""
    missing: bool = False
    """Numbers: some are missing, which a second value marks."""
    edges: Annotated[list[float], Field(min_length=1)] | None = None
    """Numbers of click-prediction: the lower edges of the bins after the first."""
    categories: Annotated[list[str], Field(min_length=1)] | None = None
    """Categories, or the classes of the target. Any other value is read as unknown; for the target it is an error."""
    tokenizer: str | None = None
    """Texts of a new network: a folder with a public tokenizer.json, in place of a tokenizer trained on the rows."""


class Privacy(Block):
    """Differentially private training (DP-SGD): up to ε and δ, the weights do not reveal whether a unit was in the training
    data."""

    epsilon: Annotated[float, Field(gt=0, le=100)]
    """The privacy budget of the whole stage, which determines the noise. Below 1 is strong, 10 is weak."""
    delta: Literal["auto"] | Annotated[float, Field(gt=0, lt=0.1)] = "auto"
    """The probability with which ε may fail; auto: N^−1.1 for N units."""
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    """The maximum norm of a unit's gradient."""
    unit: Literal["example", "user"] = "example"
    """What is protected: each training row, or each user with all rows (the column is `data.user`, or that of `data.split`)."""
    public: dict[str, PublicColumn] = {}
    """By column: public means, standard deviations, categories, classes and tokenizers. Those of other columns are computed from the
    training rows without noise, are stored in the saved model, and are named on its card."""


class Eval(Block):
    """Evaluation: metrics, slices, intervals, targets and ablations."""

    metrics: Names | None = None
    """Default: the metrics of the task."""
    slices: Names = []
    """Columns whose values define slices, which are evaluated separately."""
    beside: dict[str, Beside] = {}
    """Other data, under names that you choose, that a language model is evaluated on before and after the stage: texts, to
    measure forgetting, or multiple-choice questions."""
    seeds: Annotated[Whole, _at_most(SEEDS)] = 1
    """Repeat the whole training with this many seeds, and report mean and interval."""
    resamples: Annotated[int, Field(ge=100, le=100_000)] = 1000
    """The number of bootstrap resamples for each interval."""
    target: dict[str, float] = {}
    """The value that must be reached, by metric; if it is missed, the exit code is 1."""
    explain: Annotated[int, Field(ge=0, le=24)] = 0
    """The number of predictions on test rows that the report explains, worst mistakes first; each takes hundreds of passes."""
    controls: list[Literal["from_scratch", "head_only"]] = []
    """Ablations to train for comparison: the same network from random weights; the head alone on the raw inputs."""


class Hardware(Block):
    """Hardware: devices, distributed training, precision and memory."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """auto uses an accelerator if there is one."""
    devices: Processes = 1
    """Data parallel processes on each machine, each with a part of every batch: one per accelerator."""
    nodes: Processes = 1
    """Machines; torchrun starts more than one."""
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    """Distributed training: each process has the whole model (ddp), or a shard of every weight, gradient and optimizer state (fsdp).
    auto uses fsdp if they would not fit into a process's memory."""
    tensor: Processes = 1
    """Tensor parallelism, with fsdp, for gpt: the number of processes that split the heads and hidden features of each layer."""
    offload: bool = False
    """CPU offloading, with fsdp: shards are stored in the processor's memory, not the accelerator's. Slower, with less memory."""
    threads: Annotated[Whole, _at_most(THREADS)] | None = None
    """CPU threads. Default: by the size of the network."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Mixed precision; auto measures once whether a pretrained network is faster in bfloat16 on this machine."""
    prefix_cache: bool = True
    """Feature cache: compute the outputs of frozen blocks once and store them on disk."""
    optimizer_in_backward: bool = False
    """Update each weight as soon as its gradient is computed, so that gradients take next to no memory. Not with clipping, accumulation, penalties."""
    gradient_checkpointing: Literal["auto"] | bool = "auto"
    """Activation checkpointing: recompute activations in the backward pass, for less memory and a third more time. auto does so if
    they would not fit."""


class Recipe(Block):
    """The whole life of a model."""

    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """The run's folder under runs/. Default: the recipe's file or folder name."""
    task: str
    """The task; `tunewright init list` shows all tasks."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """The random seed of the data split and all trainings."""
    data: Data
    model: Model = Model()
    tune: Tune = Tune()
    train: Train = Train()
    eval: Eval = Eval()
    hardware: Hardware = Hardware()
    track: Annotated[list[Literal["tensorboard", "mlflow", "trackio", "wandb"]], AfterValidator(_each_once)] = []
    """Experiment trackers that also get the metrics of a training, if installed; everything stays on this machine."""
    privacy: Privacy | None = None
    """Differentially private training. Default: ordinary training."""
    search: Annotated[dict[str, Any], AfterValidator(_in_bounds)] = {}
    """The search space of `tunewright tune`, by dotted names: a list of values, {log: [1e-5, 1e-2]}, {even: [0, 0.5]} or
    {whole: [16, 128]}."""
    stages: Annotated[list[str | dict[str, Any]], Field(min_length=1), _at_most(RECIPE_STAGES)] = ["pretrain"]
    """Training stages in order: `pretrain`, `finetune`, or `{finetune: {overrides}}`. Each starts from the previous one. A
    stage may have its own task; then everything but the data, the backbone and the hardware has that task's defaults."""
