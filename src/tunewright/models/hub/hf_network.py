"""Architectures of the Transformers library as networks here: their blocks and their head.

The blocks are found, not listed by hand: the members of the stack (BERT's layers, the layers of ResNet's stages) are one
block each, whatever stands beside the stack is one block each too, and their order is that in which a pass reaches them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from tunewright.errors import ArtifactError, RecipeError
from tunewright.models.core.layers import LayerMismatch, Shape, build_layer, resolve_auto, seeded
from tunewright.models.core.meta_weights import is_meta
from tunewright.models.core.network import Block, Inputs, Network, evaluating
from tunewright.models.hub.untrusted_files import check_values, drop_choices, require_memory
from tunewright.models.language.masked_positions import WANTED, selected
from tunewright.random import mix
from tunewright.recipe.schema import Layer

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

Purpose = Literal["text-classification", "image-classification", "masked-lm", "causal-lm"]
# Those that name tokens: their head belongs to the architecture.
NAMES_TOKENS = ("masked-lm", "causal-lm")
EXAMPLE_TOKENS = 16


class Transformer(Network):
    """A model of the Transformers library, with or without an adapter of peft around it.

    Args:
        model: the library's model with its head, or peft's around it.
        described: {"purpose", "config", "head"}: what `build_transformer` makes the same network from.
    """

    def __init__(self, model: nn.Module, described: dict[str, Any]) -> None:
        super().__init__()
        self.model = model
        self.spec = described
        self.reduced = False
        """Compute in bfloat16 where that is safe (autocast); the weights stay float32."""
        self.selects = True
        """Of a masked language model: compute the head for the wanted positions alone."""
        self._ordered: list[tuple[nn.Module, float]] = []
        """What `_order` found for these modules: a pass of a large network takes seconds."""

    def forward(self, inputs: Inputs) -> Tensor:
        """Token ids and mask [B, T], or pixels [B, C, H, W], to logits [B, K], float32.

        Of a masked language model [B, T, V], or [M, V] where the inputs name the M positions that are WANTED.
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
            return self.model(**named).logits.float()

    def hidden(self, inputs: dict[str, Tensor]) -> Tensor:
        """What the head gets, of the same inputs: [B, T, D]."""
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

    def end_at(self, tokens: Collection[int]) -> None:
        """Note in the model's own settings at which tokens what it writes is over."""
        ends = sorted(tokens)
        value = ends if len(ends) > 1 else ends[0]
        self.core.config.eos_token_id = value
        if (settings := getattr(self.core, "generation_config", None)) is not None:
            settings.eos_token_id = value
        self.spec = {**self.spec, "config": {**self.spec["config"], "eos_token_id": value}}

    def rate_of(self, name: str) -> float:
        rule = getattr(self.core, "rate_of", None)
        return 1.0 if rule is None else rule(name)

    def _as_read(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Several documents in a row, as the library's models want them told: a mask and positions."""
        if "document" not in inputs:
            return inputs
        from tunewright.models.language.gpt import GPT, within_documents  # lazily, as all that imports the library

        if isinstance(self.core, GPT):
            return inputs
        mask = within_documents(inputs["document"])
        return {"input_ids": inputs["input_ids"], "attention_mask": mask, "position_ids": inputs["position"]}

    def autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        """In which what the network computes is computed in bfloat16 where that is wanted."""
        return torch.autocast(device.type, dtype=torch.bfloat16) if self.reduced else nullcontext()

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
        """A batch of one empty example.

        Args:
            shape: of the example: (tokens,) or (C, H, W); None: a short text, or an image of the usual size.
        """
        device = next(self.parameters()).device
        if self.spec["purpose"] == "image-classification":
            size = shape or self.spec.get("input_shape") or image_shape(self.core.config)
            return torch.zeros(1, *size, device=device)
        # Token 1 and not 0: where 0 stands for padding a position would be left out.
        ids = torch.ones(1, *(shape or (EXAMPLE_TOKENS,)), dtype=torch.int64, device=device)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def blocks(self) -> list[Block]:
        core, base = self.core, self.base
        parts: dict[Literal["backbone", "head"], list[tuple[str, nn.Module]]] = {
            "backbone": _leaves(base),
            "head": [(name, part) for name, part in core.named_children() if part is not base and _has_content(part)],
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
                "the blocks of this architecture could not be told apart",
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


def build_transformer(described: dict[str, Any], *, seed: int) -> Transformer:
    """The network of a description, with random weights that depend on the seed alone.

    Raises:
        ArtifactError: the installed library does not know the architecture, or it does not fit into memory.
    """
    config = make_config(described["config"])
    purpose = described["purpose"]
    require_memory(lambda: from_config(purpose, config))
    network = Transformer(seeded_library(seed, lambda: from_config(purpose, config)), described)
    if described["head"] is not None:
        put_head(network, described["head"], seed)
    return network


def from_config(purpose: Purpose, config: PretrainedConfig) -> nn.Module:
    """The library's model with the library's own starting weights.

    Raises:
        ArtifactError: the library cannot make it.
    """
    try:
        with quiet():
            found = model_class(purpose, config)
            return found.from_config(config, **implementation()) if found is auto_class(purpose) else found(config)
    except Exception as error:
        raise cannot_make(config, purpose, error) from None


def cannot_make(config: PretrainedConfig, purpose: str, error: Exception) -> ArtifactError:
    """What to say where the library does not make a model."""
    return ArtifactError(
        f"the Transformers library cannot make a model for {purpose} of this: {first_line(error)}",
        found=config.model_type,
        expected="an architecture with a model for this purpose, whose packages are installed",
        fix="take another backbone",
    )


def first_line(error: Exception) -> str:
    """What an error of another library says, in one line."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def describe_transformer(
    purpose: Purpose,
    config: dict[str, Any],
    *,
    head: list[Layer] | None,
    classes: list[str] | None,
    several: bool = False,
) -> dict[str, Any]:
    """The description of a network for a purpose.

    Args:
        config: the backbone's config.json.
        head: a head of one's own in place of the architecture's; None: the architecture's.
        classes: the names of the outputs; None: one number.
        several: an example has any number of the classes.
    """
    changed = dict(config)
    if purpose not in NAMES_TOKENS:
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
    return {"purpose": purpose, "config": changed, "head": head}


def make_config(values: dict[str, Any]) -> PretrainedConfig:
    """The library's configuration object.

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


def auto_class(purpose: str) -> Any:
    """The library's class that picks the architecture's class for a purpose."""
    import transformers

    return {
        "text-classification": transformers.AutoModelForSequenceClassification,
        "image-classification": transformers.AutoModelForImageClassification,
        "masked-lm": transformers.AutoModelForMaskedLM,
        "causal-lm": transformers.AutoModelForCausalLM,
    }[purpose]


def model_class(purpose: str, config: PretrainedConfig) -> Any:
    """What opens a folder of this configuration: our own class where it is a plain Llama, else the library's."""
    if purpose != "causal-lm":
        return auto_class(purpose)
    from tunewright.models.language.gpt import GPT, is_plain

    return GPT if is_plain(config) else auto_class(purpose)


def implementation() -> dict[str, Any]:
    """What is said at every loading: nothing foreign is run, attention is torch's own, weights are float32."""
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


def _has_content(module: nn.Module) -> bool:
    """Whether a module is worth a block: it has parameters or randomness."""
    return any(True for _ in module.parameters()) or any(isinstance(m, nn.Dropout) for m in module.modules())


def _leaves(module: nn.Module, path: str = "") -> list[tuple[str, nn.Module]]:
    """The blocks below a module: the members of stacks one by one, anything else whole."""
    found: list[tuple[str, nn.Module]] = []
    for name, child in module.named_children():
        where = f"{path}{name}"
        if not _has_content(child):
            continue
        if _is_stack(child, module) or _holds_stack(child):
            found += _leaves(child, f"{where}.")
        else:
            found.append((where, child))
    return found


def _is_stack(module: nn.Module, parent: nn.Module) -> bool:
    """Layers of one kind, one after the other: a list, or within a stage such as ResNet's a sequence."""
    if not isinstance(module, nn.ModuleList) and not (isinstance(module, nn.Sequential) and _is_stage(parent)):
        return False
    return len({type(member) for member in module}) == 1 or not _is_stage(parent)


def _is_stage(module: nn.Module) -> bool:
    return type(module).__name__.endswith("Stage")


def _holds_stack(module: nn.Module) -> bool:
    """A container such as BertEncoder, or a stage such as ResNetStage; not a layer that holds small lists of its own."""
    if any(True for _ in module.parameters(recurse=False)):
        return False
    if not _is_stage(module) and not type(module).__name__.endswith(("Encoder", "Transformer", "Model")):
        return False
    return any(_is_stack(child, module) for child in module.children())
