"""This board's scores beside those on other test tracks, such as another split of the same music."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from genre.report.columns import KINDS, difference
from genre.report.facts import Compared, ComparedRow
from genre.report.table import Row, Table


@dataclass(frozen=True, eq=False)
class Line:
    """One model: its row here, and on each other board, None where it is not on it."""

    name: str
    note: str
    here: Row | None
    there: list[ComparedRow | None]

    def gap(self, index: int) -> str:
        """F1 there minus F1 here, with its sign; nothing where one is missing."""
        other = self.there[index]
        return difference(other.f1 - self.here.f1.mean) if other and self.here else ""


def beside(table: Table) -> list[Line]:
    """Models of this board, best first, then those that only others have."""
    others = [{row.name: row for row in other.rows} for other in table.board.compared]
    here = {row.entry.name: row for row in table.rows}
    kinds = {name: row.entry.kind for name, row in here.items()}
    for rows in others:
        kinds |= {name: row.kind for name, row in rows.items() if name not in kinds}
    return [
        Line(name, KINDS[kind], here.get(name), [rows.get(name) for rows in others]) for name, kind in kinds.items()
    ]


def in_words(table: Table) -> Iterator[str]:
    """What the networks gain or lose on each other board, on average."""
    networks = {row.entry.name: row.f1.mean for row in table.of("network")}
    for other in table.board.compared:
        gaps = [row.f1 - networks[row.name] for row in other.rows if row.name in networks]
        if gaps:
            gap = float(np.mean(gaps))
            way = "higher" if gap >= 0 else "lower"
            yield f"{_of_split(table, other)} the same networks score {abs(gap):.3f} {way} on average."


def _of_split(table: Table, other: Compared) -> str:
    corpus = table.board.corpus
    if other.corpus == corpus.name and other.split != corpus.split:
        return f"On the {other.split} split of the same music"
    return f"On {other.label}"
