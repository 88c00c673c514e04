"""Cross-validation by the job: every labelled track is judged once, and a second run trains only what is missing."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
import ray
import torch
from grouped import TRAIN, save_trained, write_grouped
from making import load

from genre import config, report
from genre.errors import ConfigError
from genre.evaluation import baseline, track_statistics
from genre.evaluation.baseline import LabelledStatistics
from genre.features import Features
from genre.features.cache import ClipCache
from genre.features.splitting.folds import Fold
from genre.model import calibration
from genre.model.card import read_card, write_card
from genre.model.saved_model import SavedEnsemble, SavedModel
from genre.report.entries import SavedRuns
from genre.settings import DEFAULT_PRECISION, CacheSettings, Config
from genre.storage import Location
from genre.training.experiment import Data
from genre.training.repetition import Repetition
from ray_jobs import evaluate
from ray_jobs.scoring.cross_validation import CrossValidation

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Location]:
    """Yield an output with features and a small model, after its cross-validation over two folds."""
    home = tmp_path_factory.mktemp("cross")
    output = Location.of(home)
    features = write_grouped(home / "features", splits=("train", "valid", "train", "test"))
    save_trained(output / "models" / "cnn", Data.open(ClipCache.of(features, CacheSettings())))
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    evaluate.run(settings(output))
    yield output
    ray.shutdown()


def settings(output: Location) -> Config:
    return config.load(None, [f"output={output}", "evaluate.folds=2", "device=cpu"])


def fold_files(output: Location) -> list[Path]:
    return sorted(Path(str(output)).glob("cross_validation/fold_predictions/*/fold-*.parquet"))


def test_every_labelled_track_is_judged_by_a_network_of_the_other_fold(output: Location) -> None:
    features = Features.open(output / "features")
    tracks = (output / "cross_validation" / "folds.parquet").read_table()
    board = report.read_board(output / "cross_validation")
    assert board.track_ids == tracks["track_id"].to_pylist() == features.labelled()["track_id"].to_pylist()
    assert board.judged_on == "all"
    assert board.corpus.split == "2-fold"
    repetition = Repetition.of(read_card(output / "models" / "cnn")[0], output)
    run = next(entry.runs[0] for entry in board.entries if entry.name == "cnn")
    for number in (1, 2):
        data = Data.open(ClipCache.of(features.of_fold(Fold(number, 2, 0)), CacheSettings()))
        held_out = pc.equal(tracks["fold"], number).to_numpy()
        assert (
            tracks.filter(pc.equal(tracks["fold"], number))["track_id"].to_pylist() == data.valid.track_ids.to_pylist()
        )
        expected = repetition.predictions(data, torch.device("cpu"))
        np.testing.assert_allclose(run.probabilities[held_out], expected, atol=1e-5)


def test_the_classical_baseline_is_judged_by_the_same_folds(output: Location) -> None:
    """With two folds nothing chooses its penalty: `test_jobs_over_published_folds` has three."""
    features = Features.open(output / "features")
    fold = (output / "cross_validation" / "folds.parquet").read_table()["fold"].to_numpy()
    board = report.read_board(output / "cross_validation")
    (row,) = [entry for entry in board.entries if entry.kind == "classical"]
    assert row.settings["svm.C"] == 3.0
    for number in (1, 2):
        clips = load(features.of_fold(Fold(number, 2, 0)), "train", "valid")
        split = [LabelledStatistics(track_statistics.of_clips(each), each.labels) for each in clips.values()]
        learned = np.full(len(split[0].labels), 3 - number)
        fitted = baseline.fit_for_fold(split[0], learned, number, len(features.classes), TRAIN.class_weights)
        judged = row.runs[0].probabilities[fold == number]
        np.testing.assert_allclose(judged, fitted.predict(split[1].statistics), atol=1e-4)
    ranked = report.tabulate(board).of("network", "classical", "majority")
    assert len(ranked) == 3
    assert all(each.rank for each in ranked)


def test_the_report_says_what_was_judged(output: Location) -> None:
    text = (output / "cross_validation" / "leaderboard.md").read_bytes().decode()
    assert "Cross-validation over 2 folds: each of the 35 labelled tracks" in text
    assert "35 labelled tracks" in (output / "cross_validation" / "leaderboard.html").read_bytes().decode()


def test_a_split_and_folds_are_not_asked_for_together(output: Location) -> None:
    both = config.load(None, [f"output={output}", "evaluate.folds=2", "evaluate.split=valid"])
    with pytest.raises(ConfigError, match=r"leave out evaluate\.split, or the folds"):
        evaluate.run(both)


def test_a_second_run_trains_only_the_folds_that_are_missing(
    output: Location, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, lost = fold_files(output)
    before, content = kept.stat().st_mtime_ns, lost.read_bytes()
    lost.unlink()
    evaluate.run(settings(output))
    assert "2 trainings over 2 folds of 17 to 18 tracks, 1 of them finished before" in capsys.readouterr().err
    assert fold_files(output) == [kept, lost]
    assert kept.stat().st_mtime_ns == before
    assert lost.read_bytes() == content


def test_folds_are_trained_again_when_other_weights_are_at_the_address_they_start_from(
    output: Location, tmp_path: Path
) -> None:
    features, folder = Features.open(output / "features"), output / "cross_validation"
    body, model = Location.of(tmp_path / "body"), Location.of(tmp_path / "model")
    card, weights = read_card(output / "models" / "cnn")
    facts = copy.deepcopy(card.facts)
    facts["settings"]["train"]["init_from"] = str(body)
    write_card(model, replace(card, facts=facts), weights)
    files = []
    for number in (0, 0, 1):
        write_card(body, card, f"{number:064d}")
        planned = CrossValidation.plan(features, [SavedRuns("cnn", [SavedModel.read(model)])], 2, 0, folder)
        files.append({str(training.file) for training in planned.trainings})
    assert files[0] == files[1]
    assert not files[0] & files[2]


def test_folds_are_refused_to_a_training_that_starts_from_weights_which_know_the_tracks(
    output: Location, tmp_path: Path
) -> None:
    started = Location.of(tmp_path / "started")
    for file in (output / "models" / "cnn").files():
        (started / file.name).write_bytes(file.read_bytes())
    card, weights = read_card(started)
    facts = copy.deepcopy(card.facts)
    facts["settings"]["train"]["init_from"] = str(output / "models" / "cnn")
    write_card(started, replace(card, facts=facts), weights)
    with pytest.raises(ConfigError, match="learned from tracks that would judge the new model"):
        evaluate.run(settings(output).model_copy(update={"model": str(started)}))


def test_the_saved_model_is_calibrated_by_the_predictions_of_the_folds(output: Location) -> None:
    board = report.read_board(output / "cross_validation")
    run = next(entry.runs[0] for entry in board.entries if entry.name == "cnn")
    saved = SavedEnsemble.read([output / "models" / "cnn"], DEFAULT_PRECISION)
    assert saved.calibration == run.correction
    assert saved.calibration.source == "35 tracks of a 2-fold cross-validation"
    held_out = saved.models[0].read_validation()
    assert held_out is not None
    np.testing.assert_allclose(held_out.probabilities, run.probabilities, atol=1e-5)
    assert held_out.labels.tolist() == board.truth.tolist()
    assert any(note.startswith("Calibrated by these predictions") for note in board.notes)


def test_a_model_keeps_its_own_calibration_where_folds_are_no_measure_of_it(output: Location) -> None:
    features = Features.open(output / "features")
    saved = [SavedRuns("cnn", [SavedModel.read(output / "models" / "cnn")])]
    before = (output / "models" / "cnn" / "validation.parquet").read_bytes()
    many = CrossValidation.plan(features, saved, 5, 0, output / "cross_validation")
    assert "learned from 1.56 times as many tracks" in many.calibrate(saved)[0]
    few = CrossValidation.plan(features, saved, 2, 0, output / "cross_validation")
    missing = ("unknown", *features.labelled()["track_id"].to_pylist()[1:])
    labels = features.labels(features.labelled()).to_numpy()
    calibration.save(saved[0].models[0].location, missing, labels, np.full((35, 3), 1 / 3, np.float32))
    assert "its validation tracks are others" in few.calibrate(saved)[0]
    (output / "models" / "cnn" / "validation.parquet").write_bytes(before)
