"""The copy of clips on a machine: equal to the features, complete or absent, bounded, and made once."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from clip_features import SHAPE, copies, write_features
from hypothesis import given
from hypothesis import settings as settings_of_examples
from hypothesis import strategies as st

from genre import config
from genre.corpora import SPLITS
from genre.errors import ArtifactError
from genre.features import Clips, Features, decode
from genre.features.cache import ClipCache
from genre.features.splitting.folds import NOT_TEST, Fold
from genre.features.splitting.sampling import Share
from genre.features.statistics import LevelStatistics
from genre.features.windows import Windows, evaluation_windows, training_windows
from genre.settings import CacheSettings
from genre.storage import Location
from genre.training import experiment
from genre.training.experiment import Data, Experiment

Cut = Callable[[Clips], Iterator[Windows]]


@pytest.fixture
def features(tmp_path: Path) -> Features:
    return write_features(tmp_path / "features")


@pytest.fixture
def settings(tmp_path: Path) -> CacheSettings:
    return CacheSettings(folder=str(tmp_path / "cache"))


def in_memory(clips: Clips) -> Clips:
    return replace(clips, stored=clips.spectrograms.copy(), peak_db=clips.peak_db.copy(), source=None, rows=None)


def in_files(features: Features, split: str) -> Clips:
    """Return the clips of a split from the tables of a folder, with no code of the project but the fields."""
    tracks = pq.read_table(f"{features.folder}/tracks.parquet").to_pandas().sort_values("track_id")
    tracks = tracks[tracks["split"] == split].reset_index(drop=True)
    rows = pq.read_table(f"{features.folder}/clips").to_pandas().merge(tracks.reset_index(), on="track_id")
    rows = rows.sort_values(["track_id", "clip"])
    content = np.frombuffer(b"".join(rows["spectrogram"]), np.uint8)
    return Clips(
        stored=content.reshape(len(rows), SHAPE.frames, SHAPE.bins),
        peak_db=rows["peak_db"].to_numpy(),
        track=rows["index"].to_numpy(),
        track_ids=pa.array(tracks["track_id"]),
        labels=tracks["genre"].map({"a": 0, "b": 1}).to_numpy(),
        groups=pa.array(tracks["track_id"]),
        shape=SHAPE,
    )


def change_header(copy: Path, change: Callable[[dict[str, Any]], object]) -> None:
    header = json.loads((copy / "header.json").read_text())
    change(header["content"])
    (copy / "header.json").write_text(json.dumps(header))


def assert_same(ours: Clips, expected: Clips) -> None:
    """Check that two splits have the same tracks and give the same windows."""
    assert (len(ours), ours.total) == (len(expected), expected.total)
    for name in ("track", "peak_db", "labels", "spectrograms"):
        assert np.array_equal(getattr(ours, name), getattr(expected, name)), name
    assert ours.track_ids.equals(expected.track_ids)
    assert ours.groups.equals(expected.groups)
    if not len(ours):
        return
    cuts: list[Cut] = [
        lambda clips: training_windows(clips, 40, 3, 4, (1, 2)),
        lambda clips: evaluation_windows(clips, 40, 3, 4),
    ]
    for cut in cuts:
        for window, same in zip(cut(ours), cut(expected), strict=True):
            assert np.array_equal(window.spectrograms, same.spectrograms)
            assert np.array_equal(window.tracks, same.tracks)


class TestContent:
    def test_clips_are_those_of_the_files_in_the_order_of_tracks_and_numbers(
        self, features: Features, settings: CacheSettings
    ) -> None:
        tracks = pq.read_table(f"{features.folder}/tracks.parquet").to_pandas().set_index("track_id")
        rows = pq.read_table(f"{features.folder}/clips").to_pandas().sort_values(["track_id", "clip"])
        copy = ClipCache.of(features, settings, ("train", "valid", "test")).open()
        for split, clips in copy.clips.items():
            expected = rows[rows["track_id"].map(tracks["split"]) == split]
            assert clips.track_ids.take(pa.array(clips.track)).to_pylist() == expected["track_id"].tolist()
            assert b"".join(expected["spectrogram"]) == clips.spectrograms.tobytes()
            assert np.array_equal(expected["peak_db"], clips.peak_db)
            genres = [features.classes[label] for label in clips.clip_labels()]
            assert genres == expected["track_id"].map(tracks["genre"]).tolist()

    def test_statistics_are_those_of_all_training_frames(self, features: Features, settings: CacheSettings) -> None:
        copy = ClipCache.of(features, settings).open()
        train = copy.clips["train"]
        levels = decode(train.spectrograms, train.peak_db, SHAPE.range_db).astype(np.float64)
        mean, std = copy.statistics.mean_and_std()
        np.testing.assert_allclose(mean, levels.mean(axis=(0, 2)), rtol=1e-6)
        np.testing.assert_allclose(std, levels.std(axis=(0, 2)), rtol=1e-6)

    @settings_of_examples(max_examples=25)
    @given(
        tracks=st.integers(3, 12),
        seed=st.integers(0, 2**32 - 1),
        frames=st.integers(1, SHAPE.frames),
        per_clip=st.integers(2, 5),
        batch=st.integers(2, 12),
    )
    def test_windows_equal_those_cut_from_the_rows_of_the_files(
        self, tracks: int, seed: int, frames: int, per_clip: int, batch: int
    ) -> None:
        cuts: list[Cut] = [
            lambda clips: training_windows(clips, frames, per_clip, batch, (seed, 1)),
            lambda clips: evaluation_windows(clips, frames, per_clip, batch),
        ]
        with tempfile.TemporaryDirectory() as home:
            features = write_features(Path(home) / "features", tracks, seed)
            mapped = ClipCache.of(features, CacheSettings(folder=f"{home}/cache")).open().clips["train"]
            for cut in cuts:
                windows = list(zip(cut(mapped), cut(in_files(features, "train")), strict=True))
                assert windows
                for ours, expected in windows:
                    for name, values in vars(expected).items():
                        assert np.array_equal(getattr(ours, name), values), name

    def test_losses_equal_those_of_arrays_in_memory(self, features: Features, settings: CacheSettings) -> None:
        small = ["architectures.cnn.width=4", "architectures.cnn.depth=2", "train.epochs=2", "train.batch_size=8"]
        planned = Experiment.of(config.load(None, [*small, "train.window_seconds=6"]))
        mapped = Data.open(ClipCache.of(features, settings))
        copied = replace(mapped, train=in_memory(mapped.train), valid=in_memory(mapped.valid))
        losses = [
            [(epoch.train_loss, epoch.valid_loss) for epoch in trainer.run()]
            for data in (mapped, copied)
            for trainer in [experiment.trainer_for(planned, data, torch.device("cpu"))[1]]
        ]
        assert len(losses[0]) == 2
        assert losses[0] == losses[1]

    def test_a_split_without_tracks_has_no_clips(self, features: Features, settings: CacheSettings) -> None:
        assert len(ClipCache.of(features, settings, ("train", "excluded")).open().clips["excluded"]) == 0

    def test_what_travels_is_an_address(self, features: Features, settings: CacheSettings) -> None:
        cache = ClipCache.of(features, settings)
        cache.open()
        content = pickle.dumps(cache)
        assert len(content) < 4096
        other = pickle.loads(content)  # noqa: S301 - written above
        assert np.array_equal(other.open().clips["train"].spectrograms, cache.open().clips["train"].spectrograms)
        assert len(copies(settings)) == 1


class TestParts:
    def test_shares_hold_each_clip_once_and_name_all_tracks(self, features: Features, settings: CacheSettings) -> None:
        cache = ClipCache.of(features, settings)
        complete = cache.open()
        parts = [cache.of_share(Share((rank,), 3)).open() for rank in range(3)]
        assert len(copies(settings)) == 4
        for split, clips in complete.clips.items():
            shares = [part.clips[split] for part in parts]
            assert sum(map(len, shares)) == len(clips) == shares[0].total
            assert all(share.track_ids.equals(clips.track_ids) for share in shares)
            assert all(np.array_equal(share.class_counts(2), clips.class_counts(2)) for share in shares)
            for share in shares:
                for row in range(len(share)):
                    own = np.flatnonzero(share.track == share.track[row]).tolist().index(row)
                    other = np.flatnonzero(clips.track == share.track[row])[own]
                    assert np.array_equal(share.spectrograms[row], clips.spectrograms[other])
                    assert share.peak_db[row] == clips.peak_db[other]

    def test_statistics_of_shares_add_up_exactly(self, features: Features, settings: CacheSettings) -> None:
        cache = ClipCache.of(features, settings)
        sums = [cache.of_share(Share((rank,), 3)).open().statistics.to_json() for rank in (2, 0, 1)]
        merged = LevelStatistics.merged(SHAPE, sums)
        assert merged.to_json() == cache.open().statistics.to_json()

    @pytest.mark.parametrize("splits", [NOT_TEST, SPLITS], ids=["of a search", "of all tracks"])
    def test_folds_share_a_copy_and_equal_a_folder_with_their_splits(
        self, features: Features, settings: CacheSettings, tmp_path: Path, splits: tuple[str, ...]
    ) -> None:
        ClipCache.of(features, settings, splits).open()
        folder = Path(str(features.folder))
        for number in range(4):  # the first holds out none
            view = features.of_fold(Fold(number, 3, 0, splits))
            shared = ClipCache.of(view, settings).open()
            assert len(copies(settings)) == 1
            other = tmp_path / f"fold-{number}"
            shutil.copytree(folder, other)
            pq.write_table(view.tracks().drop_columns(["part", "sound", "recording"]), other / "tracks.parquet")
            alone = ClipCache.of(
                Features.open(Location.of(other)), CacheSettings(folder=str(tmp_path / "other"))
            ).open()
            assert shared.statistics.to_json() == alone.statistics.to_json()
            for split, expected in alone.clips.items():
                assert_same(shared.clips[split], expected)
        assert len(alone.clips["valid"]) > 0

    def test_a_sample_has_a_copy_of_its_own(self, features: Features, settings: CacheSettings) -> None:
        sample = features.sampled(0.5, 0)
        clips = pickle.loads(pickle.dumps(ClipCache.of(sample, settings))).open().clips["train"]  # noqa: S301
        assert clips.track_ids.to_pylist() == sample.tracks("train")["track_id"].to_pylist()
        assert 0.3 < len(clips.track_ids) / len(features.tracks("train")) < 0.7
        assert len(ClipCache.of(features, settings).open().clips["train"]) > len(clips)
        assert len(copies(settings)) == 2


class TestMaking:
    def test_a_second_job_uses_the_copy(self, features: Features, settings: CacheSettings) -> None:
        ClipCache.of(features, settings).open()
        (copy,) = copies(settings)
        before = (copy / "header.json").stat()
        ClipCache.of(Features.open(features.folder), settings).open()
        assert (copy / "header.json").stat() == before

    @pytest.mark.parametrize(
        "damage",
        [
            lambda copy: (copy / "clips").write_bytes((copy / "clips").read_bytes()[:-1]),
            lambda copy: (copy / "clips").write_bytes(bytes((copy / "clips").stat().st_size)),
            lambda copy: (copy / "peaks").unlink(),
            lambda copy: (copy / "header.json").write_text((copy / "header.json").read_text()[:50]),
            lambda copy: (copy / "header.json").unlink(),
            lambda copy: (copy / "header.json").write_text("[1]"),
            lambda copy: change_header(copy, lambda header: header.pop("tracks")),
            lambda copy: change_header(copy, lambda header: header["statistics"]["train"].update(clips=7)),
        ],
        ids=["cut", "changed", "lost file", "cut header", "lost header", "list", "header without tracks", "other sum"],
    )
    def test_an_altered_copy_is_made_again(
        self, features: Features, settings: CacheSettings, damage: Callable[[Path], object]
    ) -> None:
        first = ClipCache.of(features, settings).open()
        expected = in_memory(first.clips["train"])
        damage(copies(settings)[0])
        again = ClipCache.of(features, settings).open()
        assert np.array_equal(again.clips["train"].spectrograms, expected.spectrograms)
        assert again.statistics.to_json() == first.statistics.to_json()
        assert len(again.clips["valid"]) > 0

    def test_the_disk_holds_all_files_before_the_header(
        self, features: Features, settings: CacheSettings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After a loss of power the header would vouch for files that are not there."""
        synced, sync = list[str](), os.fsync

        def recorded(descriptor: int) -> None:
            synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
            sync(descriptor)

        monkeypatch.setattr(os, "fsync", recorded)
        ClipCache.of(features, settings).open()
        (copy,) = copies(settings)
        *before, last = synced
        assert last == "header.json"
        assert {last, *before} == {file.name for file in copy.iterdir()}

    def test_what_a_killed_process_left_is_replaced(self, features: Features, settings: CacheSettings) -> None:
        """The process is killed in the middle of its copy, with the lock and an unfinished folder."""
        expected = ClipCache.of(features, CacheSettings(folder=f"{settings.folder}-other")).open()
        process = multiprocessing.get_context("spawn").Process(target=_stop_midway, args=(features.folder, settings))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert [path.name.rpartition(".")[2] for path in copies(settings)] == ["unfinished"]
        clips = ClipCache.of(features, settings).open().clips["train"]
        assert np.array_equal(clips.spectrograms, expected.clips["train"].spectrograms)
        assert [path.suffix for path in copies(settings)] == [""]

    def test_others_wait_for_the_first(self, features: Features, settings: CacheSettings) -> None:
        cache, opened = ClipCache.of(features, settings), threading.Event()
        messages: list[str] = []
        Path(settings.folder).mkdir()

        def wait() -> None:
            cache.open(messages.append)
            opened.set()

        with (Path(settings.folder) / "building.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            thread = threading.Thread(target=wait, daemon=True)
            thread.start()
            while not messages:
                pass
            assert not opened.wait(0.2)
        assert opened.wait(30)
        assert messages == [f"waiting for another process that copies features to {settings.folder}"]

    def test_many_processes_make_one_copy(self, features: Features, settings: CacheSettings) -> None:
        with multiprocessing.get_context("spawn").Pool(4) as pool:
            results = pool.starmap(_inode_and_sum, [(ClipCache.of(features, settings),)] * 4)
        assert len(set(results)) == 1

    def test_features_that_changed_since_are_refused(self, features: Features, settings: CacheSettings) -> None:
        cache = ClipCache.of(features, settings)
        os.utime(f"{features.folder}/clips/0.parquet", (1, 1))
        with pytest.raises(ArtifactError, match="were prepared again while this job ran; run the same command again"):
            cache.open()
        assert copies(settings) == []

    def test_clips_that_are_deleted_while_they_are_copied_were_prepared_again(
        self, features: Features, settings: CacheSettings
    ) -> None:
        """The first file is read, and the second one is deleted, as `prepare` deletes what no track needs."""

        class Prepared(Features):
            def iter_rows(self, file: Location, *arguments: Any, **columns: Any) -> Iterator[pa.RecordBatch]:
                yield from super().iter_rows(file, *arguments, **columns)
                Path(f"{self.folder}/clips/1.parquet").unlink(missing_ok=True)

        cache = ClipCache.of(Prepared(features.folder, features.manifest), settings)
        with pytest.raises(ArtifactError, match="were prepared again while this job ran; run the same command again"):
            cache.open()
        assert copies(settings) == []

    def test_a_damaged_file_is_named(self, features: Features, settings: CacheSettings) -> None:
        file = Path(f"{features.folder}/clips/1.parquet")
        column = pq.read_metadata(file).row_group(0).column(0)
        content = bytearray(file.read_bytes())
        begin = column.dictionary_page_offset or column.data_page_offset
        content[begin : begin + 8] = b"\xff" * 8
        file.write_bytes(content)
        with pytest.raises(ArtifactError, match=r"clips/1\.parquet: cannot be read .*; .* prepare the features again"):
            ClipCache.of(features, settings).open()
        assert copies(settings) == []

    def test_wrong_clips_leave_no_copy(self, features: Features, settings: CacheSettings) -> None:
        Path(f"{features.folder}/clips/1.parquet").unlink()
        with pytest.raises(ArtifactError, match="clips are missing"):
            ClipCache.of(features, settings).open()
        assert copies(settings) == []


def _inode_and_sum(cache: ClipCache) -> tuple[int, int]:
    clips: Any = cache.open().clips["train"]
    (copy,) = copies(cache.settings)
    return (copy / "clips").stat().st_ino, int(clips.spectrograms.sum(dtype=np.int64))


def _stop_midway(folder: Location, settings: CacheSettings) -> None:
    """Copy the clips, and die when half of their files are read."""

    class Dying(Features):
        def iter_clips(self, *arguments: Any) -> Iterator[tuple[str, pa.RecordBatch]]:
            for number, batch in enumerate(super().iter_clips(*arguments)):
                if number == 2:
                    os.kill(os.getpid(), signal.SIGKILL)
                yield batch

    features = Features.open(folder)
    ClipCache.of(Dying(features.folder, features.manifest), settings).open()
