"""Architectures of the Transformers library as networks here: their blocks and their head.

The blocks are found, not listed by hand: the members of the stack (BERT's layers, the layers of ResNet's stages) are one
block each, each module around the stack is one block too, and their order is that in which a pass reaches them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from tunewright.errors import ArtifactError, RecipeError
from tunewright.models.core.layers import LayerMismatch, Shape, build_layer, resolve_auto, seeded
from tunewright.models.core.meta_weights import is_meta
from tunewright.models.core.network import Block, Inputs, Network, TensorParallelPart, evaluating
from tunewright.models.core.spec import NetworkSpec
from tunewright.models.hub.find_blocks import has_content, leaf_blocks
from tunewright.models.hub.purposes import Purpose, read_purpose
from tunewright.models.hub.quantization import Kind
from tunewright.models.hub.untrusted_files import check_values, drop_choices, require_memory
from tunewright.models.language.masked_positions import WANTED, selected
from tunewright.random import mix
from tunewright.recipe.schema import Layer, Named
from tunewright.runs.summary.model import OpeningSummary, PretrainedModel

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

EXAMPLE_TOKENS = 16


@dataclass(frozen=True, kw_only=True)
class TransformerSpec(NetworkSpec):
    """Hold what a network of the Transformers library is made from."""

    family: ClassVar[str] = "purpose"

    purpose: Purpose
    config: dict[str, Any]
    """The architecture's config.json: sizes, vocabulary, and the names of the classes."""
    head: list[Layer] | None
    """Layers of one's own in place of the last one of the architecture's head; None: the architecture's."""
    base: str | None = None
    """The pretrained model that the weights come from, and an adapter belongs to; None: there is none."""
    base_fingerprint: str | None = None
    """The SHA-256 of its configuration and weights."""
    input_shape: tuple[int, ...] | None = None
    """Of the images that it was trained with, which need not be the configuration's; None: the configuration's, or a text."""
    adapter: Named | None = None
    quantize: Kind | None = None
    """In how few bits the backbone's matrices are kept under the adapter."""

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TransformerSpec:
        shape = values.get("input_shape")
        fields: dict[str, Any] = {
            **values,
            "purpose": read_purpose(values["purpose"]),
            "input_shape": None if shape is None else tuple(shape),
        }
        return cls(**fields)

    def to_json(self) -> dict[str, Any]:
        shape = None if self.input_shape is None else list(self.input_shape)
        more = {
            "base": self.base,
            "base_fingerprint": self.base_fingerprint,
            "input_shape": shape,
            "adapter": self.adapter,
            "quantize": self.quantize,
        }
        known = {name: value for name, value in more.items() if value is not None}
        return {"purpose": self.purpose.to_json(), "config": self.config, "head": self.head, **known}

    def architecture(self) -> dict[str, Any]:
        return self.config

    def accepts(self, shape: tuple[int, ...]) -> bool:
        return self.input_shape in (None, shape)

    def from_scratch(self) -> TransformerSpec:
        return replace(self, base=None, base_fingerprint=None, adapter=None, quantize=None)

    def without_adapter(self) -> TransformerSpec:
        """Return the whole network whose weights the adapter was merged into."""
        return replace(self.from_scratch(), input_shape=None)

    def is_same_network(self, other: TransformerSpec) -> bool:
        """Return whether both have the same weights, head included."""
        return (self.purpose, self.config, self.head) == (other.purpose, other.config, other.head)


class Transformer(Network):
    """A model of the Transformers library, with or without an adapter of peft around it.

    Args:
        model: the library's model with its head, or peft's around it.
    """

    def __init__(self, model: nn.Module, spec: TransformerSpec) -> None:
        super().__init__()
        self.model = model
        self._spec = spec
        self.selects = True
        """Of a masked language model: compute the head for the wanted positions alone."""
        self._ordered: list[tuple[nn.Module, float]] = []
        """What `_order` found for these modules: a pass of a large network takes seconds."""

    @property
    def spec(self) -> TransformerSpec:
        return self._spec

    @property
    def purpose(self) -> Purpose:
        return self.spec.purpose

    def forward(self, inputs: Inputs) -> Inputs:
        """Token ids and mask [B, T], or pixels [B, C, H, W], to what the purpose's head makes, float32: logits [B, K] of a
        classification, [B, T, V] of a language model, [B, T] by name of the starts and ends of answers.

        Of a masked language model [M, V] where the inputs name the M positions that are WANTED.
        """
        if isinstance(inputs, dict) and WANTED in inputs:
            wanted = inputs[WANTED]
            plain = {name: value for name, value in inputs.items() if name != WANTED}
            if not self.selects:
                return self(plain)[wanted]
            with selected(self.base, wanted):
                return self(plain)[0]
        named = {"pixel_values": inputs} if isinstance(inputs, Tensor) else self._as_read(inputs)
        with self.autocast(next(iter(named.values())).device):
            output = self.model(**named)
            made = {name: getattr(output, name).float() for name in self.purpose.outputs}
        return made if len(made) > 1 else next(iter(made.values()))

    def hidden(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return what the head gets, of the same inputs: [B, T, D]."""
        with self.autocast(inputs["input_ids"].device):
            return self.base(**self._as_read(inputs)).last_hidden_state

    @property
    def output_weight(self) -> Tensor | None:
        """The matrix [V, D] whose product with `hidden` is the logits; None: the head is more than that."""
        head = self.core.get_output_embeddings()
        return head.weight if head is not None and self.has_plain_head else None

    @cached_property
    def has_plain_head(self) -> bool:
        """Whether the logits are the product of one matrix with `hidden`, and nothing else."""
        head = self.core.get_output_embeddings()
        if not isinstance(head, nn.Linear) or "bias" in dict(head.named_parameters()):
            return False
        if is_meta(head.weight):
            return True  # nothing can be compared
        inputs, reduced = self.example(), self.reduced
        assert isinstance(inputs, dict)
        self.reduced = False
        with evaluating(self), torch.no_grad():
            same = torch.allclose(self(inputs), self.hidden(inputs) @ head.weight.t(), rtol=1e-3, atol=1e-3)
        self.reduced = reduced
        return same

    @property
    def from_library(self) -> bool:
        return True

    @property
    def reads_text(self) -> bool:
        return not self.purpose.reads_images

    @property
    def supports_bfloat16(self) -> bool:
        return True

    @property
    def supports_gradient_checkpointing(self) -> bool:
        return self.core.supports_gradient_checkpointing

    def enable_gradient_checkpointing(self) -> None:
        self.core.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})

    def materialize_logits(self) -> None:
        self.has_plain_head = False

    def title(self, kinds: Sequence[str]) -> str:
        bits = "" if self.spec.quantize is None else f", matrices in {self.spec.quantize}"
        return f"{self.spec.config['model_type']}, {len(kinds)} blocks{bits}"

    def opening(self, made_from: PretrainedModel | None) -> OpeningSummary:
        if self.spec.head is not None:
            return OpeningSummary(made_from=made_from, own_head=True)
        opening = OpeningSummary(
            library="transformers",
            made_from=made_from,
            model_class=self.purpose.auto_class,
            tokenizer=self.reads_text,
            named_classes=not self.purpose.names_tokens,
        )
        if not self.adapted:
            return opening
        base = self.model.peft_config["default"].base_model_name_or_path  # pyright: ignore
        if made_from is not None and made_from.hub is not None and self.spec.base == made_from.name:
            base = made_from.hub
        return replace(opening, library="peft", base=base, quantize=self.spec.quantize)

    @property
    def vocabulary_size(self) -> int | None:
        return getattr(self.core.config, "vocab_size", None)

    def end_at(self, tokens: Collection[int]) -> None:
        """Note in the model's own settings at which tokens what it writes is over."""
        ends = sorted(tokens)
        value = ends if len(ends) > 1 else ends[0]
        self.core.config.eos_token_id = value
        if (settings := getattr(self.core, "generation_config", None)) is not None:
            settings.eos_token_id = value
        self._spec = replace(self.spec, config={**self.spec.config, "eos_token_id": value})

    def trained_on(self, shape: tuple[int, ...]) -> None:
        """Note the shape of the images that it is trained with.

        Raises:
            ValueError, RuntimeError: it cannot read them.
        """
        self._spec = replace(self.spec, input_shape=shape)
        self.blocks()

    @property
    def is_stochastic(self) -> bool:
        # Some architectures call the function and have no module for it; the rate is then in their configuration.
        return True

    @property
    def last_module(self) -> nn.Module:
        # The loss of a next token is computed piece by piece from what the output matrix gets.
        return self.base if self.purpose.generates else self

    @property
    def is_gpt(self) -> bool:
        """Return whether the library's model is our own implementation."""
        from tunewright.models.language.gpt import GPT  # lazily, as all that imports the library

        return isinstance(self.core, GPT)

    def tensor_parallel_plan(self) -> list[TensorParallelPart]:
        core: Any = self.core
        return core.tensor_parallel_plan() if self.is_gpt and not self.adapted else []

    @property
    def communication_dtype(self) -> torch.dtype | None:
        # The norms of other models do not compute with weights in bfloat16 everywhere.
        return torch.bfloat16 if self.reduced and self.is_gpt else None

    def whole_facts(self) -> dict[str, Any]:
        # Seen in float32 on the whole network, for the shards may come in bfloat16.
        return {"has_plain_head": self.has_plain_head} if self.purpose.generates else {}

    def rate_of(self, name: str) -> float:
        rule = getattr(self.core, "rate_of", None)
        return 1.0 if rule is None else rule(name)

    def _as_read(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Several documents in a row as the library's models expect them: a mask and positions."""
        if "document" not in inputs or self.is_gpt:
            return inputs
        from tunewright.models.language.gpt import within_documents  # lazily, as all that imports the library

        mask = within_documents(inputs["document"])
        return {"input_ids": inputs["input_ids"], "attention_mask": mask, "position_ids": inputs["position"]}

    @property
    def adapted(self) -> bool:
        """Whether there is an adapter of peft around the library's model."""
        return hasattr(self.model, "get_base_model")

    @property
    def core(self) -> PreTrainedModel:
        """The library's model itself, without peft's wrapper."""
        return self.model.get_base_model() if self.adapted else self.model  # pyright: ignore

    @property
    def base(self) -> nn.Module:
        """The part that is pretrained: the model without its head."""
        return getattr(self.core, self.base_name)

    @property
    def base_name(self) -> str:
        """What that part is called in the library's model."""
        prefix = self.core.base_model_prefix
        if prefix and hasattr(self.core, prefix):
            return prefix
        # Some classes name a part that only their larger kin have; the head is the smaller part in any case.
        sizes = {name: sum(value.numel() for value in part.parameters()) for name, part in self.core.named_children()}
        return max(sizes, key=lambda name: sizes[name])

    def example(self, shape: tuple[int, ...] | None = None) -> Inputs:
        """Return a batch of one empty example.

        Args:
            shape: of the example: (tokens,) or (C, H, W); None: a short text, or an image of the usual size.
        """
        device = next(self.parameters()).device
        if self.purpose.reads_images:
            size = shape or self.spec.input_shape or image_shape(self.core.config)
            return torch.zeros(1, *size, device=device)
        # Token 1 and not 0: where 0 stands for padding a position would be left out.
        ids = torch.ones(1, *(shape or (EXAMPLE_TOKENS,)), dtype=torch.int64, device=device)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def largest_example(self, shape: tuple[int, ...]) -> Inputs:
        return self.example(shape) if self.reads_text else self.example()

    def blocks(self) -> list[Block]:
        core, base = self.core, self.base
        parts: dict[Literal["backbone", "head"], list[tuple[str, nn.Module]]] = {
            "backbone": leaf_blocks(base),
            "head": [(name, part) for name, part in core.named_children() if part is not base and has_content(part)],
        }
        names = {id(module): name for name, module in self.named_modules()}
        order = self._order([module for found in parts.values() for _, module in found])
        blocks: list[Block] = []
        held: set[int] = set()
        for part, found in parts.items():
            for name, module in sorted(found, key=lambda entry: order[id(entry[1])]):
                block = Block(name, module, part, f"{names[id(module)]}.")
                own = block.parameters()
                shared = frozenset(key for key, value in own.items() if id(value) in held)
                blocks.append(replace(block, elsewhere=shared))
                held |= {id(value) for value in own.values()}
        if loose := [name for name, value in self.named_parameters() if id(value) not in held]:
            raise ArtifactError(
                "the blocks of this architecture cannot be identified",
                found=", ".join(loose[:5]),
                expected="every parameter in a block",
                fix=f"report it, with the name of the architecture: {type(core).__name__}",
            )
        return blocks

    def _order(self, modules: list[nn.Module]) -> dict[int, float]:
        """When a pass first reaches each module, or a part of it.

        One that is never called, only looked into (a table of positions), belongs to the embeddings: it comes behind
        the first that is.
        """
        known = {id(module): moment for module, moment in self._ordered}  # a copy of the network has modules of its own
        if known.keys() == {id(module) for module in modules}:
            return known
        if getattr(self.core, "in_order", False):
            return {id(module): float(place) for place, module in enumerate(modules)}
        reached: dict[int, float] = {}
        hooks = [
            part.register_forward_pre_hook(
                lambda _part, _inputs, module=module: reached.setdefault(id(module), len(reached) + 1.0) and None
            )
            for module in modules
            for part in module.modules()
        ]
        with evaluating(self), torch.no_grad():
            self(self.example())
        for hook in hooks:
            hook.remove()
        self._ordered = [(module, reached.get(id(module), 1.5)) for module in modules]
        return {id(module): moment for module, moment in self._ordered}


@contextmanager
def quiet() -> Generator[None]:
    """Without the library's own messages: what is new in a model is said by us."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)


def library_network(network: Network) -> Transformer | None:
    """Return a network of the Transformers library as one; None: it is not."""
    return network if isinstance(network, Transformer) else None


def build_transformer(spec: TransformerSpec, *, seed: int) -> Transformer:
    """Build the network of a spec, with random weights that depend on the seed alone.

    Raises:
        ArtifactError: the installed library does not know the architecture, or it does not fit into memory.
    """
    config = make_config(spec.config)
    require_memory(lambda: from_config(spec.purpose, config))
    network = Transformer(seeded_library(seed, lambda: from_config(spec.purpose, config)), spec)
    if spec.head is not None:
        put_head(network, spec.head, seed)
    return network


def from_config(purpose: Purpose, config: PretrainedConfig) -> nn.Module:
    """Return the library's model with the library's own starting weights.

    Raises:
        ArtifactError: the library cannot make it.
    """
    try:
        with quiet():
            found = purpose.model_class(config)
            auto = found is purpose.find_auto_class()
            return found.from_config(config, **implementation()) if auto else found(config)
    except Exception as error:
        raise cannot_make(config, purpose, error) from None


def cannot_make(config: PretrainedConfig, purpose: Purpose, error: Exception) -> ArtifactError:
    """Return what to say where the library does not make a model."""
    return ArtifactError(
        f"the Transformers library cannot make a model for {purpose.name} of this: {first_line(error)}",
        found=config.model_type,
        expected="an architecture with a model for this purpose, whose packages are installed",
        fix="take another backbone",
    )


def first_line(error: Exception) -> str:
    """Return what an error of another library says, in one line."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def describe_transformer(
    purpose: Purpose,
    config: dict[str, Any],
    *,
    head: list[Layer] | None,
    classes: list[str] | None,
    several: bool = False,
) -> TransformerSpec:
    """Return the spec of a network for a purpose.

    Args:
        config: the backbone's config.json.
        head: a head of one's own in place of the architecture's; None: the architecture's.
        classes: the names of the outputs; None: one number.
        several: an example has any number of the classes.
    """
    changed = dict(config)
    if not purpose.names_tokens:
        names = classes or ["value"]
        changed["id2label"] = {str(index): name for index, name in enumerate(names)}
        changed["label2id"] = {name: index for index, name in enumerate(names)}
        changed["num_labels"] = len(names)
        # What the library's own models take as their loss, when they are given labels.
        one = "regression" if classes is None else "single_label_classification"
        changed["problem_type"] = "multi_label_classification" if several else one
        outputs = len(names)
        head = None if head is None or head == [{"dense": "auto"}] else resolve_auto(head, outputs)
        if head is not None and head[-1] != {"dense": outputs}:
            raise RecipeError(
                "the head must end with as many outputs as there are classes",
                place="model.head",
                found=head[-1],
                expected=f"{{dense: {outputs}}}",
                fix="end the head with {dense: auto}",
            )
    return TransformerSpec(purpose=purpose, config=changed, head=head)


def make_config(values: dict[str, Any]) -> PretrainedConfig:
    """Return the library's configuration object.

    Raises:
        ArtifactError: the architecture is unknown, the values do not fit it, or they ask for code or for too much.
    """
    from transformers import CONFIG_MAPPING

    check_values(values, "config.json")
    kind = values.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        raise ArtifactError(
            "the installed Transformers library does not know this architecture",
            found=kind,
            expected="a model_type such as bert, roberta, vit or resnet",
            fix="take another backbone; code that comes with a model is never run here",
        )
    try:
        with quiet():
            # Where a configuration fits several classes, the names that it was saved with would choose among them.
            return CONFIG_MAPPING[kind].from_dict({**drop_choices(values), "architectures": []})
    except Exception as error:
        raise ArtifactError(
            f"the configuration does not fit {kind}: {first_line(error)}", fix="check its config.json"
        ) from None


def implementation() -> dict[str, Any]:
    """Return what is said at every loading: nothing foreign is run, attention is torch's own, weights are float32."""
    return {"trust_remote_code": False, "dtype": torch.float32}


def image_shape(config: Any) -> tuple[int, int, int]:
    """Channels, height and width of the images that a vision model was made for; 224 × 224 where it does not say."""
    size = getattr(config, "image_size", None) or 224
    height, width = (size, size) if isinstance(size, int) else tuple(size)
    return getattr(config, "num_channels", 3), height, width


def seeded_library(seed: int, make: Callable[[], nn.Module]) -> nn.Module:
    """Build with the library's own starting weights, which depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def put_head(network: Transformer, layers: list[Layer], seed: int) -> str:
    """Replace the last linear layer of the architecture's head, which makes the outputs, by layers of one's own.

    Returns:
        The place in the library's model that they have taken.
    """
    model, inside = network.core, f"{network.base_name}."
    linear = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    outside = [(name, module) for name, module in linear if not name.startswith(inside)]
    if not outside or outside[-1][1].out_features != model.config.num_labels:
        raise RecipeError(
            "the layer of this architecture that makes the outputs could not be found",
            place="model.head",
            found=type(model).__name__,
            fix="leave model.head out: the architecture has a head of its own",
        )
    name, last = outside[-1]
    parent = model.get_submodule(name.rpartition(".")[0])
    shape: Shape = (last.in_features,)
    made: list[nn.Module] = []
    for index, layer in enumerate(layers):
        where = f"model.head, layer {index + 1}"
        try:
            made.append(seeded(mix(seed, "head", index), lambda: build_layer(layer, shape, where)[0]))  # noqa: B023
        except LayerMismatch as error:
            raise RecipeError(str(error), place=where, expected=error.expected, fix=error.fix) from None
        with torch.device("meta"):
            _, shape = build_layer(layer, shape, where)
    setattr(parent, name.rpartition(".")[2], nn.Sequential(*made))
    return name
