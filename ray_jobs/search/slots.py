"""The slots of a search: its numbered trials, their folders, and which of them still have to run.

The trials of an architecture share a parent folder, whose name contains a hash of everything that they depend on. So a
search with more trials, other seeds or other architectures reuses the trials that exist, and runs only the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from genre.config import fingerprint
from genre.features import Manifest
from genre.settings import TuneSettings
from genre.storage import Location
from genre.training.experiment import EXECUTION_SETTINGS, Experiment, start_of
from ray_jobs.search import space
from ray_jobs.search.plan import Plan
from ray_jobs.search.trial_folder import Record, TrialFolder, TrialSpec


@dataclass(frozen=True)
class Slot:
    """A place for a trial of the search, or for a final training of its settings, and the record of what ran in it."""

    architecture: str
    number: int  # 0, 1, ... within its architecture
    epochs: int  # of a complete training
    parent: Location  # the folder of all trials of its architecture
    seed: int | None = None  # of a final training; None: a trial of the search
    record: Record | None = None
    folds: int = 0  # of a trial; 0: it has one split
    last: int = 0  # epoch at which a final training ends that repeats a trial of folds; 0 for all others

    @property
    def all_epochs(self) -> int:
        """The most epochs that it trains, in all folds."""
        return self.last or self.epochs * max(1, self.folds)

    @property
    def has_all_folds(self) -> bool:
        """Whether all its folds finished; True where it has one split."""
        return self.record is not None and len(self.record.folds) >= self.folds

    @property
    def reached(self) -> tuple[int, int]:
        """The fold that it trains, from 1 and always 1 where it has one split, and how many of its epochs ended."""
        if self.record is None:
            return 1, 0
        finished = self.record.folds if self.folds else []
        return len(finished) + 1, self.record.epochs - sum(fold.epochs for fold in finished)

    @property
    def has_model(self) -> bool:
        """Whether its folder holds a model: it finished, or its first fold did."""
        return self.is_finished or bool(self.record is not None and self.record.folds)

    @property
    def name(self) -> str:
        """The name of its folder, such as "003", or "003-seed-1" for a final training."""
        return f"{self.number:03d}" if self.seed is None else f"{self.number:03d}-seed-{self.seed}"

    @property
    def folder(self) -> TrialFolder:
        return TrialFolder(self.parent / self.name)

    @property
    def log_name(self) -> str:
        """The name in Tune's logs, such as "cnn-003"."""
        return f"{self.architecture}-{self.name}"

    @property
    def settings(self) -> dict[str, Any] | None:
        """The settings of its trial by dotted key; None if it has not started, or its process died at the start."""
        return (self.record.settings or None) if self.record is not None else None

    @property
    def has_ended(self) -> bool:
        return self.record is not None and self.record.ended is not None

    @property
    def is_finished(self) -> bool:
        """Whether the training ran to its end and saved a model."""
        return self.record is not None and self.record.ended == "finished"

    def read(self) -> Slot:
        """Return the slot with the record that its folder holds now."""
        return replace(self, record=self.folder.record())

    def final(self, seed: int) -> Slot:
        """Return the slot of a final training of the same settings with `seed`."""
        last = self.record.epochs_to_train(self.epochs) if self.folds and self.record is not None else 0
        return replace(self, seed=seed, folds=0, last=last).read()

    def spec(self, settings: dict[str, Any]) -> TrialSpec:
        """Return the input of its trial, with `settings` by dotted key."""
        fixed = {"architecture": self.architecture, "train.epochs": self.epochs}
        repeats = str(replace(self, seed=None).folder.location) if self.last else ""
        return TrialSpec(fixed | settings, str(self.folder.location), self.log_name, repeats)


def planned(
    folder: Location, experiments: Mapping[str, Experiment], tune: TuneSettings, manifest: Manifest, plan: Plan
) -> list[Slot]:
    """Return the slots of all trials of the search; architectures alternate, so that all of them start early.

    `folder` is OUTPUT/tune; `experiments` are those of `space.experiments`.
    """
    parents = {
        name: folder / f"{name}-{_key(experiments[name], tune, manifest, epochs, folder.parent / 'models')}"
        for name, epochs in plan.epochs.items()
    }
    return [
        Slot(name, number, plan.epochs[name], parent, folds=tune.folds).read()
        for number in range(plan.trials)
        for name, parent in parents.items()
    ]


def unsettled(slots: Sequence[Slot], minutes: float = 0.0) -> list[Slot]:
    """Return the slots whose trials still have to run in a search limited to `minutes`; 0: no limit."""
    return [slot for slot in slots if slot.record is None or not slot.record.is_settled(minutes)]


def _key(planned: Experiment, tune: TuneSettings, manifest: Manifest, epochs: int, saved: Location) -> str:
    """Return a hash of everything that the results of an architecture's trials depend on.

    `saved` is the folder of the models that the search writes.
    """
    train = planned.train.model_copy(update={"epochs": epochs})
    settings = {
        "train": train.model_dump(mode="json", exclude=EXECUTION_SETTINGS),
        "params": planned.params,
        "space": {key: asdict(domain) for key, domain in space.domains(tune, planned.architecture).items()},
        "sampler": tune.sampler,
        "stopping": [tune.grace_epochs, tune.reduction],
        "seed": planned.seed,
        "sample": tune.sample,
        "folds": tune.folds,
        "features": [manifest.fingerprint, manifest.contents],
    } | start_of(planned.train, saved)
    return fingerprint(settings)
