"""The processes of one trial: they compute together, end together, and say what ended them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import ray
import torch
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from torch import distributed, nn

from genre.features.windows import Shard
from ray_jobs.search.distributed import averaging, together

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def group() -> Iterator[Any]:
    """Three CPUs, one for each process of a trial."""
    ray.init(address="local", num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level="error")
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not find tests
    group = ray.util.placement_group([{"CPU": 1.0}] * 3)
    ray.get(group.ready(), timeout=60)
    yield group
    ray.shutdown()


def in_group(group: Any, function: Callable[[], Any]) -> Any:
    """Run `function` as Tune runs a trial: in the first bundle."""
    place = PlacementGroupSchedulingStrategy(group, 0, placement_group_capture_child_tasks=True)
    return ray.get(ray.remote(num_cpus=1, max_retries=0, scheduling_strategy=place)(function).remote(), timeout=120)


def gradient(shard: Shard) -> float:
    """Of a weight of 1 with the input rank + 1: averaged over ranks 0, 1, 2 it is 2."""
    network = averaging(nn.Linear(1, 1, bias=False))
    network(torch.full((1, 1), shard.rank + 1.0)).sum().backward()
    (weight,) = network.parameters()
    assert weight.grad is not None
    return float(weight.grad)


def compute(shard: Shard) -> None:
    gradient(shard)


def fail(shard: Shard) -> None:
    if shard.rank == 2:
        raise ValueError("rank 2 is out of memory")
    distributed.all_reduce(torch.zeros(1))


def test_gradients_are_averaged_over_all_processes_again_and_again(group: Any) -> None:
    def trial() -> list[float]:
        found = []
        for _ in range(2):  # a reused process joins a new group with each trial
            with together(compute) as shard:
                found.append(gradient(shard))
        return found

    assert in_group(group, trial) == [2.0, 2.0]


def test_what_ended_another_process_is_what_the_trial_raises(group: Any) -> None:
    def trial() -> None:
        with together(fail):
            distributed.all_reduce(torch.zeros(1))

    with pytest.raises(ValueError, match="rank 2 is out of memory"):
        in_group(group, trial)


def test_the_others_end_with_the_trial(group: Any) -> None:
    def follow(shard: Shard) -> None:
        distributed.barrier()
        time.sleep(3600)

    def trial() -> None:
        with together(follow):
            distributed.barrier()
            raise SystemExit  # how Tune ends a trial that it stops

    with pytest.raises(ray.exceptions.RayError):
        in_group(group, trial)
    assert in_group(group, together_again) == 2.0  # their places are free


def together_again() -> float:
    with together(compute) as shard:
        return gradient(shard)
