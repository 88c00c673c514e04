"""Tests of the features folder: one that prepare wrote, folders written by others, and the example scripts."""

from __future__ import annotations

import json
import pickle
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import REPOSITORY
from making import load
from music import InTurn, config_of, write_music

from genre.config import load as load_config
from genre.errors import ArtifactError, ConfigError, StorageError
from genre.features import SPLITS, Features, Shape, decode
from genre.features.cache import ClipCache
from genre.features.manifest import SCHEMA_VERSION
from genre.features.splitting.folds import Fold
from genre.settings import CacheSettings
from genre.storage import Location
from genre.training import experiment
from genre.training.experiment import Data
from ray_jobs.prepare import prepare

Row = dict[str, Any]
Columns = dict[str, Any]

SHAPE = Shape(bins=4, frames=6, range_db=80.0, frame_seconds=0.1)


def run_example(name: str, *arguments: object) -> str:
    """Run a script of examples/ and return its output."""
    command = [sys.executable, str(REPOSITORY / "examples" / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def write_folder(folder: Path, tracks: Columns, clips: list[Row], **manifest: object) -> Location:
    """Write the smallest valid features folder, with these changes to its manifest."""
    (folder / "clips").mkdir(parents=True)
    pq.write_table(pa.table(tracks), folder / "tracks.parquet")
    pq.write_table(pa.Table.from_pylist(clips, SHAPE.clip_schema()), folder / "clips/a.parquet")
    content = {
        "stage": "features",
        "schema_version": SCHEMA_VERSION,
        "shape": vars(SHAPE),
        "classes": ["a", "b"],
    } | manifest
    (folder / "manifest.json").write_text(json.dumps(content))
    return Location.of(folder)


def clip(track: str, number: int, value: int = 7, peak: float = 0.0) -> Row:
    return {"track_id": track, "clip": number, "peak_db": peak, "spectrogram": bytes([value] * 24)}


TRACKS: Columns = {"track_id": ["y", "x"], "genre": ["b", "a"], "split": ["train", "train"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Location:
    """Return a folder that prepare wrote."""
    home = tmp_path_factory.mktemp("features")
    write_music(home / "music", genres=4, per_genre=12)
    prepare(config_of(home / "music", home / "out"), InTurn())
    return Location.of(home / "out/features")


class TestLoad:
    def test_clips_are_in_the_order_of_tracks_and_their_numbers(self, folder: Location) -> None:
        clips = load(Features.open(folder), "train")["train"]
        rows = {(row["track_id"], row["clip"]): row for row in (folder / "clips").read_table().to_pylist()}
        ids = clips.track_ids.to_pylist()
        assert ids == sorted(ids)
        assert (np.diff(clips.track) >= 0).all()
        number = 0
        for index, track in enumerate(clips.track):
            number = number + 1 if index and clips.track[index - 1] == track else 0
            row = rows[ids[track], number]
            assert row["spectrogram"] == clips.spectrograms[index].tobytes()
            assert row["peak_db"] == clips.peak_db[index]

    def test_a_view_of_a_view_is_the_same_in_another_process(self, folder: Location) -> None:
        complete = Features.open(folder)
        rule = Fold(1, 3, 0, ("train", "valid"))
        fold = complete.of_fold(rule)
        sample = fold.sampled(0.5, 0)
        for view in (sample, fold.sampled(1, 0), complete.sampled(0.5, 0).of_fold(rule), sample.complete()):
            assert pickle.loads(pickle.dumps(view)).tracks() == view.tracks()  # noqa: S301 - its own
        held_out = set(fold.tracks("valid")["track_id"].to_pylist())
        assert 0 < len(sample.tracks("valid")) < len(held_out)
        assert set(sample.tracks("valid")["track_id"].to_pylist()) < held_out
        assert sample.complete().tracks() == complete.tracks()

    def test_splits_are_disjoint_and_complete(self, folder: Location) -> None:
        loaded = load(Features.open(folder), *SPLITS)
        ids = [set(clips.track_ids.to_pylist()) for clips in loaded.values()]
        assert sum(map(len, ids)) == len(set.union(*ids)) == 48
        for split, clips in loaded.items():
            alone = load(Features.open(folder), split)[split]
            assert np.array_equal(alone.spectrograms, clips.spectrograms)
            assert np.array_equal(alone.clip_labels(), clips.clip_labels())

    def test_error_names_a_truncated_part(self, folder: Location, tmp_path: Path) -> None:
        shutil.copytree(folder.path, tmp_path / "copy")
        part = next((tmp_path / "copy/clips").iterdir())
        part.write_bytes(part.read_bytes()[:-10])
        with pytest.raises(ArtifactError, match=f"{part.name}: not Parquet, or truncated"):
            load(Features.open(Location.of(tmp_path / "copy")), *SPLITS)


def test_pickle_holds_the_address_and_the_manifest_but_no_tracks(folder: Location) -> None:
    features = Features.open(folder)
    features.tracks()
    content = pickle.dumps(features)
    assert len(content) < 4096
    copy = pickle.loads(content)  # noqa: S301 - written above
    assert copy.manifest == features.manifest
    assert copy.tracks().equals(features.tracks())


def test_tracks_are_read_once(folder: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    features = Features.open(folder)
    total = len(features.tracks())
    monkeypatch.setattr(Location, "read_table", None)
    assert sum(len(features.tracks(split)) for split in SPLITS) == total


class TestFoldersOfOthers:
    def test_optional_parts_may_be_missing(self, tmp_path: Path) -> None:
        folder = write_folder(tmp_path / "f", TRACKS, [clip("x", 1, 2), clip("y", 0, 3), clip("x", 0, 1)])
        clips = load(Features.open(folder), "train")["train"]
        assert clips.track_ids.to_pylist() == ["x", "y"]
        assert clips.labels.tolist() == [0, 1]
        assert clips.spectrograms[:, 0, 0].tolist() == [1, 2, 3]
        assert clips.groups.to_pylist() == ["x", "y"]
        manifest = Features.open(folder).manifest
        assert manifest.counts.splits["a"]["train"] == 1
        assert manifest.settings == {}

    def test_contents_change_with_the_splits_and_the_fingerprint_does_not(self, tmp_path: Path) -> None:
        first = write_folder(tmp_path / "1", TRACKS, [clip("x", 0), clip("y", 0)])
        moved = write_folder(tmp_path / "2", TRACKS | {"split": ["valid", "train"]}, [clip("x", 0), clip("y", 0)])
        before, after = Features.open(first).manifest, Features.open(moved).manifest
        assert before.contents != after.contents
        assert before.fingerprint == after.fingerprint

    def test_texts_may_have_any_arrow_type(self, tmp_path: Path) -> None:
        tracks = {
            "track_id": pa.array(["y", "x"], pa.large_string()),
            "genre": pa.array(["b", "a"]).dictionary_encode(),
            "split": ["train", "train"],
        }
        folder = write_folder(tmp_path / "f", tracks, [clip("x", 0), clip("y", 0)])
        assert load(Features.open(folder), "train")["train"].labels.tolist() == [0, 1]

    @pytest.mark.parametrize(
        ("clips", "message"),
        [
            ([clip("x", 0)], "track 'y' has no clips; write some, or leave it out"),
            ([clip("x", 0), clip("x", 0), clip("y", 0)], "holds a clip twice"),
            ([clip("x", 1), clip("y", 0)], "number the clips of a track 0, 1, 2"),
            ([clip("x", 0), clip("y", 0, peak=float("nan"))], "peak_db holds NaN or nulls, first in track 'y'"),
            ([clip("x", 0), clip("y", 0) | {"spectrogram": None}], "nulls in column 'spectrogram'"),
            ([clip("x", 0), clip("y", 0) | {"clip": None}], "nulls in column 'clip'"),
        ],
    )
    def test_wrong_clips_are_refused(self, tmp_path: Path, clips: list[Row], message: str) -> None:
        with pytest.raises(ArtifactError, match=message):
            load(Features.open(write_folder(tmp_path / "f", TRACKS, clips)), "train")["train"]

    def test_missing_clips_are_counted(self, tmp_path: Path) -> None:
        folder = write_folder(tmp_path / "f", TRACKS | {"clips": [2, 1]}, [clip("x", 0), clip("y", 0)])
        with pytest.raises(ArtifactError, match="f: 1 of 3 clips are missing"):
            load(Features.open(folder), "train")["train"]

    @pytest.mark.parametrize(
        ("manifest", "message"),
        [
            ({"stage": "model"}, "holds model version 2, not features version 2"),
            ({"schema_version": 1}, "holds features version 1, not features version 2; delete it or choose"),
            ({"shape": {"bins": 4}}, "lacks 'shape' with bins, frame_seconds, frames, range_db"),
            ({"classes": ["a"]}, "names genre 'b', which manifest.json does not list"),
            ({"shape": vars(SHAPE) | {"bins": 5}}, r"'spectrogram' should be fixed_size_binary\[30\], found"),
        ],
    )
    def test_wrong_manifests_are_refused(self, tmp_path: Path, manifest: dict[str, Any], message: str) -> None:
        folder = write_folder(tmp_path / "f", TRACKS, [clip("x", 0), clip("y", 0)], **manifest)
        with pytest.raises(ArtifactError, match=message):
            load(Features.open(folder), "train")["train"]

    def test_folds_are_numbers_or_names_and_may_be_absent(self, tmp_path: Path) -> None:
        clips = [clip("x", 0), clip("y", 0)]
        for number, (fold, expected) in enumerate(
            (([3, 10], ["10", "3"]), (["b", "a"], ["a", "b"]), ([1, None], [None, "1"]))
        ):
            features = Features.open(write_folder(tmp_path / f"f{number}", TRACKS | {"fold": fold}, clips))
            assert features.tracks()["fold"].to_pylist() == expected
        assert "fold" not in Features.open(write_folder(tmp_path / "f", TRACKS, clips)).tracks().column_names
        lists = TRACKS | {"fold": [[1], [2]]}
        with pytest.raises(ArtifactError, match="column 'fold' should hold strings"):
            Features.open(write_folder(tmp_path / "g", lists, clips)).tracks()

    @pytest.mark.parametrize("missing", ["track_id", "genre", "split"])
    def test_error_names_a_missing_column(self, tmp_path: Path, missing: str) -> None:
        tracks = {name: values for name, values in TRACKS.items() if name != missing}
        with pytest.raises(ArtifactError, match=f"column '{missing}' is missing"):
            load(Features.open(write_folder(tmp_path / "f", tracks, [clip("x", 0), clip("y", 0)])), "train")["train"]

    def test_missing_folder_and_missing_manifest_have_different_errors(self, tmp_path: Path) -> None:
        with pytest.raises(ArtifactError, match="no such folder, run prepare"):
            load(Features.open(Location.of(tmp_path / "nowhere")), "train")["train"]
        (tmp_path / "begun").mkdir()
        with pytest.raises(ArtifactError, match="not finished, run prepare again"):
            load(Features.open(Location.of(tmp_path / "begun")), "train")["train"]

    def test_a_folder_that_is_away_is_told_from_one_that_is_there(self, tmp_path: Path) -> None:
        features = Features.open(write_folder(tmp_path / "f", TRACKS, [clip("x", 0), clip("y", 0)]))
        features.check_present(OSError("no answer"))
        (tmp_path / "f").rename(tmp_path / "away")
        for _ in range(2):
            with pytest.raises(StorageError, match=r"/f is missing, empty or denied \(no answer\); run"):
                features.check_present(OSError("no answer"))
            (tmp_path / "f").mkdir(exist_ok=True)  # a mount point


class TestClipCheck:
    """What `train`, `tune` and `evaluate` check before they start."""

    ROWS: ClassVar = {
        "NaN": clip("y", 0, peak=float("nan")),
        "infinite": clip("y", 0, peak=float("-inf")),
        "null": clip("y", 0) | {"peak_db": None},
    }

    @pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
    def test_an_unknown_level_in_any_split_is_found_without_reading_spectrograms(
        self, tmp_path: Path, row: Row
    ) -> None:
        splits = {"v": "train", "w": "train", "x": "valid", "y": "test"}
        tracks = {"track_id": list(splits), "genre": ["a", "b", "a", "b"], "split": list(splits.values())}
        unread = clip("v", 0) | {"spectrogram": None}
        features = Features.open(write_folder(tmp_path / "f", tracks, [unread, clip("w", 0), clip("x", 0), row]))
        features.check_clips(features.tracks("train"))
        with pytest.raises(
            ArtifactError, match=r"/f: a\.parquet: peak_db holds NaN or nulls, first in track 'y'; those"
        ):
            experiment.check_tracks(features)

    def test_rows_that_are_not_used_may_lack_it(self, tmp_path: Path) -> None:
        """They are rows of no track, and those of a track whose clips are in another file."""
        tracks = {"track_id": ["x", "y"], "genre": ["a", "b"], "split": ["train", "train"]}
        unused = [clip(track, 0, peak=float("nan")) for track in ("x", "other")]
        folder = write_folder(tmp_path / "f", tracks | {"part": ["a.parquet", "b.parquet"]}, [clip("x", 0)])
        pq.write_table(
            pa.Table.from_pylist([clip("y", 0), *unused], SHAPE.clip_schema()), tmp_path / "f/clips/b.parquet"
        )
        features = Features.open(folder)
        features.check_clips(features.labelled())

    def test_a_clip_without_a_number_is_found(self, tmp_path: Path) -> None:
        rows = [clip("x", 0), clip("y", 0) | {"clip": None}]
        features = Features.open(write_folder(tmp_path / "f", TRACKS, rows))
        with pytest.raises(ArtifactError, match="holds nulls in column 'clip'"):
            features.check_clips(features.labelled())

    def test_what_prepare_wrote_is_not_read(self, tmp_path: Path) -> None:
        folder = write_folder(tmp_path / "f", TRACKS | {"clips": [1, 1]}, [], versions={"numpy": "2"})
        shutil.rmtree(tmp_path / "f/clips")
        features = Features.open(folder)
        features.check_clips(features.labelled())


class TestExamples:
    """The scripts of examples/, which do not import this project."""

    def train_loss(self, folder: Path, *settings: str) -> float:
        """Return the loss after an epoch of training on a folder."""
        features = Features.open(Location.of(folder))
        data = Data.open(ClipCache.of(features, CacheSettings()))
        small = ["architecture=cnn", "architectures.cnn.width=4", "architectures.cnn.depth=2"]
        config = load_config(None, ["train.epochs=1", *small, *settings])
        experiment.check_settings(config.audio, config.spectrogram, features)
        _, trainer = experiment.trainer_for(experiment.Experiment.of(config), data, torch.device("cpu"))
        return next(iter(trainer.run())).train_loss

    def test_folder_written_with_pyarrow_can_be_trained_on(self, tmp_path: Path) -> None:
        run_example("write_features.py", tmp_path / "run")
        assert np.isfinite(self.train_loss(tmp_path / "run/features"))
        lines = run_example("read_features.py", tmp_path / "run/features").splitlines()
        assert len(lines) == 69
        assert lines[0].startswith("track00  0  low  train  ")

    def test_groups_and_folds_are_written(self, tmp_path: Path) -> None:
        script = runpy.run_path(str(REPOSITORY / "examples/write_features.py"))
        clips = [np.zeros((4, 6))]
        tracks = [
            script["Track"]("x", "a", "train", clips, "someone", "2"),
            script["Track"]("y", "a", "test", clips, fold="1"),
        ]
        script["write"](tmp_path / "f", tracks, 4, 6, 80.0, 0.1)
        written = Features.open(Location.of(tmp_path / "f")).tracks()
        assert written.select(["group", "fold"]).to_pydict() == {"group": ["someone", None], "fold": ["2", "1"]}

    @pytest.mark.parametrize(
        ("clip", "message"),
        [
            (np.zeros((6, 4)), r"track 'x': a clip has shape (6, 4), not (bins, frames) (4, 6)"),
            (np.zeros(24), r"track 'x': a clip has shape (24,), not (bins, frames) (4, 6)"),
            (np.full((4, 6), np.nan), "track 'x': a clip has NaN or infinite levels; limit them or leave it out"),
            (np.full((4, 6), -np.inf), "track 'x': a clip has NaN or infinite levels; limit them or leave it out"),
        ],
    )
    def test_clips_that_do_not_fit_are_refused(self, tmp_path: Path, clip: Any, message: str) -> None:
        script = runpy.run_path(str(REPOSITORY / "examples/write_features.py"))
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            script["write"](tmp_path, [script["Track"]("x", "a", "train", [clip])], 4, 6, 80.0, 0.1)
        assert not (tmp_path / "manifest.json").exists()

    def test_prepared_folder_can_be_read_with_pyarrow(self, tmp_path: Path) -> None:
        write_music(tmp_path / "music")
        prepare(config_of(tmp_path / "music", tmp_path / "out"), InTurn())
        lines = run_example("read_features.py", tmp_path / "out/features").splitlines()
        features = Features.open(Location.of(tmp_path / "out/features"))
        assert len(lines) == features.manifest.counts.clips
        clips = load(features, "train")["train"]
        read = runpy.run_path(str(REPOSITORY / "examples/read_features.py"))["read"]
        rows = [row for row in read(tmp_path / "out/features") if row.split == "train"]
        rows.sort(key=lambda row: (row.track_id, row.number))
        expected = decode(clips.spectrograms, clips.peak_db, clips.shape.range_db)
        np.testing.assert_allclose(np.stack([row.levels for row in rows]), expected, atol=1e-4)

    def test_published_spectrograms_of_gtzan_can_be_trained_on(self, tmp_path: Path, shared_data: Path) -> None:
        source = shared_data / "gtzan-spectrograms-train-valid.parquet"
        run_example("write_features.py", tmp_path / "run", "--convert", source)
        features = Features.open(Location.of(tmp_path / "run/features"))
        data = Data.open(ClipCache.of(features, CacheSettings()))
        assert len(data.train) + len(data.valid) == 635
        assert data.train.shape == Shape(40, 496, 80.0, 30 / 496)
        original = pq.read_table(source).to_pylist()[0]
        loaded = data.train if original["split"] == "train" else data.valid
        row = loaded.track_ids.to_pylist().index(original["track_id"])
        published = np.frombuffer(original["spectrogram"], np.uint8).reshape(129, 496)
        # the lowest and the highest band lie within the lowest and the highest bins
        for band, bins in ((0, slice(0, 4)), (-1, slice(-19, None))):
            converted = decode(loaded.spectrograms[row], loaded.peak_db[row], 80.0)[band]
            levels = published[bins] * (80 / 255) - 80
            assert (converted >= levels.min(axis=0) - 0.2).all()
            assert (converted <= levels.max(axis=0) + 0.2).all()
        with pytest.raises(ConfigError, match="no track is in the test split"):
            experiment.check_tracks(features)
