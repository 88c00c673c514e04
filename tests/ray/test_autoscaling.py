"""The cluster that other tests scale from nothing: it starts machines for tasks, and ends them."""

from __future__ import annotations

import subprocess
import sys

import pytest
from autoscaling import autoscaled
from conftest import REPOSITORY

pytestmark = [pytest.mark.ray, pytest.mark.slow]

TASK = """
import ray
ray.init(log_to_driver=False, logging_level="error")
print(ray.get(ray.remote(num_cpus=2)(lambda: ray.get_runtime_context().get_node_id()).remote()))
"""


def test_a_task_on_an_empty_cluster_starts_a_machine_that_ends_when_idle() -> None:
    types = {
        "cpu": {"resources": {"CPU": 2}, "max_workers": 2},
        "gpu": {"resources": {"CPU": 2, "GPU": 1}, "max_workers": 1},
    }
    with autoscaled(types, boot_seconds=2) as cluster:
        assert cluster.workers() == []
        done = subprocess.run(
            [sys.executable, "-c", TASK], capture_output=True, text=True, cwd=REPOSITORY, env=cluster.environment,
            timeout=100, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr + cluster.log()
        assert cluster.workers() == ["cpu"]
        cluster.wait(lambda cluster: cluster.workers() == [])
