"""Changes of a recording: each does what its name says, the same each time."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
from scipy import signal
from sounds import chord

from genre.arrays import Float32
from genre.evaluation import changes
from genre.evaluation.changes import Sound

RATE = 22050


def power(samples: Float32) -> float:
    return float(np.mean(np.square(samples, dtype=np.float64)))


def decibels(ratio: float) -> float:
    return float(10 * np.log10(ratio))


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("snr", [20.0, 5.0])
def test_noise_has_the_signal_to_noise_ratio_after_mixing_down(channels: int, snr: float) -> None:
    sound = chord(channels=channels)
    clean, noisy = (s.samples.mean(axis=1) for s in (sound, changes.add_noise(sound, snr)))
    assert decibels(power(clean) / power(noisy - clean)) == pytest.approx(snr, abs=0.1)


def test_noise_is_white_and_the_same_each_time() -> None:
    sound = chord()
    first, second = changes.add_noise(sound), changes.add_noise(sound)
    np.testing.assert_array_equal(first.samples, second.samples)
    _, density = signal.welch((first.samples - sound.samples)[:, 0], RATE, nperseg=256)
    assert decibels(density[2:-2].max() / density[2:-2].min()) < 3


def test_the_gain_is_exact_and_nothing_clips() -> None:
    sound = chord()
    assert decibels(power(changes.change_level(sound).samples) / power(sound.samples)) == pytest.approx(-12, abs=1e-3)
    loud = Sound(np.full((10, 1), 0.9, np.float32), RATE)
    assert changes.change_level(loud, 12.0).samples.max() > 3


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_a_higher_speed_is_shorter_and_higher_by_five_per_cent(rate: int) -> None:
    time = np.arange(rate * 4) / rate
    tone = Sound(np.sin(2 * np.pi * 440 * time).astype(np.float32)[:, None], rate)
    quick = changes.change_speed(tone)
    assert quick.sample_rate == rate
    assert len(quick.samples) == pytest.approx(len(tone.samples) / 1.05, abs=2)
    spectrum = np.abs(np.fft.rfft(quick.samples[:, 0] * np.hanning(len(quick.samples))))
    assert np.fft.rfftfreq(len(quick.samples), 1 / rate)[spectrum.argmax()] == pytest.approx(462, abs=0.5)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2])
def test_mp3_has_the_bit_rate_and_keeps_length_and_time(rate: int, channels: int) -> None:
    sound = chord(5.0, rate, channels)
    encoded = changes.encode_mp3(sound)
    assert len(encoded) * 8 / 5 / 1000 == pytest.approx(64, rel=0.06)  # and the padding of a short file
    assert soundfile.info(io.BytesIO(encoded)).format == "MP3"
    decoded = changes.through_mp3(sound)
    assert decoded.samples.shape == sound.samples.shape
    assert decoded.sample_rate == rate
    assert decibels(power(sound.samples) / power(decoded.samples - sound.samples)) > 10  # there is no delay


@pytest.mark.parametrize(("rate", "expected"), [(96000, 48000), (12345, 12000), (4000, 8000)])
def test_rates_and_channels_that_mp3_lacks_are_converted(rate: int, expected: int) -> None:
    changed = changes.through_mp3(chord(1.0, rate, channels=5))
    assert changed.sample_rate == expected
    assert changed.samples.shape == (pytest.approx(expected, abs=3), 1)
