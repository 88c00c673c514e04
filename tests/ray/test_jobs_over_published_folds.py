"""Published folds, by the jobs: from a table to the features, a cross-validation and a search."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import ray
from grouped import CLASSES, TRAIN, save_trained, write_grouped
from making import SMALL_MODELS, load
from music import config_of, write_song

from genre import config, report
from genre.config import validate
from genre.errors import ArtifactError, ConfigError
from genre.evaluation import baseline, track_statistics
from genre.evaluation.baseline import LabelledStatistics
from genre.features import Features
from genre.features.cache import ClipCache
from genre.features.splitting.folds import NOT_TEST, Fold
from genre.model.card import read_card
from genre.settings import CacheSettings, Config
from genre.storage import Location
from genre.training.experiment import Data
from ray_jobs import evaluate, prepare, tune
from ray_jobs.search.trial_folder import TrialFolder

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SPLITS = ("train", "train", "valid", "valid", "train", "test")  # of the six groups of each genre
NAMES = ("2", "2", "10", "10", "1", "1")  # of their folds: copies are in the first two groups
NUMBERS = {"1": 1, "2": 2, "10": 3}


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Location]:
    """Yield an output with features that have published folds, and a small model, after its cross-validation."""
    home = tmp_path_factory.mktemp("published")
    output = Location.of(home)
    write_grouped(home / "features", splits=SPLITS)
    write_folds(home / "features", NAMES)
    save_trained(output / "models" / "cnn", Data.open(ClipCache.of(opened(output), CacheSettings())))
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    evaluate.run(settings(output, 3))
    yield output
    ray.shutdown()


def write_folds(features: Path, names: tuple[str, ...]) -> None:
    """Give the tracks of each genre's groups these folds, as the integers that a person would write."""
    tracks = pq.read_table(features / "tracks.parquet")
    fold = pa.array([int(names[n // 6]) for n in range(len(tracks))], pa.int64())
    tracks = tracks.drop_columns("fold") if "fold" in tracks.column_names else tracks
    pq.write_table(tracks.append_column("fold", fold), features / "tracks.parquet")


def opened(output: Location) -> Features:
    return Features.open(output / "features")


def settings(output: Location, count: int) -> Config:
    return config.load(None, [f"output={output}", f"evaluate.folds={count}", "device=cpu"])


def numbers(tracks: pa.Table) -> np.ndarray:
    return np.array([NUMBERS[name] for name in tracks["fold"].to_pylist()])


def test_the_folds_of_a_cross_validation_are_exactly_the_published_ones(output: Location) -> None:
    labelled = opened(output).labelled()
    tracks = (output / "cross_validation" / "folds.parquet").read_table()
    assert tracks["track_id"] == labelled["track_id"]
    assert tracks["published_fold"] == labelled["fold"]
    assert tracks["fold"].to_pylist() == numbers(labelled).tolist()
    for file in Path(str(output)).glob("cross_validation/fold_predictions/*/fold-*.parquet"):
        number = int(file.stem.removeprefix("fold-"))
        held_out = labelled.filter(pa.array(numbers(labelled) == number))
        assert pq.read_table(file)["track_id"].to_pylist() == held_out["track_id"].to_pylist()


def test_the_report_says_that_folds_are_published(output: Location) -> None:
    board = report.read_board(output / "cross_validation")
    assert "Cross-validation over 3 published folds: each of the 35 labelled tracks" in board.notes[0]
    assert board.corpus.split == "3-fold"
    assert board.corpus.split_rule.startswith("cross-validation over published folds")
    assert not any("has no track of" in note for note in board.notes)


def test_the_classical_baseline_judges_each_fold_and_learned_from_the_others(output: Location) -> None:
    board = report.read_board(output / "cross_validation")
    (row,) = [entry for entry in board.entries if entry.kind == "classical"]
    assert row.name == "statistics + svm"
    fold = numbers(opened(output).labelled())
    for number in (1, 2, 3):
        clips = load(opened(output).of_fold(Fold(number, 3, None)), "train", "valid")
        learned, judged = (
            LabelledStatistics(track_statistics.of_clips(clips[part]), clips[part].labels)
            for part in ("train", "valid")
        )
        fitted = baseline.fit_for_fold(learned, fold[fold != number], number, len(CLASSES), TRAIN.class_weights)
        penalties = row.settings["svm.C"]
        used = float(penalties[number - 1]) if isinstance(penalties, list) else penalties
        assert used == fitted.settings["svm.C"]
        np.testing.assert_allclose(
            row.runs[0].probabilities[fold == number], fitted.predict(judged.statistics), atol=1e-4
        )
    (ranked,) = report.tabulate(board).of("classical")
    assert ranked.rank
    assert "statistics + svm" in (output / "cross_validation" / "leaderboard.md").read_bytes().decode()


def test_another_number_of_folds_and_a_planted_leak_end_the_job_before_it_trains(
    output: Location, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"evaluate\.folds=2, but the tracks have 3 published folds \(1, 2, 10\)"):
        evaluate.run(settings(output, 2))
    write_grouped(tmp_path / "features", splits=SPLITS)
    write_folds(tmp_path / "features", ("2", "10", "10", "2", "1", "1"))  # the first two groups have a copy each
    for file in (output / "models" / "cnn").files():
        (Location.of(tmp_path) / "models" / "cnn" / file.name).write_bytes(file.read_bytes())
    with pytest.raises(
        ArtifactError, match=r"leakage: the same recording in fold 10 .* and fold 2 .*; correct the col"
    ):
        evaluate.run(settings(Location.of(tmp_path), 3))
    with pytest.raises(
        ArtifactError, match=r"leakage: the same recording in fold 10 .* and fold 2 .*; correct the col"
    ):
        tune.run(of_search(Location.of(tmp_path)))
    assert not (tmp_path / "cross_validation").exists()


def of_search(output: Location) -> Config:
    train = {"epochs": 2, "batch_size": 8, "window_seconds": 0.5, "eval_windows": 2, "windows_per_clip": 4}
    search = {"architectures": ["cnn"], "folds": 3, "trials": 1, "seeds": 1, "grace_epochs": 2, "robustness": False}
    tree = {"output": str(output), "device": "cpu", "architectures": {"cnn": SMALL_MODELS["cnn"]}, "train": train}
    return validate(Config, tree | {"tune": search})


def test_a_search_takes_the_published_folds_of_the_tracks_that_are_not_test(
    output: Location, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_grouped(tmp_path / "features", splits=SPLITS)
    write_folds(tmp_path / "features", NAMES)
    tune.run(of_search(Location.of(tmp_path)))
    assert "of 3 genres, in 3 published folds\n" in capsys.readouterr().err
    tracks = opened(Location.of(tmp_path)).tracks()
    divided = tracks.filter(pc.is_in(tracks["split"], pa.array(NOT_TEST)))
    (trial,) = (TrialFolder(Location.of(path)) for path in tmp_path.glob("tune/cnn-*/000"))
    for number in (1, 2, 3):
        held_out = divided.filter(pa.array(numbers(divided) == number))["track_id"]
        assert trial.predictions(number).read_table()["track_id"].to_pylist() == held_out.to_pylist()
    assert read_card(trial.model)[0].facts["held_out"] == {"number": 1, "count": 3, "seed": None}
    assert read_card(Location.of(tmp_path / "models" / "cnn"))[0].facts["folds"] == 3


def test_prepare_carries_the_folds_of_a_table_and_their_changes(output: Location, tmp_path: Path) -> None:
    rows = ["path,genre,group,Fold"]
    for number in range(6):
        write_song(tmp_path / f"{number}.wav", seed=number)
        rows.append(f"{number}.wav,{'ab'[number % 2]},artist {number},{number // 2}")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    corpus = {"kind": "table", "root": str(tmp_path / "list.csv"), "params": {"fold_column": "Fold"}}
    base = config_of(str(tmp_path), tmp_path / "out")
    first = base.model_copy(update={"corpus": base.corpus.model_copy(update=corpus)})
    prepare.run(first)
    features = Features.open(Location.of(tmp_path / "out" / "features"))
    assert features.tracks()["fold"].to_pylist() == ["0", "0", "1", "1", "2", "2"]
    parts = features.tracks()["part"]
    (tmp_path / "list.csv").write_text("\n".join(rows).replace("5,2", "5,1"))
    prepare.run(first)
    again = features.reopened()
    assert again.tracks()["fold"].to_pylist() == ["0", "0", "1", "1", "2", "1"]
    assert again.tracks()["part"] == parts  # nothing was decoded again
    assert again.manifest.contents != features.manifest.contents
    drawn = first.model_copy(update={"corpus": first.corpus.model_copy(update={"split": "random"})})
    prepare.run(drawn)
    assert "fold" not in features.reopened().tracks().column_names
