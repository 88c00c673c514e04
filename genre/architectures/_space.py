"""The domains of a search space, independent of any search library."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from genre.errors import ConfigError


@dataclass(frozen=True)
class Choice:
    """One of these values."""

    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        """Raise `ConfigError` where there is no value."""
        if not self.values:
            raise ConfigError("Choice(()) has no value; write Choice((1, 2))")

    def examples(self) -> tuple[Any, ...]:
        """Return all values."""
        return self.values

    def nearest(self, value: Any) -> Any:
        """Return `value` if it is one of the values, else the first of them: choices have no distance."""
        return value if value in self.values else self.values[0]


@dataclass(frozen=True)
class Uniform:
    """A real number in [low, high]."""

    low: float
    high: float

    def __post_init__(self) -> None:
        """Raise `ConfigError` where no number is between the ends, or one has no logarithm."""
        if not self.low < self.high or (isinstance(self, LogUniform) and self.low <= 0):
            raise ConfigError(
                f"{self}: the low end must be {'above 0 and ' * isinstance(self, LogUniform)}below the high"
            )

    def examples(self) -> tuple[float, ...]:
        """Return both ends and a number between them, which is no integer: a setting of integers needs a `Choice`."""
        return self.low, self.low + (self.high - self.low) / math.pi, self.high

    def nearest(self, value: float) -> float:
        """Return `value`, or the end of the range that is nearest to it."""
        return min(max(value, self.low), self.high)


class LogUniform(Uniform):
    """A positive real number in [low, high], uniform in its logarithm."""


Domain = Choice | Uniform


def parse(key: str, value: Any) -> Domain:
    """Return the domain that a value from YAML stands for: a list, `{uniform: [a, b]}` or `{loguniform: [a, b]}`.

    A single value fixes the setting. Raises `ConfigError` for anything else.
    """
    match value:
        case [_, *_]:
            return Choice(tuple(value))
        case {"uniform": [int() | float() as low, int() | float() as high]} if len(value) == 1 and low < high:
            return Uniform(float(low), float(high))
        case {"loguniform": [int() | float() as low, int() | float() as high]} if len(value) == 1 and 0 < low < high:
            return LogUniform(float(low), float(high))
        case list() | dict():
            raise ConfigError(
                f"{key}: found {value}; write a list, {{uniform: [low, high]}} or {{loguniform: [low, high]}}"
            )
        case _:
            return Choice((value,))
