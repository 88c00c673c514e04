"""How numbers, counts and settings are written in every report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from genre.credentials import without_credentials
from genre.report.facts import DIGITS
from genre.wording import duration

DASH = "–"  # for what is unknown


def score(value: float) -> str:
    """Return a score in 0..1 with three digits.

    It is first rounded to `DIGITS` decimals like a score in a file, so that a score reads the same in all reports,
    before and after it was stored.
    """
    return f"{round(value, DIGITS):.3f}"


def difference(value: float) -> str:
    """Return a difference of scores with its sign, a true minus."""
    rounded = round(round(value, DIGITS), 3) + 0.0  # as in `score`, without a negative zero
    return f"{rounded:+.3f}".replace("-", "\N{MINUS SIGN}")


def p_value(value: float) -> str:
    """Return a p-value with three digits, rounded as in `score`."""
    return "< 0.001" if round(value, DIGITS) < 0.001 else score(value)


def number(value: float) -> str:
    """Return a number with three significant digits, from 100 as a whole number."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def count(value: float) -> str:
    """Return three digits and a unit: 950, 11.2 k, 4.41 M, 1.8 G."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.0f}"


def seconds(value: float) -> str:
    """Return a duration in the largest fitting unit: 12 ms, 3.4 s, 5 min 06 s, 2 h 03 min."""
    if value < 1:
        return f"{value * 1000:.0f} ms"
    return f"{value:.1f} s" if value < 60 else duration(value)


def joined(names: list[str]) -> str:
    """Return "a", "a and b" or "a, b and c"."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def without_folders(address: str) -> str:
    """Return an address without the folders above it, which may be private: "/home/me/music" becomes "music"."""
    address = without_credentials(address)
    is_address = address.startswith(("/", "~")) or "://" in address
    return address.rstrip("/").rpartition("/")[2] if is_address else address


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings with dotted keys."""
    settings: dict[str, Any] = {}
    for key, value in tree.items():
        settings |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return settings
