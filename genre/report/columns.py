"""The flat form of a table from which every file takes its numbers, and the columns that show them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from genre.evaluation.metrics import SCORES
from genre.evaluation.robustness import UNCHANGED
from genre.report.facts import DIGITS
from genre.report.formats import DASH, count, difference, number, p_value, score, seconds
from genre.report.table import Estimate, Row, Table
from genre.report.tuning import Tuning, tunings

Value = str | int | float | None
Record = dict[str, Value]

KINDS = {  # the note on rows that are not candidates
    "network": "",
    "default": "reference: not tuned",
    "classical": "reference: classical baseline",
    "majority": "reference: most common genre",
    "ensemble": "reference: ensemble",
    "neighbours": "reference: embeddings",
}


def records(table: Table) -> list[Record]:
    """Return a flat dict per row, best first; floats have `DIGITS` decimals, unknown values are None."""
    changes, tuned = changes_of(table), {id(tuning.row): tuning for tuning in tunings(table)}
    return [
        _record(row, changes) | _versions(row, tuned.get(id(row))) | _worst(row, table.board.classes)
        for row in table.rows
    ]


def changes_of(table: Table) -> list[str]:
    """Return the names of all changes of the audio that some row was scored on."""
    names = dict.fromkeys(change for row in table.rows for change in row.entry.robustness)
    return [name for name in names if name != UNCHANGED]


def _record(row: Row, changes: list[str]) -> Record:
    entry = row.entry
    record: Record = {"rank": row.rank, "name": entry.name, "kind": entry.kind, "seeds": len(entry.runs)}
    for name in SCORES:
        estimate: Estimate = getattr(row, name)
        record |= {name: estimate.mean, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
        record |= {f"{name}_std": estimate.std, f"{name}_min": estimate.least, f"{name}_max": estimate.most}
    record |= {"calibration_error": row.calibration_error, "p_value_vs_best": row.p_value}
    record |= {"parameters": entry.parameters, "flops": entry.flops, "train_seconds": row.train_seconds}
    record |= {"clips_per_second": entry.clips_per_second, "latency_ms": entry.latency_ms}
    record |= {"memory_mb": entry.memory_mb, "trials": entry.trials, "valid_f1": entry.valid_f1}
    if changes:
        record |= {_robustness_key(change): entry.robustness.get(change) for change in (UNCHANGED, *changes)}
    return {key: round(value, DIGITS) if isinstance(value, float) else value for key, value in record.items()}


def _versions(row: Row, tuning: Tuning | None) -> Record:
    """Return the scores of the other versions of a network and what its search took, see `tuning`."""
    mean, chosen = row.ensembled, tuning.chosen if tuning else None
    default = tuning.judged_default if tuning else None
    known: dict[str, float | None] = {
        "default_valid_f1": tuning.first_f1 if tuning else None,
        "default_f1": default.f1.mean if default else None,
        "default_accuracy": default.accuracy.mean if default else None,
        "p_value_default": tuning.p_value if tuning else None,
        "tuned_valid_f1": chosen.valid_f1 if tuning and chosen and tuning.was_searched else None,
        "search_seconds": tuning.search_seconds if tuning else None,
        "seeds_f1": mean.f1.mean if mean else None,
        "seeds_f1_low": mean.f1.low if mean else None,
        "seeds_f1_high": mean.f1.high if mean else None,
        "seeds_accuracy": mean.accuracy.mean if mean else None,
        "p_value_seeds": mean.p_value if mean else None,
    }
    return {key: None if value is None else round(value, DIGITS) for key, value in known.items()}


def _worst(row: Row, classes: list[str]) -> Record:
    """Return the lowest F1 of a genre that has tracks, and the first such genre."""
    present = np.flatnonzero(row.per_class.support)
    if not len(present):
        return {"worst_f1": None, "worst_genre": None}
    index = present[row.per_class.f1[present].argmin()]
    return {"worst_f1": round(float(row.per_class.f1[index]), DIGITS), "worst_genre": classes[index]}


@dataclass(frozen=True)
class Column:
    """How a key of a record is shown: with `_low` and `_high` if `interval`, or with the value of the key `detail`."""

    key: str
    heading: str
    meaning: str
    show: Callable[[float], str]
    interval: bool = False
    less_is_better: bool = False
    detail: str = ""

    def text(self, record: Record) -> str:
        """Return the value of `record`, or a dash."""
        value = record[self.key]
        return self.show(value) if isinstance(value, int | float) else DASH

    def note(self, record: Record) -> str:
        """Return both ends of the interval or the detail, or "" for a column with neither."""
        if not self.interval:
            return str(record[self.detail] or "") if self.detail else ""
        low, high = (record[f"{self.key}_{end}"] for end in ("low", "high"))
        return f"{self.show(low)}–{self.show(high)}" if isinstance(low, float) and isinstance(high, float) else ""

    def is_known(self, table: list[Record]) -> bool:
        """Return whether at least one row has a value."""
        return any(record[self.key] is not None for record in table)


SCORE_COLUMNS = (
    Column("f1", "Macro F1", "F1 averaged over genres; rows are ranked by it. Below: 95 % interval", score, True),
    Column("accuracy", "Accuracy", "share of tracks classified correctly. Below: 95 % interval", score, True),
    Column("precision", "Precision", "precision averaged over genres. Below: 95 % interval", score, True),
    Column("recall", "Recall", "recall averaged over genres. Below: 95 % interval", score, True),
    Column("worst_f1", "Worst", "F1 of the genre with the lowest. Below: that genre", score, detail="worst_genre"),
    Column("f1_std", "Spread", "standard deviation of macro F1 over seeds", score, less_is_better=True),
    Column("p_value_vs_best", "p vs best", "p-value of no difference from the first ranked row", p_value, False, True),
    Column("calibration_error", "Calibration", "expected calibration error; 0 is ideal", score, less_is_better=True),
)

COST_COLUMNS = (
    Column("parameters", "Parameters", "trainable parameters", count),
    Column("flops", "FLOPs per clip", "floating-point operations to classify one clip", count),
    Column("train_seconds", "Training", "time of one training, mean over seeds", seconds),
    Column("clips_per_second", "Clips/s", "clips classified per second on this hardware", number),
    Column("latency_ms", "Latency", "time to classify a single clip", lambda ms: seconds(ms / 1000)),
    Column("memory_mb", "Memory", "peak memory of the training", lambda mb: f"{number(mb)} MB"),
    Column("trials", "Trials", "configurations tried in the search", number),
    Column("valid_f1", "Valid F1", "validation macro F1, by which the settings were chosen", score),
)


def robustness_columns(table: Table) -> list[Column]:
    """Return the columns with macro F1 on the unchanged tracks, then on each change of them."""
    if not (changes := changes_of(table)):
        return []
    changed = [Column(_robustness_key(c), c, f"macro F1 on the same tracks, {c}", score) for c in changes]
    return [Column(_robustness_key(UNCHANGED), "Unchanged", "macro F1 on the unchanged tracks", score), *changed]


def lost(record: Record, column: Column) -> str:
    """Return how far the score of a robustness column is from that on unchanged tracks, with its sign."""
    unchanged_key = _robustness_key(UNCHANGED)
    value, unchanged = record[column.key], record[unchanged_key]
    if column.key == unchanged_key or not isinstance(value, float) or not isinstance(unchanged, float):
        return ""
    return difference(value - unchanged)


def _robustness_key(change: str) -> str:
    return f"f1 {change}"


def rank_text(row: Row) -> str:
    """Return the rank, with an equals sign when it is shared, or a dash when the row has none."""
    return DASH if row.rank is None else f"{row.rank}=" if row.tied else str(row.rank)
