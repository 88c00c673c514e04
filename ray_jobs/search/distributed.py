"""Train one trial of the search in several processes: one in each bundle of its placement group.

A TorchTrainer inside a trial would request resources in addition to those of the trial: on a small cluster trials would
wait for each other, and a stopped trial would leave its placement group behind. Here Tune reserves the resources of all
processes at once; the trial is the first process, and the others are actors that end with it. Tasks would share their
processes with the next trial, so that a task which is cancelled as it ends takes the next trial with it.
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
from torch.distributed import TCPStore, distributed_c10d  # type: ignore[attr-defined]
from torch.nn.parallel import DistributedDataParallel

from genre.features.windows import Worker

# the longest wait for another process, which may be copying the clips to its machine; a dead one is noticed at once
_TIMEOUT = timedelta(minutes=30)
_POLL_SECONDS = 0.5  # between looks at processes that start
_ERRORS_SECONDS = 2.0  # wait for the errors of processes that ended
_END_SECONDS = 10.0  # wait for processes to end that are done, or were killed

Follow = Callable[..., object]


@contextlib.contextmanager
def process_group(follow: Follow, *arguments: Any) -> Iterator[Worker]:
    """Within the block, run `follow(worker, *arguments)` in the other processes of this trial, if it has any.

    Yields which worker this process is: the first. When the block fails because another process failed, raises the
    error of that process.
    """
    group = ray.util.get_current_placement_group()
    if group is None or group.bundle_count == 1:
        yield Worker()
        return
    worker = Worker(0, group.bundle_count)
    # port 0: any free one
    store = TCPStore(
        ray.util.get_node_ip_address(), 0, worker.world, is_master=True, timeout=_TIMEOUT, wait_for_workers=False
    )
    processes = [_start(group, rank) for rank in range(1, worker.world)]
    others = [
        process.join_and_follow.remote((store.host, store.port), Worker(rank, worker.world), follow, arguments)
        for rank, process in enumerate(processes, start=1)
    ]
    try:
        _wait_for_start(store, others)
        with _joined(store, worker):
            yield worker
        ray.wait(others, num_returns=len(others), timeout=_END_SECONDS)
    except RuntimeError as lost:
        raise _first_cause(others, lost) from None
    finally:
        for process in processes:
            ray.kill(process)
        ray.wait(others, num_returns=len(others), timeout=_END_SECONDS)


def average_gradients(network: nn.Module) -> nn.Module:
    """Return `network` so that its gradients are averaged over the processes of this trial, if there are several.

    Batch statistics are not sent with every step; the trainer averages them before each validation.
    """
    return DistributedDataParallel(network, broadcast_buffers=False) if distributed.is_initialized() else network


def _start(group: PlacementGroup, rank: int) -> Any:
    """Start another process of the trial, in the bundle of its rank."""
    resources = group.bundle_specs[rank]
    return _Process.options(  # type: ignore[attr-defined]
        num_cpus=resources.get("CPU", 0),
        num_gpus=resources.get("GPU", 0),
        scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank),
    ).remote()


def _wait_for_start(store: TCPStore, others: list[ray.ObjectRef[None]]) -> None:
    """Return when all other processes have started. Raises the error of one that ended instead.

    Joining the group would wait for a process that will not come until the time is up.
    """
    started = [_key_of_start(rank) for rank in range(1, len(others) + 1)]
    while not store.check(started):
        ended, _ = ray.wait(others, timeout=_POLL_SECONDS)
        ray.get(ended)  # none can finish without this process, so that this raises


def _key_of_start(rank: int) -> str:
    return f"started-{rank}"


def _first_cause(others: list[ray.ObjectRef[None]], lost: RuntimeError) -> Exception:
    """Return the error of the first process that did not fail for a lost connection; `lost` if there is none."""
    ended, _ = ray.wait(others, num_returns=len(others), timeout=_ERRORS_SECONDS)
    for other in ended:
        try:
            ray.get(other)
        except ray.exceptions.RayError as error:
            cause: Exception = getattr(error, "cause", error)
            if type(cause) is not RuntimeError:  # gloo and NCCL raise this for a lost connection
                return cause
    return lost


@ray.remote
class _Process:
    """Another process of a trial; it ends with the trial, which owns it."""

    def join_and_follow(
        self, address: tuple[str, int], worker: Worker, follow: Follow, arguments: tuple[Any, ...]
    ) -> None:
        store = TCPStore(*address, worker.world, timeout=_TIMEOUT)
        store.set(_key_of_start(worker.rank), "")
        with _joined(store, worker):
            follow(worker, *arguments)


@contextlib.contextmanager
def _joined(store: TCPStore, worker: Worker) -> Iterator[None]:
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    # torch numbers the groups of a process and counts one that failed to form, as when another process ended meanwhile.
    # Processes with different numbers wait for each other, and the first one has trained earlier trials.
    distributed_c10d._world.group_count = 0
    distributed.init_process_group(backend, store=store, rank=worker.rank, world_size=worker.world, timeout=_TIMEOUT)
    try:
        yield
    finally:
        distributed.destroy_process_group()
