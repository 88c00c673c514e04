"""What the thresholds of saved models promise, and what they keep on the tracks of the report."""

from __future__ import annotations

from dataclasses import dataclass

from genre.arrays import Ints
from genre.model import thresholds
from genre.model.calibration import Calibration
from genre.report.formats import DASH
from genre.report.table import Table


@dataclass(frozen=True)
class Promise:
    """The thresholds of a network, and the share of this report's tracks that get a genre from its models.

    `correct` is the share of these whose genre is right, None where none gets one. Both are means over all seeds.
    """

    name: str
    source: str  # such as "40 validation tracks"
    temperature: str
    threshold: str  # as `thresholds.describe`, "" where no genre is ever reported
    precision: float  # promised
    named: float
    correct: float | None


def promises(table: Table) -> list[Promise]:
    """Return what the networks with calibrated models promise, best first."""
    promised = []
    for row in table.of("network"):
        runs = [
            (genres, run.correction)
            for run in row.entry.runs
            if run.correction and (genres := run.reported) is not None
        ]
        if runs:
            promised.append(_promise(row.entry.name, runs, table))
    return promised


def lines(made: list[Promise]) -> list[list[str]]:
    """Return the promises as a table with headings, nothing where there is none."""
    rows = [
        [
            each.name,
            each.source,
            each.temperature,
            each.threshold or "all",
            f"{each.precision:.0%}",
            f"{each.named:.0%}",
            DASH if each.correct is None else f"{each.correct:.1%}",
        ]
        for each in made
    ]
    headings = ["Model", "Fitted on", "Temperature", "Unknown below", "Promised", "Named", "Correct of these"]
    return [headings, *rows] if rows else []


def way_out(made: list[Promise]) -> str:
    """Return what helps where a network names no genre at all, "" where each names some."""
    if all(each.threshold for each in made):
        return ""
    return (
        "Unknown below all: the held-out tracks are too few, or too many of them were predicted wrongly, to promise "
        "any genre at this precision. A lower min_precision, more held-out tracks (corpus.valid_fraction, tune.folds) "
        "or a better model help."
    )


def _promise(name: str, runs: list[tuple[Ints, Calibration]], table: Table) -> Promise:
    named = correct = 0
    for genres, _ in runs:
        named += int((genres >= 0).sum())
        correct += int((genres == table.board.truth).sum())
    temperatures = [f"{calibration.temperature:.2f}" for _, calibration in runs]
    limits = [limit for _, calibration in runs for limit in calibration.thresholds]
    return Promise(
        name=name,
        source=runs[0][1].source,
        temperature=" to ".join(sorted({min(temperatures), max(temperatures)})),
        threshold=thresholds.describe(tuple(limits)).rstrip(","),
        precision=runs[0][1].precision,
        named=named / max(1, len(runs) * len(table.board.truth)),
        correct=correct / named if named else None,
    )
