"""A sharded network that is whole in no process: each reads or draws its own shards, and writes them in the end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import Tensor

from tunewright.console import Console, silent
from tunewright.models.backbone import weights_folder
from tunewright.models.core.meta_weights import is_meta
from tunewright.models.core.network import Network
from tunewright.models.hub.sharded_loading import draw, file_name, is_in_files, is_piecewise
from tunewright.pipeline.build.parts import StageParts, build_parts
from tunewright.pipeline.stage import StageJob
from tunewright.pipeline.strategies.auto_strategy import settle
from tunewright.random import mix
from tunewright.tasks.registry import get_task
from tunewright.training.distributed.dtensors import local_shard
from tunewright.training.distributed.process_group import ProcessGroup


def never_materialised_parts(job: StageJob, console: Console) -> StageParts | None:
    """Build the parts of a stage whose processes each get their own shards: of a new gpt, or one whose files hold all weights.

    Returns:
        None where some process needs the whole network.

    Raises:
        RecipeError: several processes cannot train this stage, or not with this strategy.
    """
    purpose = get_task(job.recipe.task).purpose
    if job.group is None or job.recipe.hardware.strategy == "ddp" or purpose is None or not purpose.generates:
        return None
    lines: list[str] = []
    quiet = replace(silent(), log=lines.append)
    parts = build_parts(job.recipe, job.prepared, job.origin("sharded"), job.backbone, quiet, weights="sharded")
    network = parts.network
    if not is_piecewise(network) or settle(parts, job.group).recipe.hardware.strategy != "fsdp":
        return None
    folder, wanted = _folder(job), _meta_parameters(network)
    in_files = is_in_files(network, wanted, folder) if folder else len(wanted) == len(list(network.parameters()))
    if not in_files:
        return None
    for line in lines:
        console.info(line)
    return parts


def fill(divided: Network, parts: StageParts, job: StageJob) -> None:
    """Fill a sharded network with this process's shard of each weight.

    Args:
        parts: the stage's, whose network has no weights but an adapter's, which every process makes for itself.
    """
    from tunewright.training.distributed.sharded_files import divide, read_into  # whose import is slow

    network, folder = parts.network, _folder(job)
    wanted = _meta_parameters(network)
    places = {name: value.detach() for name, value in divided.named_parameters()}

    def put(name: str, whole: Tensor) -> None:
        if name in places:
            local_shard(places[name]).copy_(local_shard(divide(whole, places[name])))

    for name, value in network.named_parameters():
        if name not in wanted:
            put(name, value.detach())
    if folder is None:
        draw(network, mix(job.recipe.seed, "weights"), put)
        return
    named: dict[str, list[Tensor]] = {}
    for name in wanted:
        named.setdefault(file_name(network, name), []).append(places[name])
    read_into(folder, {name: copies[0] for name, copies in named.items()})
    for first, *others in named.values():
        for other in others:
            local_shard(other).copy_(local_shard(first))


def write(folder: Path, divided: Network, whole: Network, moving: dict[str, Tensor], group: ProcessGroup) -> None:
    """Write the weights of a sharded network as a saved model has them. Collective.

    Of a network with an adapter, what was trained is gathered in the first process's network, which is saved like any other.

    Args:
        whole: the network without weights.
        moving: the tensors of the sharded network that the stage can change.
    """
    from tunewright.training.distributed.sharded_files import gathered, write_whole

    if not whole.adapted:
        named = {file_name(whole, name): value.detach() for name, value in divided.named_parameters()}
        write_whole(folder, named, group)
        return
    found = gathered(moving, group)
    if group.is_writer:
        whole.load_state_dict(found, strict=False, assign=True)


def _folder(job: StageJob) -> Path | None:
    """Return the folder of the weights that a stage starts from; None: they are drawn at random."""
    if job.source is not None:
        return job.source
    return None if job.pretrained is None else weights_folder(job.pretrained)


def _meta_parameters(network: Network) -> set[str]:
    return {name for name, value in network.named_parameters() if is_meta(value)}
