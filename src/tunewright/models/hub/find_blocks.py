"""Find the blocks of an architecture of the Transformers library: the layers of its stacks, and the modules around them."""

from __future__ import annotations

from torch import nn


def has_content(module: nn.Module) -> bool:
    """Return whether a module is worth a block: it has parameters or randomness."""
    return any(True for _ in module.parameters()) or any(isinstance(m, nn.Dropout) for m in module.modules())


def leaf_blocks(module: nn.Module, path: str = "") -> list[tuple[str, nn.Module]]:
    """Return the blocks below a module by name: the members of stacks one by one, anything else whole."""
    found: list[tuple[str, nn.Module]] = []
    for name, child in module.named_children():
        where = f"{path}{name}"
        if not has_content(child):
            continue
        if _is_stack(child, module) or _holds_stack(child):
            found += leaf_blocks(child, f"{where}.")
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
    """Return a container such as BertEncoder, or a stage such as ResNetStage; not a layer that holds small lists of its own."""
    if any(True for _ in module.parameters(recurse=False)):
        return False
    if not _is_stage(module) and not type(module).__name__.endswith(("Encoder", "Transformer", "Model")):
        return False
    return any(_is_stack(child, module) for child in module.children())
