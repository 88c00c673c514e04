"""Compare rows of the tag table, and of the tables of embeddings."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genre.arrays import Float64

TOLERANCE = 1e-5  # of what is computed with floating point in another order
_EMBEDDING_TOLERANCE = 2e-3  # they have 16 bits
_COMPUTED = {
    "probabilities": TOLERANCE,
    "probability": TOLERANCE,
    "timeline": TOLERANCE,
    "embedding": _EMBEDDING_TOLERANCE,
    "clip_embeddings": _EMBEDDING_TOLERANCE,
}


def tag_row_difference(expected: pa.Table, actual: pa.Table) -> str:
    """Return what differs between the rows of two tables, or "". Computed numbers may be rounded."""
    if expected.column_names != actual.column_names:
        return f"the columns {expected.column_names} and {actual.column_names}"
    keys = [(name, "ascending") for name in ("path", "start") if name in expected.column_names]
    right, made = expected.sort_by(keys), actual.sort_by(keys)
    if right["path"] != made["path"]:
        return f"{len(right)} rows and {len(made)}, or other paths"
    other = [name for name in right.column_names if name not in _COMPUTED and right[name] != made[name]]
    if other:
        return f"other values of {', '.join(other)}: {_first_difference(right.select(other), made.select(other))}"
    for name in [name for name in right.column_names if name in _COMPUTED]:
        if _is_list(right[name]) and pc.list_value_length(right[name]) != pc.list_value_length(made[name]):
            return f"other lengths of {name}"
        numbers = [_numbers(table[name]) for table in (right, made)]
        if numbers[0].shape != numbers[1].shape:
            return f"{len(numbers[0])} values of {name} and {len(numbers[1])}"
        worst = float(np.abs(numbers[0] - numbers[1]).max(initial=0.0))
        if not worst <= _COMPUTED[name]:  # NaN is a difference
            return f"{name} differ by {worst:.3g}"
    return ""


def _is_list(values: pa.ChunkedArray) -> bool:
    return bool(pa.types.is_list(values.type) or pa.types.is_fixed_size_list(values.type))


def _numbers(values: pa.ChunkedArray) -> Float64:
    """Return all numbers in a column of numbers, lists, or lists of moments with their times and probabilities."""
    while _is_list(values):
        values = pc.list_flatten(values)
    if not pa.types.is_struct(values.type):
        return np.asarray(values, float)
    start, end, probabilities = (pc.struct_field(values, name) for name in ("start", "end", "probabilities"))
    return np.concatenate([np.asarray(part, float) for part in (start, end, pc.list_flatten(probabilities))])


def _first_difference(right: pa.Table, made: pa.Table) -> str:
    """Return the first rows that differ; tables whose rows are equal in Python, as with NaN, give ""."""
    return next((f"{a} and {b}" for a, b in zip(right.to_pylist(), made.to_pylist(), strict=True) if a != b), "")
