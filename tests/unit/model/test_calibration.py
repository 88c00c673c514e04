"""Temperature and threshold, and the validation predictions that they are fitted on."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from making import make_clips, statistics
from saving import save_model

from genre import devices
from genre.arrays import Float32, Ints
from genre.config import load
from genre.errors import ArtifactError
from genre.evaluation import metrics
from genre.features import Manifest
from genre.model import calibration
from genre.model.calibration import ValidationPredictions
from genre.model.saved_model import SavedModel
from genre.storage import Location
from genre.training import experiment


def saved_predictions(folder: Path) -> ValidationPredictions:
    predictions = SavedModel.read(Location.of(folder)).read_validation()
    assert predictions is not None
    return predictions


def drawn(rng: np.random.Generator, tracks: int = 4000, sharpness: float = 1.0) -> tuple[Float32, Ints]:
    """Return labels drawn from true probabilities, and these raised to the power `sharpness`: above 1 overconfident."""
    true = rng.dirichlet(np.full(5, 0.5), tracks).clip(1e-5, None)
    true /= true.sum(axis=1, keepdims=True)
    labels = np.array([rng.choice(5, p=row) for row in true])
    raised = true**sharpness
    return (raised / raised.sum(axis=1, keepdims=True)).astype(np.float32), labels


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_the_temperature_corrects_overconfidence_and_underconfidence(
    rng: np.random.Generator, sharpness: float
) -> None:
    probabilities, labels = drawn(rng, sharpness=sharpness)
    assert calibration.fit_temperature(probabilities, labels) == pytest.approx(sharpness, rel=0.1)


def test_calibration_lowers_the_calibration_error_of_an_overconfident_model(rng: np.random.Generator) -> None:
    probabilities, labels = drawn(rng, sharpness=3.0)
    calibrated = calibration.scale(probabilities, calibration.fit_temperature(probabilities, labels))
    before = metrics.expected_calibration_error(labels, probabilities)
    after = metrics.expected_calibration_error(labels, calibrated)
    assert before > 0.1
    assert after < 0.03


def test_the_temperature_has_the_smallest_loss(rng: np.random.Generator) -> None:
    probabilities, labels = drawn(rng, tracks=300, sharpness=2.0)
    best = calibration.fit_temperature(probabilities, labels)

    def loss(temperature: float) -> float:
        return -float(np.log(calibration.scale(probabilities, temperature)[np.arange(len(labels)), labels]).mean())

    assert loss(best) <= min(loss(best * 1.1), loss(best / 1.1))


def test_the_temperature_does_not_depend_on_how_many_tracks_are_computed_at_a_time(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    probabilities, labels = drawn(rng, tracks=300, sharpness=2.0)
    predictions = ValidationPredictions([str(n) for n in range(300)], labels, probabilities)
    fitted = []
    for size in (1, 7, 300):
        monkeypatch.setattr(calibration, "_PART", size)
        fitted.append(calibration.fit([predictions], 0.5))
    assert fitted[0] == fitted[1] == fitted[2]


@pytest.mark.parametrize(
    "rows", [[[0.5, 0.3], [0.2, 0.4, 0.6]], [[0.5, 0.5], None], [[0.5, None], [0.5, 0.5]], ["a", "b"]]
)
def test_rows_that_are_not_a_probability_of_each_genre_are_refused(rows: list[Any]) -> None:
    table = pa.table({"track": ["a", "b"], "label": [0, 1], "probabilities": rows})
    with pytest.raises(ArtifactError, match=r"validation\.parquet: altered or truncated"):
        calibration.of_table(table.replace_schema_metadata({"weights": "w"}), "w", 2, "validation.parquet")


def test_a_model_without_errors_keeps_probabilities_below_1() -> None:
    labels = np.array([0, 1, 0, 1])
    probabilities = np.where(np.eye(2)[labels] == 1, 0.7, 0.3).astype(np.float32)
    largest = calibration.scale(probabilities, calibration.fit_temperature(probabilities, labels)).max()
    assert 0.7 < largest < 0.95


def test_scaling_keeps_the_order_and_the_sum(rng: np.random.Generator) -> None:
    probabilities, _ = drawn(rng, tracks=50)
    scaled = calibration.scale(probabilities, 2.5)
    assert np.array_equal(scaled.argsort(axis=1), probabilities.argsort(axis=1))
    assert np.allclose(scaled.sum(axis=1), 1, atol=1e-6)


def test_without_validation_answers_nothing_changes(rng: np.random.Generator) -> None:
    probabilities, _ = drawn(rng, tracks=10)
    untouched = calibration.fit([None], 0.8)
    assert untouched(probabilities) is probabilities
    assert np.array_equal(untouched.reported(probabilities), probabilities.argmax(axis=1))


def test_without_thresholds_a_calibration_is_that_for_precision_0(rng: np.random.Generator) -> None:
    probabilities, labels = drawn(rng, tracks=400)
    predictions = ValidationPredictions([str(track) for track in range(400)], labels, probabilities, folds=5)
    for known in (predictions, None):
        assert calibration.fit([known], 0.5).without_thresholds() == calibration.fit([known], 0.0)
    assert calibration.fit([predictions], 0.5).thresholds


def test_several_models_are_calibrated_on_their_common_validation_tracks(rng: np.random.Generator) -> None:
    probabilities, labels = drawn(rng, tracks=200)
    ids = [f"{n:04d}" for n in range(200)]
    first = ValidationPredictions(ids[:150], labels[:150], probabilities[:150])
    second = ValidationPredictions(ids[:49:-1], labels[:49:-1], probabilities[:49:-1])
    joint = calibration.fit([first, second], 0.5)
    alone = calibration.fit([ValidationPredictions(ids[50:150], labels[50:150], probabilities[50:150])], 0.5)
    assert joint.tracks == 100
    assert joint.temperature == pytest.approx(alone.temperature)
    assert joint.thresholds == alone.thresholds
    assert calibration.fit([first, None], 0.5).tracks == 0


def test_a_long_name_costs_its_own_length_only(rng: np.random.Generator) -> None:
    """Arrays of numpy make each text as wide as the longest: 80 MB for these names."""
    probabilities, labels = drawn(rng, tracks=2000)
    rows = {"track": [*map(str, range(1999)), "x" * 10_000], "label": labels, "probabilities": probabilities.tolist()}
    table = pa.table(rows).replace_schema_metadata({"weights": "w"})
    tracemalloc.start()
    read = calibration.of_table(table, "w", probabilities.shape[1], "validation.parquet")
    joint = calibration.fit([read, read], 0.5)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert joint.tracks == 2000
    assert peak < 20e6


def test_answers_of_other_weights_are_refused(tmp_path: Path) -> None:
    save_model(tmp_path / "a", seed=0)
    save_model(tmp_path / "b", seed=1)
    assert len(saved_predictions(tmp_path / "a")) == 60
    (tmp_path / "b" / calibration.FILE).write_bytes((tmp_path / "a" / calibration.FILE).read_bytes())
    with pytest.raises(ArtifactError, match=r"belongs to other weights than model\.json lists"):
        saved_predictions(tmp_path / "b")


def test_a_model_does_not_hold_the_names_of_tracks(tmp_path: Path) -> None:
    save_model(tmp_path)
    assert b"track-1" not in (tmp_path / calibration.FILE).read_bytes()


def test_training_saves_validation_answers_with_the_weights(tmp_path: Path) -> None:
    clips = make_clips(tracks=12)
    manifest = Manifest(classes=["a", "b", "c"], fingerprint="x", shape=clips.shape)
    data = experiment.Data(clips, clips, *statistics(clips), manifest)
    small = ["architectures.cnn.width=4", "architectures.cnn.depth=2", "train.epochs=1", "train.window_seconds=0.5"]
    config = load(None, [*small, "train.batch_size=4"])
    card, trainer = experiment.trainer_for(experiment.Experiment.of(config), data, devices.device_for("cpu"))
    list(trainer.run())
    experiment.save_best(Location.of(tmp_path), card, trainer)
    predictions = saved_predictions(tmp_path)
    assert np.array_equal(predictions.labels, clips.labels)
    assert np.allclose(predictions.probabilities.sum(axis=1), 1, atol=1e-5)
    assert calibration.fit([predictions], 0.5).tracks == 12
