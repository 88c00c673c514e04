"""Several boards into one, for `leaderboard.compare`: rows of the same test tracks together, others side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import numpy as np

from genre.errors import ArtifactError
from genre.report.board import Board, Entry, Run, hardware_in_words
from genre.report.facts import Compared, ComparedRow, Search
from genre.report.table import tabulate


def merge(boards: Mapping[str, Board]) -> Board:
    """One board of several experiments, each under a short label that tells it apart (its output folder's name).

    The first board gives the title, the corpus and the test tracks. Boards with the same genres and the same test
    tracks, in any order, add their entries and trials, and are ranked together. An entry whose name is taken becomes
    "name (label)", unless it gives the very same answers (a baseline on the same features), when it is left out.
    Boards with other test tracks, such as those of another split, become `Board.compared`: their scores stand beside
    the others, without ranks or tests between them. Raises `ArtifactError` for no board at all.
    """
    if not boards:
        raise ArtifactError("leaderboard: nothing to merge; name at least one output folder that has a leaderboard")
    (label, first), *others = boards.items()
    same = {name: _reordered(board, first) for name, board in others if _has_same_test(board, first)}
    apart = [_compared(name, board) for name, board in others if name not in same]
    entries, searches = list(first.entries), [first.search]
    for name, board in same.items():
        new_names = _new_names(board, entries, name)
        entries += [replace(entry, name=new_names[entry.name]) for entry in board.entries if entry.name in new_names]
        searches.append(_renamed(board.search, new_names))
    together = [first, *same.values()]
    return replace(
        first,
        entries=entries,
        created=max(board.created for board in boards.values()),
        hardware=hardware_in_words(entries) or _joined(together, lambda board: board.hardware),
        commit=_joined(together, lambda board: board.commit),
        commands=_once(command for board in boards.values() for command in board.commands),
        notes=[*_once(note for board in together for note in board.notes), *_notes(label, same, together)],
        search=_together([search for search in searches if search is not None]),
        compared=[*(other for board in together for other in board.compared), *apart],
        missing=_missing(together, entries),
    )


def _has_same_test(board: Board, first: Board) -> bool:
    return board.classes == first.classes and _truth(board) == _truth(first)


def _truth(board: Board) -> dict[str, int]:
    return dict(zip(board.track_ids, board.truth.tolist(), strict=True))


def _reordered(board: Board, first: Board) -> Board:
    """`board` with its tracks in the order of `first`."""
    if board.track_ids == first.track_ids:
        return board
    place = {track: row for row, track in enumerate(board.track_ids)}
    order = np.array([place[track] for track in first.track_ids])

    def reorder(run: Run) -> Run:
        return replace(run, probabilities=run.probabilities[order])

    entries = [replace(entry, runs=[reorder(run) for run in entry.runs]) for entry in board.entries]
    return replace(board, track_ids=first.track_ids, truth=first.truth, groups=first.groups, entries=entries)


def _missing(boards: list[Board], entries: list[Entry]) -> dict[str, str]:
    """What no board has an entry of, and why the first of them has none."""
    found = {entry.name for entry in entries}
    return {name: why for board in reversed(boards) for name, why in board.missing.items() if name not in found}


def _new_names(board: Board, entries: list[Entry], label: str) -> dict[str, str]:
    """What each entry of `board` is called beside `entries`; those that repeat one of them are absent."""
    known = {entry.name: entry for entry in entries}
    names = {}
    for entry in board.entries:
        twin = known.get(entry.name)
        if twin is None:
            names[entry.name] = entry.name
        elif not _same_answers(entry, twin):
            names[entry.name] = f"{entry.name} ({label})"
    return names


def _same_answers(one: Entry, other: Entry) -> bool:
    return len(one.runs) == len(other.runs) and all(
        np.array_equal(a.probabilities, b.probabilities) for a, b in zip(one.runs, other.runs, strict=True)
    )


def _renamed(search: Search | None, names: dict[str, str]) -> Search | None:
    if search is None:
        return None
    trials = [replace(trial, architecture=names.get(trial.architecture, trial.architecture)) for trial in search.trials]
    return replace(search, trials=trials)


def _together(searches: list[Search]) -> Search | None:
    """All trials; the makespans add up, since experiments that are compared ran one after another."""
    if len(searches) < 2:
        return searches[0] if searches else None
    spans = [search.makespan_seconds for search in searches]
    concurrent = {search.concurrent for search in searches}
    known = [span for span in spans if span is not None]
    return Search(
        trials=[trial for search in searches for trial in search.trials],
        makespan_seconds=sum(known) if len(known) == len(spans) else None,
        concurrent=concurrent.pop() if len(concurrent) == 1 else None,
        budget="; ".join(_once(search.budget for search in searches if search.budget)),
    )


def _compared(label: str, board: Board) -> Compared:
    rows = [
        ComparedRow(row.entry.name, row.entry.kind, row.f1.mean, row.f1.low, row.f1.high, row.accuracy.mean)
        for row in tabulate(board).rows
    ]
    return Compared(label, board.corpus.name, board.corpus.split, len(board.track_ids), rows)


def _notes(label: str, same: Mapping[str, Board], together: list[Board]) -> list[str]:
    notes = [f"Rows of {', '.join([label, *same])} on the same tracks, ranked together."] if same else []
    if len({board.hardware for board in together}) > 1:
        notes.append("The experiments ran on different hardware: compare their training times and speeds with care.")
    if len({tuple(board.versions.items()) for board in together}) > 1:
        notes.append(f"The experiments ran with different versions; those listed are of {label}.")
    return notes


def _joined(boards: list[Board], of: Callable[[Board], str]) -> str:
    return "; ".join(_once(of(board) for board in boards if of(board)))


def _once(texts: Iterable[str]) -> list[str]:
    """Each text at its first place."""
    return list(dict.fromkeys(texts))
