"""What a search and several seeds gained: each network as configured, tuned, and as the mean of its seeds.

The scores of one validation split cannot be tested: the best of n trials is never below the first, by luck alone. The
scores on the tracks of the board can, by a paired bootstrap.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from genre.evaluation.bootstrap import p_value_of_no_difference
from genre.report.search import STATUS_TEXT, Trial
from genre.report.table import Estimate, Row, Table
from genre.wording import plural

NOTE = (
    "Default: the configured settings. Tuned: the settings that the search chose, each seed alone. Ensembled: the mean "
    "probabilities of all seeds, which cost as much to compute as all of them. Trained and Time are what a version "
    "took: the first trial, all trials, the final trainings. Valid F1 is that of one trial, with its gain on the "
    "first; the search chose by these tracks, so part of the gain is luck. Change is that of macro F1 from the version "
    "before, p the p-value of no change in a paired bootstrap over the same tracks. It is not corrected for the number "
    "of networks."
)


@dataclass(frozen=True, eq=False)
class Tuning:
    """A network of the board with the trials of its search, none where it is not known, and its row without tuning."""

    row: Row
    trials: list[Trial]
    default: Row | None

    @property
    def first(self) -> Trial | None:
        """The trial of the configured settings."""
        return next((trial for trial in self.trials if trial.is_configured), None)

    @property
    def first_f1(self) -> float | None:
        """The validation macro F1 of the first trial; None where the search stopped it, before all epochs or folds."""
        return self.first.valid_f1 if self.first and (self.first.status == "finished" or self.kept_default) else None

    @property
    def chosen(self) -> Trial | None:
        """The trial whose settings the network has."""
        return next((trial for trial in self.trials if trial.is_chosen), None)

    @property
    def kept_default(self) -> bool:
        """Whether the search chose the configured settings."""
        return self.chosen is not None and self.chosen.is_configured

    @property
    def was_searched(self) -> bool:
        """Whether there were other settings than the configured ones to choose from."""
        return not self.kept_default or len(self.trials) > 1

    @property
    def judged_default(self) -> Row | None:
        """The row with the configured settings: that of the network itself where the search chose them."""
        return self.row if self.kept_default else self.default

    @property
    def p_value(self) -> float | None:
        """The p-value of no difference between the tuned network and the default; None where they are not two."""
        default = self.judged_default
        if default is None or default is self.row:
            return None
        return p_value_of_no_difference(self.row.f1_draws - default.f1_draws)

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
    defaults = {row.entry.default_of: row for row in table.of("default")}
    return [
        Tuning(row, search.of(row.entry.name) if search else [], defaults.get(row.entry.name))
        for row in table.of("network")
    ]


def versions(table: Table) -> list[Version]:
    """Return the versions of each network that has more than one, the best network first."""
    by_network = [list(_versions(tuning)) for tuning in tunings(table)]
    return [version for found in by_network if len(found) > 1 for version in found]


def _versions(tuning: Tuning) -> Iterator[Version]:
    if tuning.chosen is not None and tuning.first is not None:
        yield _default(tuning, tuning.first)
    if tuning.was_searched:
        yield _tuned(tuning)
    row = tuning.row
    if (mean := row.ensembled) is not None:
        seconds = [run.train_seconds for run in row.entry.runs if run.train_seconds is not None]
        total = sum(seconds) if len(seconds) == len(row.entry.runs) else None
        trained, change = plural(len(row.entry.runs), "seed"), mean.f1.mean - row.f1.mean
        yield Version(row.entry.name, "ensembled", trained, total, mean.f1, mean.accuracy, change, mean.p_value)


def _default(tuning: Tuning, first: Trial) -> Version:
    judged = tuning.judged_default
    return Version(
        tuning.row.entry.name,
        "default",
        "1 trial" + ("" if first.status == "finished" else f", {STATUS_TEXT[first.status]}"),
        first.seconds,
        judged.f1 if judged else None,
        judged.accuracy if judged else None,
        valid_f1=tuning.first_f1,
    )


def _tuned(tuning: Tuning) -> Version:
    row, before, chosen, default = tuning.row, tuning.first_f1, tuning.chosen, tuning.judged_default
    name = row.entry.name
    if chosen is None:
        return Version(name, "single", plural(1, "seed"), row.train_seconds, row.f1, row.accuracy)
    return Version(
        name,
        "tuned",
        plural(len(tuning.trials), "trial") + (", the first won" if tuning.kept_default else ""),
        tuning.search_seconds,
        row.f1,
        row.accuracy,
        row.f1.mean - default.f1.mean if default else None,
        tuning.p_value,
        chosen.valid_f1,
        None if chosen.valid_f1 is None or before is None else chosen.valid_f1 - before,
    )
