"""Facts shown next to the scores: where the tracks came from, and scores on other test sets."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["network", "default", "classical", "majority", "ensemble", "neighbours"]
Setting = str | int | float | bool | None | list[str]
Judged = Literal["train", "valid", "test", "all"]

# as the report writes them; all: of a cross-validation
JUDGED: dict[Judged, str] = {"train": "training", "valid": "validation", "test": "test", "all": "labelled"}
DIGITS = 5  # decimals of every measured number


@dataclass(frozen=True)
class CorpusFacts:
    """Where the tracks came from and how they were split.

    `tracks` counts usable tracks by split, then class; `groups` counts groups (artists) by split;
    `rejects` counts the tracks without features by reason code (`genre.errors.Reason`).
    """

    name: str
    split: str  # its name, such as "official" or "random"
    split_rule: str  # how it was made, for people
    tracks: dict[str, dict[str, int]] = field(default_factory=dict)
    groups: dict[str, int] = field(default_factory=dict)
    rejects: dict[str, int] = field(default_factory=dict)
    leakage: str = ""  # result of the check that no track or group is in two splits, for people


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
    """Scores of another board, on another test set, best first. They are neither ranked with this one nor tested."""

    label: str
    corpus: str
    split: str
    test_tracks: int
    rows: list[ComparedRow] = field(default_factory=list)


def finite(value: float | None) -> float | None:
    """Return `value` rounded to `DIGITS` decimals, or None when it is None, infinite or NaN."""
    return None if value is None or not math.isfinite(value) else round(value, DIGITS)
