"""What a search trains: epochs and trials of each architecture, and seeds of each winner."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from genre.settings import TrainSettings, TuneSettings


@dataclass(frozen=True)
class Plan:
    """`epochs` of a complete training by architecture, `trials` of each architecture, and `seeds` of each winner.

    The trials of an architecture are stopped when they have trained for `minutes` together; 0: no limit. `defaults` is
    whether the configured settings get final trainings like the winners.
    """

    epochs: dict[str, int]
    trials: int
    seeds: int
    minutes: float = 0.0
    defaults: bool = False

    @classmethod
    def of(cls, train: TrainSettings, tune: TuneSettings, architectures: Iterable[str]) -> Plan:
        """Return the plan of the settings without a time limit."""
        epochs = dict.fromkeys(architectures, train.epochs)
        return cls(epochs, tune.trials, tune.seeds, defaults=tune.defaults)

    @property
    def finals(self) -> int:
        """The most settings of an architecture that get final trainings; those of a single trial are the configured."""
        return 2 if self.defaults and self.trials > 1 else 1
