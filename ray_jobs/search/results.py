"""The results of trials: the best of each architecture, why others have none, and the facts for the report."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from genre import architectures
from genre.report import Search, Status, Trial
from genre.settings import Config, TuneSettings
from genre.wording import plural
from ray_jobs.search import space
from ray_jobs.search.plan import Plan
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

    def model_name(self, config: Config) -> str:
        """Return the name of the folder and of the row of its models."""
        planned = space.experiment(config, self.settings)
        return architectures.model_name(planned.architecture, planned.params)

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


@dataclass(frozen=True)
class SearchResult:
    """The best trial of each architecture that has one, those of the configured settings, and facts for the report."""

    winners: list[Winner]
    defaults: list[Winner]  # the trials of the configured settings, of which other settings won
    facts: Search
    interrupted: bool

    @property
    def without_default(self) -> list[str]:
        """Architectures whose trial of the configured settings failed."""
        known = {default.architecture for default in self.defaults}
        return [best.architecture for best in self.winners if best.slot.number and best.architecture not in known]


def of_trials(slots: Sequence[Slot], plan: Plan, config: Config, concurrent: int) -> SearchResult:
    """Return the result of the trials of `plan`, of which `concurrent` ran at a time."""
    winners = [best for name in plan.epochs if (best := winner(name, slots)) is not None]
    chosen = [best.slot for best in winners]
    configured = [default(best.architecture, slots) for best in winners]
    defaults = [trial for trial in configured if trial is not None and trial.slot not in chosen]
    named = {best.model_name(config): best for best in winners}
    facts = for_report(slots, named, concurrent, _budget(plan, config.tune))
    return SearchResult(winners, defaults, facts, interrupted=not all(slot.has_ended for slot in slots))


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


def _budget(plan: Plan, settings: TuneSettings) -> str:
    """Return in words what each architecture is given."""
    epochs = sorted(set(plan.epochs.values()))
    most = f"{epochs[0]} to {epochs[-1]} epochs" if len(epochs) > 1 else f"at most {plural(epochs[0], 'epoch')}"
    seen = f" on {settings.sample:.0%} of the tracks" if settings.sample < 1 else ""
    seen += f" over {settings.folds} folds of the tracks that are not test" if settings.folds else ""
    total = f", {settings.minutes:g} minutes in all" if settings.minutes else ""
    return f"{plural(plan.trials, 'trial')} of {most} an architecture{seen}{total}"


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
