"""Tracks in Parquet and tar files: the same features as from loose files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from music import InTurn, clip_rows, config_of
from scanning import ids, scan
from sharding import GENRES, config, hugging_face, webdataset, write_loose

from genre.audio import members, recordings
from genre.storage import Location
from ray_jobs.prepare import prepare


def spectrograms(output: Path) -> list[tuple[Any, ...]]:
    """Return everything in the clips but the names of their tracks, in a fixed order."""
    rows = clip_rows(output).to_pylist()
    return sorted((row["spectrogram"], row["clip"], row["peak_db"], row["start_seconds"]) for row in rows)


@pytest.mark.parametrize("kind", ["parquet", "webdataset"])
def test_features_are_those_of_the_loose_files(tmp_path: Path, kind: str) -> None:
    files = write_loose(tmp_path / "loose")
    for number, some in enumerate((files[:7], files[7:])):
        if kind == "parquet":
            hugging_face(tmp_path / "shards" / f"{number}.parquet", some)
        else:
            webdataset(tmp_path / "shards" / f"{number}.tar", some)
    prepare(config_of(tmp_path / "loose", tmp_path / "a"), InTurn())
    workers = InTurn()
    manifest = prepare(config(kind, tmp_path / "shards", tmp_path / "b"), workers)
    assert spectrograms(tmp_path / "a") == spectrograms(tmp_path / "b")
    assert (manifest.counts.tracks, manifest.counts.rejected, manifest.classes) == (9, 1, list(GENRES))
    contents = [
        sorted(pq.read_table(tmp_path / output / "features/tracks.parquet")["content"].to_pylist()) for output in "ab"
    ]
    assert contents[0] == contents[1]
    prepare(config(kind, tmp_path / "shards", tmp_path / "b"), workers)
    assert workers.tracks == 10, "the second run decodes nothing"


def test_touched_shards_are_compared_and_not_decoded_again(tmp_path: Path) -> None:
    shard = hugging_face(tmp_path / "shards/0.parquet", write_loose(tmp_path / "loose"))
    prepare(config("parquet", tmp_path / "shards", tmp_path / "out"), InTurn())
    shard.touch()
    workers = InTurn()
    prepare(config("parquet", tmp_path / "shards", tmp_path / "out"), workers)
    assert workers.tracks == 10, "nine contents are compared, and the reject is tried again"


@pytest.mark.parametrize("kind", ["parquet", "webdataset"])
def test_shards_in_a_bucket_have_the_same_tracks(tmp_path: Path, kind: str, bucket_server: dict[str, str]) -> None:
    files = write_loose(tmp_path / "loose")
    shard = hugging_face(tmp_path / "a.parquet", files) if kind == "parquet" else webdataset(tmp_path / "a.tar", files)
    remote = Location.of("s3://bucket/shards") / shard.name
    remote.write_bytes(shard.read_bytes())
    tracks = scan(kind, "s3://bucket/shards")
    assert ids(tracks) == ids(scan(kind, shard))
    assert [recordings.read(track.path) for track in tracks] == [path.read_bytes() for path in files]
    assert {members.file_of(track.path) for track in tracks} == {str(remote)}


def test_addresses_of_plain_files_are_unchanged() -> None:
    for address in ("/music/a#b.wav", "s3://bucket/a?region=x", "/row=a/1/2", "/music/#bytes=x"):
        assert members.file_of(address) == address
    odd = members.row_address(Location.of("/a#row=b/1/2.parquet"), "my column/#1", 3, 4)
    assert members.file_of(odd) == "/a#row=b/1/2.parquet"
