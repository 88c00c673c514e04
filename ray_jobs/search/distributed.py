"""Several processes that train one trial of the search together: one in each bundle of its placement group.

A TorchTrainer inside a trial would request resources in addition to the trial's own: on a small cluster trials then
wait for each other, and a stopped trial leaves its group behind. Here Tune reserves the resources of all processes at
once or not at all; the trial is the first process, and the others are tasks that end with it.
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

# for a process that does not answer, such as one that copies the clips to its machine; one that died is noticed at once
_TIMEOUT = timedelta(minutes=30)
_ERRORS_SECONDS = 2.0  # to wait for the errors of processes that ended
_END_SECONDS = 10.0  # to wait for the end of processes that have nothing left to do, or were cancelled

Follow = Callable[..., object]


@contextlib.contextmanager
def together(follow: Follow, *arguments: Any) -> Iterator[Shard]:
    """Run the other processes of this trial, which call `follow(shard, *arguments)`, while the context is open.

    Yields the shard of this process, the first. A trial of one bundle has no others. An error here that follows from
    the end of another process is replaced by the error of that process.
    """
    group = ray.util.get_current_placement_group()
    if group is None or group.bundle_count == 1:
        yield Shard()
        return
    shard = Shard(0, group.bundle_count)
    # port 0: any free one
    store = TCPStore(
        ray.util.get_node_ip_address(), 0, shard.world, is_master=True, timeout=_TIMEOUT, wait_for_workers=False
    )
    others = [
        _start(group, (store.host, store.port), Shard(rank, shard.world), follow, arguments)
        for rank in range(1, shard.world)
    ]
    try:
        with _joined(store, shard):
            yield shard
        ray.wait(others, num_returns=len(others), timeout=_END_SECONDS)
    except RuntimeError as lost:
        raise _reason(others, lost) from None
    finally:
        _end(others)


def averaging(network: nn.Module) -> nn.Module:
    """Return `network` with its gradients averaged over the processes of this trial, where there are several.

    Batch statistics are not sent with every step; the trainer averages them once an epoch.
    """
    return DistributedDataParallel(network, broadcast_buffers=False) if distributed.is_initialized() else network


def _start(
    group: PlacementGroup, address: tuple[str, int], shard: Shard, follow: Follow, arguments: tuple[Any, ...]
) -> ray.ObjectRef[None]:
    """Start another process of the trial, in the bundle of its rank."""
    resources = group.bundle_specs[shard.rank]
    task = _join_and_follow.options(
        num_cpus=resources.get("CPU", 0),
        num_gpus=resources.get("GPU", 0),
        scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=shard.rank),
    )
    return task.remote(address, shard, follow, arguments)


def _end(others: list[ray.ObjectRef[None]]) -> None:
    """End the processes that still run, and wait for it.

    One that has ended is not cancelled: Ray may have given its process to the next trial, which the kill would reach.
    """
    _, running = ray.wait(others, num_returns=len(others), timeout=0)
    for other in running:
        ray.cancel(other, force=True)
    if running:
        ray.wait(running, num_returns=len(running), timeout=_END_SECONDS)


def _reason(others: list[ray.ObjectRef[None]], lost: RuntimeError) -> Exception:
    """Return the error of the first process that failed by itself, not by losing its connection to the others."""
    ended, _ = ray.wait(others, num_returns=len(others), timeout=_ERRORS_SECONDS)
    for other in ended:
        try:
            ray.get(other)
        except ray.exceptions.RayError as error:
            cause: Exception = getattr(error, "cause", error)
            if type(cause) is not RuntimeError:  # what gloo and NCCL raise for a lost connection
                return cause
    return lost


@ray.remote(max_retries=0)
def _join_and_follow(address: tuple[str, int], shard: Shard, follow: Follow, arguments: tuple[Any, ...]) -> None:
    with _joined(TCPStore(*address, shard.world, timeout=_TIMEOUT), shard):
        follow(shard, *arguments)


@contextlib.contextmanager
def _joined(store: TCPStore, shard: Shard) -> Iterator[None]:
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    distributed.init_process_group(backend, store=store, rank=shard.rank, world_size=shard.world, timeout=_TIMEOUT)
    try:
        yield
    finally:
        distributed.destroy_process_group()
