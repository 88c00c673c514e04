"""The one flat form of a table, from which every file takes its numbers, and how each number is shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from genre.evaluation.metrics import SCORES
from genre.report.facts import DIGITS
from genre.report.table import Estimate, Row, Table

Value = str | int | float | None
Record = dict[str, Value]

DASH = "–"

KINDS = {  # how the rows that are no candidates are marked
    "network": "",
    "classical": "reference: classical baseline",
    "majority": "reference: most common genre",
    "ensemble": "reference: ensemble",
}


def records(table: Table) -> list[Record]:
    """A flat dict per row, best first; floats rounded to five digits, None where unknown."""
    changes = changes_of(table)
    return [_record(row, changes) for row in table.rows]


def changes_of(table: Table) -> list[str]:
    """Every change of the tracks that some row was asked about, in the order of the first that was."""
    return list(dict.fromkeys(change for row in table.rows for change in row.entry.robustness))


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
    record |= {_changed_key(change): entry.robustness.get(change) for change in changes}
    return {key: round(value, DIGITS) if isinstance(value, float) else value for key, value in record.items()}


@dataclass(frozen=True)
class Column:
    """How one key of a record is shown. `interval`: with its `_low` and `_high` beside it."""

    key: str
    heading: str
    meaning: str
    show: Callable[[float], str]
    interval: bool = False

    def text(self, record: Record) -> str:
        value = record[self.key]
        return self.show(value) if isinstance(value, int | float) else DASH

    def range(self, record: Record) -> str:
        """Both ends of the interval, or nothing for a column without."""
        if not self.interval:
            return ""
        low, high = (record[f"{self.key}_{end}"] for end in ("low", "high"))
        return f"{self.show(low)}–{self.show(high)}" if isinstance(low, float) and isinstance(high, float) else ""

    def present(self, table: list[Record]) -> bool:
        return any(record[self.key] is not None for record in table)


def score(value: float) -> str:
    return f"{value:.3f}"


def count(value: float) -> str:
    """Three digits and a unit: 950, 11.2 k, 4.41 M, 1.8 G."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.0f}"


def seconds(value: float) -> str:
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


SCORE_COLUMNS = (
    Column("f1", "Macro F1", "mean F1 over genres, which ranks the rows; below it the 95 % interval", score, True),
    Column("accuracy", "Accuracy", "share of the tracks that were right; below it the 95 % interval", score, True),
    Column("precision", "Precision", "mean over genres: how often a named genre was right", score, True),
    Column("recall", "Recall", "mean over genres: how much of a genre was found", score, True),
    Column("f1_std", "Spread", "standard deviation of macro F1 over seeds", score),
    Column("p_value_vs_best", "p vs best", "p-value of no difference from the best ranked row", p_value),
    Column("calibration_error", "Calibration", "gap between confidence and accuracy; 0 is ideal", score),
)

COST_COLUMNS = (
    Column("parameters", "Parameters", "trained numbers in the model", count),
    Column("flops", "FLOPs a clip", "floating-point operations to classify one clip", count),
    Column("train_seconds", "Training", "time to train once, mean over seeds", seconds),
    Column("clips_per_second", "Clips/s", "clips classified a second on this hardware", number),
    Column("latency_ms", "Latency", "milliseconds for one clip alone", lambda ms: seconds(ms / 1000)),
    Column("memory_mb", "Memory", "peak memory in MB", lambda mb: f"{number(mb)} MB"),
    Column("trials", "Trials", "configurations tried in the search", number),
    Column("valid_f1", "Valid F1", "macro F1 on validation that chose the settings", score),
)


def robustness_columns(table: Table) -> list[Column]:
    """Macro F1 on the tracks as they are, then on each change of them."""
    if not (changes := changes_of(table)):
        return []
    changed = [Column(_changed_key(c), c, f"macro F1 on the same tracks, {c}", score) for c in changes]
    return [Column("f1", "Unchanged", "macro F1 on the tracks as they are", score), *changed]


def lost(record: Record, column: Column) -> str:
    """The difference of a robustness column from the score on unchanged tracks, with its sign."""
    value, clean = record[column.key], record["f1"]
    if column.key == "f1" or not isinstance(value, float) or not isinstance(clean, float):
        return ""
    return difference(value - clean)


def difference(value: float) -> str:
    """With its sign, a true minus."""
    return f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")


def _changed_key(change: str) -> str:
    return f"f1 {change}"


def rank_text(row: Row) -> str:
    """The rank, with an equals sign where it is shared, or a dash where there is none."""
    return DASH if row.rank is None else f"{row.rank}=" if row.tied else str(row.rank)
