"""The results of trials: the best of each architecture, why others have none, and the facts for the report."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from genre.report import Search, Status, Trial
from ray_jobs.search import space
from ray_jobs.search.slots import Slot
from ray_jobs.search.trial_folder import Ended, Record, wall_seconds

_STATUS: dict[Ended | None, Status] = {
    "finished": "finished",
    "stopped": "stopped",
    "failed": "failed",
    "crashed": "failed",
    None: "interrupted",
}


@dataclass(frozen=True)
class Winner:
    """A trial whose settings get final trainings: the best of an architecture, or the one with configured settings.

    The best has the highest validation macro F1; with tune.folds, the highest mean over the folds.
    """

    slot: Slot
    settings: dict[str, Any]
    valid_f1: float
    trials: int  # number of trials of the architecture that it was chosen from

    @property
    def architecture(self) -> str:
        return self.slot.architecture

    @property
    def training_seconds(self) -> float:
        """Expected seconds of a complete training with these settings."""
        record = self.slot.record
        if record is None or not record.epochs:
            return 0.0
        epoch = record.seconds / record.epochs
        if not self.slot.folds:
            return epoch * self.slot.epochs
        return epoch * record.epochs_to_train(self.slot.epochs) * self.slot.folds / (self.slot.folds - 1)

    @property
    def remaining_seconds(self) -> float:
        """Expected seconds until the trial itself is finished; 0 if it is."""
        record = self.slot.record
        if record is None or record.ended == "finished":
            return 0.0
        return self.training_seconds * (1 - record.epochs / self.slot.epochs)


def winner(architecture: str, slots: Sequence[Slot]) -> Winner | None:
    """Return the trial with the best epoch; None if no trial of the architecture finished an epoch.

    Trials that failed after that are considered only if all of them failed. With tune.folds it is the trial with the
    best mean among those that finished all folds; if none did, that with the best epoch of the first fold.
    """
    tried = [(slot, slot.record) for slot in slots if slot.architecture == architecture and slot.record is not None]
    complete = any(slot.has_all_folds for slot, _ in tried)
    scores = [(slot, record, record.best_f1 if complete else record.first_f1) for slot, record in tried]
    scored = [(slot, record, f1) for slot, record, f1 in scores if f1 is not None and slot.has_all_folds is complete]
    if not scored:
        return None
    candidates = [candidate for candidate in scored if not candidate[1].failure] or scored
    slot, record, f1 = max(candidates, key=lambda candidate: candidate[2])
    return Winner(slot, record.settings, f1, len(tried))


def default(architecture: str, slots: Sequence[Slot]) -> Winner | None:
    """Return the trial of the configured settings; None if it finished no epoch or failed."""
    slot = next(slot for slot in slots if slot.architecture == architecture and slot.number == 0)
    record = slot.record
    if record is None or record.failure or (f1 := record.best_f1) is None:
        return None
    return Winner(slot, record.settings, f1, 1)


def for_report(slots: Sequence[Slot], winners: Mapping[str, Winner], concurrent: int, budget: str) -> Search:
    """Return the facts of the search for the report; `winners` are those of `winner`, by the name of their row."""
    chosen = [winner.slot for winner in winners.values()]
    rows = {winner.architecture: name for name, winner in winners.items()}
    tried = [(slot, slot.record) for slot in slots if slot.record is not None]
    return Search(
        trials=[_trial(slot, record, slot in chosen, rows.get(slot.architecture, "")) for slot, record in tried],
        makespan_seconds=wall_seconds(record for _, record in tried) or None,  # no epoch was finished
        concurrent=concurrent,
        budget=budget,
    )


def missing(search: Search, saved: Collection[str]) -> dict[str, str]:
    """Return by name why architectures of the search have no model; `saved` are those that have one."""
    reasons = {
        name: [trial.error for trial in search.trials if trial.architecture == name] for name in search.architectures
    }
    return {
        name: "; ".join(dict.fromkeys(filter(None, errors))) or "its final training failed, see the notes"
        for name, errors in reasons.items()
        if name not in saved
    }


def _trial(slot: Slot, record: Record, is_chosen: bool, row: str) -> Trial:
    return Trial(
        architecture=slot.architecture,
        row=row,
        settings=space.sampled(record.settings),
        status=_STATUS[record.ended],
        valid_f1=record.best_f1,
        epochs=record.epochs,
        seconds=record.seconds,
        error=record.failure,
        is_configured=slot.number == 0,
        is_chosen=is_chosen,
    )
