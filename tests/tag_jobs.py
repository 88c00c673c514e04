"""The tag job as a person calls it, for the tests of what it does."""

from __future__ import annotations

import csv
from pathlib import Path

from saving import song

from ray_jobs.engine import cli


def run(*arguments: str) -> int:
    return cli.main("tag", arguments)


def rows(place: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file."""
    with open(place, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def three_songs(folder: Path) -> Path:
    """Write 0.flac, 1.flac and 2.flac of different pitch into a folder, and return it."""
    for number in range(3):
        song(folder / f"{number}.flac", hertz=200 + 150 * number)
    return folder
