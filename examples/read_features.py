"""Read a features folder with pyarrow and numpy alone, written by prepare or by another program.

    python examples/read_features.py outputs/demo/features

`read` below is the complete reader; docs/FEATURES.md describes every file and column.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq


@dataclass
class Clip:
    track_id: str
    genre: str
    split: str
    number: int  # of the track's clips, from 0
    levels: np.ndarray  # (bins, frames) float32, in dB


def read(folder: Path) -> Iterator[Clip]:
    """Yield every clip of a folder, in the order of the files."""
    shape = json.loads((folder / "manifest.json").read_text())["shape"]
    tracks = {row["track_id"]: row for row in pq.read_table(folder / "tracks.parquet").to_pylist()}
    for path in sorted((folder / "clips").glob("[!.]*.parquet")):
        for batch in pq.ParquetFile(path).iter_batches(128):
            for row in batch.to_pylist():
                track = tracks.get(row["track_id"])
                # an older file may still hold clips of a track that changed
                if track is None or track.get("part") not in (None, path.name):
                    continue
                values = np.frombuffer(row["spectrogram"], np.uint8).reshape(shape["frames"], shape["bins"])
                floor = row["peak_db"] - shape["range_db"]
                levels = values.T.astype(np.float32) * np.float32(shape["range_db"] / 255) + np.float32(floor)
                yield Clip(row["track_id"], track["genre"], track["split"], row["clip"], levels)


def main() -> None:
    for clip in read(Path(sys.argv[1])):
        low, high = clip.levels.min(), clip.levels.max()
        print(f"{clip.track_id}  {clip.number}  {clip.genre}  {clip.split}  {low:.1f} to {high:.1f} dB")


if __name__ == "__main__":
    main()
