"""CPUs and GPUs of the cluster, with those of machines that its autoscaler can still start."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import ray
import yaml

_AUTOSCALER_FILE = "~/ray_bootstrap_config.yaml"


def cpus() -> int:
    """Return the number of CPUs, at least one."""
    return max(1, _count("CPU"))


def gpus() -> int:
    """Return the number of GPUs."""
    return _count("GPU")


def count_slots(needed: Mapping[str, float]) -> int:
    """Return how many times `needed` fits into the cluster, each time on a single machine."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    fitting = max(sum(_fits(machine, needed) for machine in machines) for machines in (alive, _startable()))
    return fitting or int(has_no_worker_yet())  # machines that no file announces may still be started


def has_no_worker_yet() -> bool:
    """Return whether the cluster is a head without CPUs: its workers are still to be started, and cannot be asked."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    return len(alive) == 1 and not alive[0]["Resources"].get("CPU")


def _count(kind: str) -> int:
    startable = sum(int(machine.get(kind, 0)) for machine in _startable())
    return max(int(ray.cluster_resources().get(kind, 0)), startable)


def _fits(machine: Mapping[str, float], needed: Mapping[str, float]) -> int:
    return int(min(machine.get(kind, 0) / amount for kind, amount in needed.items()) + 1e-9)


def _startable() -> list[dict[str, float]]:
    """Return the resources of each machine that the autoscaler of `ray up` may start, from its file on the head.

    No autoscaler of Ray 2.60 reports these limits to Ray, not even to Ray Train, which asks for them.
    """
    if not os.environ.get("RAY_ADDRESS"):
        return []  # Ray was started by the job; the machine may have been a head earlier
    try:
        cluster = yaml.safe_load(Path(_AUTOSCALER_FILE).expanduser().read_text(encoding="utf-8"))
    except OSError:
        return []
    groups = cluster["available_node_types"].values()
    return [group.get("resources", {}) for group in groups for _ in range(group.get("max_workers", 0))]
