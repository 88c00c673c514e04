"""What a leaderboard is made of: predictions on one test split, and the facts around them.

Nothing here is computed: scores, ranks and advice follow from a `Board` alone (`table.py`), so that a
report can be made again from its JSON, or from several put together, without training.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from genre.errors import ArtifactError
from genre.evaluation.metrics import IntArray, decisions
from genre.report.facts import DIGITS, PARTS, Compared, CorpusFacts, Kind, Part, Search, Setting, finite

Epoch = dict[str, float | None]


@dataclass(frozen=True, eq=False)
class Run:
    """One training of one model with one seed, and its answers on the test split.

    `probabilities` is float32 (tracks, classes), rows in the order of `Board.track_ids`. It is rounded to five
    digits here, not when stored, so that a report made again from its JSON shows the very same decisions.
    `history` holds a dict per epoch: epoch, train_loss, valid_loss, valid_accuracy, valid_f1 (None or absent
    where unknown; a value that is not finite becomes None).
    """

    seed: int
    probabilities: npt.NDArray[np.float32]
    train_seconds: float | None = None
    history: list[Epoch] = field(default_factory=list)
    best_epoch: int | None = None
    hardware: str = ""  # of the training

    def __post_init__(self) -> None:
        rounded = np.asarray(self.probabilities, dtype=np.float64).round(DIGITS).astype(np.float32)
        object.__setattr__(self, "probabilities", rounded)
        object.__setattr__(self, "history", [{k: finite(v) for k, v in epoch.items()} for epoch in self.history])
        object.__setattr__(self, "train_seconds", finite(self.train_seconds))

    @property
    def predicted(self) -> IntArray:
        """Class index of each track, (tracks,)."""
        return decisions(self.probabilities)


@dataclass(frozen=True, eq=False)
class Entry:
    """One row of the leaderboard: a model with its runs over seeds.

    `settings` is the winning configuration with dotted keys; `valid_f1` the score that chose it; `flops` are
    per clip; `clips_per_second` and `latency_ms` (one clip alone) are of inference on `hardware`.
    `robustness` is macro F1 on changed test tracks, by change (`genre.evaluation.robustness.CHANGES`), mean over the
    runs.
    What is unknown, or not a finite number, is None or absent and shows as a dash.
    """

    name: str
    kind: Kind
    runs: list[Run]
    settings: dict[str, Setting] = field(default_factory=dict)
    trials: int | None = None
    valid_f1: float | None = None
    parameters: int | None = None
    flops: int | None = None
    clips_per_second: float | None = None
    latency_ms: float | None = None
    memory_mb: float | None = None
    robustness: dict[str, float] = field(default_factory=dict)
    hardware: str = ""  # that speed and latency were measured on

    def __post_init__(self) -> None:
        for name in ("valid_f1", "clips_per_second", "latency_ms", "memory_mb"):
            object.__setattr__(self, name, finite(getattr(self, name)))
        known = {change: value for change, f1 in self.robustness.items() if (value := finite(f1)) is not None}
        object.__setattr__(self, "robustness", known)

    @property
    def is_reference(self) -> bool:
        """Rows that show what a score is worth, and are not offered as the model to use."""
        return self.kind != "network"

    @property
    def predicted(self) -> IntArray:
        """Class index of each track in each run, (seeds, tracks)."""
        return np.stack([run.predicted for run in self.runs])

    @property
    def mean_probabilities(self) -> npt.NDArray[np.float64]:
        """Mean over the runs, (tracks, classes)."""
        mean: npt.NDArray[np.float64] = np.mean([run.probabilities for run in self.runs], axis=0, dtype=np.float64)
        return mean


@dataclass(frozen=True, eq=False)
class Board:
    """Everything that one report shows.

    `truth` is (tracks,) class indices; `part` says which split the tracks are of, and only `test` decided nothing
    before; `groups` names the artist of each track; `commit` is that of the code; `compared` holds results on other
    tracks, such as those of another split (see `merging.merge`). `missing` says why an architecture that was searched
    has no entry, by name.
    """

    title: str
    classes: list[str]
    track_ids: list[str]
    truth: IntArray
    entries: list[Entry]
    corpus: CorpusFacts
    created: str  # ISO 8601
    part: Part = "test"
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

    def __post_init__(self) -> None:
        object.__setattr__(self, "truth", np.asarray(self.truth, dtype=np.int64))
        self._check()

    @property
    def tracks_in_words(self) -> str:
        """Such as "100 test tracks"."""
        return f"{len(self.track_ids)} {PARTS[self.part]} tracks"

    @property
    def missing_in_words(self) -> list[str]:
        """A sentence for each architecture without an entry."""
        return [f"No model of {name}: {why}." for name, why in self.missing.items()]

    def _check(self) -> None:
        """Raise `ArtifactError` where the parts do not fit together."""
        tracks, classes = len(self.track_ids), len(self.classes)
        if self.truth.shape != (tracks,):
            raise ArtifactError(
                f"leaderboard: truth has shape {self.truth.shape} for {tracks} tracks; give one class each"
            )
        if tracks and (self.truth.min() < 0 or self.truth.max() >= classes):
            raise ArtifactError(f"leaderboard: truth leaves 0..{classes - 1}; use the order of the class list")
        if self.groups is not None and len(self.groups) != tracks:
            raise ArtifactError(
                f"leaderboard: {len(self.groups)} groups for {tracks} tracks; give one each, or none at all"
            )
        if self.part not in PARTS:
            raise ArtifactError(f"leaderboard: part {self.part!r} is not known; use one of {', '.join(PARTS)}")
        for name, times in Counter(entry.name for entry in self.entries).items():
            if times > 1:
                raise ArtifactError(f"leaderboard: {times} entries are called {name!r}; give each its own name")
        for entry in self.entries:
            _check_runs(entry, (tracks, classes))


def hardware_in_words(entries: Sequence[Entry]) -> str:
    """Where times were measured: once where all are of the same hardware, else which is of which."""
    places: dict[str, list[str]] = {}
    for entry in entries:
        for run in entry.runs:
            if run.hardware:
                places.setdefault(run.hardware, []).append(f"training of {entry.name}")
        if entry.hardware and entry.kind != "ensemble":
            places.setdefault(entry.hardware, []).append(f"speed of {entry.name}")
    if len(places) <= 1:
        return "".join(places)
    return "; ".join(f"{place} ({', '.join(dict.fromkeys(what))})" for place, what in places.items())


def _check_runs(entry: Entry, shape: tuple[int, int]) -> None:
    if not entry.runs:
        raise ArtifactError(f"leaderboard: {entry.name!r} has no run; leave the entry out")
    for run in entry.runs:
        where = f"leaderboard: {entry.name!r} seed {run.seed}: probabilities"
        if run.probabilities.shape != shape:
            raise ArtifactError(
                f"{where} are {run.probabilities.shape}, not {shape}; score the model on this test split"
            )
        if not np.isfinite(run.probabilities).all():
            raise ArtifactError(f"{where} are not all finite; leave the run out")
