"""The log-mel spectrogram against librosa in double precision, and against torchaudio."""

from __future__ import annotations

import io
from pathlib import Path

import damage
import librosa
import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from genre import features
from genre.arrays import Float32, Float64
from genre.audio import recordings
from genre.audio.spectrogram import FLOOR_POWER, LogMel, mel_filters
from genre.settings import AudioSettings, SpectrogramSettings

EXACT_DB = 2e-4  # of every stored value, for any signal
RATE = 22050
USUAL = SpectrogramSettings()

PARAMETERS = [
    (22050, 2048, 512, 128, 0, None),
    (22050, 2048, 512, 40, 0, None),
    (22050, 2048, 1024, 256, 0, None),
    (22050, 1024, 256, 96, 0, None),
    (22050, 512, 128, 64, 0, None),
    (22050, 4096, 1024, 128, 0, None),
    (22050, 4096, 512, 256, 20, 8000),
    (22050, 2048, 441, 80, 300, 10000),
    (16000, 512, 160, 96, 0, 8000),
    (16000, 400, 160, 64, 50, 7600),
    (8000, 1024, 100, 40, 0, None),
    (44100, 2048, 441, 128, 30, 20000),
    (48000, 4096, 2048, 200, 0, None),
    (32000, 1000, 333, 128, 1000, 15000),
]


def levels(wave: npt.NDArray[np.floating], settings: SpectrogramSettings, rate: int) -> Float64:
    """Return librosa's spectrogram in dB, computed in double precision: (n_mels, frames)."""
    power = librosa.feature.melspectrogram(
        y=wave.astype(np.float64),
        sr=rate,
        n_fft=settings.n_fft,
        hop_length=settings.hop_length,
        n_mels=settings.n_mels,
        fmin=settings.f_min,
        fmax=settings.f_max,
        dtype=np.float64,
    )
    return np.asarray(librosa.power_to_db(power, top_db=None))


def distance(result: Float32, expected: Float64, settings: SpectrogramSettings) -> float:
    """Return the largest difference in dB of all points within the stored range."""
    assert result.shape == expected.shape
    assert result.dtype == np.float32
    stored = np.maximum(expected, result) >= expected.max() - settings.range_db
    return float(np.abs(result - expected)[stored].max())


def difference(wave: Float32, settings: SpectrogramSettings, rate: int) -> float:
    return distance(LogMel(settings, rate)(wave), levels(wave, settings, rate), settings)


def normalised(wave: Float64) -> Float32:
    return np.asarray(wave / np.abs(wave).max(), np.float32)


@pytest.mark.filterwarnings("ignore:Empty filters", "ignore:n_fft=")
@pytest.mark.parametrize(("rate", "n_fft", "hop", "n_mels", "f_min", "f_max"), PARAMETERS)
@pytest.mark.parametrize("seconds", [0.05, 1.0, 3.7])
def test_equals_librosa(
    rate: int, n_fft: int, hop: int, n_mels: int, f_min: float, f_max: float | None, seconds: float
) -> None:
    settings = SpectrogramSettings(n_fft=n_fft, hop_length=hop, n_mels=n_mels, f_min=f_min, f_max=f_max)
    rng = np.random.default_rng(n_fft)
    wave = damage.music(rate, seconds=seconds)[:, 0]
    wave = normalised(wave + 1e-3 * rng.standard_normal(len(wave)))
    assert difference(wave, settings, rate) < EXACT_DB


@pytest.mark.filterwarnings("ignore:n_fft=")
@pytest.mark.parametrize("samples", [1, 511, 512, 2047, 2048, 2049, 128 * 512 - 1, 128 * 512, 129 * 512 + 7])
def test_any_length(samples: int, rng: np.random.Generator) -> None:
    wave = normalised(rng.standard_normal(samples))
    assert difference(wave, USUAL, RATE) < EXACT_DB
    assert LogMel(USUAL, RATE).frames(samples) == 1 + samples // 512


def steep(name: str, rng: np.random.Generator) -> Float32:
    """Return a signal whose spectrum is so steep that rounding in single precision is visible."""
    time = np.arange(10 * RATE) / RATE
    waves = {
        "bass": np.sin(2 * np.pi * 60 * time),
        "tone": np.sin(2 * np.pi * 1000 * time),
        "treble": np.sin(2 * np.pi * 9000 * time),
        "chirp": np.sin(2 * np.pi * (20 * time + 500 * time**2)),
        "brown": np.cumsum(rng.standard_normal(len(time))),
        "offset": 1 + 1e-3 * rng.standard_normal(len(time)),
        "faint": np.sin(2 * np.pi * 440 * time) + 1e-4 * rng.standard_normal(len(time)),
        "click": (rng.random(len(time)) < 1e-4).astype(np.float64),
    }
    return normalised(waves[name])


@pytest.mark.parametrize("name", ["bass", "tone", "treble", "chirp", "brown", "offset", "faint", "click"])
@pytest.mark.parametrize("n_fft", [512, 2048, 4096])
def test_steep_spectra(name: str, n_fft: int, rng: np.random.Generator) -> None:
    settings = SpectrogramSettings(n_fft=n_fft, hop_length=n_fft // 4, n_mels=64)
    wave = steep(name, rng)
    assert difference(wave, settings, RATE) < EXACT_DB


@pytest.mark.parametrize("range_db", [20, 100, 130, 160])
@pytest.mark.parametrize("name", ["tone", "treble", "brown", "faint"])
def test_any_range(name: str, range_db: float, rng: np.random.Generator) -> None:
    assert difference(steep(name, rng), SpectrogramSettings(range_db=range_db), RATE) < EXACT_DB


def test_real_music(shared_data: Path) -> None:
    tracks = sorted((shared_data / "gtzan-mini").glob("*/*.0000[0-1].flac"))
    worst = [difference(normalised(soundfile.read(path)[0]), USUAL, RATE) for path in tracks]
    assert len(worst) == 20
    assert max(worst) < EXACT_DB


@pytest.mark.parametrize(
    ("container", "rate", "channels"),
    [
        ("wav", 22050, 1), ("flac", 22050, 2), ("wav", 44100, 2), ("mp3", 44100, 2),
        ("flac", 48000, 1), ("wav", 96000, 2), ("wav", 16000, 2), ("mp3", 32000, 2),
    ],
)  # fmt: skip
def test_the_complete_path_from_a_file(container: str, rate: int, channels: int) -> None:
    """librosa also decodes, mixes down, resamples, normalises and trims, in double precision."""
    content = damage.encoded(damage.music(rate, channels, 6.5), rate, container)
    wave, _ = librosa.load(io.BytesIO(content), sr=RATE, dtype=np.float64)
    wave, (start, _) = librosa.effects.trim(wave / np.abs(wave).max(), top_db=60)
    settings = AudioSettings(clip_seconds=2.0)
    clips = recordings.cut(recordings.load(content, settings), settings)
    assert len(clips) == 3
    for clip in clips:
        begin = round(clip.start_seconds * RATE) - start
        expected = levels(wave[begin : begin + len(clip.samples)], USUAL, RATE)
        assert distance(LogMel(USUAL, RATE)(clip.samples), expected, USUAL) < EXACT_DB


def test_bands_above_the_bandwidth_of_a_file() -> None:
    """Above the bandwidth of a 16 kHz mp3 the mel bands hold only the rounding noise of resampling.

    There the two waveforms differ; the spectrogram of either is exact.
    """
    content = damage.encoded(damage.music(16000, 2, 6.5), 16000, "mp3")
    ours = recordings.load(content, AudioSettings()).wave
    theirs, _ = librosa.load(io.BytesIO(content), sr=RATE, dtype=np.float64)
    np.testing.assert_allclose(ours, theirs / np.abs(theirs).max(), atol=1e-6)
    assert difference(ours, USUAL, RATE) < EXACT_DB


@pytest.mark.filterwarnings("ignore:Empty filters")
@pytest.mark.parametrize(("rate", "n_fft", "hop", "n_mels", "f_min", "f_max"), PARAMETERS)
def test_filters_equal_librosa(rate: int, n_fft: int, hop: int, n_mels: int, f_min: float, f_max: float | None) -> None:
    settings = SpectrogramSettings(n_fft=n_fft, hop_length=hop, n_mels=n_mels, f_min=f_min, f_max=f_max)
    expected = librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=n_mels, fmin=f_min, fmax=f_max, dtype=np.float64)
    np.testing.assert_allclose(mel_filters(rate, settings), expected, rtol=1e-6, atol=1e-7 * expected.max())


@pytest.mark.parametrize(("n_fft", "hop", "n_mels"), [(2048, 512, 128), (1024, 256, 64), (512, 160, 40)])
def test_equals_torchaudio(n_fft: int, hop: int, n_mels: int) -> None:
    torch = pytest.importorskip("torch")
    transforms = pytest.importorskip("torchaudio.transforms")
    wave = normalised(damage.music(seconds=5)[:, 0])
    reference = transforms.MelSpectrogram(
        RATE, n_fft, hop_length=hop, n_mels=n_mels, norm="slaney", mel_scale="slaney", pad_mode="constant"
    ).double()
    power = reference(torch.from_numpy(wave).double()).numpy()
    expected = 10 * np.log10(np.maximum(power, FLOOR_POWER))
    result = LogMel(SpectrogramSettings(n_fft=n_fft, hop_length=hop, n_mels=n_mels), RATE)(wave)
    near = expected > expected.max() - 60
    assert np.abs(result - expected)[near].max() < 7e-4  # torchaudio computes its filters in single precision


def test_silence_is_the_floor() -> None:
    result = LogMel(USUAL, RATE)(np.zeros(RATE, np.float32))
    np.testing.assert_allclose(result, -100, atol=1e-4)


@pytest.mark.parametrize("range_db", [20, 80, 120])
def test_stored_error_is_half_a_step(range_db: float, rng: np.random.Generator) -> None:
    level = rng.uniform(-140, 40, (64, 200)).astype(np.float32)
    stored, peak = features.encode(level, range_db)
    assert stored.dtype == np.uint8
    expected = np.maximum(level, level.max() - range_db)
    error = np.abs(features.decode(stored, peak, range_db) - expected).max()
    assert error <= range_db / 255 / 2 + 1e-4
