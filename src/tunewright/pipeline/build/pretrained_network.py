"""Decide what a stage's pretrained network is, build it, and decide what of it is trained."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from tunewright.console import Console
from tunewright.errors import RecipeError
from tunewright.models.backbone import Backbone, weights_folder
from tunewright.models.core.meta_weights import reads_pretrained
from tunewright.models.core.network import Network
from tunewright.models.hub.hf_files import OWN_WEIGHTS, LoadedNetwork, build, require_transformer
from tunewright.models.hub.hf_network import Transformer, TransformerSpec, describe_transformer
from tunewright.models.hub.purposes import Purpose
from tunewright.models.language.masked_positions import selection_is_exact
from tunewright.pipeline.build.few_shot_default import few_shot_tune
from tunewright.pipeline.build.tuning_default import chosen_tune
from tunewright.random import mix
from tunewright.recipe.schema import Recipe, Tune
from tunewright.tasks.base.task import Preprocessor, StartingModel, Task


@dataclass(frozen=True)
class Decision:
    """What is built: the network, and where its weights come from."""

    spec: TransformerSpec
    weights: Path | Transformer | None
    """A folder, the network of an earlier stage, or None: random ones."""
    is_pretrained: bool
    """Whether there are pretrained weights, be they read here or not."""


def pretrained_network(
    recipe: Recipe,
    preprocessor: Preprocessor,
    origin: StartingModel | None,
    backbone: Backbone | None,
    few: float | None,
    console: Console,
) -> tuple[Transformer, Tune]:
    """Return the network, and what of it is trained.

    Args:
        few: examples per class, where they are so few that a new head is solved for and not trained.

    Raises:
        RecipeError: the task has no use for such a backbone.
        ArtifactError: the weights cannot be read, or the model to start from is of another kind.
    """
    decision = decide(recipe, preprocessor, origin, backbone)
    as_saved = recipe.tune.quantize is not None  # what is to be rounded need not take twice its memory first
    loaded = build(decision.spec, decision.weights, seed=mix(recipe.seed, "weights"), as_saved=as_saved)
    _report_new_layers(loaded, console)
    network = loaded.network
    if not decision.is_pretrained:
        tune = recipe.tune
    elif origin is None:
        # The head of a language model is pretrained too, or learns from so many tokens that nothing need wait for it.
        tune = recipe.tune if network.purpose.names_tokens else chosen_tune(recipe, few, console)
    else:
        tune = _tune_of_stage(recipe, origin.network, loaded, few, console)
        if recipe.tune.adapter is not None:
            network = Transformer(network.model, replace(network.spec, **_adapter_base(origin.folder)))
    _compute_head_where_needed(network, console)
    if network.purpose.reads_images:
        _fit_images(network, preprocessor.inputs.input_shape)
    return network, tune


def decide(
    recipe: Recipe, preprocessor: Preprocessor, origin: StartingModel | None, backbone: Backbone | None
) -> Decision:
    """Decide what network a stage has and where its weights come from; nothing is built or read.

    Raises:
        RecipeError: the task has no use for such a backbone, or for a head of one's own.
        ArtifactError: the model to start from is of another kind.
    """
    purpose = _purpose_of(recipe, preprocessor.task)
    target = preprocessor.target
    classes, several = (target.classes, target.several) if target else (None, False)
    if origin is not None:
        network = require_transformer(origin.network, origin.folder)
        same = recipe.model.head is None and same_target(origin.preprocessor, preprocessor)
        head = network.spec.head if same else recipe.model.head
        spec = describe_transformer(purpose, network.spec.config, head=head, classes=classes, several=several)
        return Decision(spec, network, is_pretrained=True)
    assert backbone is not None
    config = preprocessor.inputs.backbone_config(recipe, backbone)
    spec = describe_transformer(purpose, config, head=recipe.model.head, classes=classes, several=several)
    if recipe.model.weights == "random" or not backbone.pretrained:
        return Decision(spec, None, is_pretrained=False)
    spec = replace(spec, base=backbone.name, base_fingerprint=backbone.fingerprint)
    return Decision(spec, weights_folder(backbone) if reads_pretrained() else None, is_pretrained=True)


def same_target(known: Preprocessor, new: Preprocessor) -> bool:
    """Whether a head that was trained for one target serves the other."""
    if known.task.purpose != new.task.purpose:
        return False
    if known.target is None or new.target is None:
        purpose = new.task.purpose
        return known.target is new.target and purpose is not None and purpose.names_tokens
    return known.target.classes == new.target.classes and known.target.several == new.target.several


def _purpose_of(recipe: Recipe, task: Task) -> Purpose:
    if task.purpose is None:
        raise RecipeError(
            f"{task.name} has no use for a pretrained backbone of the Transformers library",
            place="model.backbone",
            found=recipe.model.backbone,
            fix="model.backbone: mlp",
        )
    if task.purpose.names_tokens and recipe.model.head is not None:
        raise RecipeError(
            "a language model has the head of its architecture",
            place="model.head",
            found=recipe.model.head,
            fix="leave model.head out here, or write it in the stage that it is for",
        )
    return task.purpose


def _tune_of_stage(recipe: Recipe, origin: Network, loaded: LoadedNetwork, few: float | None, console: Console) -> Tune:
    """Return what is trained of a network that goes on with an earlier stage's weights."""
    if not loaded.new:
        return recipe.tune
    new = _new_blocks(loaded.network, origin)
    # What has passed through a part of random weights is no feature.
    if few is not None and not new:
        return few_shot_tune(few, console)
    if not new or recipe.tune.freeze != "backbone":
        return recipe.tune
    # `freeze: backbone` keeps what was learned: a part of random weights, frozen, would only spoil what it gets.
    console.info(f"{', '.join(new)} is new, so it learns with the head")
    kept = [block.name for block in loaded.network.blocks() if block.part == "backbone" and block.name not in new]
    return recipe.tune.model_copy(update={"freeze": kept})


def _new_blocks(network: Network, origin: Network) -> list[str]:
    """Return the backbone blocks that the network before did not have, such as BERT's pooler, which a masked language model lacks."""
    known = {block.name for block in origin.blocks() if block.part == "backbone"}
    backbone = [block for block in network.blocks() if block.part == "backbone"]
    return [block.name for block in backbone if block.name not in known and block.parameters()]


def _adapter_base(folder: Path | None) -> dict[str, str]:
    """Return where an adapter finds the weights that it is put on: the folder of the model that the stage starts from."""
    if folder is None:
        return {"base": "the model of the stage before", "base_fingerprint": ""}
    if (folder / OWN_WEIGHTS).exists() or (folder / "adapter_config.json").exists():
        raise RecipeError(
            "an adapter belongs to a whole model in the library's own format, and the model to start from is none",
            place="tune.adapter",
            found=folder,
            fix="leave tune.adapter out here, or leave model.head and tune.adapter out in the stage before",
        )
    base = Backbone(name=str(folder.resolve()), folder=folder, config={})
    return {"base": base.name, "base_fingerprint": base.fingerprint}


def _report_new_layers(loaded: LoadedNetwork, console: Console) -> None:
    """Say what of the network is not pretrained."""
    if loaded.new:
        parts = dict.fromkeys(name.rpartition(".")[0] for name in loaded.new)
        console.info(f"new, with random weights: {', '.join(parts)}")
    if loaded.unused:
        shown = ", ".join(loaded.unused[:3])
        console.warning(
            f"{len(loaded.unused)} of the pretrained tensors have no place in this architecture: {shown}, …"
        )


def _fit_images(network: Transformer, shape: tuple[int, ...]) -> None:
    """Note the size of the images, which need not be that of the configuration.

    Raises:
        RecipeError: the network cannot read images of that size.
    """
    try:
        network.trained_on(shape)
    except (ValueError, RuntimeError) as error:
        raise RecipeError(
            f"the backbone does not read pictures of this size: {str(error).strip().splitlines()[0]}",
            place="data.resize",
            found="×".join(map(str, shape)),
            expected="the size that it was made for",
            fix="leave data.resize out",
        ) from None


def _compute_head_where_needed(network: Transformer, console: Console) -> None:
    """Let a masked language model compute its head for the masked tokens alone, where that gives the same."""
    purpose = network.purpose
    if purpose.names_tokens and not purpose.generates and not selection_is_exact(network):
        network.selects = False
        name = type(network.core).__name__
        console.warning(
            f"{name} looks at several tokens in its head: it is computed for all tokens, not the masked ones alone"
        )
