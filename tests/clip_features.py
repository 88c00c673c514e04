"""Small features folders of random clips, and the copies of their clips on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from genre.features import Features, Shape
from genre.features.manifest import SCHEMA_VERSION
from genre.settings import CacheSettings
from genre.storage import Location

SHAPE = Shape(bins=8, frames=300, range_db=80.0, frame_seconds=0.1)
SPLIT_OF = {0: "test", 1: "valid"}  # by track number modulo 5; the others train


def write_features(folder: Path, tracks: int = 30, seed: int = 0, shape: Shape = SHAPE) -> Features:
    """Write features of tracks of one to three clips, in two files whose rows have no order."""
    rng = np.random.default_rng(seed)
    (folder / "clips").mkdir(parents=True)
    names = [f"track{number:02d}" for number in range(tracks)]
    counts = [1 + number % 3 for number in range(tracks)]
    rows = [
        {
            "track_id": name,
            "clip": number,
            "start_seconds": 0.0,
            "peak_db": float(rng.uniform(-20, 20)),
            "spectrogram": rng.bytes(shape.bytes),
        }
        for name, count in zip(names, counts, strict=True)
        for number in range(count)
    ]
    for number, part in enumerate(np.array_split(rng.permutation(len(rows)), 2)):
        table = pa.Table.from_pylist([rows[row] for row in part], shape.clip_schema())
        pq.write_table(table, folder / f"clips/{number}.parquet", row_group_size=7)
    columns = {
        "track_id": names,
        "genre": ["a" if number % 2 else "b" for number in range(tracks)],
        "split": [SPLIT_OF.get(number % 5, "train") for number in range(tracks)],
        "clips": counts,
    }
    pq.write_table(pa.table(columns), folder / "tracks.parquet")
    manifest = {"stage": "features", "schema_version": SCHEMA_VERSION, "shape": vars(shape), "classes": ["a", "b"]}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return Features.open(Location.of(folder))


def copies(settings: CacheSettings) -> list[Path]:
    return sorted(Path(settings.folder).glob("features-*"))
