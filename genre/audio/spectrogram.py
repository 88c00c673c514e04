"""Waveform -> log-mel spectrogram. No other module defines log and mel conventions.

Conventions (those of `librosa.feature.melspectrogram` and `librosa.power_to_db` with their defaults):
periodic Hann window, frames centred on multiples of the hop with zeros outside the signal, power
spectrum, Slaney's mel scale with area-normalised triangles, 10 log10(max(power, 1e-10)) dB.

Speed: this takes a sixth of librosa's time (benchmarks/front_end.py). Frames are windowed, transformed and weighted a
chunk at a time in memory that stays in the processor's cache, each step in a single pass that numba compiled
(genre/audio/kernels.py), and the mel matrix, 98 % zeros, is multiplied band by band. The transforms are OpenCV's, which
uses Intel's IPP where available: a third of the time of scipy.fft.

Accuracy (tests/parity/test_spectrogram.py): every stored value is within 2e-4 dB of librosa in float64. librosa
transforms in double precision. Single precision is twice as fast, but its rounding noise spreads evenly over a frame's
spectrum and changes bands that are far weaker than the frame's mean, such as the treble of music. So the spectrum is
flattened first: subtracting half of the previous sample from each sample of a windowed frame multiplies the power
spectrum by a known curve, and the mel weights divide by that curve. Frames in which a band is still too weak, for
example of pure tones, are transformed again in double precision.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from genre.arrays import Float32, Float64, Ints
from genre.audio import kernels
from genre.settings import SpectrogramSettings

FLOOR_POWER = 1e-10
_CHUNK = 64 * 2048  # samples transformed together: half a MiB
# raises treble over bass by 9.5 dB: enough for real music, and more would make tones in the bass less precise
_EMPHASIS = 0.5
# A band is imprecise if its power is below this share of its frame's energy, times the band's largest weight. Rounding
# in single precision is less than 1e-7 of the amplitude, which rarely changes a stronger band by 2e-4 dB.
_LEAST_SHARE = (3.5e-6 / 2e-4) ** 2


class LogMel:
    """Log-mel spectrogram with fixed settings. Build it once and call it for each clip."""

    def __init__(self, settings: SpectrogramSettings, sample_rate: int) -> None:
        self.settings = settings
        self._kernels = kernels.compiled()
        self._window = hann(settings.n_fft)
        self._ahead = np.roll(self._window, -1).astype(np.float32)
        self._here = (_EMPHASIS * self._window).astype(np.float32)
        filters = mel_filters(sample_rate, settings)
        flattened = filters / _emphasis(settings.n_fft)
        self._filters = _packed(flattened)
        self._plain_filters = _packed(filters)
        self._least = (_LEAST_SHARE * flattened.max(axis=1)).astype(np.float32)

    def frames(self, samples: int) -> int:
        """Return the number of frames of a clip of `samples` samples."""
        return 1 + samples // self.settings.hop_length

    def __call__(self, wave: Float32) -> Float32:
        """Return the spectrogram of a clip in dB, its range not yet limited: (samples,) -> (n_mels, frames).

        The result is a transposed view: in memory the frames come first, which is the order in which they are stored.
        """
        n_fft = self.settings.n_fft
        padded = np.zeros(len(wave) + n_fft + 1, dtype=np.float32)
        padded[n_fft // 2 : n_fft // 2 + len(wave)] = wave
        power, energy = self._measure(padded, self.frames(len(wave)))
        imprecise = self._imprecise(power, energy)
        if len(imprecise):
            power[imprecise] = self._measure_exactly(padded, imprecise)
        return to_db(power).T

    def _measure(self, padded: Float32, count: int) -> tuple[Float32, Float32]:
        """Return the mel power (count, n_mels) of all frames in single precision, and emphasised energies (count,)."""
        power = np.empty((count, self.settings.n_mels), dtype=np.float32)
        energy = np.empty(count, dtype=np.float32)
        for part, frames, squares in self._chunks(count, np.float32):
            self._kernels.emphasised(
                padded, part.start, self.settings.hop_length, self._ahead, self._here, frames, energy[part]
            )
            cv2.dft(frames, dst=frames, flags=cv2.DFT_ROWS)
            self._kernels.weigh(frames, *self._filters, squares, power[part])
        return power, energy

    def _measure_exactly(self, padded: Float32, rows: Ints) -> Float32:
        """Return the mel power (len(rows), n_mels) of the frames `rows`, transformed in double precision."""
        power = np.empty((len(rows), self.settings.n_mels), dtype=np.float32)
        for part, frames, squares in self._chunks(len(rows), np.float64):
            self._kernels.windowed(padded, rows[part], self.settings.hop_length, self._window, frames)
            cv2.dft(frames, dst=frames, flags=cv2.DFT_ROWS)
            self._kernels.weigh(frames, *self._plain_filters, squares, power[part])
        return power

    def _chunks(self, count: int, kind: type[np.floating]) -> Iterator[tuple[slice, npt.NDArray[Any], Float32]]:
        """Yield slices of `count` frames, each with memory for its frames (n, n_fft) and scratch memory for `weigh`."""
        n_fft = self.settings.n_fft
        size = max(1, _CHUNK // n_fft)
        frames = np.empty((min(size, count), n_fft), dtype=kind)
        squares = np.zeros((kernels.FRAMES, n_fft // 2 + kernels.LANES), dtype=np.float32)
        for begin in range(0, count, size):
            part = slice(begin, min(begin + size, count))
            yield part, frames[: part.stop - begin], squares

    def _imprecise(self, power: Float32, energy: Float32) -> Ints:
        """Return the frames with a band in the stored range that rounding in single precision may have changed."""
        stored = max(FLOOR_POWER, float(power.max()) * 10 ** (-self.settings.range_db / 10))
        # bands below this level are outside the stored range, with and without the noise
        lowest = 0.9 * stored - 2e-7 * float(energy.max()) * float(self._least.max())
        suspect = np.empty(len(power), dtype=np.bool_)
        self._kernels.suspects(power, energy, self._least, lowest, suspect)
        return np.flatnonzero(suspect)


def to_db(power: Float32) -> Float32:
    """Return 10 log10 of a power, floored at 1e-10 (-100 dB). Works in place."""
    np.maximum(power, np.float32(FLOOR_POWER), out=power)
    cv2.log(power, dst=power)  # a fifth of numpy's time
    power *= np.float32(10 / np.log(10))
    return power


@cache
def mel_filters(sample_rate: int, settings: SpectrogramSettings) -> Float32:
    """Return triangles on Slaney's mel scale (Auditory Toolbox, 1998), each of unit area: (n_mels, n_fft // 2 + 1).

    Equal to `librosa.filters.mel(htk=False, norm="slaney")`; not taken from librosa, whose import costs each worker two
    seconds.
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
    """Return the mel of a frequency: linear below 1 kHz (3 mel per 200 Hz), logarithmic above (27 per factor 6.4)."""
    return hz * 3 / 200 if hz < 1000 else float(15 + 27 * np.log(hz / 1000) / np.log(6.4))


def _mel_to_hz(mel: Float64) -> Float64:
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp(np.log(6.4) * (mel - 15) / 27))


def hann(length: int) -> Float64:
    """Return the periodic Hann window; not taken from scipy.signal, whose import costs each worker 0.7 s."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)


def _emphasis(n_fft: int) -> Float64:
    """Return the curve by which the emphasis multiplies a power spectrum: (n_fft // 2 + 1,)."""
    angle = 2 * np.pi * np.arange(n_fft // 2 + 1) / n_fft
    return 1 + _EMPHASIS**2 - 2 * _EMPHASIS * np.cos(angle)


def _packed(filters: Float32 | Float64) -> tuple[Ints, Ints, Float32]:
    """Return the mel matrix without its zeros, as `kernels.weigh` takes it.

    The result is lows (n_mels,), starts (n_mels + 1,) and weights. Bin 0 is omitted: its weight is always 0, since a
    triangle that begins at 0 Hz is 0 there.
    """
    lows, starts, weights = [], [0], []
    for band in filters[:, 1:]:
        used = np.flatnonzero(band)
        low, high = (used[0], used[-1] + 1) if len(used) else (0, 0)
        share = np.zeros(-(-(high - low) // kernels.LANES) * kernels.LANES, dtype=np.float32)
        share[: high - low] = band[low:high]
        lows.append(low)
        starts.append(starts[-1] + len(share))
        weights.append(share)
    return np.array(lows, np.int64), np.array(starts, np.int64), np.concatenate(weights)
