"""The input of a trial, and its folder: what a later run of the same search needs, in files that contain no code.

    trial.json       the trial's settings, its score after each epoch, and how it ended
    state.pt         the trainer's state after the last epoch, deleted when the trial has finished
    model/           the saved model of a finished trial; with tune.folds that of its first fold
    fold-N.parquet   with tune.folds: predictions for the tracks of a finished fold

Each file is written atomically. How the trial ended is written last; a trial that has not ended is resumed.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from genre.storage import Location
from genre.training import fold_predictions, trainer_state
from genre.training.trainer import Epoch, State

# finished: has a model, after all epochs or when train.patience ended it; stopped: by early stopping or the time limit
# failed: its loss was not finite, so it is not repeated; crashed: it raised or its process died, so it is repeated
Ended = Literal["finished", "stopped", "failed", "crashed"]
KEY = "run"  # of the specification in the `config` of a Tune trial


@dataclass(frozen=True)
class TrialSpec:
    """The input of a trial: its settings by dotted key, the address of its folder, and its name in Tune's logs.

    Tune takes it as a plain dictionary, which its logs and MLflow show.

    `repeats` is the folder of the trial that a final training repeats on all tracks that are not test, with tune.folds.
    """

    settings: dict[str, Any]
    folder: str
    name: str
    repeats: str = ""

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> TrialSpec:
        """Return the specification in the `config` of a Tune trial."""
        return cls(**config[KEY])

    @property
    def architecture(self) -> str:
        return str(self.settings["architecture"])

    def to_config(self) -> dict[str, Any]:
        """Return the `config` of the Tune trial."""
        return {KEY: asdict(self)}


@dataclass(frozen=True)
class FoldResult:
    """The best epoch of a finished fold, its macro F1 on the tracks that the fold held out, and the epochs trained."""

    f1: float
    best_epoch: int
    epochs: int


@dataclass(frozen=True)
class Record:
    """The progress of a trial, as in its trial.json.

    With tune.folds, `scores` are those of the first fold. A final training has the `folds` of the trial it repeats.
    """

    settings: dict[str, Any]  # by dotted key; empty where the process died at its start
    scores: list[tuple[int, float]] = field(default_factory=list)  # (epoch, best validation F1 so far)
    sessions: list[tuple[float, float]] = field(default_factory=list)  # (first, last) seconds since 1970 of each start
    ended: Ended | None = None
    minutes: float = 0.0  # the time limit that stopped it; 0: no time limit did
    failure: str = ""  # in one line
    folds: list[FoldResult] = field(default_factory=list)  # those that finished, in order
    later_epochs: int = 0  # trained in folds after the first

    @property
    def epochs(self) -> int:
        """Number of epochs trained, in all folds."""
        return (self.scores[-1][0] if self.scores else 0) + self.later_epochs

    @property
    def first_f1(self) -> float | None:
        """Validation macro F1 of the best epoch of the only split, or of the first fold; None before an epoch."""
        return self.scores[-1][1] if self.scores else None

    @property
    def best_f1(self) -> float | None:
        """Mean validation macro F1 of the best epochs of the finished folds; without them `first_f1`."""
        return statistics.fmean(fold.f1 for fold in self.folds) if self.folds else self.first_f1

    @property
    def seconds(self) -> float:
        """Wall time of all sessions."""
        return sum(last - first for first, last in self.sessions)

    def is_settled(self, minutes: float) -> bool:
        """Return whether a search limited to `minutes` (0: no limit) does not have to run the trial again."""
        if self.ended in (None, "crashed"):
            return False
        return not self.minutes or 0 < minutes <= self.minutes

    def started(self) -> Record:
        """Return the record at the start of a new session."""
        now = time.time()
        return replace(self, sessions=[*self.sessions, (now, now)], ended=None, minutes=0.0, failure="")

    def now(self) -> Record:
        """Return the record with the session until now."""
        first = self.sessions[-1][0]
        return replace(self, sessions=[*self.sessions[:-1], (first, time.time())])

    def reached(self, history: Sequence[Epoch]) -> Record:
        """Return the record after the last epoch of `history`."""
        return replace(self.now(), scores=[(epoch.epoch, epoch.best_f1) for epoch in history])

    def reached_later(self, epochs: int) -> Record:
        """Return the record after `epochs` epochs of a fold after the first that is not finished."""
        return replace(self.now(), later_epochs=sum(fold.epochs for fold in self.folds[1:]) + epochs)

    def epochs_to_train(self, complete: int) -> int:
        """Return the median of the folds' best epochs; `complete`, all epochs, where no fold finished."""
        return round(statistics.median(fold.best_epoch for fold in self.folds)) if self.folds else complete


@dataclass(frozen=True)
class TrialFolder:
    """Reads and writes the files of one trial."""

    location: Location

    @property
    def model(self) -> Location:
        """The folder of a finished trial's model."""
        return self.location / "model"

    def predictions(self, fold: int) -> Location:
        """The file of the predictions for the tracks of a finished fold."""
        return fold_predictions.file_of(self.location, fold)

    @property
    def _state(self) -> Location:
        return self.location / "state.pt"

    def record(self) -> Record | None:
        """Return the record of the trial; None if it never started."""
        file = self.location / "trial.json"
        if not file.exists():
            return None
        content = file.read_json()
        pairs = {key: [tuple(pair) for pair in content[key]] for key in ("scores", "sessions")}
        folds = [FoldResult(**result) for result in content.get("folds", [])]
        return Record(**content | pairs | {"folds": folds})

    def write(self, record: Record) -> None:
        """Replace the record, and delete the state of a finished trial."""
        (self.location / "trial.json").write_json(asdict(record))
        if record.ended == "finished":
            self._state.delete()

    def end(self, ended: Ended, minutes: float = 0.0, failure: str = "") -> None:
        """Record how the trial ended, also where it has no record yet."""
        record = self.record() or Record({})
        self.write(replace(record, ended=ended, minutes=minutes, failure=failure))

    def save_state(self, state: State, fold: int = 0) -> None:
        """Replace the trainer's state by that of `fold`; 0: of a training without folds."""
        trainer_state.save(self._state, state | {"fold": fold} if fold else state)

    def load_state(self, fold: int = 0) -> State | None:
        """Return the trainer's state after the last epoch of `fold`; None if there is none."""
        state = trainer_state.load(self._state) if self._state.exists() else None
        return None if state is None or state.pop("fold", 0) != fold else state

    def start_from(self, other: TrialFolder) -> None:
        """Copy the state of a trial with the same settings and seed, and its scores, unless this one has started."""
        if self.record() is None and (trial := other.record()) is not None and other._state.exists():
            self._state.write_bytes(other._state.read_bytes())
            self.write(Record(trial.settings, trial.scores))


def wall_seconds(records: Iterable[Record]) -> float:
    """Return the time during which at least one of the trials ran."""
    total, until = 0.0, 0.0
    for first, last in sorted(session for record in records for session in record.sessions):
        total += max(0.0, last - max(first, until))
        until = max(until, last)
    return total
