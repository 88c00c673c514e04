"""The maximum number of CPUs and GPUs that a job may use."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import ray

from genre.errors import ConfigError
from genre.settings import ClusterSettings
from ray_jobs.engine import machines

# Of a training in one process, or of a worker that scores models. On one H100 four processes of any of the six networks
# did as much as eight (docs/LOG.md, 27 November 2026).
SHARE_OF_GPU = 0.25


@dataclass(frozen=True)
class Capacity:
    """The maximum number of CPUs and GPUs that a job may use at a time.

    It does not depend on the machines of a cluster that are up: work is queued, and machines are started for it.
    """

    cpus: float  # infinite on a cluster, unless cluster.max_cpus limits them
    gpus: float

    @classmethod
    def of(cls, settings: ClusterSettings) -> Capacity:
        """Return the limits of the settings, on this machine at most what it has. Ray must be connected."""
        cpus = settings.max_cpus or math.inf
        gpus = math.inf if settings.max_gpus is None else settings.max_gpus
        if not is_cluster():
            here = ray.cluster_resources()
            cpus, gpus = min(cpus, max(1, int(here.get("CPU", 0)))), min(gpus, int(here.get("GPU", 0)))
        return cls(cpus, gpus)

    def gives_gpu(self, device: str) -> bool:
        """Return whether a job computes on GPUs; `device` is the setting of that name.

        With `auto`, a cluster that has no GPU may start a machine with one, if it can.
        """
        if device == "cpu" or not self.gpus:
            return False
        return device == "cuda" or not is_cluster() or machines.can_have({"GPU": 1})

    def check_device(self, device: str) -> None:
        """Raise `ConfigError` where a job must compute on GPUs and may use none."""
        if device == "cuda" and not self.gpus:
            raise ConfigError("device=cuda, but the job may use no GPU; use device=auto or cpu")

    def workers(self, wanted: int) -> int:
        """Return how many processes with one CPU each may run at a time: at most `wanted`, at least one."""
        return max(1, int(min(wanted, self.cpus)))


def is_cluster() -> bool:
    """Return whether the job joins the cluster of RAY_ADDRESS. Otherwise it starts Ray on this machine."""
    return bool(os.environ.get("RAY_ADDRESS"))


def has_no_worker_yet() -> bool:
    """Return whether the cluster is only a head without CPUs, whose workers have not been started yet."""
    up = machines.running()
    return len(up) == 1 and not up[0].get("CPU")
