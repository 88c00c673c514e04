"""Counts, lists and durations in words, for messages and reports."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping


def plural(count: int, noun: str) -> str:
    """Return "1 track" or "2 tracks"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def listed(texts: Iterable[str], most: int = 5) -> str:
    """Return the first `most` texts, and how many more there are: "blues, folk and 3 more"."""
    texts = list(texts)
    return ", ".join(texts[:most]) + and_more(len(texts), most)


def and_more(count: int, shown: int) -> str:
    """Return " and 3 more" for what is not shown of a list, "" where all of it is."""
    return f" and {count - shown} more" if count > shown else ""


def by_reason(reasons: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the names that share each reason, in the order of `reasons`."""
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    return names


def duration(seconds: float) -> str:
    """Return "42 s", "3 min 05 s" or "1 h 27 min"."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def money(amount: float) -> str:
    """Return an amount with two decimals; below 0.1 with two digits, but at most six decimals: "12.50", "0.0042"."""
    decimals = 2 if amount >= 0.1 or amount <= 0 else min(6, 1 - math.floor(math.log10(amount)))
    return f"{amount:.{decimals}f}"


def data_size(count: float) -> str:
    """Return a number of bytes in kB, MB or GB: "4.2 MB"."""
    return next((f"{count / unit:.1f} {name}" for unit, name in ((1e9, "GB"), (1e6, "MB")) if count >= unit), "") or (
        f"{count / 1e3:.1f} kB"
    )


def clock(seconds: float) -> str:
    """Return a time in minutes and seconds: 125.0 as "2:05"."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
