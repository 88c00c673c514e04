"""Clips of a folder that are read in extents, and means over the clips of each track from extents in any order."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from making import load

from genre.arrays import Float32
from genre.errors import ArtifactError
from genre.features import Clips, Features, Shape, streaming
from genre.features.manifest import SCHEMA_VERSION
from genre.features.streaming import ChunkMeans, TrackMeans
from genre.storage import Location

SHAPE = Shape(bins=4, frames=6, range_db=80.0, frame_seconds=0.1)


@dataclass(frozen=True)
class StoredRow:
    """A clip in a file; its bytes follow from track and clip, or are those of an obsolete row."""

    track: str
    clip: int
    obsolete: bool = False

    def row(self) -> dict[str, Any]:
        content = np.random.default_rng([ord(self.track), abs(self.clip)]).integers(0, 256, 24, dtype=np.uint8)
        return {
            "track_id": self.track,
            "clip": self.clip,
            "peak_db": float(self.clip),
            "spectrogram": bytes(24) if self.obsolete else content.tobytes(),
        }


def write_folder(
    folder: Path, counts: dict[str, int], files: dict[str, list[StoredRow]], parts: dict[str, str] | None = None
) -> Features:
    """Write a folder with these clips of each track of the test split, in these files."""
    (folder / "clips").mkdir(parents=True)
    for name, rows in files.items():
        table = pa.Table.from_pylist([row.row() for row in rows], SHAPE.clip_schema())
        pq.write_table(table, folder / "clips" / name, row_group_size=2)
    names = list(counts)
    pq.write_table(
        pa.table(
            {
                "track_id": names,
                "genre": ["a"] * len(names),
                "split": ["test"] * len(names),
                "clips": pa.array(list(counts.values()), pa.int32()),
                "part": pa.array([(parts or {}).get(name) for name in names], pa.string()),
            }
        ),
        folder / "tracks.parquet",
    )
    content = {"stage": "features", "schema_version": SCHEMA_VERSION, "shape": vars(SHAPE), "classes": ["a"]}
    (folder / "manifest.json").write_text(json.dumps(content))
    return Features.open(Location.of(folder))


def mean_level(clips: Clips) -> Float32:
    """Return two values of each track, means over its clips."""
    levels = np.stack([clips.spectrograms.mean(axis=(1, 2)), clips.peak_db], axis=1)
    total = np.zeros((len(clips.track_ids), 2))
    np.add.at(total, clips.track, levels)
    mean: Float32 = (total / np.bincount(clips.track)[:, None]).astype(np.float32)
    return mean


def chunk_means(features: Features) -> Iterator[ChunkMeans]:
    tracks = features.tracks("test")
    for extent in streaming.extents(features, tracks):
        for chunk in streaming.read(features, tracks, extent):
            yield chunk.means([mean_level(chunk.clips)])


def means(features: Features, chunks: Sequence[ChunkMeans]) -> Float32:
    collected = TrackMeans("folder", features.tracks("test"))
    done = sum(collected.add(chunk) for chunk in chunks)
    (result,) = collected.result()
    assert done == len(result)
    return result


SPREAD = {
    "a.parquet": [StoredRow("x", 2), StoredRow("y", 0), StoredRow("x", 0)],
    "b.parquet": [StoredRow("z", 1), StoredRow("x", 1), StoredRow("z", 0)],
}
COUNTS = {"x": 3, "y": 1, "z": 2}


def test_means_of_units_are_those_of_all_clips_together(tmp_path: Path) -> None:
    features = write_folder(tmp_path / "f", COUNTS, SPREAD)
    expected = mean_level(load(features, "test")["test"])
    np.testing.assert_allclose(means(features, list(chunk_means(features))), expected, rtol=1e-6)


def test_row_groups_of_a_large_file_are_units_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "_LARGE_FILE", 1)
    monkeypatch.setattr(streaming, "_GROUPS_PER_EXTENT", 1)
    features = write_folder(tmp_path / "f", COUNTS, SPREAD)
    extents = streaming.extents(features, features.tracks("test"))
    assert [(extent.file, extent.groups) for extent in extents] == [
        (file, range(group, group + 1)) for file in ("a.parquet", "b.parquet") for group in (0, 1)
    ]
    expected = mean_level(load(features, "test")["test"])
    np.testing.assert_allclose(means(features, list(chunk_means(features))), expected, rtol=1e-6)


def test_a_unit_of_many_clips_is_read_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "ROW_GROUP", 2)
    features = write_folder(tmp_path / "f", COUNTS, SPREAD)
    chunks = list(chunk_means(features))
    assert [chunk.order for chunk in chunks] == [(f"{file}.parquet", 0, n) for file in "ab" for n in (0, 1)]
    expected = mean_level(load(features, "test")["test"])
    np.testing.assert_allclose(means(features, chunks), expected, rtol=1e-6)


def test_obsolete_rows_and_files_without_tracks_of_the_split_are_skipped(tmp_path: Path) -> None:
    files = {
        "a.parquet": [StoredRow("x", 0, obsolete=True), StoredRow("y", 0)],
        "b.parquet": [StoredRow("x", 0)],
        "c.parquet": [StoredRow("x", 0, obsolete=True)],
        "d.parquet": [StoredRow("w", 0)],
    }
    features = write_folder(tmp_path / "f", {"x": 1, "y": 1}, files, {"x": "b.parquet", "y": "a.parquet"})
    assert [extent.file for extent in streaming.extents(features, features.tracks("test"))] == [
        "a.parquet",
        "b.parquet",
    ]
    expected = mean_level(load(features, "test")["test"])
    np.testing.assert_array_equal(means(features, list(chunk_means(features))), expected)


@given(st.permutations(range(6)))
def test_the_order_of_arrival_changes_no_bit(order: list[int]) -> None:
    rng = np.random.default_rng(0)
    tracks = pa.table({"clips": pa.array([6, 6, 12], pa.int32())})
    chunks = [
        ChunkMeans(
            order=("a.parquet", number, 0),
            tracks=np.array([0, 1, 2]),
            track=np.array([0, 1, 2, 2]),
            numbers=np.array([number, number, 2 * number, 2 * number + 1]),
            values=[rng.random((3, 5), np.float32) ** 20, rng.normal(size=(3, 2)).astype(np.float32)],
        )
        for number in range(6)
    ]
    results = []
    for arrival in (range(6), order):
        collected = TrackMeans("folder", tracks)
        for number in arrival:
            collected.add(chunks[number])
        results.append(collected.result())
    for first, second in zip(*results, strict=True):
        np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(results[0][0], np.mean([chunk.values[0] for chunk in chunks], axis=0), rtol=1e-6)


def test_each_clip_must_be_there_exactly_once(tmp_path: Path) -> None:
    def errors_with(number: int, rows: list[StoredRow], message: str) -> None:
        features = write_folder(tmp_path / str(number), COUNTS, SPREAD | {"b.parquet": rows})
        with pytest.raises(ArtifactError, match=message):
            means(features, list(chunk_means(features)))

    rows = SPREAD["b.parquet"]
    errors_with(0, rows[:-1], "folder: 1 of 6 clips are missing")
    errors_with(1, [*rows, rows[0]], r"folder: b\.parquet holds a clip twice")
    errors_with(2, [*rows, StoredRow("x", 0)], r"folder: b\.parquet holds a clip twice")
    errors_with(3, [*rows, StoredRow("y", 1)], "more clips of a track than tracks.parquet counts")
    errors_with(4, [*rows[:-1], StoredRow("z", -1)], r"number the clips of a track 0, 1, 2")


def test_unusable_rows_are_refused(tmp_path: Path) -> None:
    rows = [row.row() for row in SPREAD["a.parquet"]]
    for column, message in (
        ("peak_db", "peak_db holds NaN or nulls, first in track"),
        ("clip", "holds nulls in column 'clip'"),
    ):
        features = write_folder(tmp_path / column, COUNTS, SPREAD)
        damaged = pa.Table.from_pylist([rows[0] | {column: None}, *rows[1:]], SHAPE.clip_schema())
        pq.write_table(damaged, tmp_path / column / "clips/a.parquet")
        with pytest.raises(ArtifactError, match=message):
            list(chunk_means(features))


def test_the_first_clips_come_from_as_few_files_as_possible(tmp_path: Path) -> None:
    features = write_folder(tmp_path / "f", COUNTS, SPREAD)
    (tmp_path / "f/clips/b.parquet").write_bytes(b"damaged")
    assert len(streaming.first_clips(features, features.tracks("test"), 2)) == 2
    with pytest.raises(ArtifactError, match=r"b\.parquet: not Parquet"):
        streaming.first_clips(features, features.tracks("test"), 4)
