"""Compute the rows of a board: scores with intervals, and ranks with ties."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from genre.arrays import Float64, Ints
from genre.evaluation import bootstrap, metrics
from genre.evaluation.metrics import SCORES, PerClass
from genre.report.board import Board, Entry

DRAWS = 2000  # bootstrap replicates
LEVEL = 0.95  # of intervals
ALPHA = 0.05  # corrected p-value below which a difference is significant

RANK_RULE = (
    "Rows are ordered by macro F1. A row starts a new rank when its macro F1 is significantly lower than that of the "
    f"best row of the rank above: p < {ALPHA} in a paired bootstrap over the same tracks ({DRAWS} draws), corrected "
    "for all pairs of rows (max-T). Otherwise it shares that rank, also where its own p-value against the first row "
    "shows no difference. An ensemble and nearest neighbours are made of other rows and have no rank."
)
_UNRANKED = ("default", "ensemble", "neighbours")  # kinds of rows

Draws = dict[str, Float64]  # each of `SCORES` on resampled test sets, (draws,)


@dataclass(frozen=True)
class Estimate:
    """A score in 0..1: mean over seed runs, its 95 % interval over tracks, and spread, minimum and maximum over seeds.

    `std` is the sample standard deviation over seeds, None for a single seed.
    """

    mean: float
    low: float
    high: float
    std: float | None
    least: float
    most: float


@dataclass(frozen=True, eq=False)
class Ensembled:
    """Scores of the mean probabilities of a network's seeds, and the p-value of no difference from single seeds."""

    f1: Estimate
    accuracy: Estimate
    p_value: float


@dataclass(frozen=True, eq=False)
class Row:
    """A row of the leaderboard.

    `rank` uses competition ranking (1, 1, 3), None for rows whose kind is in `_UNRANKED`; `tied` is whether
    others share it. `p_value` is that of no difference from the first ranked row, and None for that row. Only that of a
    ranked row is corrected for all pairs of ranked rows. `ensembled` is None for a single seed and for rows that are no
    network. `confusion` is (classes, classes) with a row per true genre, mean over seeds. `f1_draws` are the bootstrap
    replicates of macro F1, paired across rows.
    """

    entry: Entry
    rank: int | None
    tied: bool
    p_value: float | None
    accuracy: Estimate
    precision: Estimate
    recall: Estimate
    f1: Estimate
    ensembled: Ensembled | None
    calibration_error: float
    train_seconds: float | None
    per_class: PerClass
    confusion: Float64
    f1_draws: Float64

    @property
    def differs(self) -> bool:
        """Whether macro F1 differs significantly from that of the first ranked row.

        A ranked row may share a low rank and not differ: it has at least the rank of the rows above it.
        """
        return self.p_value is not None and self.p_value < ALPHA


@dataclass(frozen=True, eq=False)
class Table:
    """The rows of a board, best first."""

    board: Board
    rows: list[Row]

    def of(self, *kinds: str) -> list[Row]:
        """Return the rows of these kinds, best first."""
        return [row for row in self.rows if row.entry.kind in kinds]

    def without_defaults(self) -> Table:
        """Return the table without the networks that were not tuned, which are shown next to the tuned ones only."""
        return replace(self, rows=[row for row in self.rows if row.entry.kind != "default"])


def tabulate(board: Board) -> Table:
    """Score every entry of `board` and rank the rows by `RANK_RULE`; the board's seed determines the bootstrap."""
    n_classes = len(board.classes)
    predicted = {entry.name: entry.predicted for entry in board.entries}
    averaged = {
        entry.name: metrics.decisions(entry.mean_probabilities)
        for entry in board.entries
        if entry.kind == "network" and len(entry.runs) > 1
    }
    both = {(name, False): each for name, each in predicted.items()}
    both |= {(name, True): each for name, each in averaged.items()}
    drawn = bootstrap.bootstrap_scores(board.truth, both, n_classes, board.groups, DRAWS, board.seed)
    draws = {name: drawn[name, False] for name in predicted}
    means = {name: metrics.mean_scores(board.truth, each, n_classes) for name, each in predicted.items()}
    ordered = sorted(board.entries, key=lambda entry: (-means[entry.name]["f1"], entry.name))
    ensembled = {name: _ensembled(board, each, drawn[name, True], draws[name]) for name, each in averaged.items()}
    ranks, p_values = _rank({entry.name: draws[entry.name]["f1"] for entry in ordered if entry.kind not in _UNRANKED})
    rows = []
    for entry in ordered:
        rank, p_value = ranks.get(entry.name), p_values.get(entry.name)
        if rank is None and ranks:
            leader = draws[next(iter(ranks))]["f1"]
            p_value = bootstrap.p_value_of_no_difference(leader - draws[entry.name]["f1"])
        tied = list(ranks.values()).count(rank or 0) > 1
        rows.append(_row(board, entry, draws[entry.name], rank, tied, p_value, ensembled.get(entry.name)))
    return Table(board, rows)


def _ensembled(board: Board, predicted: Ints, drawn: Draws, of_seeds: Draws) -> Ensembled:
    """Return the scores of the mean of a network's seeds, and the p-value against the mean score of the seeds."""
    scores = metrics.mean_scores(board.truth, predicted, len(board.classes))
    f1, accuracy = (_estimate([scores[key]], drawn[key]) for key in ("f1", "accuracy"))
    return Ensembled(f1, accuracy, bootstrap.p_value_of_no_difference(drawn["f1"] - of_seeds["f1"]))


def _rank(f1_draws: dict[str, Float64]) -> tuple[dict[str, int], dict[str, float | None]]:
    """Return rank by `RANK_RULE` and p-value against the first, by name; `f1_draws` are ordered, best first."""
    p_values = bootstrap.max_t(list(f1_draws.values())) if f1_draws else np.ones((0, 0))
    ranks: list[int] = []
    while len(ranks) < len(p_values):
        leader = len(ranks)
        lower = np.flatnonzero(p_values[leader, leader:] < ALPHA)
        ranks += [leader + 1] * int(lower[0] if len(lower) else len(p_values) - leader)
    against_first = [None, *p_values[0, 1:].tolist()] if len(p_values) else []
    return dict(zip(f1_draws, ranks, strict=True)), dict(zip(f1_draws, against_first, strict=True))


def _row(
    board: Board,
    entry: Entry,
    draws: Draws,
    rank: int | None,
    tied: bool,
    p_value: float | None,
    ensembled: Ensembled | None,
) -> Row:
    n_classes = len(board.classes)
    counts = [metrics.confusion_counts(board.truth, run.predicted, n_classes) for run in entry.runs]
    by_run = [metrics.scores(table) for table in counts]
    estimates = {name: _estimate([getattr(run, name) for run in by_run], draws[name]) for name in SCORES}
    seconds = [run.train_seconds for run in entry.runs if run.train_seconds is not None]
    errors = [metrics.expected_calibration_error(board.truth, run.probabilities) for run in entry.runs]
    return Row(
        entry=entry,
        rank=rank,
        tied=tied,
        p_value=p_value,
        **estimates,
        ensembled=ensembled,
        calibration_error=float(np.mean(errors)),
        train_seconds=float(np.mean(seconds)) if seconds else None,
        per_class=_mean_per_class([run.per_class for run in by_run]),
        confusion=np.mean(counts, axis=0),
        f1_draws=draws["f1"],
    )


def _estimate(by_run: list[float], draws: Float64) -> Estimate:
    mean = float(np.mean(by_run))
    low, high = bootstrap.interval(draws, mean, LEVEL)
    std = float(np.std(by_run, ddof=1)) if len(by_run) > 1 else None
    return Estimate(mean, low, high, std, min(by_run), max(by_run))


def _mean_per_class(runs: list[PerClass]) -> PerClass:
    precision, recall, f1 = (
        np.mean([getattr(run, name) for run in runs], axis=0) for name in ("precision", "recall", "f1")
    )
    return PerClass(precision, recall, f1, runs[0].support)
