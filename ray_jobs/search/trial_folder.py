"""The folder of a trial: all that a later run of the same search needs of it, in files that execute nothing.

    trial.json   what the trial chose, its score after each epoch, and how it ended
    state.pt     the trainer's state after the last epoch, until the trial has run to its end
    model/       the saved model of a trial that ran to its end

Each file appears complete or not at all. The end is written last, so a trial without one is resumed.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from genre.model import checkpoint
from genre.storage import Location
from genre.training.trainer import Epoch, State

# crashed: the process died or raised, so the next run tries again; failed: the loss was lost, as it would be again
Ended = Literal["finished", "stopped", "failed", "crashed"]


@dataclass(frozen=True)
class Record:
    """What is known of one trial."""

    settings: dict[str, Any]  # by dotted key; empty where the process died at its start
    scores: list[tuple[int, float]] = field(default_factory=list)  # (epoch, best validation F1 so far)
    sessions: list[tuple[float, float]] = field(default_factory=list)  # (first, last) seconds since 1970 of each start
    ended: Ended | None = None
    minutes: float = 0.0  # the time limit that stopped it; 0: none did
    failure: str = ""  # in a line

    @property
    def epochs(self) -> int:
        """How many epochs were trained."""
        return self.scores[-1][0] if self.scores else 0

    @property
    def best_f1(self) -> float | None:
        """Of the best epoch, None where none was finished."""
        return self.scores[-1][1] if self.scores else None

    @property
    def seconds(self) -> float:
        """Wall time over all sessions."""
        return sum(last - first for first, last in self.sessions)

    def is_settled(self, minutes: float) -> bool:
        """Whether a search limited to `minutes` (0: not) has nothing more to do here."""
        if self.ended in (None, "crashed"):
            return False
        return not self.minutes or 0 < minutes <= self.minutes

    def started(self) -> Record:
        """The record of the same trial in a new session."""
        now = time.time()
        return replace(self, sessions=[*self.sessions, (now, now)], ended=None, minutes=0.0, failure="")

    def reached(self, history: Sequence[Epoch]) -> Record:
        """The record after the last epoch of `history`."""
        first = self.sessions[-1][0]
        return replace(
            self,
            scores=[(epoch.epoch, epoch.best_f1) for epoch in history],
            sessions=[*self.sessions[:-1], (first, time.time())],
        )


@dataclass(frozen=True)
class TrialFolder:
    """Reads and writes the files of one trial."""

    place: Location

    @property
    def model(self) -> Location:
        """Where the model of a finished trial is."""
        return self.place / "model"

    @property
    def _state(self) -> Location:
        return self.place / "state.pt"

    def record(self) -> Record | None:
        """What is known of the trial, None where it never started."""
        file = self.place / "trial.json"
        if not file.exists():
            return None
        content = file.read_json()
        pairs = {key: [tuple(pair) for pair in content[key]] for key in ("scores", "sessions")}
        return Record(**content | pairs)

    def write(self, record: Record) -> None:
        """Replace the record; of a finished trial only the model is kept."""
        (self.place / "trial.json").write_json(asdict(record))
        if record.ended == "finished":
            self._state.delete()

    def end(self, ended: Ended, minutes: float = 0.0, failure: str = "") -> None:
        """Note how the trial ended, also where it died before it wrote anything."""
        record = self.record() or Record({})
        self.write(replace(record, ended=ended, minutes=minutes, failure=failure))

    def save_state(self, state: State) -> None:
        """Replace the trainer's state."""
        checkpoint.save_state(self._state, state)

    def load_state(self) -> State | None:
        """The trainer's state after the last epoch, None where there is none."""
        return checkpoint.load_state(self._state) if self._state.exists() else None

    def start_from(self, other: TrialFolder) -> None:
        """Begin where another trial of the same settings and seed is, unless this one has begun."""
        if self.record() is None and other._state.exists():
            self._state.write_bytes(other._state.read_bytes())


def wall_seconds(records: Iterable[Record]) -> float:
    """The time during which at least one of the trials ran."""
    total, until = 0.0, 0.0
    for first, last in sorted(session for record in records for session in record.sessions):
        total += max(0.0, last - max(first, until))
        until = max(until, last)
    return total
