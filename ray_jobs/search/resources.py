"""The CPUs and GPUs of a trial, and how many trials the cluster runs at a time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from ray import tune

from genre import devices
from genre.errors import ConfigError
from genre.settings import TuneSettings
from ray_jobs.engine import capacity

_SHARE_OF_GPU = 0.25  # of a trial with one worker: a small network leaves most of a GPU idle


@dataclass(frozen=True)
class TrialResources:
    """What a trial reserves: `cpus` and `gpus` for each of its `workers`.

    At most `limit` trials run at a time; 0: no limit.
    """

    cpus: float
    gpus: float
    workers: int
    device: str
    limit: int = 0

    @classmethod
    def of(cls, settings: TuneSettings, device: str) -> TrialResources:
        """Decide the GPUs of a trial; `device` is the setting of that name. Ray must be connected.

        Raises `ConfigError` where the settings ask for GPUs that a trial cannot have.
        """
        requested, several = settings.gpus_per_trial, settings.workers_per_trial > 1
        available = capacity.gpus()
        if device == "cuda" and not (available if requested is None else requested):
            raise ConfigError(
                f"device=cuda, but tune.gpus_per_trial={requested} of a cluster with {available} GPUs leaves "
                "none for a trial; use device=auto or cpu"
            )
        if several and requested and requested != int(requested):
            raise ConfigError(
                f"tune.gpus_per_trial={requested:g} with tune.workers_per_trial={settings.workers_per_trial}: the "
                "workers of a trial cannot share a GPU; use 1, or one worker"
            )
        if requested is None:
            requested = (1.0 if several else _SHARE_OF_GPU) if available > 0 and device != "cpu" else 0.0
        return cls(
            settings.cpus_per_trial,
            requested,
            settings.workers_per_trial,
            device if requested else "cpu",
            settings.concurrent,
        )

    @property
    def threads(self) -> int:
        """Torch threads of a worker."""
        return max(1, int(self.cpus))

    def torch_device(self) -> torch.device:
        """Return the device of a trial in this process: the CPU where the trial reserves no GPU."""
        return devices.device_for(self.device)

    def bundles(self) -> tune.PlacementGroupFactory:
        """Return what a trial reserves, all or nothing: a bundle for each worker."""
        return tune.PlacementGroupFactory([self._of_worker()] * self.workers)

    def concurrent_trials(self) -> int:
        """Return how many trials the cluster runs at a time.

        Raises `ConfigError` where no trial fits, since Ray would wait for ever.
        """
        needed = self._of_worker()
        fitting = capacity.count_slots(needed)
        if fitting < self.workers:
            wanted = " and ".join(f"tune.{kind.lower()}s_per_trial={amount:g}" for kind, amount in needed.items())
            raise ConfigError(
                f"a trial needs {self.workers} x ({wanted}), the cluster has {capacity.cpus()} CPUs and "
                f"{capacity.gpus()} GPUs, room for {fitting}; ask for less"
            )
        return min(fitting // self.workers, self.limit or fitting)

    def _of_worker(self) -> dict[str, float]:
        return {"CPU": self.cpus} | ({"GPU": self.gpus} if self.gpus else {})
