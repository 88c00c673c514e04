"""Temperature, threshold, and the evidence they come from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from making import make_clips
from saving import save_model

from genre import devices
from genre.config import load
from genre.errors import ArtifactError
from genre.evaluation import metrics
from genre.features import Manifest
from genre.model import calibration
from genre.model.calibration import Answers, Calibration
from genre.model.classifier import statistics
from genre.model.saved_model import SavedModel
from genre.storage import Location
from genre.training import experiment


def saved_answers(folder: Path) -> Answers:
    answers = SavedModel.read(Location.of(folder)).answers
    assert answers is not None
    return answers


def drawn(rng, tracks=4000, classes=5, sharpness=1.0):
    """Labels drawn from known probabilities, and the probabilities of a model that is `sharpness` times as sure."""
    honest = rng.dirichlet(np.full(classes, 0.5), tracks).clip(1e-5, None)
    honest /= honest.sum(axis=1, keepdims=True)
    labels = np.array([rng.choice(classes, p=row) for row in honest])
    told = honest**sharpness
    return (told / told.sum(axis=1, keepdims=True)).astype(np.float32), labels


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_too_much_and_too_little_confidence(rng, sharpness):
    told, labels = drawn(rng, sharpness=sharpness)
    assert calibration.fit_temperature(told, labels) == pytest.approx(sharpness, rel=0.1)


def test_calibration_lowers_the_calibration_error_of_a_boaster(rng):
    told, labels = drawn(rng, sharpness=3.0)
    calibrated = calibration.scale(told, calibration.fit_temperature(told, labels))
    before = metrics.expected_calibration_error(labels, told)
    after = metrics.expected_calibration_error(labels, calibrated)
    assert before > 0.1
    assert after < 0.03


def test_the_temperature_has_the_smallest_loss(rng):
    told, labels = drawn(rng, tracks=300, sharpness=2.0)
    best = calibration.fit_temperature(told, labels)

    def loss(temperature):
        return -np.log(calibration.scale(told, temperature)[np.arange(len(labels)), labels]).mean()

    assert loss(best) <= min(loss(best * 1.1), loss(best / 1.1))


def test_a_model_without_a_mistake_is_not_made_infinitely_sure():
    labels = np.array([0, 1, 0, 1])
    told = np.where(np.eye(2)[labels] == 1, 0.7, 0.3).astype(np.float32)
    sure = calibration.scale(told, calibration.fit_temperature(told, labels)).max()
    assert 0.7 < sure < 0.95


def test_scaling_keeps_the_order_and_the_sum(rng):
    told, _ = drawn(rng, tracks=50)
    scaled = calibration.scale(told, 2.5)
    assert np.array_equal(scaled.argsort(axis=1), told.argsort(axis=1))
    assert np.allclose(scaled.sum(axis=1), 1, atol=1e-6)


def test_the_threshold_keeps_as_many_answers_as_the_precision_allows():
    best = np.array([0.9, 0.8, 0.7, 0.6], np.float32)
    told = np.stack([best, 1 - best], axis=1)
    labels = np.array([0, 0, 1, 0])  # right, right, wrong, right
    assert calibration.threshold_for_precision(told, labels, 0.75) == pytest.approx(0.6)
    assert calibration.threshold_for_precision(told, labels, 0.9) == pytest.approx(0.8)


def test_equal_answers_are_believed_together():
    told = np.array([[0.8, 0.2]] * 4, np.float32)
    assert calibration.threshold_for_precision(told, np.array([0, 0, 0, 1]), 0.9) > 1
    assert calibration.threshold_for_precision(told, np.array([0, 0, 0, 1]), 0.75) == pytest.approx(0.8)


def test_a_precision_out_of_reach_leaves_everything_unknown():
    told = np.array([[0.8, 0.2], [0.6, 0.4]], np.float32)
    threshold = calibration.threshold_for_precision(told, np.array([1, 1]), 0.5)
    assert not Calibration(threshold=threshold, tracks=2).accepts(1.0)


def test_without_evidence_nothing_changes(rng):
    told, _ = drawn(rng, tracks=10)
    untouched = calibration.fit([None], 0.8)
    assert untouched(told) is told
    assert untouched.accepts(0.0)


def test_several_models_are_judged_on_the_tracks_that_none_was_trained_on(rng):
    told, labels = drawn(rng, tracks=200)
    ids = np.array([f"{n:04d}" for n in range(200)])
    first = Answers(ids[:150], labels[:150], told[:150])
    second = Answers(ids[:49:-1], labels[:49:-1], told[:49:-1])
    joint = calibration.fit([first, second], 0.5)
    alone = calibration.fit([Answers(ids[50:150], labels[50:150], told[50:150])], 0.5)
    assert joint.tracks == 100
    assert joint.temperature == pytest.approx(alone.temperature)
    assert joint.threshold == pytest.approx(alone.threshold)
    assert calibration.fit([first, None], 0.5).tracks == 0


def test_answers_belong_to_their_weights(tmp_path):
    save_model(tmp_path / "a", seed=0)
    save_model(tmp_path / "b", seed=1)
    assert len(saved_answers(tmp_path / "a")) == 60
    (tmp_path / "b" / calibration.FILE).write_bytes((tmp_path / "a" / calibration.FILE).read_bytes())
    with pytest.raises(ArtifactError, match=r"not of the weights that model\.json lists"):
        saved_answers(tmp_path / "b")


def test_names_of_tracks_do_not_travel_with_a_model(tmp_path):
    save_model(tmp_path)
    assert b"track-1" not in (tmp_path / calibration.FILE).read_bytes()


def test_training_leaves_the_evidence_beside_the_weights(tmp_path):
    clips = make_clips(tracks=12)
    manifest = Manifest(classes=["a", "b", "c"], fingerprint="x", shape=clips.shape)
    data = experiment.Data(clips, clips, *statistics(clips), manifest)
    small = ["architectures.cnn.width=4", "architectures.cnn.depth=2", "train.epochs=1", "train.window_seconds=0.5"]
    config = load(None, [*small, "train.batch_size=4"])
    card, trainer = experiment.trainer_for(experiment.Experiment.of(config), data, devices.device_for("cpu"))
    list(trainer.run())
    experiment.save_best(Location.of(tmp_path), card, trainer)
    answers = saved_answers(tmp_path)
    assert np.array_equal(answers.labels, clips.labels)
    assert np.allclose(answers.probabilities.sum(axis=1), 1, atol=1e-5)
    assert calibration.fit([answers], 0.5).tracks == 12
