"""A stage's network from a pretrained backbone, or from what a stage before made of one; and what moves by default."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunewright.console import Console
from tunewright.errors import ArtifactError, RecipeError
from tunewright.models.backbone import Backbone, weights_folder
from tunewright.models.core.meta_weights import weights_are_read
from tunewright.models.hub.hf_files import OWN_WEIGHTS, Started, continue_from, load_backbone, merged
from tunewright.models.hub.hf_network import NAMES_TOKENS, Transformer, build_transformer, describe_transformer
from tunewright.models.language.masked_positions import selection_is_exact
from tunewright.pipeline.build.few_shot_default import few_shot_tune
from tunewright.pipeline.build.tuning_default import chosen_tune
from tunewright.pipeline.stage import StartingModel
from tunewright.random import mix
from tunewright.recipe.schema import Recipe, Tune
from tunewright.tasks.base.task import InputEncoder, Preprocessor
from tunewright.tasks.text.encoder import TextEncoder, TokenEncoder, tokenizer_to_train


def pretrained_network(
    recipe: Recipe,
    preprocessor: Preprocessor,
    origin: StartingModel | None,
    backbone: Backbone | None,
    few: float | None,
    screen: Console,
) -> tuple[Transformer, Tune]:
    """The network, and what of it moves.

    Args:
        few: examples a class, where they are so few that a new head is solved for and not trained.

    Raises:
        RecipeError: the task has no use for such a backbone.
        ArtifactError: the weights cannot be read, or the model to start from is of another kind.
    """
    purpose = preprocessor.task.purpose
    if purpose in NAMES_TOKENS and recipe.model.head is not None:
        raise RecipeError(
            "a language model has the head of its architecture",
            place="model.head",
            found=recipe.model.head,
            fix="leave model.head out here, or write it in the stage that it is for",
        )
    if purpose is None:
        raise RecipeError(
            f"{preprocessor.task.name} has no use for a pretrained backbone of the Transformers library",
            place="model.backbone",
            found=recipe.model.backbone,
            fix="model.backbone: mlp",
        )
    classes = preprocessor.target.classes if preprocessor.target else None
    seed = mix(recipe.seed, "weights")
    if origin is not None:
        network, tune = _go_on(recipe, preprocessor, origin, classes, few, seed, screen)
        return _reading(network, preprocessor), tune
    assert backbone is not None
    config = _with_pieces(recipe, backbone, preprocessor.inputs)
    described = describe_transformer(
        purpose, config, head=recipe.model.head, classes=classes, several=has_several(preprocessor)
    )
    if recipe.model.weights == "random" or not backbone.pretrained:
        network = _checked(build_transformer(described, seed=seed), screen)
        return _reading(network, preprocessor), recipe.tune
    described = {**described, "base": backbone.name, "base_fingerprint": backbone.fingerprint}
    if weights_are_read():
        # What is to be rounded need not take twice its memory first.
        as_saved = recipe.tune.quantize is not None
        network = _report_new_layers(
            load_backbone(weights_folder(backbone), described, seed=seed, as_saved=as_saved), screen
        )
    else:
        network = build_transformer(described, seed=seed)
    network = _checked(network, screen)
    # The head of a language model is pretrained too, or learns from so many tokens that nothing need wait for it.
    tune = recipe.tune if purpose in NAMES_TOKENS else chosen_tune(recipe, few, screen)
    return _reading(network, preprocessor), tune


def _reading(network: Transformer, preprocessor: Preprocessor) -> Transformer:
    """The network, with the size of its pictures noted, which need not be that of its configuration.

    Raises:
        RecipeError: it cannot read pictures of that size.
    """
    if network.spec["purpose"] != "image-classification":
        return network
    shape = list(preprocessor.inputs.input_shape)
    network.spec = {**network.spec, "input_shape": shape}
    try:
        network.blocks()
    except (ValueError, RuntimeError) as error:
        raise RecipeError(
            f"the backbone does not read pictures of this size: {str(error).strip().splitlines()[0]}",
            place="data.resize",
            found="×".join(map(str, shape)),
            expected="the size that it was made for",
            fix="leave data.resize out",
        ) from None
    return network


def same_target(known: Preprocessor, new: Preprocessor) -> bool:
    """Whether a head that was trained for one target serves the other."""
    if known.target is None or new.target is None:
        return (
            known.target is new.target and known.task.purpose == new.task.purpose and new.task.purpose in NAMES_TOKENS
        )
    same = known.target.classes == new.target.classes and known.target.several == new.target.several
    return same and known.task.purpose == new.task.purpose


def has_several(preprocessor: Preprocessor) -> bool:
    """Whether an example has any number of labels."""
    return preprocessor.target is not None and preprocessor.target.several


def _go_on(
    recipe: Recipe,
    preprocessor: Preprocessor,
    origin: StartingModel,
    classes: list[str] | None,
    few: float | None,
    seed: int,
    screen: Console,
) -> tuple[Transformer, Tune]:
    if not isinstance(origin.network, Transformer):
        raise ArtifactError(
            "the model to start from is no model of the Transformers library",
            file=origin.folder,
            fix="leave model.backbone out, or start from another model",
        )
    wanted: dict[str, Any] = describe_transformer(
        preprocessor.task.purpose or "text-classification",
        origin.network.spec["config"],
        head=recipe.model.head,
        classes=classes,
        several=has_several(preprocessor),
    )
    same_head = recipe.model.head is None or wanted["head"] == origin.network.spec["head"]
    if same_target(origin.preprocessor, preprocessor) and same_head:
        network, tune = merged(origin.network), recipe.tune
    else:
        network = _report_new_layers(continue_from(origin.network, wanted, seed=seed), screen)
        new = _new_parts(network, origin.network)
        # What has passed through a part of random weights is no feature.
        if few is not None and not new:
            tune = few_shot_tune(few, screen)
        else:
            tune = _without(new, recipe.tune, network, screen)
    if recipe.tune.adapter is not None:
        network = Transformer(network.model, {**network.spec, **_kept_at(origin.folder)})
    return _checked(network, screen), tune


def _kept_at(folder: Path | None) -> dict[str, str]:
    """Where an adapter finds the weights that it is put on: the folder of the model that the stage starts from."""
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


def _report_new_layers(started: Started, screen: Console) -> Transformer:
    """The network, after saying what of it is not pretrained."""
    if started.new:
        parts = dict.fromkeys(name.rpartition(".")[0] for name in started.new)
        screen.info(f"new, with random weights: {', '.join(parts)}")
    if started.unused:
        shown = ", ".join(started.unused[:3])
        screen.warning(
            f"{len(started.unused)} of the pretrained tensors have no place in this architecture: {shown}, …"
        )
    return started.network


def _new_parts(network: Transformer, origin: Transformer) -> list[str]:
    """Backbone blocks that the network before did not have, such as BERT's pooler, which a masked language model lacks."""
    known = {block.name for block in origin.blocks() if block.part == "backbone"}
    backbone = [block for block in network.blocks() if block.part == "backbone"]
    return [block.name for block in backbone if block.name not in known and block.parameters()]


def _without(new: list[str], tune: Tune, network: Transformer, screen: Console) -> Tune:
    """`freeze: backbone` keeps what was learned: a part of random weights, frozen, would only spoil what it gets."""
    if not new or tune.freeze != "backbone":
        return tune
    screen.info(f"{', '.join(new)} is new, so it learns with the head")
    kept = [block.name for block in network.blocks() if block.part == "backbone" and block.name not in new]
    return tune.model_copy(update={"freeze": kept})


def _with_pieces(recipe: Recipe, backbone: Backbone, inputs: InputEncoder) -> dict[str, Any]:
    """The backbone's configuration; where a tokenizer was trained here, with the size of its vocabulary."""
    if not isinstance(inputs, TokenEncoder) or tokenizer_to_train(recipe, backbone) is None:
        return backbone.config
    roles = ("pad", "cls", "sep") if isinstance(inputs, TextEncoder) else ("pad", "bos", "eos")
    ids = {f"{role}_token_id": getattr(inputs.tokenizer, f"{role}_token_id") for role in roles}
    return {**backbone.config, "vocab_size": len(inputs.tokenizer), **ids}


def _checked(network: Transformer, screen: Console) -> Transformer:
    """A masked language model that computes its head for hidden tokens alone, where that gives the same."""
    if network.spec["purpose"] == "masked-lm" and not selection_is_exact(network):
        network.selects = False
        name = type(network.core).__name__
        screen.warning(
            f"{name} looks at several tokens in its head: it is computed for all tokens, not the hidden ones alone"
        )
    return network
