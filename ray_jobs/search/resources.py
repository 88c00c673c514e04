"""The CPUs and GPUs of a trial, and how many trials the cluster runs at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from ray import tune

from genre import devices
from genre.errors import ConfigError
from genre.settings import TuneSettings
from ray_jobs.engine import machines
from ray_jobs.engine.capacity import SHARE_OF_GPU, Capacity, is_cluster


@dataclass(frozen=True)
class TrialResources:
    """What a trial reserves: `cpus` and `gpus` for each of its `workers`.

    At most `limit` trials run at a time; 0: no limit.
    """

    cpus: float
    gpus: float
    workers: int
    device: str
    capacity: Capacity
    limit: int = 0

    @classmethod
    def of(cls, settings: TuneSettings, device: str, capacity: Capacity) -> TrialResources:
        """Decide the GPUs of a trial; `device` is the setting of that name. Ray must be connected.

        Raises `ConfigError` where the settings ask for GPUs that a trial cannot have.
        """
        requested, several = settings.gpus_per_trial, settings.workers_per_trial > 1
        if device == "cuda" and not (capacity.gpus if requested is None else requested):
            raise ConfigError(
                f"device=cuda, but tune.gpus_per_trial={requested} of {capacity.gpus:g} GPUs leaves "
                "none for a trial; use device=auto or cpu"
            )
        if several and requested and requested != int(requested):
            raise ConfigError(
                f"tune.gpus_per_trial={requested:g} with tune.workers_per_trial={settings.workers_per_trial}: the "
                "workers of a trial cannot share a GPU; use 1, or one worker"
            )
        if requested is None:
            requested = (1.0 if several else SHARE_OF_GPU) if capacity.gives_gpu(device) else 0.0
        return cls(
            settings.cpus_per_trial,
            requested,
            settings.workers_per_trial,
            "cuda" if requested else "cpu",
            capacity,
            settings.concurrent,
        )

    @property
    def threads(self) -> int:
        """Torch threads of a worker."""
        return max(1, int(self.cpus))

    def torch_device(self) -> torch.device:
        """Return the device of a trial in this process: the CPU if the trial reserves no GPU."""
        return devices.device_for(self.device)

    def bundles(self) -> tune.PlacementGroupFactory:
        """Return what a trial reserves, all or nothing: a bundle for each worker."""
        return tune.PlacementGroupFactory([self._of_worker()] * self.workers)

    def start(self) -> None:
        """Start the machines for a first trial if the cluster has none. Raises like `machines.start`."""
        if is_cluster():
            machines.start([self._of_worker()] * self.workers, f"a trial needs {self._wanted()}")

    def concurrent_trials(self) -> int:
        """Return how many trials run at a time; on a cluster without limits, on the machines that are up now.

        Raises `ConfigError` where no trial fits: Ray would wait forever.
        """
        workers = machines.slots(self._of_worker())
        if is_cluster():
            return self.most_trials() or max(1, workers // self.workers)
        if workers < self.workers:
            raise ConfigError(
                f"a trial needs {self._wanted()}, this machine has {self.capacity.cpus:g} CPUs and "
                f"{self.capacity.gpus:g} GPUs, room for {workers}; ask for less"
            )
        fitting = workers // self.workers
        return min(fitting, self.limit or fitting)

    def most_trials(self) -> int | None:
        """Return the most trials that may run at a time; None on a cluster without limits, which starts machines.

        Raises `ConfigError` where the limits leave no room for a trial.
        """
        if not is_cluster():
            return self.concurrent_trials()
        limits = {"CPU": self.capacity.cpus, "GPU": self.capacity.gpus}
        fitting = min(limits[kind] / amount for kind, amount in self._of_worker().items()) / self.workers
        if fitting < 1:
            raise ConfigError(
                f"a trial needs {self._wanted()}, but cluster.max_cpus allows {limits['CPU']:g} CPUs and "
                f"cluster.max_gpus {limits['GPU']:g} GPUs; ask for less"
            )
        most = min(fitting, self.limit or math.inf)
        return None if math.isinf(most) else int(most)

    def _wanted(self) -> str:
        amounts = self._of_worker().items()
        wanted = " and ".join(f"tune.{kind.lower()}s_per_trial={amount:g}" for kind, amount in amounts)
        return f"{self.workers} x ({wanted})"

    def _of_worker(self) -> dict[str, float]:
        return {"CPU": self.cpus} | ({"GPU": self.gpus} if self.gpus else {})
