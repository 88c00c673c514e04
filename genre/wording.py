"""Counts and durations in words, for messages and reports."""

from __future__ import annotations


def plural(count: int, noun: str) -> str:
    """Return "1 track" or "2 tracks"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def duration(seconds: float) -> str:
    """Return "42 s", "3 min 05 s" or "1 h 27 min"."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
