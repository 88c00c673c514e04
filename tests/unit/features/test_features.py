"""Spectrograms in bytes, and the features folder: one of our own, and ones that others wrote."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import REPOSITORY
from music import InTurn, config_of, write_music

from genre.config import load
from genre.errors import ArtifactError, ConfigError
from genre.features import SPLITS, Features, Shape, decode, encode
from genre.features.recipe import Recipe
from genre.settings import Config
from genre.storage import Location
from genre.training import experiment
from ray_jobs.prepare import prepare

SHAPE = Shape(bins=4, frames=6, range_db=80.0, frame_seconds=0.1)


def example(name: str, *arguments: object) -> str:
    command = [sys.executable, str(REPOSITORY / "examples" / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def write_folder(folder: Path, tracks: dict[str, list], clips: list[dict], **manifest: object) -> Location:
    """The least that a features folder holds."""
    (folder / "clips").mkdir(parents=True)
    pq.write_table(pa.table(tracks), folder / "tracks.parquet")
    pq.write_table(pa.Table.from_pylist(clips, SHAPE.clip_schema()), folder / "clips/a.parquet")
    content = {"stage": "features", "schema_version": 1, "shape": vars(SHAPE), "classes": ["a", "b"]} | manifest
    (folder / "manifest.json").write_text(json.dumps(content))
    return Location.of(folder)


def clip(track: str, number: int, value: int = 7, peak: float = 0.0) -> dict:
    return {"track_id": track, "clip": number, "peak_db": peak, "spectrogram": bytes([value] * 24)}


TRACKS = {"track_id": ["y", "x"], "genre": ["b", "a"], "split": ["train", "train"]}


class TestBytes:
    def test_the_error_is_at_most_half_a_step(self, rng):
        levels = rng.uniform(-90, 20, (8, 50)).astype(np.float32)
        stored, peak = encode(levels, 80.0)
        back = decode(stored, peak, 80.0)
        kept = levels >= peak - 80
        assert np.abs(back - levels)[kept].max() <= 80 / 255 / 2 + 1e-4
        assert np.allclose(back[~kept], peak - 80, atol=1e-4)
        assert stored.dtype == np.uint8
        assert stored.max() == 255
        assert peak == levels.max()

    def test_a_batch_has_a_peak_for_each_clip(self, rng):
        levels = rng.uniform(-60, 0, (3, 4, 5)).astype(np.float32) + np.array([0, 30, -30], np.float32)[:, None, None]
        stored, peaks = zip(*(encode(one, 80.0) for one in levels), strict=True)
        assert np.abs(decode(np.stack(stored), np.array(peaks), 80.0) - levels).max() < 0.16


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Location:
    """Features that prepare made."""
    home = tmp_path_factory.mktemp("features")
    write_music(home / "music", genres=4, per_genre=12)
    prepare(config_of(home / "music", home / "out"), InTurn())
    return Location.of(home / "out/features")


class TestLoad:
    def test_clips_come_in_the_order_of_tracks_and_their_numbers(self, folder):
        clips = Features.open(folder).clips("train")
        rows = {(row["track_id"], row["clip"]): row for row in (folder / "clips").read_table().to_pylist()}
        assert list(clips.track_ids) == sorted(clips.track_ids)
        assert (np.diff(clips.track) >= 0).all()
        number = 0
        for index, track in enumerate(clips.track):
            number = number + 1 if index and clips.track[index - 1] == track else 0
            row = rows[clips.track_ids[track], number]
            assert row["spectrogram"] == clips.spectrograms[index].tobytes()
            assert row["peak_db"] == clips.peak_db[index]

    def test_splits_do_not_overlap_and_are_complete(self, folder):
        loaded = Features.open(folder).load(SPLITS)
        ids = [set(clips.track_ids) for clips in loaded.values()]
        assert sum(map(len, ids)) == len(set.union(*ids)) == 48
        for split, clips in loaded.items():
            alone = Features.open(folder).clips(split)
            assert np.array_equal(alone.spectrograms, clips.spectrograms)
            assert np.array_equal(alone.clip_labels(), clips.clip_labels())

    def test_a_cut_part_is_named(self, folder, tmp_path):
        shutil.copytree(folder.path, tmp_path / "copy")
        part = next((tmp_path / "copy/clips").iterdir())
        part.write_bytes(part.read_bytes()[:-10])
        with pytest.raises(ArtifactError, match=f"{part.name}: not Parquet, or cut short"):
            Features.open(Location.of(tmp_path / "copy")).load(SPLITS)


class TestFoldersOfOthers:
    def test_the_least_is_enough(self, tmp_path):
        folder = write_folder(tmp_path / "f", TRACKS, [clip("x", 1, 2), clip("y", 0, 3), clip("x", 0, 1)])
        clips = Features.open(folder).clips("train")
        assert clips.track_ids.tolist() == ["x", "y"]
        assert clips.labels.tolist() == [0, 1]
        assert clips.spectrograms[:, 0, 0].tolist() == [1, 2, 3]
        assert clips.groups.tolist() == ["x", "y"]
        manifest = Features.open(folder).manifest
        assert manifest.counts.splits["a"]["train"] == 1
        assert manifest.settings == {}

    def test_what_changes_is_seen_in_the_fingerprint_of_the_contents(self, tmp_path):
        first = write_folder(tmp_path / "1", TRACKS, [clip("x", 0), clip("y", 0)])
        moved = write_folder(tmp_path / "2", TRACKS | {"split": ["valid", "train"]}, [clip("x", 0), clip("y", 0)])
        one, two = Features.open(first).manifest, Features.open(moved).manifest
        assert one.contents != two.contents
        assert one.fingerprint == two.fingerprint

    def test_texts_may_be_of_any_kind(self, tmp_path):
        tracks = {
            "track_id": pa.array(["y", "x"], pa.large_string()),
            "genre": pa.array(["b", "a"]).dictionary_encode(),
            "split": ["train", "train"],
        }
        folder = write_folder(tmp_path / "f", tracks, [clip("x", 0), clip("y", 0)])
        assert Features.open(folder).clips("train").labels.tolist() == [0, 1]

    @pytest.mark.parametrize(
        ("clips", "says"),
        [
            ([clip("x", 0)], "track 'y' has no clips; write some, or leave it out"),
            ([clip("x", 0), clip("x", 0), clip("y", 0)], "holds a clip twice"),
            ([clip("x", 1), clip("y", 0)], "number the clips of a track 0, 1, 2"),
            ([clip("x", 0), clip("y", 0, peak=float("nan"))], "peak_db holds NaN"),
            ([clip("x", 0), clip("y", 0) | {"spectrogram": None}], "nulls in column 'spectrogram'"),
            ([clip("x", 0), clip("y", 0) | {"clip": None}], "nulls in column 'clip'"),
        ],
    )
    def test_wrong_clips_are_refused(self, tmp_path, clips, says):
        with pytest.raises(ArtifactError, match=says):
            Features.open(write_folder(tmp_path / "f", TRACKS, clips)).clips("train")

    def test_missing_clips_are_counted(self, tmp_path):
        folder = write_folder(tmp_path / "f", TRACKS | {"clips": [2, 1]}, [clip("x", 0), clip("y", 0)])
        with pytest.raises(ArtifactError, match="split 'train': 1 of 3 clips are missing"):
            Features.open(folder).clips("train")

    @pytest.mark.parametrize(
        ("manifest", "says"),
        [
            ({"stage": "model"}, "holds model version 1, not features version 1"),
            ({"schema_version": 2}, "holds features version 2"),
            ({"shape": {"bins": 4}}, "lacks 'shape' with bins, frame_seconds, frames, range_db"),
            ({"classes": ["a"]}, "names genre 'b', which manifest.json does not list"),
            ({"shape": vars(SHAPE) | {"bins": 5}}, r"'spectrogram' should be fixed_size_binary\[30\], found"),
        ],
    )
    def test_wrong_manifests_are_refused(self, tmp_path, manifest, says):
        folder = write_folder(tmp_path / "f", TRACKS, [clip("x", 0), clip("y", 0)], **manifest)
        with pytest.raises(ArtifactError, match=says):
            Features.open(folder).clips("train")

    @pytest.mark.parametrize("missing", ["track_id", "genre", "split"])
    def test_missing_columns_are_named(self, tmp_path, missing):
        tracks = {name: values for name, values in TRACKS.items() if name != missing}
        with pytest.raises(ArtifactError, match=f"no column '{missing}'"):
            Features.open(write_folder(tmp_path / "f", tracks, [clip("x", 0), clip("y", 0)])).clips("train")

    def test_no_folder_and_no_manifest_are_told_apart(self, tmp_path):
        with pytest.raises(ArtifactError, match="no such folder, run prepare"):
            Features.open(Location.of(tmp_path / "nowhere")).clips("train")
        (tmp_path / "begun").mkdir()
        with pytest.raises(ArtifactError, match="not finished, run prepare again"):
            Features.open(Location.of(tmp_path / "begun")).clips("train")


class TestExamples:
    """The scripts under examples/, which use nothing of this project."""

    def trained(self, folder: Path, *settings: str) -> float:
        """The loss after an epoch of training on a folder."""
        features = Features.open(Location.of(folder))
        data = experiment.load_data(features)
        small = ["architecture=cnn", "architectures.cnn.width=4", "architectures.cnn.depth=2"]
        config = load(None, ["train.epochs=1", *small, *settings])
        experiment.check_settings(config.audio, config.spectrogram, features)
        _, trainer = experiment.trainer_for(experiment.Experiment.of(config), data, torch.device("cpu"))
        return next(iter(trainer.run())).train_loss

    def test_a_folder_written_with_pyarrow_trains_here(self, tmp_path):
        example("write_features.py", tmp_path / "run")
        assert np.isfinite(self.trained(tmp_path / "run/features"))
        shown = example("read_features.py", tmp_path / "run/features").splitlines()
        assert len(shown) == 69
        assert shown[0].startswith("track00  0  low  train  ")

    def test_our_folders_can_be_read_with_pyarrow(self, tmp_path):
        write_music(tmp_path / "music")
        prepare(config_of(tmp_path / "music", tmp_path / "out"), InTurn())
        shown = example("read_features.py", tmp_path / "out/features").splitlines()
        manifest = Features.open(Location.of(tmp_path / "out/features")).manifest
        assert len(shown) == manifest.counts.clips

    def test_real_spectrograms_of_gtzan_train_here(self, tmp_path, shared_data):
        source = shared_data / "gtzan-spectrograms-train-valid.parquet"
        example("write_features.py", tmp_path / "run", "--convert", source)
        features = Features.open(Location.of(tmp_path / "run/features"))
        data = experiment.load_data(features)
        assert len(data.train) + len(data.valid) == 635
        assert data.train.shape == Shape(40, 496, 80.0, 30 / 496)
        original = pq.read_table(source).to_pylist()[0]
        loaded = data.train if original["split"] == "train" else data.valid
        row = loaded.track_ids.tolist().index(original["track_id"])
        given = np.frombuffer(original["spectrogram"], np.uint8).reshape(129, 496)
        # the lowest and the highest band lie within the lowest and the highest bins
        for band, bins in ((0, slice(0, 4)), (-1, slice(-19, None))):
            ours = decode(loaded.spectrograms[row], loaded.peak_db[row], 80.0)[band]
            theirs = given[bins] * (80 / 255) - 80
            assert (ours >= theirs.min(axis=0) - 0.2).all()
            assert (ours <= theirs.max(axis=0) + 0.2).all()
        with pytest.raises(ConfigError, match="no track is in the test split"):
            experiment.load_data(features, SPLITS)


def test_the_default_settings_fit_the_shape():
    shape = Shape(**vars(SHAPE))
    assert shape.clip_schema().field("spectrogram").type == pa.binary(24)
    assert Config().spectrogram.range_db == 80.0


def test_a_recipe_comes_from_the_settings_of_a_manifest_unless_clips_are_precomputed():
    recipe = Recipe.of(Config())
    assert Recipe.from_settings(recipe.settings(), recipe.decoding) == recipe
    assert Recipe.from_settings({"made by": "somebody"}) is None
