"""The facts around the predictions: the corpus, the search, and what other boards found on other tracks."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["network", "classical", "majority", "ensemble"]
Setting = str | int | float | bool | None | list[str]
Part = Literal["train", "valid", "test"]
Status = Literal["finished", "stopped", "failed", "interrupted"]

PARTS: dict[Part, str] = {"train": "training", "valid": "validation", "test": "test"}  # in words
DIGITS = 5  # after the point, of every measured number


@dataclass(frozen=True)
class CorpusFacts:
    """Where the music came from and what became of it.

    `tracks` counts usable tracks by split, then class; `groups` counts groups (artists) by split;
    `rejects` counts the tracks without features by reason code (`genre.errors.Reason`).
    """

    name: str
    split: str  # its name, such as "official" or "random"
    split_rule: str  # how it was decided, in words
    tracks: dict[str, dict[str, int]] = field(default_factory=dict)
    groups: dict[str, int] = field(default_factory=dict)
    rejects: dict[str, int] = field(default_factory=dict)
    leakage: str = ""  # verdict of the check that no track or group is on both sides, in words


@dataclass(frozen=True)
class Trial:
    """One configuration that a search tried.

    `finished` ran all of its epochs, `stopped` was ended early because others of its architecture did better,
    `failed` says why in `error`, and `interrupted` had not ended when the board was made. `valid_f1` is that of its
    best epoch, None where it finished none; `settings` are dotted keys, of this trial's own choice only.
    """

    architecture: str
    settings: dict[str, Setting]
    status: Status
    valid_f1: float | None = None
    epochs: int = 0
    seconds: float | None = None
    error: str = ""

    def __post_init__(self) -> None:
        for name in ("valid_f1", "seconds"):
            object.__setattr__(self, name, finite(getattr(self, name)))


@dataclass(frozen=True)
class Search:
    """What was tried before the winners were trained again.

    `makespan_seconds` is the wall time in which at least one trial ran; `concurrent` how many trials could run at a
    time; `budget` what each architecture was given, in words.
    """

    trials: list[Trial] = field(default_factory=list)
    makespan_seconds: float | None = None
    concurrent: int | None = None
    budget: str = ""

    @property
    def architectures(self) -> list[str]:
        """In the order in which they first occur."""
        return list(dict.fromkeys(trial.architecture for trial in self.trials))

    @property
    def trial_seconds(self) -> float:
        """The sum over all trials: what the search would take one after another."""
        return sum(trial.seconds or 0.0 for trial in self.trials)

    @property
    def utilisation(self) -> float | None:
        """Share in 0..1 of the places for trials that were busy, None where the facts are missing."""
        places = (self.makespan_seconds or 0.0) * (self.concurrent or 0)
        return min(1.0, self.trial_seconds / places) if places else None


@dataclass(frozen=True)
class ComparedRow:
    """A row of another board: macro F1 with its 95 % interval, and accuracy, all in 0..1."""

    name: str
    kind: Kind
    f1: float
    f1_low: float
    f1_high: float
    accuracy: float


@dataclass(frozen=True)
class Compared:
    """Another board's scores on other test tracks, best first; ranks and tests across the two would mean nothing."""

    label: str
    corpus: str
    split: str
    test_tracks: int
    rows: list[ComparedRow] = field(default_factory=list)


def finite(value: float | None) -> float | None:
    """`value` rounded to five digits, or None where it is not a finite number."""
    return None if value is None or not math.isfinite(value) else round(value, DIGITS)
