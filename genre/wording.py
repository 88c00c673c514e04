"""Counts, lists and durations in words, for messages and reports."""

from __future__ import annotations

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


def clock(seconds: float) -> str:
    """Return a time in minutes and seconds: 125.0 as "2:05"."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
