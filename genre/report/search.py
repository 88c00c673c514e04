"""The hyperparameter search as the report shows it: its trials, and what they cost."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from genre.report.facts import Setting, finite
from genre.report.formats import seconds
from genre.wording import plural

Status = Literal["finished", "stopped", "failed", "interrupted"]

STATUS_TEXT: dict[Status, str] = {
    "finished": "finished",
    "stopped": "stopped",
    "interrupted": "not ended",
    "failed": "failed",
}


@dataclass(frozen=True)
class Trial:
    """One configuration that the search tried.

    A `finished` trial ran to its end: all epochs, or until train.patience ended it; a `stopped` one was ended early
    because others of its architecture did better; a `failed` one gives the reason in `error`; an `interrupted` one had
    not ended when the board was made. `valid_f1` is that of its best epoch, None when it finished none; with folds,
    the mean over those that finished. `settings` have dotted keys and hold only what the search chose for this trial. A
    trial that `is_configured` has those of the configuration, as far as the search space allows; others were drawn. The
    settings of the trial that `is_chosen` are those of the final models. `row` names the row of the network whose
    search it belongs to, "" where that is the architecture.
    """

    architecture: str
    settings: dict[str, Setting]
    status: Status
    valid_f1: float | None = None
    epochs: int = 0
    seconds: float | None = None
    error: str = ""
    is_configured: bool = False
    is_chosen: bool = False
    row: str = ""

    def __post_init__(self) -> None:
        for name in ("valid_f1", "seconds"):
            object.__setattr__(self, name, finite(getattr(self, name)))


@dataclass(frozen=True)
class Search:
    """All trials of a search.

    `makespan_seconds` is the time during which at least one trial was running, so breaks between two sessions do not
    count. `concurrent` is the number of trials that could run at a time; `budget` describes what each architecture
    was given.
    """

    trials: list[Trial] = field(default_factory=list)
    makespan_seconds: float | None = None
    concurrent: int | None = None
    budget: str = ""

    @property
    def architectures(self) -> list[str]:
        """Names in order of their first trial."""
        return list(dict.fromkeys(trial.architecture for trial in self.trials))

    def of(self, name: str) -> list[Trial]:
        """Return the trials of the network in row `name`."""
        return [trial for trial in self.trials if (trial.row or trial.architecture) == name]

    @property
    def trial_seconds(self) -> float:
        """Sum of the trials' durations: what the search would take one trial at a time."""
        return sum(trial.seconds or 0.0 for trial in self.trials)

    @property
    def utilisation(self) -> float | None:
        """Share in 0..1 of the slots that were busy, None when it cannot be computed."""
        available = (self.makespan_seconds or 0.0) * (self.concurrent or 0)
        return min(1.0, self.trial_seconds / available) if available else None

    def summary(self) -> list[tuple[str, str]]:
        """Return name and value of each known fact about the search as a whole."""
        facts = [("all architectures", status_counts(self.trials)), ("budget", self.budget)]
        facts.append(("trials at a time", str(self.concurrent or "")))
        if self.makespan_seconds is not None:
            facts.append(("wall time (without breaks)", seconds(self.makespan_seconds)))
        if self.trial_seconds:
            facts.append(("sum of trial times", seconds(self.trial_seconds)))
        if self.utilisation is not None:
            facts.append(("slots busy", f"{self.utilisation:.0%}"))
        return [(name, value) for name, value in facts if value]


def expected_best(trials: Iterable[Trial], tried: int) -> float | None:
    """Return the mean, over all choices of `tried` of the trials with a score, of the highest validation macro F1.

    It shows what a shorter search would have found (Dodge et al., "Show Your Work", EMNLP 2019), by a formula without
    bias (Tang et al., "Showing Your Work Doesn't Always Work", ACL 2020). Every search starts with the trial of the
    configured settings, so this one is in all choices. None where fewer trials have a score.
    """
    scored = [(trial.valid_f1, trial.is_configured) for trial in trials if trial.valid_f1 is not None]
    if not 0 < tried <= len(scored):
        return None
    first = [f1 for f1, is_configured in scored if is_configured]
    drawn = sorted(f1 for f1, is_configured in scored if not is_configured)
    others = tried - len(first)
    if others <= 0:  # a merged report has a configured trial of each search
        return max(first)
    # a drawn trial is the best of those chosen when all others are among the lower ones
    best = sum(max([*first, f1]) * math.comb(lower, others - 1) for lower, f1 in enumerate(drawn))
    return best / math.comb(len(drawn), others)


def status_counts(trials: Iterable[Trial]) -> str:
    """Return such as "12 trials: 3 finished, 8 stopped, 1 failed"."""
    statuses = [trial.status for trial in trials]
    counts = {text: statuses.count(status) for status, text in STATUS_TEXT.items()}
    return f"{plural(len(statuses), 'trial')}: {', '.join(f'{n} {text}' for text, n in counts.items() if n)}"
