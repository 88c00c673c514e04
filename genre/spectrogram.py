"""Waveform -> log-mel spectrogram. The only owner of the log and mel conventions.

Conventions (those of `librosa.feature.melspectrogram` and `librosa.power_to_db` with their defaults):
periodic Hann window, frames centred on multiples of the hop with zeros outside the signal, power
spectrum, Slaney's mel scale with area-normalised triangles, 10 log10(max(power, 1e-10)) dB.

Why not librosa itself: this is a third of its time (benchmarks/front_end.py). Frames are windowed,
transformed and squared a chunk at a time in memory that stays in the processor's cache, and the mel
matrix, 98 % zeros, is multiplied in dense blocks of neighbouring bands. More than half of the time that
is left is the transforms themselves.

How exact (tests/parity/test_spectrogram.py): librosa transforms in double precision, this in single, which
is twice as fast; its rounding spreads over a frame's spectrum 138 dB below the frame's mean. So whatever
lies within 50 dB of the clip's peak is within 2e-4 dB of librosa in float64. Bands far weaker than the rest
of their frame are less exact: the worst value of music within the stored 80 dB is off by 7e-4 dB, that of
pure tones, brown noise and offsets by 3e-3 dB, a hundredth of the step in which features are stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import scipy.fft

from genre.config import SpectrogramSettings

Float32 = npt.NDArray[np.float32]

FLOOR_POWER = 1e-10
_CHUNK = 128 * 2048  # samples transformed together: 1 MiB, and as much again for their spectra
_BANDS = 8  # mel bands multiplied together: fewer make more calls, more make more zeros


@dataclass(frozen=True)
class _BandBlock:
    """Some neighbouring bands and the only spectrum values that they weigh: weights (values, bands)."""

    bands: slice
    values: slice
    weights: Float32


class LogMel:
    """Log-mel spectrogram with fixed settings; build once, call for each clip."""

    def __init__(self, settings: SpectrogramSettings, sample_rate: int) -> None:
        self.settings = settings
        self._window = _hann(settings.n_fft)
        self._blocks = _band_blocks(mel_filters(sample_rate, settings))

    def frames(self, samples: int) -> int:
        """Number of frames of a clip of so many samples."""
        return 1 + samples // self.settings.hop_length

    def __call__(self, wave: Float32) -> Float32:
        """(samples,) -> (n_mels, frames) in dB, not yet limited in range."""
        n_fft = self.settings.n_fft
        padded = np.zeros(len(wave) + n_fft, dtype=np.float32)
        padded[n_fft // 2 : n_fft // 2 + len(wave)] = wave
        framed = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[:: self.settings.hop_length]
        chunk = max(1, _CHUNK // n_fft)
        windowed = np.empty((chunk, n_fft), dtype=np.float32)
        power = np.empty((self.frames(len(wave)), self.settings.n_mels), dtype=np.float32)
        for begin in range(0, len(power), chunk):
            frames, out = framed[begin : begin + chunk], power[begin : begin + chunk]
            spectrum = scipy.fft.rfft(np.multiply(frames, self._window, out=windowed[: len(frames)]))
            # squares of interleaved real and imaginary parts; the weights add the two
            squares = spectrum.view(np.float32)
            np.square(squares, out=squares)
            for block in self._blocks:
                np.matmul(squares[:, block.values], block.weights, out=out[:, block.bands])
        return to_db(power).T


def to_db(power: Float32) -> Float32:
    """10 log10 of a power, floored at 1e-10 (-100 dB). Works in place."""
    np.maximum(power, np.float32(FLOOR_POWER), out=power)
    np.log(power, out=power)  # numpy vectorises the natural logarithm only
    power *= np.float32(10 / np.log(10))
    return power


@cache
def mel_filters(sample_rate: int, settings: SpectrogramSettings) -> Float32:
    """(n_mels, n_fft // 2 + 1) triangles on Slaney's mel scale (Auditory Toolbox, 1998), each of unit area.

    Equal to `librosa.filters.mel(htk=False, norm="slaney")`; written out because importing librosa
    costs each worker two seconds.
    """
    f_max = settings.f_max or sample_rate / 2
    edges = _mel_to_hz(np.linspace(_hz_to_mel(settings.f_min), _hz_to_mel(f_max), settings.n_mels + 2))
    bins = np.fft.rfftfreq(settings.n_fft, 1 / sample_rate)
    ramps = edges[:, None] - bins[None, :]
    widths = np.diff(edges)
    rising = -ramps[:-2] / widths[:-1, None]
    falling = ramps[2:] / widths[1:, None]
    triangles = np.maximum(0, np.minimum(rising, falling))
    triangles *= (2 / (edges[2:] - edges[:-2]))[:, None]
    return triangles.astype(np.float32)


def _hz_to_mel(hz: float) -> float:
    """Linear below 1 kHz (3 mel per 200 Hz), logarithmic above (27 mel per factor 6.4)."""
    return hz * 3 / 200 if hz < 1000 else float(15 + 27 * np.log(hz / 1000) / np.log(6.4))


def _mel_to_hz(mel: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp(np.log(6.4) * (mel - 15) / 27))


def _hann(length: int) -> Float32:
    """Periodic Hann window; written out because importing scipy.signal costs each worker 0.7 s."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)).astype(np.float32)


def _band_blocks(filters: Float32) -> list[_BandBlock]:
    """Cut the mel matrix into dense blocks; each weight stands twice, for the real and the imaginary square."""
    blocks = []
    for first in range(0, len(filters), _BANDS):
        rows = filters[first : first + _BANDS]
        used = np.flatnonzero(rows.any(axis=0))
        low, high = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 1)
        weights = np.ascontiguousarray(np.repeat(rows[:, low:high], 2, axis=1).T)
        blocks.append(_BandBlock(slice(first, first + len(rows)), slice(2 * low, 2 * high), weights))
    return blocks
