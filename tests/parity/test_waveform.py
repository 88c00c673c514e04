"""Waveforms against librosa: indices of trimming, aliases of resampling, and the complete path from a file."""

from __future__ import annotations

import io

import damage
import librosa
import numpy as np
import pytest

from genre.arrays import Float32
from genre.audio import recordings
from genre.settings import AudioSettings

RATE = 22050
USUAL = AudioSettings()


def assert_same_bounds(wave: Float32, top_db: float) -> None:
    _, expected = librosa.effects.trim(wave, top_db=top_db)
    assert recordings.trim_bounds(wave, top_db) == tuple(expected)


@pytest.mark.parametrize("seed", range(150))
def test_trims_like_librosa(seed: int) -> None:
    """Noise of any length and level, with fades and gaps of any length at any position."""
    rng = np.random.default_rng(seed)
    length = int(10 ** rng.uniform(0, 5.2))
    wave = rng.standard_normal(length) * 10 ** rng.uniform(-3, 0)
    for _ in range(rng.integers(0, 4)):
        start, end = np.sort(rng.integers(0, length + 1, 2))
        wave[start:end] *= 10 ** rng.uniform(-7, 0)
    start, end = rng.integers(0, length + 1, 2)
    wave[: start // 3] *= 10 ** rng.uniform(-8, -2)
    wave[length - end // 3 :] *= 10 ** rng.uniform(-8, -2)
    for top_db in (20, 40, 60):
        assert_same_bounds(wave.astype(np.float32), top_db)


@pytest.mark.parametrize("length", [1, 2, 511, 512, 513, 1023, 1024, 1025, 2047, 2048, 2049, 10_000])
@pytest.mark.parametrize("position", ["start", "end", "middle", "nowhere", "everywhere"])
def test_trims_corners_like_librosa(length: int, position: str) -> None:
    """A single click in silence, only silence, full scale everywhere."""
    wave = np.full(length, float(position == "everywhere"), np.float32)
    if position in ("start", "end", "middle"):
        wave[{"start": 0, "end": -1, "middle": length // 2}[position]] = 1
    assert_same_bounds(wave, 60)


@pytest.mark.parametrize("silence", [100, 5000, 44100])
def test_trims_music_like_librosa(silence: int, rng: np.random.Generator) -> None:
    wave = np.pad(damage.music()[:, 0], silence) + 1e-6 * rng.standard_normal(3 * RATE + 2 * silence)
    assert_same_bounds(wave.astype(np.float32), 60)


@pytest.mark.parametrize("rate", [32000, 44100, 48000, 88200, 96000])
def test_aliases_are_below_120_db(rate: int) -> None:
    """A tone within the lower rate, plus a tone above it, of which nothing but the alias may remain."""
    time = np.arange(rate) / rate
    kept = np.sin(2 * np.pi * 1000 * time)
    middle = slice(RATE // 4, 3 * RATE // 4)
    at = np.arange(RATE)[middle] / RATE
    basis = np.stack([np.sin(2 * np.pi * 1000 * at), np.cos(2 * np.pi * 1000 * at)], axis=1)
    for frequency in np.linspace(RATE / 2 * 1.005, rate / 2 * 0.999, 12):
        tone = np.sin(2 * np.pi * frequency * time + 0.3)
        wave = recordings.of_samples((kept + tone).astype(np.float32)[:, None] / 2, rate, USUAL).wave
        result = wave[middle].astype(np.float64)
        weights = np.linalg.lstsq(basis, result, rcond=None)[0]
        alias = np.abs(result - basis @ weights).max() / np.hypot(*weights)
        assert 20 * np.log10(alias) < -120, f"{frequency:.0f} Hz"


@pytest.mark.parametrize("rate", [8000, 16000, 32000, 44100, 48000, 96000])
def test_frequencies_within_the_lower_rate_are_kept(rate: int) -> None:
    time = np.arange(2 * rate) / rate
    for share in (0.01, 0.3, 0.6, 0.9):
        frequency = share * min(rate, RATE) / 2
        tone = np.sin(2 * np.pi * frequency * time)[:, None].astype(np.float32)
        wave = recordings.of_samples(np.concatenate([tone, np.zeros_like(tone[:1])]), rate, USUAL).wave[
            RATE // 2 : -RATE // 2
        ]
        at = (np.arange(len(wave)) + RATE // 2) / RATE
        basis = np.stack([np.sin(2 * np.pi * frequency * at), np.cos(2 * np.pi * frequency * at)], axis=1)
        weights, residue, *_ = np.linalg.lstsq(basis, wave.astype(np.float64), rcond=None)
        assert np.sqrt(residue[0] / len(wave)) < 1e-5
        assert abs(weights[1]) < 1e-3 * abs(weights[0])  # no delay


@pytest.mark.parametrize("container", ["wav", "flac", "ogg", "mp3", "aiff", "au"])
@pytest.mark.parametrize(("rate", "channels"), [(22050, 1), (22050, 2), (44100, 2), (48000, 1), (32000, 2)])
def test_waveform_equals_librosa(container: str, rate: int, channels: int) -> None:
    content = damage.encoded(damage.music(rate, channels, 4.0), rate, container)
    expected, _ = librosa.load(io.BytesIO(content), sr=RATE)
    recording = recordings.load(content, USUAL)
    np.testing.assert_allclose(recording.wave, expected / np.abs(expected).max(), atol=2e-6)
    assert (recording.sample_rate, recording.channels, recording.truncated) == (rate, channels, False)
