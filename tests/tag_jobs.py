"""The tag job as a person calls it, for the tests of what it does."""

from __future__ import annotations

import csv
from pathlib import Path

from ray_jobs.engine import cli


def run(*arguments: str) -> int:
    return cli.main("tag", arguments)


def rows(place: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file."""
    with open(place, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
