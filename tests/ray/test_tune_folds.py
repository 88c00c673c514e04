"""A search over folds, by the job: what its trials and final models learned from, and how it resumes."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from grouped import CLASSES, write_grouped
from making import SMALL_MODELS, load

from genre import report
from genre.config import validate
from genre.errors import ArtifactError, ConfigError, StorageError
from genre.evaluation import baseline, track_statistics
from genre.evaluation.baseline import Baseline, LabelledStatistics
from genre.features import Features
from genre.features.cache import ClipCache
from genre.features.splitting import folds
from genre.features.splitting.folds import NOT_TEST, Fold
from genre.model import calibration
from genre.model.card import read_card
from genre.model.saved_model import SavedEnsemble
from genre.report.board import Entry
from genre.settings import CacheSettings, Config
from genre.storage import Location
from genre.training import experiment, fold_predictions
from genre.training.experiment import Data
from genre.training.trainer import Trainer
from ray_jobs import evaluate, train, tune
from ray_jobs.search import space, timing
from ray_jobs.search.trial_folder import Record, TrialFolder

pytestmark = [pytest.mark.ray, pytest.mark.slow]

COUNT = 3


def settings(output: Location, **tuned: Any) -> Config:
    train = {"epochs": 4, "batch_size": 8, "window_seconds": 0.5, "eval_windows": 2, "windows_per_clip": 4}
    tuned = {"architectures": ["cnn"], "folds": COUNT, "trials": 2, "seeds": 2, "grace_epochs": 4} | tuned
    tree = {"output": str(output), "device": "cpu", "architectures": {"cnn": SMALL_MODELS["cnn"]}}
    tree["cache"] = {"folder": str(output / "copies")}
    return validate(Config, tree | {"train": train, "tune": tuned | {"robustness": False}})


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Location]:
    """Yield an output after a search of two trials over three folds, and a final training with two seeds."""
    output = Location.of(tmp_path_factory.mktemp("folds"))
    write_grouped(Path(str(output)) / "features", tracks=54, splits=("train", "train", "valid", "test"))
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    tune.run(settings(output))
    yield output
    ray.shutdown()


def trial_folders(output: Location, name: str = "00?") -> dict[str, TrialFolder]:
    return {path.name: TrialFolder(Location.of(path)) for path in Path(str(output)).glob(f"tune/cnn-*/{name}")}


def record_of(folder: TrialFolder) -> Record:
    record = folder.record()
    assert record is not None
    return record


def best_trial(output: Location) -> TrialFolder:
    return max(trial_folders(output).values(), key=lambda folder: record_of(folder).best_f1 or 0.0)


def trained(output: Location, config: Config, chosen: dict[str, Any], fold: Fold) -> Trainer:
    """Return the trainer of these settings on a fold, before its first epoch."""
    view = Features.open(output / "features").of_fold(fold)
    data = Data.open(ClipCache.of(view, CacheSettings()))
    return experiment.trainer_for(space.experiment(config, chosen), data, torch.device("cpu"))[1]


def predicted(folder: TrialFolder, number: int) -> tuple[list[str], list[list[float]]]:
    table = folder.predictions(number).read_table()
    return table["track_id"].to_pylist(), table["probabilities"].to_pylist()


def test_each_track_that_is_not_test_is_predicted_once_by_a_network_that_never_saw_it(output: Location) -> None:
    features = Features.open(output / "features")
    known = {part: set(features.tracks(part)["track_id"].to_pylist()) for part in ("train", "valid", "test")}
    for folder in trial_folders(output).values():
        card, _ = read_card(folder.model)
        assert (card.trained_on, card.facts["fold"]) == (NOT_TEST, "fold 1 of 3")
        everything: list[str] = []
        for fold in folds.of_search(features.tracks(), COUNT, 0):
            ids, probabilities = predicted(folder, fold.number)
            view = features.of_fold(fold)
            assert ids == view.tracks("valid")["track_id"].to_pylist()
            groups = [set(view.tracks(part)["group"].to_pylist()) for part in ("train", "valid", "test")]
            assert not groups[0] & groups[1] | groups[1] & groups[2] | groups[0] & groups[2]
            trainer = trained(output, settings(output), record_of(folder).settings, fold)
            list(trainer.run())
            np.testing.assert_allclose(probabilities, trainer.best_predictions(), atol=1e-5)
            result = record_of(folder).folds[fold.number - 1]
            assert (result.best_epoch, result.epochs) == (trainer.history[-1].best_epoch, 4)
            assert result.f1 == pytest.approx(trainer.history[-1].best_f1)
            everything += ids
        assert sorted(everything) == sorted(known["train"] | known["valid"])


def test_final_models_learned_from_all_tracks_that_are_not_test(output: Location) -> None:
    record = record_of(best_trial(output))
    epochs = int(np.median([fold.best_epoch for fold in record.folds]))
    for seed in (0, 1):
        folder = output / "models" / "cnn" / f"seed-{seed}"
        card, weights = read_card(folder)
        assert card.trained_on == NOT_TEST
        assert (card.facts["best_epoch"], card.facts["folds"]) == (epochs, COUNT)
        assert card.facts["valid_f1"] == pytest.approx(np.mean([fold.f1 for fold in record.folds]))
        trainer = trained(output, settings(output), record.settings | {"seed": seed}, Fold.none_of(NOT_TEST))
        list(trainer.run_to(epochs))
        experiment.save_weights(output / f"again-{seed}", card, trainer)
        assert read_card(output / f"again-{seed}")[1] == weights
    assert read_card(output / "models" / "cnn")[1] == read_card(output / "models" / "cnn" / "seed-0")[1]


def test_all_folds_and_the_final_trainings_used_one_copy_of_the_clips(output: Location) -> None:
    assert len(list((Path(str(output)) / "copies").glob("features-*"))) == 1


def test_they_are_calibrated_by_the_predictions_of_the_folds(output: Location) -> None:
    features = Features.open(output / "features")
    tracks = features.tracks()
    ids = [row["track_id"] for row in tracks.to_pylist() if row["split"] in NOT_TEST]
    folder = best_trial(output)
    saved = SavedEnsemble.read([output / "models" / "cnn"], 0.8)
    held_out = saved.models[0].read_validation()
    assert held_out is not None
    assert held_out.tracks == calibration.hashed(ids)
    files = [folder.predictions(number) for number in range(1, COUNT + 1)]
    expected = fold_predictions.joined(files, tracks["track_id"].take([row for row, _ in _not_test(features)]), 3)
    np.testing.assert_array_equal(held_out.probabilities, expected)
    assert held_out.labels.tolist() == [CLASSES.index(genre) for _, genre in _not_test(features)]
    assert saved.calibration.source == f"{len(ids)} tracks of a {COUNT}-fold cross-validation"


def _not_test(features: Features) -> list[tuple[int, str]]:
    rows = enumerate(features.tracks().to_pylist())
    return [(row, track["genre"]) for row, track in rows if track["split"] in NOT_TEST]


def test_the_report_says_what_the_models_learned_from(output: Location) -> None:
    board = report.read_board(output / "leaderboard")
    record = record_of(best_trial(output))
    count = len(_not_test(Features.open(output / "features")))
    best = ", ".join(str(fold.best_epoch) for fold in record.folds)
    (note,) = [note for note in board.notes if note.startswith("cnn: ")]
    assert f"all {count} tracks that are not test, without validation, for " in note
    assert f"the median of the best epochs ({best}) of 3 folds" in note
    assert board.search is not None
    assert "over 3 folds" in board.search.budget
    assert {trial.valid_f1 for trial in board.search.trials} == {
        round(record_of(folder).best_f1 or 0.0, 5) for folder in trial_folders(output).values()
    }
    page = (output / "leaderboard" / "leaderboard.html").read_bytes().decode()
    assert "there is only the training loss" in page
    assert "Above: validation macro F1" not in page
    card = (output / "models" / "cnn" / "MODEL_CARD.md").read_bytes().decode()
    assert "It learned from all tracks that are not test" in card
    assert f"It was trained on {count} tracks" in card
    assert "on the validation tracks" not in card


def rows_of(output: Location) -> dict[str, Entry]:
    return {entry.kind: entry for entry in report.read_board(output / "leaderboard").entries}


def check_rows_learned_from(view: Features, rows: dict[str, Entry], fitted: Baseline) -> None:
    """Check that the reference rows learned from the training split of `view`, and nothing of its test split."""
    names = view.tracks("train")["track_id"].to_pylist()
    (nearest,) = rows["neighbours"].runs
    assert nearest.neighbours is not None
    assert rows["neighbours"].settings["neighbours.training_tracks"] == len(names)
    assert set(nearest.neighbours.track_ids.ravel()) <= set(names)
    genres = view.tracks("train")["genre"].to_pylist()
    shares = [genres.count(genre) / len(genres) for genre in CLASSES]
    np.testing.assert_allclose(rows["majority"].runs[0].probabilities[0], shares, atol=2e-5)
    test = track_statistics.of_clips(load(view, "test")["test"])
    np.testing.assert_allclose(rows["classical"].runs[0].probabilities, fitted.predict(test), atol=2e-5)
    assert rows["classical"].valid_f1 == pytest.approx(fitted.valid_f1, abs=1e-4)


def split_of(view: Features, part: str) -> LabelledStatistics:
    clips = load(view, part)[part]
    return LabelledStatistics(track_statistics.of_clips(clips), clips.labels)


def test_the_reference_rows_learned_from_the_same_tracks(output: Location) -> None:
    features = Features.open(output / "features")
    view, rows = features.of_fold(Fold.none_of(NOT_TEST)), rows_of(output)
    fold = folds.assign(features.tracks(), COUNT, 0, NOT_TEST)
    fitted = baseline.fit_over_folds(split_of(view, "train"), fold[fold > 0], 3, Config().train.class_weights)
    check_rows_learned_from(view, rows, fitted)
    nearest = rows["neighbours"].runs[0].neighbours
    assert nearest is not None
    assert set(nearest.track_ids.ravel()) & set(features.tracks("valid")["track_id"].to_pylist())
    (note,) = [note for note in report.read_board(output / "leaderboard").notes if "nearest neighbours" in note]
    assert "of a search over folds know all tracks that are not test" in note


def test_where_the_time_ends_before_the_final_trainings_they_learned_from_the_first_fold(
    output: Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = Location.of(tmp_path)
    monkeypatch.setattr(timing, "check", lambda forecast: None)  # as where a machine becomes slow after it was measured
    shutil.copytree(str(output / "features"), tmp_path / "features")
    tune.run(settings(late, minutes=0.001, seeds=1))
    features = Features.open(late / "features")
    view = features.of_fold(folds.of_search(features.tracks(), COUNT, 0)[0])
    weighted = Config().train.class_weights
    fitted = baseline.fit(split_of(view, "train"), split_of(view, "valid"), 3, weighted)
    check_rows_learned_from(view, rows_of(late), fitted)
    assert any(
        "know the tracks that the networks learned from" in note
        for note in report.read_board(late / "leaderboard").notes
    )


def evaluated(output: Location, **evaluate: str) -> Config:
    return settings(output).model_copy(update={"evaluate": Config().evaluate.model_copy(update=evaluate)})


def test_such_models_are_not_scored_on_validation_tracks_wherever_these_are(output: Location, tmp_path: Path) -> None:
    shutil.copytree(str(output / "features"), tmp_path / "copy")
    for features in ("", str(output / "features"), str(tmp_path / "copy")):
        with pytest.raises(ConfigError, match="learned from the validation tracks as well"):
            evaluate.run(evaluated(output, split="valid", features=features))


def test_they_are_scored_on_the_validation_tracks_of_other_music_and_on_their_test_tracks(
    output: Location, tmp_path: Path
) -> None:
    others = write_grouped(tmp_path / "others", tracks=12, splits=("valid",), prefix="other ")
    evaluate.run(evaluated(output, split="valid", features=str(others.folder)))
    assert report.read_board(output / "evaluation").track_ids == others.tracks("valid")["track_id"].to_pylist()
    evaluate.run(evaluated(output, features=str(output / "features")))
    board = report.read_board(output / "evaluation")
    assert board.track_ids == report.read_board(output / "leaderboard").track_ids
    (nearest,) = [entry for entry in board.entries if entry.kind == "neighbours"]
    assert nearest.settings == rows_of(output)["neighbours"].settings


def test_no_training_that_is_validated_on_what_they_know_starts_from_them(output: Location) -> None:
    for job in (train, tune):
        config = settings(output, folds=0)
        started = config.train.model_copy(update={"init_from": str(output / "models" / "cnn")})
        with pytest.raises(ConfigError, match="learned from tracks that would judge the new model, those of valid in "):
            job.run(config.model_copy(update={"train": started, "architecture": "cnn"}))


def test_a_search_over_folds_needs_no_validation_track_and_room_for_the_copy(output: Location, tmp_path: Path) -> None:
    features = write_grouped(tmp_path / "features", splits=("train", "train", "test"))
    small = CacheSettings(folder=str(tmp_path / "cache"), max_gb=1e-6)
    ClipCache.of(features, CacheSettings(folder=small.folder), ("train",)).open()  # a copy that the search does not use
    config = settings(Location.of(tmp_path), folds=2, trials=1, seeds=1)
    with pytest.raises(ArtifactError, match=r"cache.folder=.*: the clips of "):
        tune.run(config.model_copy(update={"cache": small}))
    tune.run(config)
    assert read_card(Location.of(tmp_path / "models" / "cnn"))[0].trained_on == NOT_TEST


def test_a_search_that_was_killed_in_its_third_fold_resumes_there(
    output: Location, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = best_trial(output)
    record, card = record_of(folder), read_card(output / "models" / "cnn")
    before = [predicted(folder, number) for number in (1, 2, 3)]
    third = folds.of_search(Features.open(output / "features").tracks(), COUNT, 0)[2]
    trainer = trained(output, settings(output), record.settings, third)
    next(trainer.run())
    folder.predictions(3).delete()
    folder.write(replace(record, folds=record.folds[:2], ended=None, later_epochs=5))
    folder.save_state(trainer.state(), 3)
    for final in trial_folders(output, "*-seed-*").values():
        final.location.delete()
    (output / "models").delete()
    tune.run(settings(output))
    assert "1 of 2 trials ran before, 1 is resumed" in capsys.readouterr().err
    (log,) = Path(str(output)).glob(f"tune/logs/search/cnn-{folder.location.name}/result.json")
    reported = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(line["fold"], line["epoch"]) for line in reported] == [(3, 2), (3, 3), (3, 4), (3, 4)]
    assert reported[-1]["best_f1"] == pytest.approx(record.best_f1)
    again = record_of(folder)
    assert replace(again, sessions=[]) == replace(record, sessions=[])
    for number, (ids, probabilities) in enumerate(before, 1):
        assert predicted(folder, number) == (ids, probabilities)
    assert read_card(output / "models" / "cnn")[1] == card[1]
    assert not folder.load_state(3)


def test_features_that_go_away_during_a_trial_end_the_search(output: Location, tmp_path: Path) -> None:
    """As when their disk is unmounted: after the first epoch, before the second fold reads them."""
    write_grouped(tmp_path / "features", splits=("train", "train", "test"))
    config = settings(Location.of(tmp_path), folds=2, trials=1, seeds=1, grace_epochs=40)
    config = config.model_copy(update={"train": config.train.model_copy(update={"epochs": 40})})
    over = threading.Event()

    def unmount() -> None:
        while not over.wait(0.01):
            for folder in trial_folders(Location.of(tmp_path)).values():
                if (record := folder.record()) and record.scores:
                    (tmp_path / "features").rename(tmp_path / "away")
                    return

    thread = threading.Thread(target=unmount)
    thread.start()
    try:
        with pytest.raises(StorageError, match=r"features is missing, empty or denied .*; run the same command again"):
            tune.run(config)
    finally:
        over.set()
        thread.join()
    (trial,) = trial_folders(Location.of(tmp_path)).values()
    record = record_of(trial)
    assert (record.ended, len(record.folds)) == ("crashed", 1)
    assert not record.is_settled(0)
