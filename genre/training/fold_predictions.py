"""The predictions of the networks of folds, each for the tracks that it held out: a Parquet file for each fold.

fold-<n>.parquet   track_id, list of probabilities
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genre.arrays import Float32
from genre.errors import ArtifactError
from genre.features.columns import combined
from genre.storage import Location


def file_of(folder: Location, number: int) -> Location:
    """Return the file of fold `number` in `folder`."""
    return folder / f"fold-{number}.parquet"


def write(file: Location, track_ids: pa.Array, probabilities: Float32) -> None:
    """Write the predictions of one fold; `track_ids` are (tracks,), `probabilities` (tracks, classes)."""
    rows = pa.array(probabilities.tolist(), pa.list_(pa.float32()))
    file.write_table(pa.table({"track_id": track_ids, "probabilities": rows}))


def joined(files: Sequence[Location], track_ids: pa.Array, classes: int) -> Float32:
    """Return the predictions in `files` for the tracks `track_ids`, (tracks, classes).

    Raises `ArtifactError` where some are missing.
    """
    probabilities = np.full((len(track_ids), classes), np.nan, np.float32)
    for file in files:
        table = file.read_table()
        rows = pc.index_in(combined(table["track_id"]), track_ids).to_numpy()
        probabilities[rows] = np.array(table["probabilities"].to_pylist(), np.float32)
    if np.isnan(probabilities).any():
        folder = files[0].parent
        raise ArtifactError(f"{folder}: predictions for some tracks are missing; delete the folder and run again")
    return probabilities
