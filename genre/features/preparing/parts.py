"""Whether the parts of a features folder, the files in clips/, are what the outcomes say. A name alone is no proof.

A power failure or a full disk can leave a truncated file, whatever the order in which files were written.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs

from genre.arrays import Bools
from genre.errors import ArtifactError
from genre.storage import Location

_REQUESTS = 16  # at a time


def have_parts(folder: Location, outcomes: pa.Table) -> Bools:
    """Return for each outcome whether it is a reject, or its part exists with the size that it names."""
    files = [info for info in (folder / "clips").children() if info.type == fs.FileType.File]
    names = pa.array([info.base_name for info in files], pa.string())
    sizes = pa.array([info.size for info in files], pa.int64()).take(pc.index_in(outcomes["part"], value_set=names))
    is_right = pc.fill_null(pc.equal(sizes, outcomes["part_bytes"]), False)
    return np.asarray(pc.or_(pc.is_valid(outcomes["reason"]), is_right).to_numpy())


def with_wrong_rows(folder: Location, outcomes: pa.Table) -> list[str]:
    """Return the names of the parts that are not Parquet with the number of rows that their outcomes name."""
    named = outcomes.filter(pc.is_valid(outcomes["part_rows"])).group_by("part").aggregate([("part_rows", "max")])
    pairs = list(zip(named["part"].to_pylist(), named["part_rows_max"].to_pylist(), strict=True))
    with ThreadPoolExecutor(_REQUESTS) as pool:
        counts: Iterable[int | None] = pool.map(lambda pair: _rows(folder / "clips" / pair[0]), pairs)
        return [name for (name, expected), rows in zip(pairs, counts, strict=True) if rows != expected]


def _rows(file: Location) -> int | None:
    try:
        with file.open_parquet() as reader:
            return int(reader.metadata.num_rows)
    except (ArtifactError, FileNotFoundError):
        return None
