from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
from scipy import signal

from genre.config import AudioSettings, PrepareSettings, SpectrogramSettings
from genre.errors import AudioError, Reason
from genre.evaluation import metrics, robustness
from genre.evaluation.robustness import Sound
from genre.features.preparation import TrackKernel
from genre.features.recipe import Recipe
from genre.report import Entry, Run, entries

RATE = 22050
RECIPE = Recipe(
    audio=AudioSettings(clip_seconds=2.0), spectrogram=SpectrogramSettings(n_mels=32), prepare=PrepareSettings()
)


def music(seconds=5.0, rate=RATE, channels=1, seed=0):
    """A chord with noise, louder and softer in turn."""
    time = np.arange(round(seconds * rate)) / rate
    chord = sum(np.sin(2 * np.pi * hz * time) for hz in (220.0, 277.2, 329.6)) * (0.6 + 0.4 * np.sin(2 * np.pi * time))
    noise = np.random.default_rng(seed).standard_normal((len(time), channels))
    return Sound((0.1 * chord[:, None] + 0.01 * noise).astype(np.float32), rate)


def power(samples):
    return float(np.mean(np.square(samples, dtype=np.float64)))


def decibels(ratio):
    return 10 * np.log10(ratio)


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("snr", [20.0, 5.0])
def test_noise_has_the_signal_to_noise_ratio_after_mixing_down(channels, snr):
    sound = music(channels=channels)
    clean, noisy = (s.samples.mean(axis=1) for s in (sound, robustness.with_noise(sound, snr)))
    assert decibels(power(clean) / power(noisy - clean)) == pytest.approx(snr, abs=0.1)


def test_noise_is_white_and_the_same_each_time():
    sound = music()
    first, second = robustness.with_noise(sound), robustness.with_noise(sound)
    np.testing.assert_array_equal(first.samples, second.samples)
    _, density = signal.welch((first.samples - sound.samples)[:, 0], RATE, nperseg=256)
    assert decibels(density[2:-2].max() / density[2:-2].min()) < 3


def test_the_gain_is_measured_and_nothing_clips():
    sound = music()
    assert decibels(power(robustness.louder(sound).samples) / power(sound.samples)) == pytest.approx(-12, abs=1e-3)
    loud = Sound(np.full((10, 1), 0.9, np.float32), RATE)
    assert robustness.louder(loud, 12.0).samples.max() > 3


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_faster_is_shorter_and_higher_by_five_per_cent(rate):
    time = np.arange(rate * 4) / rate
    tone = Sound(np.sin(2 * np.pi * 440 * time).astype(np.float32)[:, None], rate)
    quick = robustness.faster(tone)
    assert quick.sample_rate == rate
    assert len(quick.samples) == pytest.approx(len(tone.samples) / 1.05, abs=2)
    spectrum = np.abs(np.fft.rfft(quick.samples[:, 0] * np.hanning(len(quick.samples))))
    assert np.fft.rfftfreq(len(quick.samples), 1 / rate)[spectrum.argmax()] == pytest.approx(462, abs=0.5)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2])
def test_mp3_has_the_bit_rate_and_keeps_length_and_time(rate, channels):
    sound = music(5.0, rate, channels)
    encoded = robustness.encode_mp3(sound)
    assert len(encoded) * 8 / 5 / 1000 == pytest.approx(64, rel=0.06)  # and the padding of a short file
    assert soundfile.info(io.BytesIO(encoded)).format == "MP3"
    decoded = robustness.through_mp3(sound)
    assert decoded.samples.shape == sound.samples.shape
    assert decoded.sample_rate == rate
    assert decibels(power(sound.samples) / power(decoded.samples - sound.samples)) > 10  # late by nothing


@pytest.mark.parametrize(("rate", "expected"), [(96000, 48000), (12345, 12000), (4000, 8000)])
def test_rates_and_channels_that_mp3_lacks_become_others(rate, expected):
    changed = robustness.through_mp3(music(1.0, rate, channels=5))
    assert changed.sample_rate == expected
    assert changed.samples.shape == (pytest.approx(expected, abs=3), 1)


@pytest.fixture
def paths(tmp_path):
    """Two tracks as files: one of floats, and one of 16 bits in stereo, long enough for two clips."""
    files = []
    for subtype, sound in {"FLOAT": music(2.5), "PCM_16": music(4.2, 44100, 2, seed=1)}.items():
        files.append(str(tmp_path / f"{subtype}.wav"))
        soundfile.write(files[-1], sound.samples, sound.sample_rate, subtype=subtype)
    return files


def test_no_change_gives_the_features_of_preparation(paths):
    clips = robustness.changed_clips(paths, RECIPE, robustness.unchanged)
    expected = [clip for path in paths for clip in TrackKernel(RECIPE)(path).clips]
    assert [row.tobytes() for row in clips.spectrograms] == [clip.spectrogram for clip in expected]
    np.testing.assert_array_equal(clips.peak_db, np.array([clip.peak_db for clip in expected], np.float32))
    assert clips.track.tolist() == [0, 1, 1]
    assert clips.shape == RECIPE.shape()
    assert len(clips.track_ids) == len(clips.labels) == 2


@pytest.mark.parametrize("name", robustness.CHANGES)
def test_every_change_changes_the_features_but_for_the_level(paths, name):
    plain = robustness.changed_clips(paths, RECIPE, robustness.unchanged)
    changed = robustness.changed_clips(paths, RECIPE, robustness.CHANGES[name])
    difference = np.abs(changed.spectrograms.astype(int) - plain.spectrograms.astype(int))
    if name == "-12 dB":  # levels are normalised by peak: what a model hears is the same but for rounding
        assert difference.max() <= 1
    else:
        assert difference.mean() > 0.5


def test_answers_are_of_every_predictor_on_every_track(paths):
    def predictor(clips):
        rows = np.stack([clips.spectrograms[clips.track == track].mean(axis=(0, 2)) for track in (0, 1)])
        return rows[:, :3].astype(np.float32)

    found = robustness.answers(paths, RECIPE, [predictor, lambda clips: 2 * predictor(clips)])
    assert list(found) == list(robustness.CHANGES)
    for name, answers in found.items():
        assert answers.shape == (2, 2, 3)
        np.testing.assert_array_equal(answers[1], 2 * answers[0])
        again = predictor(robustness.changed_clips(paths, RECIPE, robustness.CHANGES[name]))
        np.testing.assert_array_equal(answers[0], again)


def test_macro_f1_is_the_mean_over_the_runs():
    right, wrong = np.eye(3, dtype=np.float32), np.roll(np.eye(3, dtype=np.float32), 1, axis=1)
    assert robustness.macro_f1(np.arange(3), np.stack([right, wrong])) == 0.5


def test_a_track_that_is_gone_says_so(paths, tmp_path):
    with pytest.raises(AudioError, match="gone") as raised:
        robustness.answers([*paths, str(tmp_path / "gone.wav")], RECIPE, [])
    assert raised.value.reason == Reason.UNREADABLE


def test_answers_that_a_change_leaves_alone_score_in_each_row_as_on_the_leaderboard(rng):
    truth = rng.integers(0, 3, 60)
    given = rng.dirichlet(np.ones(3), (6, 60)).astype(np.float32)  # cnn twice, vgg three times, the baseline
    scores = robustness.by_row(truth, {"cnn": [0, 1], "vgg": [0, 1, 2]}, {"-12 dB": given}, baseline="svm")
    runs = [Run(0, given[0]), Run(1, given[1])], [Run(seed, given[2 + seed]) for seed in range(3)]
    rows = [Entry(name, "network", each) for name, each in zip(("cnn", "vgg"), runs, strict=True)]
    rows += [entries.ensemble(rows, {}), Entry("svm", "classical", [Run(0, given[5])])]
    for row in rows:
        expected = metrics.mean_scores(truth, row.predicted, 3)["f1"]
        assert scores[row.name]["-12 dB"] == pytest.approx(expected), row.name
    assert robustness.by_row(truth, {"cnn": [0, 1], "vgg": [0, 1, 2]}, {"-12 dB": given}).keys() == {
        "cnn",
        "vgg",
        "ensemble",
    }


def test_the_ensemble_of_worse_audio_pairs_runs_by_seed_where_a_final_training_failed(rng):
    truth = rng.integers(0, 3, 60)
    given = rng.dirichlet(np.ones(3), (5, 60)).astype(np.float32)  # cnn of seeds 0, 1, 2 and vgg of seeds 1, 2
    seeds = {"cnn": [0, 1, 2], "vgg": [1, 2]}
    scores = robustness.by_row(truth, seeds, {"-12 dB": given})
    cnn, vgg = [Run(seed, given[seed]) for seed in range(3)], [Run(1, given[3]), Run(2, given[4])]
    row = entries.ensemble([Entry("cnn", "network", cnn), Entry("vgg", "network", vgg)], {})
    assert [run.seed for run in row.runs] == [1, 2]
    expected = metrics.mean_scores(truth, row.predicted, 3)["f1"]
    assert scores["ensemble"]["-12 dB"] == pytest.approx(expected)
