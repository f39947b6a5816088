"""Architectures of the Transformers library as networks here: their blocks, their head, their folder.

The blocks are found, not listed by hand: the members of the stack (BERT's layers, ResNet's stages' layers) are one block
each, whatever stands beside the stack is one block each too, and their order is that in which a pass reaches them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tunewright.errors import ArtifactError, RecipeError
from tunewright.models.layers import LayerMismatch, Shape, build_layer, resolve_auto, seeded
from tunewright.models.network import AnyNetwork, Block, Inputs, evaluating
from tunewright.random import mix
from tunewright.recipe.schema import Layer

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

Purpose = Literal["text-classification", "image-classification", "masked-lm"]
EXAMPLE_TOKENS = 16


class Transformer(AnyNetwork):
    """A model of the Transformers library, with or without an adapter of peft around it.

    Args:
        model: the library's model with its head, or peft's around it.
        described: {"purpose", "config", "head"}: what `build_transformer` makes the same network from.
    """

    def __init__(self, model: nn.Module, described: dict[str, Any]) -> None:
        super().__init__()
        self.model = model
        self.described = described
        self.reduced = False
        """Compute in bfloat16 where that is safe (autocast); the weights stay float32."""

    def forward(self, inputs: Inputs) -> Tensor:
        """Token ids and mask [B, T], or pixels [B, C, H, W], to logits [B, K] ([B, T, V] for masked-lm), float32."""
        named = {"pixel_values": inputs} if isinstance(inputs, Tensor) else inputs
        device = next(iter(named.values())).device.type
        with torch.autocast(device, dtype=torch.bfloat16, enabled=self.reduced):
            logits = self.model(**named).logits
        return logits.float()

    @property
    def core(self) -> PreTrainedModel:
        """The library's model itself, without peft's wrapper."""
        return self.model.get_base_model() if hasattr(self.model, "peft_config") else self.model  # pyright: ignore

    @property
    def base(self) -> nn.Module:
        """The part that is pretrained: the model without its head."""
        return getattr(self.core, self.core.base_model_prefix)

    def example(self) -> Inputs:
        device = next(self.parameters()).device
        if self.described["purpose"] == "image-classification":
            channels, height, width = image_shape(self.core.config)
            return torch.zeros(1, channels, height, width, device=device)
        # Token 1 and not 0: where 0 stands for padding a position would be left out.
        ids = torch.ones(1, EXAMPLE_TOKENS, dtype=torch.int64, device=device)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def blocks(self) -> list[Block]:
        core, base = self.core, self.base
        head = [(name, module) for name, module in core.named_children() if module is not base and _has_content(module)]
        found = [("backbone", name, module) for name, module in _leaves(base)]
        found += [("head", name, module) for name, module in head]
        names = {id(module): name for name, module in self.named_modules()}
        order = self._order([module for _, _, module in found])
        blocks = [
            Block(name, module, part, f"{names[id(module)]}.")  # pyright: ignore[reportArgumentType]
            for part, name, module in sorted(found, key=lambda entry: (entry[0], order[id(entry[2])]))
        ]
        held = {name for block in blocks for name in block.parameters()}
        if loose := [name for name, _ in self.named_parameters() if name not in held]:
            raise ArtifactError(
                "the blocks of this architecture could not be told apart",
                found=", ".join(loose[:5]),
                expected="every parameter in a block",
                fix=f"report it, with the name of the architecture: {type(core).__name__}",
            )
        return blocks

    def _order(self, modules: list[nn.Module]) -> dict[int, int]:
        """When a pass first reaches each module; one that is only looked into (never called) counts as first."""
        reached: dict[int, int] = {}
        hooks = [
            module.register_forward_pre_hook(lambda m, _: reached.setdefault(id(m), len(reached) + 1) and None)
            for module in modules
        ]
        with evaluating(self), torch.no_grad():
            self(self.example())
        for hook in hooks:
            hook.remove()
        return {id(module): reached.get(id(module), 0) for module in modules}


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
        ArtifactError: the installed library does not know the architecture.
    """
    config = make_config(described["config"])

    def make() -> nn.Module:
        with quiet():
            return auto_class(described["purpose"]).from_config(config, **implementation())

    model = seeded_library(seed, make)
    if described["head"] is not None:
        _put_head(model, described["head"], seed)
    return Transformer(model, described)


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
    if purpose != "masked-lm":
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
        ArtifactError: the architecture is unknown, or the values do not fit it.
    """
    from transformers import CONFIG_MAPPING

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
            return CONFIG_MAPPING[kind].from_dict({key: value for key, value in values.items() if key != "dtype"})
    except Exception as error:
        raise ArtifactError(f"the configuration does not fit {kind}: {error}", fix="check its config.json") from error


def auto_class(purpose: str) -> Any:
    """The library's class that picks the architecture's class for a purpose."""
    import transformers

    return {
        "text-classification": transformers.AutoModelForSequenceClassification,
        "image-classification": transformers.AutoModelForImageClassification,
        "masked-lm": transformers.AutoModelForMaskedLM,
    }[purpose]


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


def _put_head(model: nn.Module, layers: list[Layer], seed: int) -> None:
    """Replace the architecture's last linear layer by layers of one's own."""
    name, last = next(reversed([(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear)]))
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


def _has_content(module: nn.Module) -> bool:
    """Whether a module is worth a block: it has parameters, buffers or randomness."""
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
    """Layers one after the other: a list, or within a stage such as ResNet's a sequence."""
    return isinstance(module, nn.ModuleList) or (isinstance(module, nn.Sequential) and _is_stage(parent))


def _is_stage(module: nn.Module) -> bool:
    return type(module).__name__.endswith("Stage")


def _holds_stack(module: nn.Module) -> bool:
    """A container such as BertEncoder, or a stage such as ResNetStage; not a layer that holds small lists of its own."""
    if any(True for _ in module.parameters(recurse=False)):
        return False
    if not _is_stage(module) and not type(module).__name__.endswith(("Encoder", "Transformer", "Model")):
        return False
    return any(_is_stack(child, module) for child in module.children())


def load_backbone(folder: Path, described: dict[str, Any], *, seed: int) -> Transformer:
    """The network of a description with the weights of a folder; what the folder lacks is random by the seed.

    Raises:
        ArtifactError: the weights do not fit the architecture.
    """
    config = make_config(described["config"])

    def make() -> nn.Module:
        with quiet():
            return auto_class(described["purpose"]).from_pretrained(
                folder,
                config=config,
                local_files_only=True,
                use_safetensors=True,
                ignore_mismatched_sizes=True,
                **implementation(),
            )

    try:
        model = seeded_library(seed, make)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ArtifactError(
            f"the weights cannot be read: {str(error).strip().splitlines()[0]}",
            file=folder,
            expected=f"the weights of a {described['config'].get('model_type')}",
            fix="restore the folder from a copy, or take another backbone",
        ) from None
    if described["head"] is not None:
        _put_head(model, described["head"], seed)
    return Transformer(model, described)


def continue_from(origin: Transformer, described: dict[str, Any], *, seed: int) -> Transformer:
    """A network for another purpose or other classes on the weights that `origin` has learned; the head is new."""
    network = build_transformer(described, seed=seed)
    if hasattr(origin.model, "peft_config"):
        origin = Transformer(origin.model.merge_and_unload(), origin.described)  # pyright: ignore[reportCallIssue]
    learned = origin.base.state_dict()
    wanted = network.base.state_dict()
    fitting = {name: value for name, value in learned.items() if name in wanted and wanted[name].shape == value.shape}
    network.base.load_state_dict(fitting, strict=False)
    return network


def write_transformer(folder: Path, network: Transformer) -> None:
    """Save in the library's own format, or as a peft adapter, so that both open it without us.

    A head of one's own is no part of the library's architecture: then the folder has our names, and only we open it.
    """
    if network.described["head"] is not None and not hasattr(network.model, "peft_config"):
        tensors = {name: value.detach().cpu().contiguous() for name, value in network.core.state_dict().items()}
        save_file(tensors, folder / "own.safetensors", metadata={"format": "pt"})
        return
    with quiet():
        network.model.save_pretrained(folder)  # pyright: ignore[reportCallIssue]
    (folder / "README.md").unlink(missing_ok=True)  # the card is written by the evaluation


def read_transformer(folder: Path, described: dict[str, Any], base: Path | None) -> Transformer:
    """What `write_transformer` wrote. `base`: the folder of the weights that an adapter belongs to."""
    if "adapter" in described and base is not None:
        from peft import PeftModel

        plain = {key: value for key, value in described.items() if key != "adapter"}
        core = load_backbone(base, plain, seed=0).core
        with quiet():
            return Transformer(PeftModel.from_pretrained(core, folder), described)
    if described["head"] is not None:
        network = build_transformer(described, seed=0)
        network.core.load_state_dict(load_file(folder / "own.safetensors"))
        return network
    return load_backbone(folder, described, seed=0)
