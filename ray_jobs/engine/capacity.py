"""The most CPUs and GPUs that a job may use."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import ray

from genre.settings import ClusterSettings
from ray_jobs.engine import machines


@dataclass(frozen=True)
class Capacity:
    """The most CPUs and GPUs that a job may use at a time.

    They do not depend on the machines of a cluster that are up: work is queued, and machines are started for it.
    """

    cpus: float  # infinite on a cluster, unless cluster.max_cpus limits them
    gpus: float

    @classmethod
    def of(cls, settings: ClusterSettings) -> Capacity:
        """Return the limits of a cluster, or what this machine has. Ray must be connected."""
        cpus = settings.max_cpus or math.inf
        gpus = math.inf if settings.max_gpus is None else settings.max_gpus
        if not is_cluster():
            here = ray.cluster_resources()
            cpus, gpus = min(cpus, max(1, int(here.get("CPU", 0)))), min(gpus, int(here.get("GPU", 0)))
        return cls(cpus, gpus)

    def gives_gpu(self, device: str) -> bool:
        """Return whether a job computes on GPUs; `device` is the setting of that name.

        For `auto`, a cluster without a GPU is asked whether it can start a machine that has one.
        """
        if device == "cpu" or not self.gpus:
            return False
        return device == "cuda" or not is_cluster() or machines.can_have({"GPU": 1})

    def workers(self, wanted: int) -> int:
        """Return how many processes of one CPU run at a time: at most `wanted`, at least one."""
        return max(1, int(min(wanted, self.cpus)))


def is_cluster() -> bool:
    """Return whether the job has joined a cluster, and not started Ray on this machine."""
    return bool(os.environ.get("RAY_ADDRESS"))


def has_no_worker_yet() -> bool:
    """Return whether the cluster is a head without CPUs: its workers are still to be started, and cannot be asked."""
    up = machines.running()
    return len(up) == 1 and not up[0].get("CPU")
