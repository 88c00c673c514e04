"""The processes of one trial compute together, end together, and report what ended them."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TypeVar

import pytest
import ray
import torch
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from torch import distributed, nn
from torch.distributed import HashStore  # type: ignore[attr-defined]

from genre.features.windows import Worker
from ray_jobs.search.distributed import average_gradients, process_group

pytestmark = pytest.mark.ray

T = TypeVar("T")


@pytest.fixture(scope="module")
def group() -> Iterator[PlacementGroup]:
    """Yield a placement group of three CPUs, one for each process of a trial."""
    ray.init(address="local", num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level="error")
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not find tests
    group = ray.util.placement_group([{"CPU": 1.0}] * 3)
    ray.get(group.ready(), timeout=60)
    yield group
    ray.shutdown()


def in_group(group: PlacementGroup, function: Callable[[], T]) -> T:
    """Run `function` as Tune runs a trial, in the first bundle, and return its result."""
    strategy = PlacementGroupSchedulingStrategy(group, 0, placement_group_capture_child_tasks=True)
    task = ray.remote(num_cpus=1, max_retries=0, scheduling_strategy=strategy)(function)
    result: T = ray.get(task.remote(), timeout=300)
    return result


def gradient(worker: Worker) -> float:
    """Return the gradient of a weight whose input is rank + 1; the average over ranks 0, 1 and 2 is 2."""
    network = average_gradients(nn.Linear(1, 1, bias=False))
    network(torch.full((1, 1), worker.rank + 1.0)).sum().backward()
    (weight,) = network.parameters()
    assert weight.grad is not None
    return float(weight.grad)


def fail(worker: Worker) -> None:
    if worker.rank == 2:
        raise ValueError("rank 2 is out of memory")
    distributed.all_reduce(torch.zeros(1))


def test_gradients_are_averaged_over_all_processes_in_each_trial(group: PlacementGroup) -> None:
    def trial() -> list[float]:
        gradients = []
        for _ in range(2):  # a reused process joins a new group with each trial
            with process_group(gradient) as worker:
                gradients.append(gradient(worker))
        return gradients

    assert in_group(group, trial) == [2.0, 2.0]


def test_a_process_whose_earlier_group_failed_to_form_joins_the_next(group: PlacementGroup) -> None:
    def trial() -> float:
        with pytest.raises(distributed.DistStoreError):
            distributed.init_process_group(
                "gloo", store=HashStore(), rank=0, world_size=2, timeout=timedelta(seconds=1)
            )
        with process_group(gradient) as worker:
            return gradient(worker)

    assert in_group(group, trial) == 2.0


def test_the_trial_raises_the_error_of_another_process(group: PlacementGroup) -> None:
    def trial() -> None:
        with process_group(fail):
            distributed.all_reduce(torch.zeros(1))

    with pytest.raises(ValueError, match="rank 2 is out of memory"):
        in_group(group, trial)


class Unloadable:
    """A callable that another process cannot load."""

    def __call__(self, worker: Worker) -> None: ...

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return unload, ()


def unload() -> None:
    raise ValueError("this machine lacks a module")


def test_a_process_that_does_not_start_is_noticed_at_once(group: PlacementGroup) -> None:
    def trial() -> None:
        with process_group(Unloadable()):
            raise AssertionError("a process is missing")

    with pytest.raises(ray.exceptions.RayTaskError, match="this machine lacks a module"):
        in_group(group, trial)


def test_the_other_processes_end_with_the_trial(group: PlacementGroup) -> None:
    def follow(worker: Worker) -> None:
        distributed.barrier()
        time.sleep(3600)

    def trial() -> None:
        with contextlib.suppress(SystemExit), process_group(follow):
            distributed.barrier()
            raise SystemExit  # as Tune ends a trial that it stops

    in_group(group, trial)
    assert in_group(group, average_gradient) == 2.0  # their resources are free


def average_gradient() -> float:
    with process_group(gradient) as worker:
        return gradient(worker)
