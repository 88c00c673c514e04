"""What a search and several seeds gained: each network as configured, tuned, and as the mean of its seeds.

The scores of one validation split cannot be tested: the best of n trials is never below the first, by luck alone. The
scores on the tracks of the board can, by a paired bootstrap.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from genre.report.search import STATUS_TEXT, Trial
from genre.report.table import Estimate, Row, Table
from genre.wording import plural

NOTE = (
    "Default: the configured settings. Tuned: the settings that the search chose, each seed alone. Ensembled: the mean "
    "probabilities of all seeds, which cost as much to compute as all of them. Trained and Time are what a version "
    "took: the first trial, all trials, the final trainings. Valid F1 is that of one trial, with its gain on the "
    "first; the search chose by these tracks, so part of the gain is luck. Change is that of macro F1 from the version "
    "before, p the p-value of no change in a paired bootstrap over the same tracks, for each network alone."
)


@dataclass(frozen=True, eq=False)
class Tuning:
    """A network of the board with the trials of its search, none where it is not known."""

    row: Row
    trials: list[Trial]

    @property
    def first(self) -> Trial | None:
        """The trial of the configured settings."""
        return next((trial for trial in self.trials if trial.is_configured), None)

    @property
    def chosen(self) -> Trial | None:
        """The trial whose settings the network has."""
        return next((trial for trial in self.trials if trial.is_chosen), None)

    @property
    def kept_default(self) -> bool:
        """Whether the search chose the configured settings."""
        return self.chosen is not None and self.chosen.is_configured

    @property
    def search_seconds(self) -> float | None:
        """Sum of the durations of all trials; None without a search."""
        return sum(trial.seconds or 0.0 for trial in self.trials) if self.trials else None


@dataclass(frozen=True)
class Version:
    """A network in one of its versions: what was trained for it, and its scores; what is unknown is None.

    `valid_change` is the difference of validation macro F1 from the version before, `change` that of macro F1 on the
    tracks of the board, and `p_value` that of no such change.
    """

    network: str
    name: str
    trained: str
    seconds: float | None
    f1: Estimate | None = None
    accuracy: Estimate | None = None
    change: float | None = None
    p_value: float | None = None
    valid_f1: float | None = None
    valid_change: float | None = None


def tunings(table: Table) -> list[Tuning]:
    """Return the networks of the board, best first."""
    search = table.board.search
    return [Tuning(row, search.of(row.entry.name) if search else []) for row in table.of("network")]


def versions(table: Table) -> list[Version]:
    """Return the versions of each network that has more than one, the best network first."""
    by_network = [list(_versions(tuning)) for tuning in tunings(table)]
    return [version for found in by_network if len(found) > 1 for version in found]


def _versions(tuning: Tuning) -> Iterator[Version]:
    row, first, name = tuning.row, tuning.first, tuning.row.entry.name
    if first is not None and tuning.chosen is not None:
        trained = "1 trial" + ("" if first.status == "finished" else f", {STATUS_TEXT[first.status]}")
        f1, accuracy = (row.f1, row.accuracy) if tuning.kept_default else (None, None)
        yield Version(name, "default", trained, first.seconds, f1, accuracy, valid_f1=first.valid_f1)
    yield _tuned(tuning)
    if (mean := row.ensembled) is not None:
        seconds = [run.train_seconds for run in row.entry.runs if run.train_seconds is not None]
        total = sum(seconds) if len(seconds) == len(row.entry.runs) else None
        trained, change = plural(len(row.entry.runs), "seed"), mean.f1.mean - row.f1.mean
        yield Version(name, "ensembled", trained, total, mean.f1, mean.accuracy, change, mean.p_value)


def _tuned(tuning: Tuning) -> Version:
    row, first, chosen = tuning.row, tuning.first, tuning.chosen
    name = row.entry.name
    if chosen is None:
        return Version(name, "single", plural(1, "seed"), row.train_seconds, row.f1, row.accuracy)
    trained = plural(len(tuning.trials), "trial") + (", the first won" if tuning.kept_default else "")
    before = first.valid_f1 if first else None
    change = None if chosen.valid_f1 is None or before is None else chosen.valid_f1 - before
    return Version(
        name,
        "tuned",
        trained,
        tuning.search_seconds,
        row.f1,
        row.accuracy,
        valid_f1=chosen.valid_f1,
        valid_change=change,
    )
