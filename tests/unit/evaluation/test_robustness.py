"""Scores on changed tracks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from sounds import chord

from genre.errors import AudioError, Reason
from genre.evaluation import changes, metrics, robustness
from genre.features import Clips, Float32
from genre.features.preparation import TrackKernel
from genre.features.recipe import Recipe
from genre.report import Entry, Run, entries
from genre.settings import AudioSettings, DecodingSettings, SpectrogramSettings

RECIPE = Recipe(
    audio=AudioSettings(clip_seconds=2.0), spectrogram=SpectrogramSettings(n_mels=32), decoding=DecodingSettings()
)


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    """Two tracks as files: one of floats, and one of 16 bits in stereo, long enough for two clips."""
    files = []
    for subtype, sound in {"FLOAT": chord(2.5), "PCM_16": chord(4.2, 44100, 2, seed=1)}.items():
        files.append(str(tmp_path / f"{subtype}.wav"))
        soundfile.write(files[-1], sound.samples, sound.sample_rate, subtype=subtype)
    return files


def changed(paths: list[str], change: changes.Change) -> Clips:
    return robustness.changed_clips([changes.read(path) for path in paths], RECIPE, change)


def test_no_change_gives_the_features_of_prepare(paths: list[str]) -> None:
    clips = changed(paths, changes.unchanged)
    expected = [clip for path in paths for clip in TrackKernel(RECIPE)(path).clips]
    assert [row.tobytes() for row in clips.spectrograms] == [clip.spectrogram for clip in expected]
    np.testing.assert_array_equal(clips.peak_db, np.array([clip.peak_db for clip in expected], np.float32))
    assert clips.track.tolist() == [0, 1, 1]
    assert clips.shape == RECIPE.shape()
    assert len(clips.track_ids) == len(clips.labels) == 2


@pytest.mark.parametrize("name", changes.CHANGES)
def test_every_change_except_that_of_the_level_changes_the_features(paths: list[str], name: str) -> None:
    plain, other = changed(paths, changes.unchanged), changed(paths, changes.CHANGES[name])
    difference = np.abs(other.spectrograms.astype(int) - plain.spectrograms.astype(int))
    if name == "-12 dB":  # levels are normalised by peak, so a model sees the same but for rounding
        assert difference.max() <= 1
    else:
        assert difference.mean() > 0.5


def test_every_model_predicts_every_track(paths: list[str]) -> None:
    def model(clips: Clips) -> Float32:
        rows = np.stack([clips.spectrograms[clips.track == track].mean(axis=(0, 1)) for track in (0, 1)])
        return rows[:, :3].astype(np.float32)

    predictions = robustness.predict_changed(paths, RECIPE, [model, lambda clips: 2 * model(clips)])
    assert list(predictions) == list(changes.CHANGES)
    for name, probabilities in predictions.items():
        assert probabilities.shape == (2, 2, 3)
        np.testing.assert_array_equal(probabilities[1], 2 * probabilities[0])
        np.testing.assert_array_equal(probabilities[0], model(changed(paths, changes.CHANGES[name])))


def test_macro_f1_is_the_mean_over_the_runs() -> None:
    right, wrong = np.eye(3, dtype=np.float32), np.roll(np.eye(3, dtype=np.float32), 1, axis=1)
    assert robustness.macro_f1(np.arange(3), np.stack([right, wrong])) == 0.5


def test_the_error_of_a_missing_track_names_it(paths: list[str], tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="gone") as raised:
        robustness.predict_changed([*paths, str(tmp_path / "gone.wav")], RECIPE, [])
    assert raised.value.reason == Reason.UNREADABLE


def test_equal_predictions_score_in_each_row_as_on_the_leaderboard(rng: np.random.Generator) -> None:
    truth = rng.integers(0, 3, 60)
    given = rng.dirichlet(np.ones(3), (6, 60)).astype(np.float32)  # cnn twice, vgg three times, the baseline
    seeds = {"cnn": [0, 1], "vgg": [0, 1, 2]}
    scores = robustness.scores_by_row(truth, seeds, {"-12 dB": given}, baseline="svm")
    runs = [Run(0, given[0]), Run(1, given[1])], [Run(seed, given[2 + seed]) for seed in range(3)]
    rows = [Entry(name, "network", each) for name, each in zip(("cnn", "vgg"), runs, strict=True)]
    rows += [entries.ensemble(rows, {}), Entry("svm", "classical", [Run(0, given[5])])]
    for row in rows:
        expected = metrics.mean_scores(truth, row.predicted, 3)["f1"]
        assert scores[row.name]["-12 dB"] == pytest.approx(expected), row.name
    assert robustness.scores_by_row(truth, seeds, {"-12 dB": given}).keys() == {"cnn", "vgg", "ensemble"}


def test_the_ensemble_pairs_runs_by_seed_where_a_final_training_failed(rng: np.random.Generator) -> None:
    truth = rng.integers(0, 3, 60)
    given = rng.dirichlet(np.ones(3), (5, 60)).astype(np.float32)  # cnn of seeds 0, 1, 2 and vgg of seeds 1, 2
    seeds = {"cnn": [0, 1, 2], "vgg": [1, 2]}
    scores = robustness.scores_by_row(truth, seeds, {"-12 dB": given})
    cnn, vgg = [Run(seed, given[seed]) for seed in range(3)], [Run(1, given[3]), Run(2, given[4])]
    row = entries.ensemble([Entry("cnn", "network", cnn), Entry("vgg", "network", vgg)], {})
    assert [run.seed for run in row.runs] == [1, 2]
    expected = metrics.mean_scores(truth, row.predicted, 3)["f1"]
    assert scores["ensemble"]["-12 dB"] == pytest.approx(expected)
