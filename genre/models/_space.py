"""What a search may vary, said without naming a search library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from genre.errors import ConfigError


@dataclass(frozen=True)
class Choice:
    """One of these values."""

    values: tuple[Any, ...]


@dataclass(frozen=True)
class Uniform:
    """A real number in [low, high]."""

    low: float
    high: float


@dataclass(frozen=True)
class LogUniform:
    """A positive real number in [low, high], uniform in its logarithm."""

    low: float
    high: float


Domain = Choice | Uniform | LogUniform


def parse(key: str, value: Any) -> Domain:
    """A domain from YAML: a list is a choice, `{uniform: [a, b]}` and `{loguniform: [a, b]}` are ranges.

    A single value fixes the setting. Raises `ConfigError` for anything else.
    """
    if isinstance(value, list) and value:
        return Choice(tuple(value))
    if isinstance(value, dict):
        kind, bounds = next(iter(value.items()), ("", None))
        kinds: dict[str, type[Uniform | LogUniform]] = {"uniform": Uniform, "loguniform": LogUniform}
        if len(value) == 1 and kind in kinds and isinstance(bounds, list) and len(bounds) == 2:
            low, high = (float(bound) for bound in bounds)
            if low < high and (kind == "uniform" or low > 0):
                return kinds[kind](low, high)
        raise ConfigError(
            f"{key}: found {value}; write a list, {{uniform: [low, high]}} or {{loguniform: [low, high]}}"
        )
    return Choice((value,))
