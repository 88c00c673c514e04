"""The report as Markdown that also reads well unrendered: everything but the pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from genre.report import md
from genre.report.advice import advise
from genre.report.beside import beside, in_words
from genre.report.board import Board
from genre.report.columns import (
    COST_COLUMNS,
    DASH,
    KINDS,
    SCORE_COLUMNS,
    Record,
    lost,
    rank_text,
    records,
    robustness_columns,
    score,
)
from genre.report.slices import search_facts, slices
from genre.report.table import RANK_RULE, Table


def markdown(table: Table) -> str:
    """Answer, scores, costs, robustness, genres, other splits, search, data, and how to repeat it.

    Names are escaped: none can become a tag or a link.
    """
    advice, rows = advise(table), records(table)
    parts = [f"# {md.safe(table.board.title)}", f"**{md.safe(advice.sentence)}**", md.bullets(advice.reasons)]
    if table.rows:
        parts += [
            "## Leaderboard",
            _scores(table, rows),
            md.bullets(table.board.missing_in_words),
            RANK_RULE,
            *_costs(rows),
            *_robustness(table, rows),
        ]
        parts += ["## F1 by genre", _genres(table), *_beside(table)]
    parts += [*_search(table.board), *_data(table.board), *_repeat(table.board)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _scores(table: Table, rows: list[Record]) -> str:
    columns = [column for column in SCORE_COLUMNS if column.present(rows)]
    cells = []
    for row, record in zip(table.rows, rows, strict=True):
        name = f"{row.entry.name} ({KINDS[row.entry.kind]})" if row.entry.is_reference else row.entry.name
        scores = [f"{column.text(record)} {md.bracketed(column.range(record))}".strip() for column in columns]
        cells.append([rank_text(row), name, *scores])
    return md.table(["Rank", "Model", *(column.heading for column in columns)], cells)


def _costs(rows: list[Record]) -> Iterator[str]:
    columns = [column for column in COST_COLUMNS if column.present(rows)]
    if columns:
        yield "## Cost"
        cells = [[str(record["name"]), *(column.text(record) for column in columns)] for record in rows]
        yield md.table(["Model", *(column.heading for column in columns)], cells)


def _robustness(table: Table, rows: list[Record]) -> Iterator[str]:
    if columns := robustness_columns(table):
        yield "## When the recording is worse"
        yield "Macro F1 on the same tracks, changed; in brackets the difference from the unchanged ones."
        cells = [
            [str(record["name"]), *(f"{c.text(record)} {md.bracketed(lost(record, c))}".strip() for c in columns)]
            for record in rows
        ]
        yield md.table(["Model", *(column.heading for column in columns)], cells)


def _beside(table: Table) -> Iterator[str]:
    """Macro F1 here and on the other boards."""
    if not table.board.compared:
        return
    yield "## On other tracks"
    yield " ".join([*map(md.safe, in_words(table)), "There are no ranks between different tracks."])
    headings = [f"{other.split} split, {other.label}" for other in table.board.compared]
    cells = []
    for line in beside(table):
        there = [
            f"{score(row.f1)} {md.bracketed(line.gap(index))}".strip() if row else DASH
            for index, row in enumerate(line.there)
        ]
        cells.append([line.name, score(line.here.f1.mean) if line.here else DASH, *there])
    yield md.table(["Model", f"{table.board.corpus.split} split, this board", *headings], cells)


def _search(board: Board) -> Iterator[str]:
    if board.search and board.search.trials:
        yield "## The search"
        yield md.bullets(f"{name}: {value}" for name, value in search_facts(board.search))
        cells = [[s.name, DASH if s.best is None else score(s.best), s.outcome] for s in slices(board.search)]
        yield md.table(["Model", "Best valid F1", "Trials"], cells)
        errors = Counter(f"{trial.architecture}: {trial.error}" for trial in board.search.trials if trial.error)
        yield md.bullets(f"{error} ({times} times)" if times > 1 else error for error, times in errors.items())


def _genres(table: Table) -> str:
    support = np.bincount(table.board.truth, minlength=len(table.board.classes))
    cells = [
        [
            genre,
            str(support[index]),
            *(f"{row.per_class.f1[index]:.2f}" if support[index] else DASH for row in table.rows),
        ]
        for index, genre in enumerate(table.board.classes)
    ]
    return md.table(["Genre", "Tracks", *(row.entry.name for row in table.rows)], cells)


def _data(board: Board) -> Iterator[str]:
    corpus = board.corpus
    yield "## Data"
    facts = {"Corpus": corpus.name, "Split": f"{corpus.split}: {corpus.split_rule}", "Leakage gate": corpus.leakage}
    yield md.bullets(f"{name}: {value}" for name, value in facts.items() if value)
    if corpus.tracks:
        counts = [[genre, *(str(split.get(genre, 0)) for split in corpus.tracks.values())] for genre in board.classes]
        total = ["all", *(str(sum(split.values())) for split in corpus.tracks.values())]
        yield md.table(["Genre", *corpus.tracks], [*counts, total])
    if corpus.rejects:
        yield md.table(["Rejected because", "Files"], [[reason, str(n)] for reason, n in corpus.rejects.items()])
        yield "Each file, with its reason in words, stands in `features/rejects.parquet`."
    yield md.bullets(board.notes)


def _repeat(board: Board) -> Iterator[str]:
    yield "## Repeat it"
    yield md.code(board.commands)
    facts = {"Made": board.created, "Seed": str(board.seed), "Commit": board.commit, "Hardware": board.hardware}
    facts |= board.versions
    yield md.bullets(f"{name}: {value}" for name, value in facts.items() if value)
