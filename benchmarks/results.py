"""Compare the results of a job with those of an undisturbed run."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from music import tables
from same import differences, steady

from genre.arrays import Float64
from genre.model import checkpoint
from genre.storage import Location

TOLERANCE = 1e-5  # of what is computed with floating point in another order
_COMPUTED = {
    "probabilities": TOLERANCE,
    "timeline": TOLERANCE,
    "embedding": 2e-3,
}  # of the tag table; an embedding is stored in 16 bits
_CONCURRENT = "/board/search/concurrent:"  # the trials at a time: of the machines that were up at the end of the search


def difference(job: str, expected: Location, actual: Location) -> str:
    """Return what differs between the results of two runs; "" where they are equal."""
    compare: dict[str, Callable[[Location, Location], str]] = {
        "prepare": _prepare_difference,
        "train": _model_difference,
        "tune": lambda *outputs: _board_difference("leaderboard", *outputs),
        "evaluate": lambda *outputs: _board_difference("evaluation", *outputs),
        "tag": tags_difference,
    }
    return compare[job](expected, actual)


def _prepare_difference(expected: Location, actual: Location) -> str:
    """Compare clips, tracks, rejects and duplicates, byte for byte, without the names of parts."""
    right, made = tables(expected.address), tables(actual.address)
    return "; ".join(
        f"{name}: {len(right[name])} rows and {len(made[name])}, or other content"
        for name in right
        if not right[name].equals(made[name])
    )


def _model_difference(expected: Location, actual: Location) -> str:
    """Compare the loss of each epoch and the weights."""
    folders = [output / "models" / "crnn" for output in (expected, actual)]
    histories = [(folder / "model.json").read_json()["facts"]["history"] for folder in folders]
    losses = [np.array([epoch["train_loss"] for epoch in history]) for history in histories]
    if losses[0].shape != losses[1].shape:
        return f"{len(losses[0])} epochs and {len(losses[1])}"
    weights = [checkpoint.load(folder)[1].network.state_dict() for folder in folders]
    worst = max(float((weights[0][name] - weights[1][name]).abs().max()) for name in weights[0])
    worst = max(worst, float(np.abs(losses[0] - losses[1]).max()))
    return f"losses or weights differ by {worst:.3g}" if worst > TOLERANCE else ""


def _board_difference(name: str, expected: Location, actual: Location) -> str:
    """Compare the leaderboards without what depends on the clock, or on how many machines were up."""
    boards = [steady((output / name / "leaderboard.json").read_json(), str(output)) for output in (expected, actual)]
    return "; ".join([line for line in differences(*boards) if not line.startswith(_CONCURRENT)][:5])


def tags_difference(expected: Location, actual: Location) -> str:
    """Compare the rows of the tag tables; probabilities may differ by rounding."""
    right, made = ((output / "tags" / "ledger.parquet").read_table().sort_by("path") for output in (expected, actual))
    if right["path"] != made["path"]:
        return f"{len(right)} rows and {len(made)}, or other paths"
    other = [name for name in right.column_names if name not in _COMPUTED and right[name] != made[name]]
    if other:
        return f"other values of {', '.join(other)}: {_first_difference(right.select(other), made.select(other))}"
    for name, tolerance in _COMPUTED.items():
        numbers = [_numbers(table[name]) for table in (right, made)]
        if numbers[0].shape != numbers[1].shape:
            return f"{len(numbers[0])} values of {name} and {len(numbers[1])}"
        worst = float(np.abs(numbers[0] - numbers[1]).max())
        if worst > tolerance:
            return f"{name} differ by {worst:.3g}"
    return ""


def _numbers(lists: pa.ChunkedArray) -> Float64:
    """Return all numbers in a column of lists, or of lists of moments with their probabilities."""
    values = pc.list_flatten(lists)
    if pa.types.is_struct(values.type):
        values = pc.list_flatten(pc.struct_field(values, "probabilities"))
    return np.asarray(values, float)


def _first_difference(right: pa.Table, made: pa.Table) -> str:
    """Return the first rows that differ; tables whose rows are equal in Python, as with NaN, give ""."""
    return next((f"{a} and {b}" for a, b in zip(right.to_pylist(), made.to_pylist(), strict=True) if a != b), "")
