"""Several processes that train one trial of the search together: one in each bundle of its placement group.

A TorchTrainer inside a trial asks for resources beside the trial's own: on a small cluster each trial then waits for
what the others hold, and a stopped trial leaves its group behind. Here Tune reserves the resources of all processes
at once or not at all; the trial is the first process, and the others are tasks that end with it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import ray
import torch
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from torch import distributed, nn
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.nn.parallel import DistributedDataParallel

from genre.features.windows import Shard

_PATIENCE = timedelta(minutes=10)  # with a process that does not answer; one that died is noticed at once
_LAST_WORDS_SECONDS = 2.0  # for the errors of processes that ended

Follow = Callable[..., None]


@contextlib.contextmanager
def together(follow: Follow, *arguments: Any) -> Iterator[Shard]:
    """Within it, this trial is the first of its processes; the others run `follow(shard, *arguments)`.

    A trial of one bundle has no others. Raises what ended one of them, where that is why this one cannot go on.
    """
    group = ray.util.get_current_placement_group()
    if group is None or group.bundle_count == 1:
        yield Shard()
        return
    shard = Shard(0, group.bundle_count)
    # port 0: any free one
    store = TCPStore(
        ray.util.get_node_ip_address(), 0, shard.world, is_master=True, timeout=_PATIENCE, wait_for_workers=False
    )
    others = [
        _start(group, (store.host, store.port), Shard(rank, shard.world), follow, arguments)
        for rank in range(1, shard.world)
    ]
    try:
        with _joined(store, shard):
            yield shard
    except RuntimeError as lost:
        raise _reason(others, lost) from None
    finally:
        for other in others:
            ray.cancel(other, force=True)


def averaging(network: nn.Module) -> nn.Module:
    """`network`, whose gradients are averaged over the processes of this trial where there are several.

    Batch statistics are averaged by the trainer, once an epoch; they would travel with every step.
    """
    return DistributedDataParallel(network, broadcast_buffers=False) if distributed.is_initialized() else network


def _start(
    group: PlacementGroup, address: tuple[str, int], shard: Shard, follow: Follow, arguments: tuple[Any, ...]
) -> ray.ObjectRef[None]:
    """Start a process in the bundle of its rank."""
    resources = group.bundle_specs[shard.rank]
    task = _join_and_follow.options(
        num_cpus=resources.get("CPU", 0),
        num_gpus=resources.get("GPU", 0),
        scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=shard.rank),
    )
    return task.remote(address, shard, follow, arguments)


def _reason(others: list[ray.ObjectRef[None]], lost: RuntimeError) -> Exception:
    """What ended the first process that failed by itself, rather than for a connection that it lost."""
    ended, _ = ray.wait(others, num_returns=len(others), timeout=_LAST_WORDS_SECONDS)
    for other in ended:
        try:
            ray.get(other)
        except ray.exceptions.RayError as error:
            cause: Exception = getattr(error, "cause", error)
            if type(cause) is not RuntimeError:  # as gloo and NCCL raise it
                return cause
    return lost


@ray.remote(max_retries=0)
def _join_and_follow(address: tuple[str, int], shard: Shard, follow: Follow, arguments: tuple[Any, ...]) -> None:
    with _joined(TCPStore(*address, shard.world, timeout=_PATIENCE), shard):
        follow(shard, *arguments)


@contextlib.contextmanager
def _joined(store: TCPStore, shard: Shard) -> Iterator[None]:
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    distributed.init_process_group(backend, store=store, rank=shard.rank, world_size=shard.world, timeout=_PATIENCE)
    try:
        yield
    finally:
        distributed.destroy_process_group()
