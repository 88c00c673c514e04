"""Merge the boards of several experiments into one, for `leaderboard.compare`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from genre.errors import ArtifactError
from genre.report.board import Board, Entry, SeedRun, describe_hardware
from genre.report.facts import Compared, ComparedRow
from genre.report.search import Search, Trial
from genre.report.table import tabulate


def merge(boards: Mapping[str, Board]) -> Board:
    """Return one board of several, given by a short label (the name of their output folder).

    The first board gives the title, the corpus and the test tracks. Boards with the same genres and the same test
    tracks, in any order, add their entries and trials, and are ranked together. An entry whose name is taken becomes
    "name (label)"; if its predictions are equal too (a baseline on the same features) it is left out. Boards with
    other test tracks, such as another split, become `Board.compared`: their scores are shown next to this board's,
    neither ranked with them nor tested. Raises `ArtifactError` when `boards` is empty.
    """
    if not boards:
        raise ArtifactError("leaderboard: nothing to merge; name at least one output folder that has a leaderboard")
    first = next(iter(boards.values()))
    same = {label: _in_order_of(first, board) for label, board in boards.items() if _has_same_test(board, first)}
    different = [_compared(label, board) for label, board in boards.items() if label not in same]
    merged: list[Board] = []
    for label, board in same.items():
        merged.append(_renamed(board, label, merged))
    entries = [entry for board in merged for entry in board.entries]
    return replace(
        first,
        entries=entries,
        created=max(board.created for board in boards.values()),
        hardware=describe_hardware(entries) or _joined(merged, lambda board: board.hardware),
        commit=_joined(merged, lambda board: board.commit),
        commands=_unique(command for board in boards.values() for command in board.commands),
        notes=[*_unique(note for board in merged for note in board.notes), *_notes(same)],
        search=_merged_search([board.search for board in merged if board.search]),
        compared=[*(other for board in merged for other in board.compared), *different],
        missing=_missing(merged, entries),
        judged_from="",
    )


def _has_same_test(board: Board, first: Board) -> bool:
    return board.classes == first.classes and _truth(board) == _truth(first)


def _truth(board: Board) -> dict[str, int]:
    return dict(zip(board.track_ids, board.truth.tolist(), strict=True))


def _in_order_of(first: Board, board: Board) -> Board:
    """Return `board` with its tracks in the order of `first`."""
    if board.track_ids == first.track_ids:
        return board
    index = {track: row for row, track in enumerate(board.track_ids)}
    order = np.array([index[track] for track in first.track_ids])

    def reorder(run: SeedRun) -> SeedRun:
        nearest = run.neighbours.take(order) if run.neighbours else None
        return replace(run, probabilities=run.probabilities[order], neighbours=nearest)

    entries = [replace(entry, runs=[reorder(run) for run in entry.runs]) for entry in board.entries]
    return replace(board, track_ids=first.track_ids, truth=first.truth, groups=first.groups, entries=entries)


def _missing(boards: list[Board], entries: list[Entry]) -> dict[str, str]:
    """Return the architectures that no board has an entry of, with the first board's reason."""
    names = {entry.name for entry in entries}
    return {name: why for board in reversed(boards) for name, why in board.missing.items() if name not in names}


def _renamed(board: Board, label: str, earlier: Sequence[Board]) -> Board:
    """Return `board` with the names that its entries and trials have after those of `earlier` boards, renamed before.

    Entries that repeat one of theirs, and the trials of these, are left out.
    """
    names = _new_names(board, [entry for other in earlier for entry in other.entries], label)
    entries = [
        replace(entry, name=names[entry.name], default_of=names.get(entry.default_of, entry.default_of))
        for entry in board.entries
        if entry.name in names
    ]
    tried = [trial for other in earlier if other.search for trial in other.search.trials]
    return replace(board, entries=entries, search=_renamed_search(board, label, names, tried))


def _new_names(board: Board, entries: list[Entry], label: str) -> dict[str, str]:
    """Return the name of each entry of `board` in the merged board, without those that repeat one of `entries`."""
    known = {entry.name: entry for entry in entries}
    names: dict[str, str] = {}
    for entry in sorted(board.entries, key=lambda entry: entry.kind in ("default", "neighbours")):
        namesake = known.get(entry.name)
        # neighbours are those of a network of this board, and a default is one of them, which may have a new name
        is_default_of_renamed = names.get(entry.default_of, entry.default_of) != entry.default_of
        if namesake is None:
            is_of_renamed = entry.kind == "neighbours" and any(new != old for old, new in names.items())
            names[entry.name] = f"{entry.name} ({label})" if is_of_renamed or is_default_of_renamed else entry.name
        elif is_default_of_renamed or not _same_predictions(entry, namesake):
            names[entry.name] = f"{entry.name} ({label})"
    return names


def _same_predictions(entry: Entry, other: Entry) -> bool:
    return len(entry.runs) == len(other.runs) and all(
        np.array_equal(a.probabilities, b.probabilities) for a, b in zip(entry.runs, other.runs, strict=True)
    )


def _renamed_search(board: Board, label: str, names: dict[str, str], tried: Sequence[Trial]) -> Search | None:
    """Return the search of a board, whose trials belong to the rows of the merged board; None where it has no trials.

    `names` are the new names of its entries. The trials of an entry that is left out are left out as well, if its row
    has some of those `tried` before. Trials whose architecture has no entry in the board belong to no row.
    """
    rows, architectures = {trial.row for trial in tried}, {trial.architecture for trial in tried}
    own = {entry.name for entry in board.entries}
    trials = []
    for trial in board.search.trials if board.search else []:
        row = trial.row or trial.architecture
        if row in own and row not in names and row in rows:
            continue
        name = f"{trial.architecture} ({label})" if trial.architecture in architectures else trial.architecture
        new_row = names.get(row, row) if row in own else f"{row} ({label})"
        trials.append(replace(trial, architecture=name, row=new_row))
    return replace(board.search, trials=trials) if board.search and trials else None


def _merged_search(searches: list[Search]) -> Search | None:
    """Return all trials as one search; the makespans add up, as the experiments ran one after another."""
    if len(searches) < 2:
        return searches[0] if searches else None
    spans = [search.makespan_seconds for search in searches]
    concurrent = {search.concurrent for search in searches}
    known = [span for span in spans if span is not None]
    return Search(
        trials=[trial for search in searches for trial in search.trials],
        makespan_seconds=sum(known) if len(known) == len(spans) else None,
        concurrent=concurrent.pop() if len(concurrent) == 1 else None,
        budget="; ".join(_unique(search.budget for search in searches if search.budget)),
    )


def _compared(label: str, board: Board) -> Compared:
    rows = [
        ComparedRow(row.entry.name, row.entry.kind, row.f1.mean, row.f1.low, row.f1.high, row.accuracy.mean)
        for row in tabulate(board).without_defaults().rows
    ]
    return Compared(label, board.corpus.name, board.corpus.split, len(board.track_ids), rows)


def _notes(same: Mapping[str, Board]) -> list[str]:
    notes = [f"Rows of {', '.join(same)} on the same tracks, ranked together."] if len(same) > 1 else []
    if len({board.hardware for board in same.values()}) > 1:
        notes.append(
            "The experiments ran on different hardware, so their training times and speeds are not comparable."
        )
    if len({tuple(board.versions.items()) for board in same.values()}) > 1:
        notes.append(
            f"The experiments ran with different versions; the versions listed are those of {next(iter(same))}."
        )
    return notes


def _joined(boards: list[Board], text_of: Callable[[Board], str]) -> str:
    return "; ".join(_unique(text_of(board) for board in boards if text_of(board)))


def _unique(texts: Iterable[str]) -> list[str]:
    """Return the texts without repetitions, in order."""
    return list(dict.fromkeys(texts))
