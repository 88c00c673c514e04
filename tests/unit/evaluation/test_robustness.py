"""Scores on changed tracks."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sounds import chord

from genre.arrays import Float32
from genre.audio.isolation import IsolatedFunction
from genre.errors import AudioError, Reason
from genre.evaluation import changes, metrics, robustness
from genre.evaluation.robustness import ChangedTrackPreparer
from genre.features import Clips
from genre.features.preparing.tracks import TrackPreparer
from genre.features.recipe import Recipe
from genre.report import Entry, SeedRun, entries
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


def unchanged(sound: changes.Sound) -> changes.Sound:
    return sound


def changed(paths: list[str], change: changes.Change) -> Clips:
    preparer = ChangedTrackPreparer(RECIPE, {"change": change})
    return Clips.unlabelled([preparer(path)["change"] for path in paths], RECIPE.shape())


def test_no_change_gives_the_features_of_prepare(paths: list[str]) -> None:
    clips = changed(paths, unchanged)
    expected = [clip for path in paths for clip in TrackPreparer(RECIPE)(path).clips]
    assert [row.tobytes() for row in clips.spectrograms] == [clip.spectrogram for clip in expected]
    np.testing.assert_array_equal(clips.peak_db, np.array([clip.peak_db for clip in expected], np.float32))
    assert clips.track.tolist() == [0, 1, 1]
    assert clips.shape == RECIPE.shape()
    assert len(clips.track_ids) == len(clips.labels) == 2


@pytest.mark.parametrize("name", changes.CHANGES)
def test_every_change_except_that_of_the_level_changes_the_features(paths: list[str], name: str) -> None:
    plain, other = changed(paths, unchanged), changed(paths, changes.CHANGES[name])
    difference = np.abs(other.spectrograms.astype(int) - plain.spectrograms.astype(int))
    if name == "-12 dB":  # levels are normalised by peak, so a model sees the same but for rounding
        assert difference.max() <= 1
    else:
        assert difference.mean() > 0.5


def test_every_model_predicts_every_change(paths: list[str]) -> None:
    def model(clips: Clips) -> Float32:
        rows = [clips.spectrograms[clips.track == row].mean(axis=(0, 1)) for row in range(len(clips.track_ids))]
        return np.stack(rows)[:, :3].astype(np.float32)

    track = ChangedTrackPreparer(RECIPE)(paths[1])
    assert list(track) == list(changes.CHANGES)
    predictions = robustness.predict_changed(track, RECIPE.shape(), [model, lambda clips: 2 * model(clips)])
    assert predictions.shape == (2, len(changes.CHANGES), 3)
    np.testing.assert_array_equal(predictions[1], 2 * predictions[0])
    for number, change in enumerate(changes.CHANGES.values()):
        np.testing.assert_array_equal(predictions[0, number], model(changed([paths[1]], change))[0])


def test_the_child_gives_the_clips_of_this_process(paths: list[str]) -> None:
    preparer = IsolatedFunction(ChangedTrackPreparer, RECIPE)
    with contextlib.closing(preparer):
        assert preparer(paths[0], 60.0) == ChangedTrackPreparer(RECIPE)(paths[0])


def test_limits_of_decoding_hold_for_changed_audio(paths: list[str]) -> None:
    limits = DecodingSettings(max_track_seconds=3.0)
    preparer = ChangedTrackPreparer(RECIPE.model_copy(update={"decoding": limits}))
    assert preparer(paths[0])
    with pytest.raises(AudioError, match="max_track_seconds=3") as raised:
        preparer(paths[1])
    assert raised.value.reason == Reason.ABSURD_HEADER


@pytest.mark.parametrize("count", [3, 10, 97, 299, 300])
def test_a_sample_has_the_genres_of_all_tracks(count: int, rng: np.random.Generator) -> None:
    labels = rng.permutation(np.repeat([0, 1, 2], [30, 90, 180]))
    rows = robustness.sample(labels, count, seed=0)
    assert len(rows) == len(np.unique(rows)) == count
    assert (np.diff(rows) > 0).all()
    shares = np.bincount(labels[rows], minlength=3)
    assert (np.abs(shares - np.array([30, 90, 180]) * count / 300) <= 1).all()
    assert (shares > 0).all()
    assert robustness.sample(labels, count, seed=0).tolist() == rows.tolist()
    assert count == 300 or robustness.sample(labels, count, seed=1).tolist() != rows.tolist()


def test_a_sample_has_a_track_of_every_genre_and_0_is_all() -> None:
    labels = np.array([0] * 500 + [1, 2, 3, 5])
    assert set(labels[robustness.sample(labels, 4, seed=0)].tolist()) == {0, 1, 2, 3, 5}
    assert robustness.sample(labels, 0, seed=0).tolist() == list(range(504))
    assert len(robustness.sample(labels[:0], 5, seed=0)) == 0


def test_macro_f1_is_the_mean_over_the_runs() -> None:
    right, wrong = np.eye(3, dtype=np.float32), np.roll(np.eye(3, dtype=np.float32), 1, axis=1)
    assert robustness.macro_f1(np.arange(3), np.stack([right, wrong])) == 0.5


def test_a_missing_track_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "another.wav").touch()  # in an empty folder the storage would be away
    with pytest.raises(AudioError) as raised:
        ChangedTrackPreparer(RECIPE)(str(tmp_path / "gone.wav"))
    assert raised.value.reason == Reason.UNREADABLE


def test_equal_predictions_score_in_each_row_as_on_the_leaderboard(rng: np.random.Generator) -> None:
    truth = rng.integers(0, 3, 60)
    given = rng.dirichlet(np.ones(3), (6, 60)).astype(np.float32)  # cnn twice, vgg three times, the baseline
    seeds = {"cnn": [0, 1], "vgg": [0, 1, 2]}
    scores = robustness.scores_by_row(truth, seeds, {"-12 dB": given}, baseline="svm")
    runs = [SeedRun(0, given[0]), SeedRun(1, given[1])], [SeedRun(seed, given[2 + seed]) for seed in range(3)]
    rows = [Entry(name, "network", each) for name, each in zip(("cnn", "vgg"), runs, strict=True)]
    rows += [entries.ensemble(rows, {}), Entry("svm", "classical", [SeedRun(0, given[5])])]
    for row in rows:
        expected = metrics.mean_scores(truth, row.predicted, 3)["f1"]
        assert scores[row.name]["-12 dB"] == pytest.approx(expected), row.name
    assert robustness.scores_by_row(truth, seeds, {"-12 dB": given}).keys() == {"cnn", "vgg", "ensemble"}


def test_the_ensemble_pairs_runs_by_seed_where_a_final_training_failed(rng: np.random.Generator) -> None:
    truth = rng.integers(0, 3, 60)
    given = rng.dirichlet(np.ones(3), (5, 60)).astype(np.float32)  # cnn of seeds 0, 1, 2 and vgg of seeds 1, 2
    seeds = {"cnn": [0, 1, 2], "vgg": [1, 2]}
    scores = robustness.scores_by_row(truth, seeds, {"-12 dB": given})
    cnn, vgg = [SeedRun(seed, given[seed]) for seed in range(3)], [SeedRun(1, given[3]), SeedRun(2, given[4])]
    row = entries.ensemble([Entry("cnn", "network", cnn), Entry("vgg", "network", vgg)], {})
    assert [run.seed for run in row.runs] == [1, 2]
    expected = metrics.mean_scores(truth, row.predicted, 3)["f1"]
    assert scores["ensemble"]["-12 dB"] == pytest.approx(expected)
