"""The content of a leaderboard: predictions on one test split, and facts about corpus, search and machine.

A `Board` holds no scores. Scores, ranks and advice are computed from it (`table.py`), so that a report can be
written again from its JSON, or merged from several, without training.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from genre.arrays import Float32, Float64, Ints
from genre.errors import ArtifactError
from genre.evaluation.metrics import decisions
from genre.model.calibration import Calibration
from genre.report.facts import DIGITS, JUDGED, Compared, CorpusFacts, Judged, Kind, Setting, finite
from genre.report.search import Search
from genre.retrieval.neighbours import Neighbours
from genre.wording import by_reason, plural

Epoch = dict[str, float | None]


@dataclass(frozen=True, eq=False)
class SeedRun:
    """A model trained with one seed, and its predictions for the tracks of the board.

    `probabilities` is float32 (tracks, classes), in the order of `Board.track_ids`. It is rounded to `DIGITS` decimals
    on construction, so that a report written again from its JSON shows the same decisions. `history` holds a dict per
    epoch with epoch, train_loss, valid_loss, valid_accuracy and valid_f1; unknown values are absent, None or not
    finite (which becomes None).
    """

    seed: int
    probabilities: Float32
    train_seconds: float | None = None
    history: list[Epoch] = field(default_factory=list)
    best_epoch: int | None = None
    hardware: str = ""  # of the training
    correction: Calibration | None = None  # that `genre.Tagger` applies; `probabilities` are not corrected
    neighbours: Neighbours | None = None  # of each track, where their votes are the probabilities

    def __post_init__(self) -> None:
        rounded = np.asarray(self.probabilities, dtype=np.float64).round(DIGITS).astype(np.float32)
        object.__setattr__(self, "probabilities", rounded)
        object.__setattr__(self, "history", [{k: finite(v) for k, v in epoch.items()} for epoch in self.history])
        object.__setattr__(self, "train_seconds", finite(self.train_seconds))

    @property
    def predicted(self) -> Ints:
        """Predicted class index of each track, (tracks,)."""
        return decisions(self.probabilities)

    @property
    def reported(self) -> Ints | None:
        """Class index that the job tag reports for each track, -1 where it is unknown, (tracks,); None without limits.

        There are limits where `correction` was fitted for a precision.
        """
        if self.correction is None or not self.correction.thresholds:
            return None
        return self.correction.reported(self.correction(self.probabilities))


@dataclass(frozen=True, eq=False)
class Entry:
    """The content of a leaderboard row: a model with its seed runs.

    `settings` is the winning configuration with dotted keys, chosen by `valid_f1`. `flops` counts the operations per
    clip; `clips_per_second` and `latency_ms` (of a single clip) were measured on `hardware`. `robustness` holds macro
    F1 on changed test tracks, mean over the seed runs, by change (`genre.evaluation.changes.CHANGES`), and on the same
    tracks unchanged (`genre.evaluation.robustness.UNCHANGED`). Values that are unknown or not finite are None or
    absent, and shown as a dash. `default_of` names the network that a row of kind `default` is with the configured
    settings.
    """

    name: str
    kind: Kind
    runs: list[SeedRun]
    settings: dict[str, Setting] = field(default_factory=dict)
    trials: int | None = None
    valid_f1: float | None = None
    parameters: int | None = None
    flops: int | None = None
    clips_per_second: float | None = None
    latency_ms: float | None = None
    memory_mb: float | None = None  # peak of the training
    robustness: dict[str, float] = field(default_factory=dict)
    hardware: str = ""  # of the measurement of speed and latency
    default_of: str = ""

    def __post_init__(self) -> None:
        for name in ("valid_f1", "clips_per_second", "latency_ms", "memory_mb"):
            object.__setattr__(self, name, finite(getattr(self, name)))
        known = {change: value for change, f1 in self.robustness.items() if (value := finite(f1)) is not None}
        object.__setattr__(self, "robustness", known)

    @property
    def is_reference(self) -> bool:
        """Whether the row is for comparison only and no candidate to use."""
        return self.kind != "network"

    @property
    def predicted(self) -> Ints:
        """Predicted class index of each track by each seed run, (seeds, tracks)."""
        return np.stack([run.predicted for run in self.runs])

    @property
    def mean_probabilities(self) -> Float64:
        """Mean over the seed runs, (tracks, classes)."""
        mean: Float64 = np.mean([run.probabilities for run in self.runs], axis=0, dtype=np.float64)
        return mean


@dataclass(frozen=True, eq=False)
class Board:
    """The content of one report.

    `truth` is (tracks,) class indices. `judged_on` names the split of the tracks; only the tracks of `test` had
    no influence on the models. Those of `all`, in a cross-validation, chose settings and numbers of epochs, but no
    network learned from the group that it judges. `groups` names the group of each track, or the track itself where
    none is known; None: no group is known. `commit` is that of the code. `compared` holds results on other test sets,
    such as another split (see `merging.merge`). `missing` gives, by name, why an architecture that was searched has no
    entry. `judged_from` is the key by which a search finds that it was judged before; "" for other reports. Raises
    `ArtifactError` when the parts do not fit together.
    """

    title: str
    classes: list[str]
    track_ids: list[str]
    truth: Ints
    entries: list[Entry]
    corpus: CorpusFacts
    created: str  # ISO 8601
    judged_on: Judged = "test"
    seed: int = 0
    groups: list[str] | None = None
    hardware: str = ""
    commands: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    commit: str = ""
    search: Search | None = None
    compared: list[Compared] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    judged_from: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "truth", np.asarray(self.truth, dtype=np.int64))
        self._check()

    @property
    def track_count(self) -> str:
        """Such as "100 test tracks"."""
        return plural(len(self.track_ids), f"{JUDGED[self.judged_on]} track")

    @property
    def missing_notes(self) -> list[str]:
        """A sentence for each reason, with the architectures that have no entry for it."""
        return [f"No model of {', '.join(names)}: {reason}." for reason, names in by_reason(self.missing).items()]

    def _check(self) -> None:
        tracks, classes = len(self.track_ids), len(self.classes)
        if self.truth.shape != (tracks,):
            raise ArtifactError(
                f"leaderboard: truth has shape {self.truth.shape} for {tracks} tracks; give one class per track"
            )
        if tracks and (self.truth.min() < 0 or self.truth.max() >= classes):
            raise ArtifactError(
                f"leaderboard: truth has indices outside of 0..{classes - 1}; use the order of the class list"
            )
        if self.groups is not None and len(self.groups) != tracks:
            raise ArtifactError(
                f"leaderboard: {len(self.groups)} groups for {tracks} tracks; give one per track, or none"
            )
        if self.judged_on not in JUDGED:
            raise ArtifactError(f"leaderboard: judged_on={self.judged_on!r} is unknown; use one of {', '.join(JUDGED)}")
        for name, n in Counter(entry.name for entry in self.entries).items():
            if n > 1:
                raise ArtifactError(f"leaderboard: {n} entries are called {name!r}; give each its own name")
        for entry in self.entries:
            _check_runs(entry, (tracks, classes))


def describe_hardware(entries: Sequence[Entry]) -> str:
    """Return the hardware of all measurements; when it differs, with what was measured on which."""
    uses: dict[str, list[str]] = {}
    for entry in entries:
        for run in entry.runs:
            if run.hardware:
                uses.setdefault(run.hardware, []).append(f"training of {entry.name}")
        if entry.hardware and entry.kind != "ensemble":
            uses.setdefault(entry.hardware, []).append(f"speed of {entry.name}")
    if len(uses) <= 1:
        return "".join(uses)
    return "; ".join(f"{hardware} ({', '.join(dict.fromkeys(what))})" for hardware, what in uses.items())


def _check_runs(entry: Entry, shape: tuple[int, int]) -> None:
    if not entry.runs:
        raise ArtifactError(f"leaderboard: {entry.name!r} has no seed run; leave the entry out")
    for run in entry.runs:
        where = f"leaderboard: {entry.name!r} seed {run.seed}: probabilities"
        if run.probabilities.shape != shape:
            raise ArtifactError(
                f"{where} are {run.probabilities.shape}, not {shape}; score the model on this test split"
            )
        if run.neighbours is not None and len(run.neighbours.track_ids) != shape[0]:
            raise ArtifactError(
                f"leaderboard: {entry.name!r}: neighbours of {len(run.neighbours.track_ids)} tracks, not of {shape[0]}"
            )
        if not np.isfinite(run.probabilities).all():
            raise ArtifactError(f"{where} are not all finite; leave the seed run out")
