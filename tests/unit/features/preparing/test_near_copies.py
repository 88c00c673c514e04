"""Near copies are one recording: found in any order, kept in one split, and excluded by a published split."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from music import InTurn

from genre.corpora.synthetic.compose import compose
from genre.corpora.synthetic.instruments import SAMPLE_RATE
from genre.errors import ArtifactError
from genre.evaluation.changes import Sound, encode_mp3
from genre.features import Features
from genre.features.preparing import near_copies
from genre.features.preparing.near_copies import Hashes
from genre.features.preparing.sketches import LANDMARKS
from genre.settings import Config
from genre.storage import Location
from ray_jobs.prepare import prepare

LEAST = near_copies.LEAST


def write(hashes: Hashes, frames: Hashes) -> bytes:
    return hashes.astype("<u4").tobytes() + frames.astype("<u2").tobytes()


def drawn(seed: int, tracks: int) -> tuple[Hashes, Hashes]:
    """Return random hashes and frames (tracks, LANDMARKS); no hash is drawn twice."""
    rng = np.random.default_rng(seed)
    hashes = rng.permutation(tracks * LANDMARKS).astype(np.uint32) * np.uint32(2654435761)
    return hashes.reshape(tracks, LANDMARKS), rng.integers(0, 60_000, (tracks, LANDMARKS)).astype(np.uint32)


def recordings(made: Sequence[bytes | None], sounds: list[str] | None = None) -> list[str | None]:
    columns = {
        "sound": pa.array(sounds or [f"s{n}" for n in range(len(made))]),
        "sketch": pa.array(made, pa.binary()),
    }
    found: list[str | None] = near_copies.recordings(pa.table(columns)).to_pylist()
    return found


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.sets(st.integers(0, 11), min_size=1))
def test_connected_tracks_are_one_recording_in_any_order(seed: int, joins: set[int]) -> None:
    """Each join copies the shared landmarks of a track into the next one, from another start."""
    hashes, frames = drawn(seed, 13)
    expected = np.arange(13)
    for track in sorted(joins):  # neighbours share LEAST landmarks, which later joins do not overwrite
        begin = LEAST * (track % 2)
        hashes[track + 1, begin : begin + LEAST] = hashes[track, begin : begin + LEAST]
        frames[track + 1, begin : begin + LEAST] = frames[track, begin : begin + LEAST] + 40 + track % 3
        expected[track + 1] = expected[track]
    made = [write(*pair) for pair in zip(hashes, frames, strict=True)]
    order = np.random.default_rng(seed).permutation(13)
    found = recordings([made[n] for n in order], [f"s{n}" for n in order])
    alone = np.bincount(expected, minlength=13)[expected] == 1
    for row, track in enumerate(order):
        assert (found[row] is None) == alone[track]
    pairs = {(found[row], expected[track]) for row, track in enumerate(order) if not alone[track]}
    assert len(pairs) == len({name for name, _ in pairs}) == len({number for _, number in pairs})


def test_fewer_landmarks_or_other_distances_in_time_are_no_copy() -> None:
    hashes, frames = drawn(0, 4)
    hashes[1, : LEAST - 1], frames[1, : LEAST - 1] = hashes[0, : LEAST - 1], frames[0, : LEAST - 1]
    hashes[3], frames[3] = hashes[2], frames[2] + 100 * np.arange(LANDMARKS)  # a loop that is played in another order
    assert recordings([write(*pair) for pair in zip(hashes, frames, strict=True)]) == [None] * 4


def test_frames_are_counted_modulo_65536() -> None:
    hashes, frames = drawn(0, 1)
    assert recordings([write(hashes[0], frames[0]), write(hashes[0], frames[0] + 10_000)]) == ["s0", "s0"]


def test_a_landmark_of_very_many_tracks_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes, frames = drawn(0, 30)
    hashes[:, :10], frames[:, :10] = hashes[0, :10], frames[0, :10]
    made = [write(*pair) for pair in zip(hashes, frames, strict=True)]
    assert recordings(made) == ["s0"] * 30
    monkeypatch.setattr(near_copies, "_MOST", 29)
    assert recordings(made) == [None] * 30


def test_equal_audio_shares_the_recording_of_the_track_that_has_a_sketch() -> None:
    hashes, frames = drawn(0, 2)
    made = [None, write(hashes[0], frames[0]), write(hashes[0], frames[0]), None, write(hashes[1], frames[1]), b"older"]
    assert recordings(made, ["a", "a", "b", "c", "d", "e"]) == ["a", "a", "a", None, None, None]
    assert recordings([None, None]) == [None, None]
    assert recordings([]) == []


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write eight composed songs of two genres."""
    root = tmp_path_factory.mktemp("music")
    for number, genre in enumerate(["waltz", "house"] * 4):
        (root / genre).mkdir(exist_ok=True)
        soundfile.write(root / genre / f"song{number}.wav", compose(genre, number, number), SAMPLE_RATE)
    return root


def write_copy(song: Path, target: Path) -> None:
    """Write an MP3 of a song, six decibels down and without its first 0.7 seconds."""
    samples, rate = soundfile.read(song, dtype="float32", always_2d=True)
    target.write_bytes(encode_mp3(Sound(samples[int(0.7 * rate) :] / 2, rate), 128))


def prepared(output: Path, **corpus: str) -> tuple[Path, int]:
    """Prepare a corpus; return the features folder and how many tracks were decoded."""
    config = Config.model_validate({"corpus": corpus, "output": str(output), "audio": {"clip_seconds": 8}})
    workers = InTurn()
    prepare(config, workers)
    return output / "features", workers.tracks


def splits_of(folder: Path) -> dict[str, str]:
    tracks = pq.read_table(folder / "tracks.parquet")
    return dict(zip(tracks["track_id"].to_pylist(), tracks["split"].to_pylist(), strict=True))


def test_a_new_lossy_copy_follows_the_older_track(
    music: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "music"
    shutil.copytree(music, root)
    before = splits_of(prepared(tmp_path / "out", kind="folder", root=str(root))[0])
    copies = {f"house/copy{number}.mp3": f"waltz/song{number}.wav" for number in (0, 2, 4)}
    for copy, original in copies.items():
        write_copy(root / original, root / copy)
    folder, decoded = prepared(tmp_path / "out", kind="folder", root=str(root))
    after = splits_of(folder)
    assert before.items() <= after.items()
    assert {copy: after[copy] for copy in copies} == {copy: before[original] for copy, original in copies.items()}
    counts = json.loads((folder / "manifest.json").read_text())["counts"]["duplicates"]
    assert counts == {"sets": 3, "copies": 0, "near": 3, "of_several_genres": 3, "excluded": 0}
    assert decoded == 3
    printed = capsys.readouterr().err
    assert "prepare: 3 tracks with the recording of another in another form; 3 sets of copies with different" in printed
    split = f"{after['house/copy0.mp3']})"
    names = [f"house/copy0.mp3 (house, {split}", f"waltz/song0.wav (waltz, {split}"]
    assert " ~ ".join(names) in printed or " ~ ".join(names[::-1]) in printed


def test_a_published_split_loses_the_copy_that_is_not_in_test(music: Path, tmp_path: Path) -> None:
    write_copy(music / "waltz/song0.wav", tmp_path / "copy.mp3")
    rows = [
        ("waltz/song0.wav", "waltz", "train"),
        ("waltz/song2.wav", "waltz", "train"),
        ("house/song1.wav", "house", "test"),
    ]
    with (tmp_path / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "genre", "split"), (tmp_path / "copy.mp3", "waltz", "test"), *(
            (music / path, genre, split) for path, genre, split in rows
        )])  # fmt: skip
    folder, _ = prepared(tmp_path / "out", kind="table", root=str(tmp_path / "table.csv"))
    tracks = pq.read_table(folder / "tracks.parquet").to_pylist()
    assert {Path(row["path"]).name: row["split"] for row in tracks} == {
        "copy.mp3": "test", "song0.wav": "excluded", "song2.wav": "train", "song1.wav": "test"
    }  # fmt: skip


def test_a_folder_of_another_version_opens_and_is_not_extended(music: Path, tmp_path: Path) -> None:
    folder, _ = prepared(tmp_path / "out", kind="folder", root=str(music))
    tracks = pq.read_table(folder / "tracks.parquet")
    for missing in (["sketch", "recording"], ["part_bytes"]):
        pq.write_table(tracks.drop_columns(missing), folder / "tracks.parquet")
        assert len(Features.open(Location.of(folder)).tracks()) == len(tracks)
        with pytest.raises(ArtifactError, match=r"tracks\.parquet was written by another version; .*"):
            prepared(tmp_path / "out", kind="folder", root=str(music))
