"""The recipe: what a model's life consists of, as plain data.

Blocks are pydantic models that refuse unknown keys. The schema knows shapes and types only; whether a
name exists (an optimiser, a task, a layer) is decided by the table that owns the name.
"""

from __future__ import annotations

import math
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

# What file systems take.
LONGEST_PATH, LONGEST_NAME = 4096, 255


def _at_most(limit: Limit) -> AfterValidator:
    """See that a number, or the length of a list, is at most the limit."""

    def check(value: Any) -> Any:
        if (len(value) if isinstance(value, list) else value) > (most := limit.value):
            fix = f"correct it; or, if you trust the recipe, set {limit.variable} to a larger number"
            expected = f"at most {most:,} {limit.unit}".rstrip()
            raise PydanticCustomError("limit", "beyond the limit", {"expected": expected, "fix": fix})
        return value

    return AfterValidator(check)


def _in_bounds(value: Any) -> Any:
    """See that the numbers anywhere in a thing's options are finite, and the whole ones at most RECIPE_OPTION; texts are short."""
    if isinstance(value, str):
        _is_path(value)  # many a name may be a folder's
    if isinstance(value, float) and not math.isfinite(value):
        raise PydanticCustomError("finite_number", "not finite")
    if isinstance(value, int):
        _at_most(RECIPE_OPTION).func(abs(value))  # pyright: ignore[reportCallIssue]
    for entry in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
        _in_bounds(entry)
    return value


def _is_path(value: str) -> str:
    """See that the file system can have a file of this name."""
    try:
        parts = value.encode().split(b"/")
    except UnicodeEncodeError:
        parts = [b"\0"]
    if len(value) > LONGEST_PATH or any(b"\0" in part or len(part) > LONGEST_NAME for part in parts):
        expected = f"at most {LONGEST_PATH:,} characters, {LONGEST_NAME} bytes from / to /, none of them NUL"
        raise PydanticCustomError("path", "no path", {"expected": expected})
    return value


def _one_or_many(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


# A thing chosen by name, with or without options: `adam`, or `{sgd: {momentum: 0.9}}`.
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
    """Refuse a list that names the same thing twice."""
    if len(set(names)) < len(names):
        raise PydanticCustomError("twice", "a name stands twice", {"expected": "each name once"})
    return names


class Block(BaseModel):
    """A block of the recipe: immutable, its numbers finite; an unknown key is an error."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, hide_input_in_errors=True, allow_inf_nan=False
    )


class Split(Block):
    """How rows are divided. A source that has a test part of its own keeps it, whatever `test` says."""

    valid: Fraction = 0.1
    """The share of rows for validation: the best weights and the temperature are chosen on it."""
    test: Fraction = 0.1
    """The share of rows for the test: looked at once, at the end."""
    by: Literal["random", "stratified", "group", "time", "within", "last"] | None = None
    """Left out: at random; recordings with a column of speakers by speaker. random; stratified (each class in proportion);
    group (a group never straddles); time (the latest rows are the test); within (each group's rows are divided, such as each
    user's); last (each group's last row is the test, the one before it the validation)."""
    column: str | None = None
    """The column with the group or the time, for `by: group`, within, last and time."""
    order: str | None = None
    """`by: within` and `by: last`: the column with the time: each group's latest rows are the test; at random when left out."""


class Clean(Block):
    """Which texts of a corpus are left out; each is counted under its reason. Cleaned once, when the data is prepared."""

    rules: Annotated[list[Literal["gopher", "fineweb"]], BeforeValidator(_one_or_many)] = []
    """The rules of a published corpus, or of both."""
    limits: dict[str, float | None] = {}
    """Other thresholds than the usual ones, by the rule's name; null switches a rule off."""
    near_duplicates: bool = False
    """Leave out what is nearly the same as an earlier text (MinHash of runs of five words, 14 bands of 8)."""
    contamination: bool = False
    """Leave out training texts that hold a run of 13 words of a validation or test text."""


class Liked(Block):
    """From which number on a rating means yes, and up to which no; rows between them are left out and counted."""

    at_least: float
    """So much and more is yes."""
    not_at_most: float | None = None
    """So much and less is no; everything below `at_least` when left out."""


class Mixed(Block):
    """One more source of texts."""

    source: PathText
    """A file, a folder, a named sample set, or hub:owner/name."""
    format: Literal["csv", "tsv", "jsonl", "parquet", "text", "hub"] | None = None
    """Normally seen from the source itself."""
    input: str = "text"
    """The column with the texts."""
    weight: Annotated[float, Field(gt=0, le=100)] = 1.0
    """How often an epoch reads it: 2 twice, 0.5 every second epoch."""
    limit: Positive | None = None
    """Use only the first so many rows."""


class Data(Block):
    """Which data, and what is input and target in it."""

    source: PathText
    """A file, a folder, a named sample set, or hub:owner/name."""
    format: (
        Literal["csv", "tsv", "jsonl", "parquet", "images", "idx", "npz", "text", "hub", "atomic", "speech"] | None
    ) = None
    """Normally seen from the source itself."""
    input: Names | None = None
    """The input column or columns; every column but the target when left out."""
    target: str | Annotated[list[str], Field(min_length=2)] | None = None
    """The column to predict; inferred, and said so, when left out. For several labels a row also a list of columns of
    0 and 1."""
    separator: Annotated[str, Field(min_length=1)] | None = None
    """Several labels a row: the sign between them in a text cell; seen from the data when left out."""
    labelled: bool = True
    """false: there is no target; self-supervised pretraining only."""
    liked: Liked | None = None
    """Make classes, yes and no, of a target that is a rating."""
    user: str | None = None
    """The column that says who; seen from its name when left out. For recommendation."""
    item: str | None = None
    """The column that says what; likewise."""
    time: str | None = None
    """The column that says when; likewise."""
    users: PathText | None = None
    """A table with what is known of users, joined by the column of `user`."""
    items: PathText | None = None
    """The same of items."""
    core: Positive | None = None
    """Leave out users and items with fewer interactions, over and over until none has; each is counted."""
    split: Split = Split()
    resize: tuple[Side, Side] | None = None
    """The [height, width] of the images that the network gets: scaled to it (bilinear), or, with a pretrained backbone, in
    the backbone's own way of scaling and cutting."""
    limit: Positive | None = None
    """Use only the first so many rows; of each part, where the source has parts of its own."""
    mix: list[Mixed] = []
    """More sources of texts for a language model, each with its weight; that of `source` is 1."""
    clean: Clean | None = None
    """What is left out of a corpus of texts."""
    disjoint: bool = False
    """Your promise that no row of this data, and no user, is in other data that the model learned from before; what privacy costs
    is then counted apart. Left out: whatever is not known to be apart counts as shared."""


class Beside(Data):
    """Data that a model is measured on and never trained on."""

    labelled: bool = False
    """Nothing is foretold of it."""
    split: Split = Split(valid=0.0, test=0.0)
    """All rows are measured, unless there are test rows: then these alone."""


class Model(Block):
    """The network: a layer list or a named backbone, and its head."""

    layers: Layers | None = None
    """The network as a list of layers. Without `head`, its last layer is the head."""
    backbone: Named | None = None
    """A network of ours (`mlp`, `resnet20`, `{mlp: {hidden: [512, 512]}}`); a pretrained one: a name of the catalog
    (`minilm`, `efficientnet-lite0`), or a model of the Transformers library by its folder or hub id; or a new encoder of
    that library, `{bert: {layers: 4, width: 256}}`."""
    weights: PathText | None = None
    """A model folder to start from; a stage that follows another starts from that one's best weights. Of a pretrained
    backbone: pretrained (when left out) or random."""
    head: Layers | None = None
    """The layers after the backbone; the size `auto` comes from the data."""
    max_length: Annotated[int, Field(ge=4, strict=True), _at_most(TEXT_TOKENS)] | None = None
    """Text: tokens that the network gets at most; longer texts are cut, and counted."""
    decoding: Named | None = None
    """Speech: greedy, or {beam: {width: 16, words: train, hot_words: [...]}}, a search with a language model of words."""
    tokenizer: Named | None = None
    """Train a tokenizer on the training texts, for a backbone without pretrained weights: wordpiece, bpe, unigram, or
    {wordpiece: {vocabulary: 8000}}."""


class Unfreeze(Block):
    """At the start of this epoch, the last so many backbone blocks are trained as well."""

    epoch: Epochs
    """Counted from 1."""
    layers: Positive | Literal["all"]
    """How many blocks, counted from the head; or all."""


class Tune(Block):
    """What moves in a fine-tune."""

    method: Literal["gradient", "features", "contrastive"] | None = None
    """gradient; features: a logistic regression on the frozen network's features becomes its last layer; contrastive:
    pairs of examples train the encoder first. Left out: features below 64 examples a class, else gradient."""
    freeze: int | float | str | list[str] = "none"
    """none, backbone, embeddings, a number of blocks from the input, a fraction of them, names, or re:PATTERN."""
    unfreeze: list[Unfreeze] = []
    """Gradual unfreezing, from the head towards the input."""
    layer_lr_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Each block's learning rate is that of the block above it times this."""
    head_lr_multiplier: Annotated[float, Field(gt=0)] = 1.0
    """The head's learning rate, as a multiple of `train.lr`."""
    adapter: Named | None = None
    """Train an adapter and the head instead of the weights: lora, ia3, bitfit, or {lora: {r: 16, dora: true}}."""
    quantize: Literal["nf4", "int8"] | None = None
    """With lora or ia3: the backbone's matrices are kept in 4 bits (nf4; with lora that is QLoRA) or 8 (int8), rounded."""


class Regularization(Block):
    """Penalties. l1 and l2 are terms of the loss; weight_decay acts on the weights directly (AdamW, SGDW)."""

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
    """How it learns."""

    epochs: Epochs = 5
    """How often the training data is gone through."""
    batch_size: Examples = 32
    """Examples in a batch."""
    batch_seconds: Annotated[float, Field(gt=0)] | None = None
    """Speech: seconds of sound in a batch at most, padding included, in place of `batch_size`."""
    augment: list[Layer] = []
    """Changed copies of the training pictures: flip, crop, resized_crop, color, randaugment, mixup, cutmix; with options
    {crop: 4}, {randaugment: {n: 2, m: 9}}. Of recordings: noise, speed, gain, stripes."""
    objective: Named | None = None
    """What is minimised; the task chooses when left out. masked, denoising and masked_tokens need no labels."""
    optimizer: Named = "adam"
    """sgd, adam, adamw, adagrad, rmsprop, muon, adamw_8bit, or {sgd: {momentum: 0.9}}."""
    lr: Annotated[float, Field(gt=0)] | None = None
    """The peak learning rate; the optimiser's usual one when left out."""
    schedule: Named = "constant"
    """constant, linear, cosine, one_cycle, wsd, step, or {step: {every: 10}}."""
    warmup: Annotated[float, Field(ge=0)] = 0.0
    """Linear warm-up: below 1 a share of all steps, from 1 on a number of steps."""
    regularization: Regularization = Regularization()
    class_weights: Literal["balanced"] | dict[str, float] | None = None
    """balanced, or a weight for each class by name."""
    label_smoothing: Fraction = 0.0
    """The share of the target's weight that is spread over all classes."""
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    """Clip the gradient to this global L2 norm."""
    accumulate: Examples = 1
    """Add up the gradients of so many batches before each step."""
    early_stopping: EarlyStopping | None = None
    select: str | None = None
    """The validation metric that chooses the best weights; the task chooses when left out."""
    checkpoint_steps: Positive | None = None
    """Also write a checkpoint every so many steps; one is written after every epoch in any case."""


class PublicColumn(Block):
    """What is known of a column without looking at the private rows; it is used in place of what would be computed from them."""

    mean: float | list[float] | None = None
    """Numbers: what is subtracted; of an array one number, or one for each of its values. With `std`."""
    std: Annotated[float, Field(gt=0)] | list[Annotated[float, Field(gt=0)]] | None = None
    """Numbers: what they are divided by."""
    missing: bool = False
    """Numbers: some are missing, and a second value marks where."""
    edges: Annotated[list[float], Field(min_length=1)] | None = None
    """Numbers of click-prediction: where the next bin begins."""
    categories: Annotated[list[str], Field(min_length=1)] | None = None
    """Categories, or the classes of the target. Any other value is read as unknown; of the target it is an error."""
    tokenizer: str | None = None
    """Texts of a new network: a folder with a public tokenizer.json, in place of one that is trained on the rows."""


class Privacy(Block):
    """Training with differential privacy (DP-SGD): nobody can tell from the weights whether a unit was among the training data,
    but for ε and δ."""

    epsilon: Annotated[float, Field(gt=0, le=100)]
    """What the whole stage may cost; the noise follows from it. Below 1 strong, 10 weak."""
    delta: Literal["auto"] | Annotated[float, Field(gt=0, lt=0.1)] = "auto"
    """The probability with which ε may fail; auto: N^−1.1 for N units."""
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    """The norm that a unit's gradient has at most."""
    unit: Literal["example", "user"] = "example"
    """What is protected: each training row, or each user with all rows (the column is `data.user`, or that of `data.split`)."""
    public: dict[str, PublicColumn] = {}
    """By column: means, deviations, categories, classes and tokenizers that are public. Those of other columns are computed from the training
    rows without noise, stand in the saved model, and are named on its card."""


class Eval(Block):
    """What is measured, and how surely."""

    metrics: Names | None = None
    """The task's metrics when left out."""
    slices: Names = []
    """Columns by whose values the result is also broken down."""
    beside: dict[str, Beside] = {}
    """Other data, by names of yours, that a language model is measured on before and after the stage: texts, to see what it
    forgot, or questions with choices."""
    seeds: Annotated[Whole, _at_most(SEEDS)] = 1
    """Repeat the whole training with so many seeds and give mean and interval."""
    resamples: Annotated[int, Field(ge=100, le=100_000)] = 1000
    """Bootstrap resamples behind each interval."""
    target: dict[str, float] = {}
    """The figure that must be reached, by metric; missed = exit 1."""
    explain: Annotated[int, Field(ge=0, le=24)] = 0
    """So many answers to test rows are explained in the report, the worst mistakes first; each takes hundreds of passes."""
    controls: list[Literal["from_scratch", "head_only"]] = []
    """Also train, for comparison: the same network from random weights; the head alone on the raw inputs."""


class Hardware(Block):
    """Where it runs."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """auto takes an accelerator where there is one."""
    devices: Processes = 1
    """Processes on each machine that train together, each with a part of every batch: one for each accelerator."""
    nodes: Processes = 1
    """Machines; more than one are started by torchrun."""
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    """How several processes share a model: each has all of it (ddp), or a part of every weight, gradient and optimiser state (fsdp). auto
    takes fsdp where a process's memory could not hold them whole."""
    tensor: Processes = 1
    """With fsdp, for gpt: so many processes divide the heads and hidden features of each layer, and compute the same texts."""
    offload: bool = False
    """With fsdp: what a process keeps waits in the processor's memory, not the accelerator's. Slower, and less memory."""
    threads: Annotated[Whole, _at_most(THREADS)] | None = None
    """CPU threads; chosen from the size of the network when left out."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto measures once whether this machine computes a pretrained network faster in bfloat16."""
    prefix_cache: bool = True
    """Compute the output of frozen blocks once and keep it on disk."""
    optimizer_in_backward: bool = False
    """Each weight takes its step as soon as its gradient is there: gradients take next to no memory. Not with clipping, accumulation, penalties."""
    gradient_checkpointing: Literal["auto"] | bool = "auto"
    """Recompute activations in the backward pass: less memory, a third more time. auto does so where they would not fit."""


class Recipe(Block):
    """One model's life."""

    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """The run's folder under runs/; the recipe's file or folder name when left out."""
    task: str
    """What is to be learned; `tunewright init list` names the tasks."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Everything random follows from it."""
    data: Data
    model: Model = Model()
    tune: Tune = Tune()
    train: Train = Train()
    eval: Eval = Eval()
    hardware: Hardware = Hardware()
    track: Annotated[list[Literal["tensorboard", "mlflow", "trackio", "wandb"]], AfterValidator(_each_once)] = []
    """Where the numbers of a training are shown besides, if that is installed; all of it stays on this machine."""
    privacy: Privacy | None = None
    """Train so that the weights say next to nothing of any single unit of the training data; left out: ordinary training."""
    search: Annotated[dict[str, Any], AfterValidator(_in_bounds)] = {}
    """What `tunewright tune` may change, by dotted names: a list of values, {log: [1e-5, 1e-2]}, {even: [0, 0.5]} or
    {whole: [16, 128]}."""
    stages: Annotated[list[str | dict[str, Any]], Field(min_length=1), _at_most(RECIPE_STAGES)] = ["pretrain"]
    """Training stages in order: `pretrain`, `finetune`, or `{finetune: {overrides}}`. Each starts from the one before. A
    stage may have a task of its own; then all but the data, the backbone and the hardware is that task's."""
