"""The trials of a search: which there are, what each chooses, and which of them still have something to do.

A trial has a number within its architecture and a folder of its own, below one that is named after everything its
architecture's trials see. So a search that asks for more trials, other seeds or other architectures finds those
that ran before, and trains only what is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from genre import architectures
from genre.config import fingerprint
from genre.features import Manifest
from genre.settings import Config
from genre.storage import Location
from genre.training.experiment import EXECUTION_SETTINGS
from ray_jobs.search import terms
from ray_jobs.search.budget import Plan
from ray_jobs.search.trial_folder import Record, TrialFolder


@dataclass(frozen=True)
class Slot:
    """The place of one trial in the search, or of a final training of its settings, and what ran there."""

    architecture: str
    number: int  # 0, 1, ... within its architecture
    epochs: int  # of a complete training
    parent: Location  # the folder of all trials of its architecture
    seed: int | None = None  # of a final training; None: a trial of the search
    record: Record | None = None

    @property
    def name(self) -> str:
        """Such as "003", or "003-seed-1" for a final training."""
        return f"{self.number:03d}" if self.seed is None else f"{self.number:03d}-seed-{self.seed}"

    @property
    def folder(self) -> TrialFolder:
        """Where its files are."""
        return TrialFolder(self.parent / self.name)

    @property
    def log_name(self) -> str:
        """Names the trial in Tune's logs, such as "cnn-003"."""
        return f"{self.architecture}-{self.name}"

    @property
    def settings(self) -> dict[str, Any] | None:
        """What a trial that started was given, by dotted key; None before, and where its process died at once."""
        return (self.record.settings or None) if self.record is not None else None

    def read(self) -> Slot:
        """The same place with its present record."""
        return replace(self, record=self.folder.record())

    def final(self, seed: int) -> Slot:
        """The place of the training of the same settings with another seed."""
        return replace(self, seed=seed).read()

    def run(self, settings: dict[str, Any]) -> dict[str, Any]:
        """What `trials.train_trial` is given for it, with `settings` by dotted key."""
        own = {"architecture": self.architecture, "train.epochs": self.epochs}
        return {"settings": own | settings, "folder": str(self.folder.place), "name": self.log_name}


def slots(config: Config, manifest: Manifest, plan: Plan) -> list[Slot]:
    """All trials of the search; the architectures take turns, so that all of them start early."""
    parents = {name: _folder(config, manifest, name, epochs) for name, epochs in plan.epochs.items()}
    return [
        Slot(name, number, plan.epochs[name], parent).read()
        for number in range(plan.trials)
        for name, parent in parents.items()
    ]


def chosen(settings: dict[str, Any]) -> dict[str, Any]:
    """The part of a trial's settings that the search chose."""
    return {key: value for key, value in settings.items() if key not in ("architecture", "train.epochs")}


def unsettled(slots: Sequence[Slot], minutes: float = 0.0) -> list[Slot]:
    """Those that a search limited to `minutes` (0: not) still has something to do for."""
    return [slot for slot in slots if slot.record is None or not slot.record.is_settled(minutes)]


def _folder(config: Config, manifest: Manifest, architecture: str, epochs: int) -> Location:
    """Named after everything that the trials of an architecture see, so that other settings start another search."""
    params = architectures.params(architecture, config.architectures.get(architecture, {}))
    seen = {
        "train": config.train.model_dump(mode="json", exclude=EXECUTION_SETTINGS) | {"epochs": epochs},
        "params": params.model_dump(mode="json"),
        "space": {key: asdict(domain) for key, domain in terms.domains(config, architecture).items()},
        "sampler": config.tune.sampler,
        "stopping": [config.tune.grace_epochs, config.tune.reduction],
        "seed": config.seed,
        "features": [manifest.fingerprint, manifest.contents],
    }
    return Location.of(config.output) / "tune" / f"{architecture}-{fingerprint(seen)}"
