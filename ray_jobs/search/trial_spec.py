"""The input of one trial. Tune takes it as a plain dictionary, which its logs and MLflow show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

KEY = "run"  # of the specification in the `config` of a Tune trial


@dataclass(frozen=True)
class TrialSpec:
    """The settings of a trial by dotted key, the address of its folder, and its name in Tune's logs.

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
