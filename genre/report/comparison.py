"""Scores of this board next to those on other test sets, such as another split of the same music."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from genre.report.columns import KINDS
from genre.report.facts import Compared, ComparedRow
from genre.report.formats import difference, score
from genre.report.table import Row, Table


@dataclass(frozen=True, eq=False)
class ComparisonRow:
    """One model: its row on this board and on each other board, None where a board lacks it."""

    name: str
    note: str
    here: Row | None
    others: list[ComparedRow | None]

    def gap(self, index: int) -> str:
        """Return macro F1 on another board minus macro F1 here, with its sign; "" when either is missing."""
        other = self.others[index]
        return difference(other.f1 - self.here.f1.mean) if other and self.here else ""


def comparison_rows(table: Table) -> list[ComparisonRow]:
    """Return the models of this board, best first, then those that only other boards have."""
    others = [{row.name: row for row in other.rows} for other in table.board.compared]
    here = {row.entry.name: row for row in table.rows}
    kinds = {name: row.entry.kind for name, row in here.items()}
    for rows in others:
        kinds |= {name: row.kind for name, row in rows.items() if name not in kinds}
    return [
        ComparisonRow(name, KINDS[kind], here.get(name), [rows.get(name) for rows in others])
        for name, kind in kinds.items()
    ]


def mean_gaps(table: Table) -> Iterator[str]:
    """Yield a sentence for each other board: how much higher or lower the networks score there on average."""
    networks = {row.entry.name: row.f1.mean for row in table.of("network")}
    for other in table.board.compared:
        gaps = [row.f1 - networks[row.name] for row in other.rows if row.name in networks]
        if gaps:
            gap = float(np.mean(gaps))
            direction = "higher" if gap >= 0 else "lower"
            yield f"{_where(table, other)} the same networks score {score(abs(gap))} {direction} on average."


def _where(table: Table, other: Compared) -> str:
    corpus = table.board.corpus
    if other.corpus == corpus.name and other.split != corpus.split:
        return f"On the {other.split} split of the same music"
    return f"On {other.label}"
