"""The record of a run of `train`: the settings that determine its result, whether it ended, and its model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from genre.config import differences
from genre.errors import ConfigError
from genre.model.card import weights_of
from genre.storage import Location


@dataclass(frozen=True)
class RunRecord:
    """The file `run.json` in the folder of a run."""

    file: Location

    @classmethod
    def claim(cls, run: Location, settings: dict[str, Any], resume: bool) -> RunRecord:
        """Make `run` the folder of a run with `settings` and return its record.

        An earlier run with the same settings is kept if `resume` is set, and can be resumed. Every other run is
        deleted. Raises `ConfigError` when `resume` is set and an interrupted run with other settings would be lost.
        """
        record = cls(run / "run.json")
        if record.file.exists():
            earlier = record.file.read_json()
            different = differences(earlier["settings"], settings)
            if resume and different and not earlier["ended"]:
                raise ConfigError(
                    f"{run} was interrupted and had other settings: {'; '.join(different)}; "
                    "finish it with its own settings, or replace it with train.resume=false"
                )
            if resume and not different:
                return record
        run.delete()
        record.file.write_json({"settings": settings, "ended": False, "weights": None})
        return record

    def end(self, model: Location | None) -> None:
        """Record that the run ended, and the SHA-256 of the weights in `model` (None: it failed)."""
        weights = weights_of(model) if model is not None else None
        self.file.write_json(self.file.read_json() | {"ended": True, "weights": weights})

    def is_complete(self, model: Location) -> bool:
        """Return whether the run ended, and `model` still holds the weights that it saved."""
        weights = self.file.read_json()["weights"]
        return weights is not None and weights == weights_of(model)
