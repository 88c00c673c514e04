"""Which model to use and why, in plain sentences computed from the table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from genre.evaluation.metrics import interval
from genre.report.table import ALPHA, Row, Table

FASTER = 1.5  # times as many clips a second from which speed is worth a word
SMALLER = 2.0  # times fewer parameters, likewise
FRAGILE = 0.05  # macro F1 lost on changed tracks, likewise


@dataclass(frozen=True, eq=False)
class Advice:
    """`sentence` is the answer; `reasons` say how sure it is, what it costs and what the references reach."""

    sentence: str
    reasons: list[str] = field(default_factory=list)
    pick: Row | None = None


def advise(table: Table) -> Advice:
    """Pick the best network, unless no network beats what the reference rows reach for next to nothing.

    Tied means sharing the best row's rank, so that the sentences agree with the table below them.
    """
    ranked = [row for row in table.rows if row.rank is not None]
    if not ranked:
        return Advice("No model has been scored yet.", ["Train one, then make the leaderboard again."])
    best, majorities = ranked[0], table.of("majority")
    name = best.entry.name
    if any(row.rank == best.rank for row in majorities):
        sentence = "Use none of these: no model is measurably better than always answering the commonest genre."
        return Advice(sentence, [f"The best is {name}: {_scored(best, table)}", *_floor(majorities)])
    if best.entry.kind == "classical":
        name = f"{name}, the classical baseline, which no network beats"
    others = [row for row in table.of("network") if row is not best]
    reasons = [*_against(best, others), *_against_baseline(best, table), *_ensemble(best, table)]
    reasons += [*_fragile(best), *_floor(majorities), *_resolution(best, table)]
    return Advice(f"Use {name}: {_scored(best, table)}", reasons, best)


def _scored(row: Row, table: Table) -> str:
    return (
        f"right on {100 * row.accuracy.mean:.0f} % of the {table.board.tracks_in_words}; "
        f"macro F1 {row.f1.mean:.2f} (95 % interval {row.f1.low:.2f} to {row.f1.high:.2f})."
    )


def _against(best: Row, others: list[Row]) -> Iterator[str]:
    """How `best` stands against the other networks, and which of its equals is cheaper."""
    if not others:
        return
    tied = [row for row in others if row.rank == best.rank]
    if not tied:
        yield f"It is clearly ahead of every other network; the next is {_named(others[:1])}."
        return
    behind = [row for row in others if row not in tied]
    ahead = f", and is clearly ahead of {_named(behind)}" if behind else ""
    yield f"On these tracks it cannot be told apart from {_named(tied)}{ahead}."
    cheaper = max(tied, key=lambda row: (_faster(best, row), _smaller(best, row)))
    gains = {}
    if _faster(best, cheaper) >= FASTER:
        gains["speed"] = f"{_faster(best, cheaper):.1f} times as fast"
    if _smaller(best, cheaper) >= SMALLER:
        gains["size"] = f"{_smaller(best, cheaper):.1f} times smaller"
    if gains:
        yield f"For {' and '.join(gains)} take {cheaper.entry.name}: {' and '.join(gains.values())}."


def _against_baseline(best: Row, table: Table) -> Iterator[str]:
    for row in table.of("classical")[:1]:
        name = f"the classical baseline {_named([row])}"
        if row.rank == best.rank and row is not best:
            yield f"It is not measurably better than {name}: more tracks or better training would have to show it."
        elif row is not best:
            yield f"It is clearly ahead of {name}."


def _ensemble(best: Row, table: Table) -> Iterator[str]:
    for row in table.of("ensemble")[:1]:
        if row.f1.mean > best.f1.mean and row.p_value is not None:
            sure = "measurably better" if row.p_value < ALPHA else "not measurably better"
            yield f"The ensemble of the networks reaches {row.f1.mean:.2f}, {sure}, and costs running each of them."


def _fragile(best: Row) -> Iterator[str]:
    """The change of the recording that costs `best` most."""
    change, f1 = min(best.entry.robustness.items(), key=lambda item: item[1], default=("", best.f1.mean))
    if best.f1.mean - f1 >= FRAGILE:
        yield f"Its weak spot is a worse recording ({change}): macro F1 falls to {f1:.2f}."


def _floor(majorities: list[Row]) -> Iterator[str]:
    for row in majorities[:1]:
        yield f"Always answering the commonest genre reaches macro F1 {row.f1.mean:.2f}."


def _resolution(best: Row, table: Table) -> Iterator[str]:
    """How large a difference these tracks can show: half the width of the intervals of the differences."""
    others = [row for row in table.of("network", "classical") if row is not best]
    ends = [interval(best.f1_draws - row.f1_draws, best.f1.mean - row.f1.mean) for row in others]
    widths = [(high - low) / 2 for low, high in ends]
    if widths and np.median(widths) >= 0.005:
        least = f"{np.median(widths):.2f}"
        yield f"With {table.board.tracks_in_words} a difference in macro F1 has to be about {least} to show."


def _faster(best: Row, row: Row) -> float:
    ours, theirs = best.entry.clips_per_second, row.entry.clips_per_second
    return theirs / ours if ours and theirs else 0.0


def _smaller(best: Row, row: Row) -> float:
    ours, theirs = best.entry.parameters, row.entry.parameters
    return ours / theirs if ours and theirs else 0.0


def _named(rows: list[Row]) -> str:
    """Names with their macro F1: "cnn (0.61), crnn (0.60) and vgg16 (0.58)"."""
    names = [f"{row.entry.name} ({row.f1.mean:.2f})" for row in rows]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
