"""The complete chain from the command line: prepare, train, tune, evaluate and tag a small composed corpus."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from making import load as load_clips
from running import job

from genre import architectures
from genre.config import load
from genre.features import Features
from genre.features.preparing import tracks
from genre.features.preparing.scan import scan
from genre.features.recipe import Recipe
from genre.report import read_board
from genre.storage import Location

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def tuned(home: Path) -> tuple[Path, str]:
    """Return the run folder after the search, and what the search printed."""
    return home, job("tune", home, "tune.robustness=true").stdout


def test_every_track_is_a_feature_or_a_reject(home: Path) -> None:
    tracks = pq.read_table(home / "out/features/tracks.parquet").to_pylist()
    rejects = pq.read_table(home / "out/features/rejects.parquet").to_pylist()
    assert len(tracks) == 60
    assert len(rejects) == 8
    assert all(row["reason"] and row["message"] for row in rejects)
    assert {"empty", "unsupported", "silent"} <= {row["reason"] for row in rejects}
    assert not {row["track_id"] for row in tracks} & {row["track_id"] for row in rejects}


def test_ray_and_a_plain_loop_make_the_same_features(home: Path, tmp_path: Path) -> None:
    config = load(str(home / "run.yaml"))
    tracks.prepare_block(scan(config.corpus), Recipe.of(config), Location.of(tmp_path))
    (plain_file,) = (tmp_path / "clips").iterdir()
    plain = pq.read_table(plain_file).sort_by([("track_id", "ascending"), ("clip", "ascending")])
    parallel = pq.read_table(home / "out/features/clips").sort_by([("track_id", "ascending"), ("clip", "ascending")])
    assert parallel.equals(plain.cast(parallel.schema))


def test_a_second_run_prepares_nothing(home: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (home / "out/features/clips").iterdir()}
    assert "0 to do" in job("prepare", home).stderr
    assert {path: path.stat().st_mtime_ns for path in (home / "out/features/clips").iterdir()} == before


def test_features_of_other_settings_are_refused(home: Path) -> None:
    done = job("prepare", home, "spectrogram.n_mels=40", succeeds=False)
    assert "spectrogram.n_mels is 32, expected 40" in done.stderr
    assert done.returncode == 1


def test_train_saves_a_model_and_reports_epochs(home: Path) -> None:
    done = job("train", home, "architecture=crnn", f"output={home / 'out'}")
    assert "epoch   2/2" in done.stderr
    saved = json.loads((home / "out/models/crnn/model.json").read_text())
    assert saved["architecture"] == "crnn"
    assert len(saved["facts"]["history"]) == 2


def test_the_leaderboard_has_all_six_architectures_and_the_references(tuned: tuple[Path, str]) -> None:
    home, printed = tuned
    board = read_board(Location.of(home / "out/leaderboard"))
    names = {entry.name for entry in board.entries}
    (nearest,) = [entry for entry in board.entries if entry.kind == "neighbours"]
    assert names == {*architectures.names(), "ensemble", "statistics + svm", "majority", nearest.name}
    assert len(board.track_ids) == 20
    assert [command.split()[2].removeprefix("ray_jobs.") for command in board.commands] == ["prepare", "tune"]
    for suffix in ("html", "md", "csv", "json"):
        assert (home / f"out/leaderboard/leaderboard.{suffix}").stat().st_size > 500
    with open(home / "out/leaderboard/leaderboard.csv", encoding="utf-8", newline="") as file:
        assert {row["name"] for row in csv.DictReader(file)} == names
    kept, given = (
        load(str(home / file), ["tune.robustness=true"]) for file in ("out/leaderboard/settings.yaml", "run.yaml")
    )
    assert (kept.tune, kept.train, kept.seed) == (given.tune, given.train, given.seed)
    for name in architectures.names():
        assert name in printed
        assert (home / f"out/models/{name}/seed-0/weights.safetensors").exists()


def test_the_leaderboard_scores_the_test_split_of_the_features(tuned: tuple[Path, str]) -> None:
    home, _ = tuned
    board = read_board(Location.of(home / "out/leaderboard"))
    clips = load_clips(Features.open(Location.of(home / "out/features")), "test")["test"]
    assert board.track_ids == clips.track_ids.to_pylist()
    assert np.array_equal(board.truth, clips.labels)


def test_the_nearest_training_tracks_are_those_of_the_best_network_by_validation(tuned: tuple[Path, str]) -> None:
    home, _ = tuned
    board = read_board(Location.of(home / "out/leaderboard"))
    (nearest,) = [entry for entry in board.entries if entry.kind == "neighbours"]
    networks = [entry for entry in board.entries if entry.kind == "network"]
    best = max(networks, key=lambda entry: entry.valid_f1 or 0.0)
    assert nearest.name == f"nearest neighbours of {best.name}"
    neighbours = nearest.runs[0].neighbours
    assert neighbours is not None
    genres = {
        row["track_id"]: board.classes.index(row["genre"])
        for row in pq.read_table(home / "out/features/tracks.parquet").to_pylist()
        if row["split"] == "train"
    }
    assert [genres[name] for name in neighbours.track_ids.ravel()] == neighbours.genres.ravel().tolist()
    assert nearest.settings["neighbours.training_tracks"] == len(genres) == 20


def test_evaluate_finds_the_same_scores(tuned: tuple[Path, str]) -> None:
    home, _ = tuned
    job("evaluate", home)
    first = read_board(Location.of(home / "out/leaderboard"))
    again = read_board(Location.of(home / "out/evaluation"))
    expected = {entry.name: entry.mean_probabilities for entry in first.entries}
    for entry in again.entries:
        assert np.allclose(entry.mean_probabilities, expected[entry.name], atol=2e-5)


def test_tag_ranks_genres_and_lists_failures(tuned: tuple[Path, str], tmp_path: Path) -> None:
    home, _ = tuned
    music = tmp_path / "music"
    shutil.copytree(home / "music" / "house", music / "house")
    (music / "broken.mp3").write_bytes(b"no music at all")
    done = job("tag", home, f"inputs={music}", f"output={home / 'out'}")
    tags = pq.read_table(home / "out/tags/tags.parquet").to_pylist()
    with open(home / "out/tags/failures.csv", encoding="utf-8", newline="") as file:
        failures = {Path(row["path"]).name: row["reason"] for row in csv.DictReader(file)}
    assert failures["broken.mp3"] == "unsupported"
    files = [path for path in music.rglob("*") if path.is_file() and not path.name.startswith(".")]
    assert len(tags) + len(failures) == len(files)
    for row in tags:
        assert 1 >= row["probability"] >= row["probability_2"] >= row["probability_3"] >= 0
    assert f"{len(tags)} files tagged" in done.stderr


def test_a_single_song_is_tagged(tuned: tuple[Path, str]) -> None:
    home, _ = tuned
    song = next(path for path in sorted((home / "music/house").iterdir()) if path.stat().st_size > 10_000)
    job("tag", home, f"inputs={song}", f"model={home / 'out/models/cnn'}", f"output={home / 'song'}")
    assert len(pq.read_table(home / "song/tags/tags.parquet")) == 1


def test_an_altered_model_is_refused(tuned: tuple[Path, str], tmp_path: Path) -> None:
    home, _ = tuned
    copy = tmp_path / "model"
    shutil.copytree(home / "out/models/cnn", copy)
    weights = copy / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    done = job("tag", home, f"inputs={home / 'music'}", f"model={copy}", succeeds=False)
    assert "not the weights that model.json lists" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_report_names_the_kind_of_split(tuned: tuple[Path, str]) -> None:
    home, _ = tuned
    assert read_board(Location.of(home / "out/leaderboard")).corpus.split == "official"


def test_a_split_without_tracks_is_named(tuned: tuple[Path, str], tmp_path: Path) -> None:
    home, _ = tuned
    shutil.copytree(home / "out/features", tmp_path / "features")
    tracks = pq.read_table(tmp_path / "features/tracks.parquet")
    splits = [{"test": "train"}.get(split, split) for split in tracks["split"].to_pylist()]
    column = tracks.column_names.index("split")
    changed = tracks.set_column(column, "split", pa.array(splits, tracks.schema.field("split").type))
    pq.write_table(changed, tmp_path / "features/tracks.parquet")
    done = job("evaluate", home, f"evaluate.features={tmp_path / 'features'}", succeeds=False)
    assert "the test split holds no tracks (found: train 40, valid 20, test 0)" in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.returncode == 1


def test_costs_name_the_machine_they_were_measured_on(tuned: tuple[Path, str]) -> None:
    home, _ = tuned
    board = read_board(Location.of(home / "out/leaderboard"))
    networks = [entry for entry in board.entries if entry.kind == "network"]
    assert {entry.hardware for entry in networks} == {board.hardware} != {""}
    assert all(entry.clips_per_second and entry.latency_ms and entry.flops for entry in networks)
