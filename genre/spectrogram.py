"""Waveform -> log-mel spectrogram. The only owner of the log and mel conventions.

Conventions (those of `librosa.feature.melspectrogram` and `librosa.power_to_db` with their defaults):
periodic Hann window, frames centred on multiples of the hop with zeros outside the signal, power
spectrum, Slaney's mel scale with area-normalised triangles, 10 log10(max(power, 1e-10)) dB.

Why not librosa itself: this is a third of its time (benchmarks/front_end.py). Frames are windowed,
transformed and squared a chunk at a time in memory that stays in the processor's cache, and the mel
matrix, 98 % zeros, is multiplied in dense blocks of neighbouring bands. The transforms are OpenCV's, which
takes them from Intel's IPP where there is one: a third of the time of scipy.fft.

How exact (tests/parity/test_spectrogram.py): librosa transforms in double precision. Single precision is
twice as fast, but its rounding spreads evenly over a frame's spectrum and moves bands that are far weaker
than the frame's mean, as treble is in music. So the spectrum is flattened first: from each sample of a
windowed frame 0.6 of the one before is taken, which multiplies the power spectrum by a known curve that the
mel weights divide out again. Frames in which a band is too weak even so, of pure tones for example, are
transformed again in double precision. So every value that is stored is within 2e-4 dB of librosa in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
import numpy.typing as npt

from genre.config import SpectrogramSettings

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Window = Float32 | Float64

FLOOR_POWER = 1e-10
_CHUNK = 64 * 2048  # samples transformed together: half a MiB
_EMPHASIS = (
    0.6  # raises treble over bass by 12 dB: real music needs no more, and tones in the bass would suffer from it
)
# A band is imprecise below this share of its frame's energy times its largest weight: rounding in single precision
# leaves noise of less than 1e-7 of the amplitude, which moves such a band by 2e-4 dB, and that only rarely.
_LEAST_SHARE = (3.5e-6 / 2e-4) ** 2
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
        self._single_window = self._window.astype(np.float32)
        filters = mel_filters(sample_rate, settings) / _emphasis(settings.n_fft)
        self._blocks = _band_blocks(filters.astype(np.float32), settings.n_fft)
        self._least = (_LEAST_SHARE * filters.max(axis=1)).astype(np.float32)

    def frames(self, samples: int) -> int:
        """Number of frames of a clip of so many samples."""
        return 1 + samples // self.settings.hop_length

    def __call__(self, wave: Float32) -> Float32:
        """(samples,) -> (n_mels, frames) in dB, not yet limited in range."""
        n_fft = self.settings.n_fft
        padded = np.zeros(len(wave) + n_fft, dtype=np.float32)
        padded[n_fft // 2 : n_fft // 2 + len(wave)] = wave
        framed = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[:: self.settings.hop_length]
        power, energy = self._measure(framed, self._single_window)
        again = self._imprecise(power, energy)
        if len(again):
            power[again], _ = self._measure(framed, self._window, again)
        return to_db(power).T

    def _measure(
        self, framed: Float32, window: Window, rows: npt.NDArray[np.intp] | None = None
    ) -> tuple[Float32, Window]:
        """Mel power (frames, n_mels) and energy (frames,) of all or some of (frames, n_fft), as exact as the window."""
        count, n_fft = len(framed) if rows is None else len(rows), self.settings.n_fft
        power = np.empty((count, self.settings.n_mels), dtype=np.float32)
        energy = np.empty(count, dtype=window.dtype)
        chunk = max(1, _CHUNK // n_fft)
        scratch = np.empty((min(chunk, count), n_fft), dtype=window.dtype)
        for begin in range(0, count, chunk):
            part = slice(begin, begin + chunk)
            frames = scratch[: len(energy[part])]
            np.multiply(framed[part if rows is None else rows[part]], window, out=frames)
            _emphasise(frames)
            np.vecdot(frames, frames, out=energy[part])
            cv2.dft(frames, dst=frames, flags=cv2.DFT_ROWS)
            squares = np.square(frames, out=frames).astype(np.float32, copy=False)
            for block in self._blocks:
                np.matmul(squares[:, block.values], block.weights, out=power[part, block.bands])
        return power, energy

    def _imprecise(self, power: Float32, energy: Window) -> npt.NDArray[np.intp]:
        """Frames with a band that is stored and that rounding in single precision may have moved."""
        stored = max(FLOOR_POWER, float(power.max()) * 10 ** (-self.settings.range_db / 10))
        least = energy[:, None] * self._least
        # what is below the stored range, and would be without the noise as well
        lowest = np.float32(0.9 * stored - 2e-7 * least.max())
        suspect = (power < least) & (power > lowest)
        return np.flatnonzero(suspect.any(axis=1))


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


def _mel_to_hz(mel: Float64) -> Float64:
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp(np.log(6.4) * (mel - 15) / 27))


def _hann(length: int) -> Float64:
    """Periodic Hann window; written out because importing scipy.signal costs each worker 0.7 s."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)


def _emphasise(frames: Window) -> None:
    """y[n + 1] - _EMPHASIS * y[n] of windowed frames (frames, n_fft), in place and periodic: windows start with 0."""
    cv2.scaleAdd(frames[:, :-1], -_EMPHASIS, frames[:, 1:], dst=frames[:, :-1])
    frames[:, -1] *= -_EMPHASIS


def _emphasis(n_fft: int) -> Float64:
    """(n_fft // 2 + 1,) by how much `_emphasise` multiplies a power spectrum."""
    angle = 2 * np.pi * np.arange(n_fft // 2 + 1) / n_fft
    return 1 + _EMPHASIS**2 - 2 * _EMPHASIS * np.cos(angle)


def _band_blocks(filters: Float32, n_fft: int) -> list[_BandBlock]:
    """Cut the mel matrix into dense blocks over OpenCV's packed spectra.

    Those hold, in n_fft values, the real part of bin 0, real and imaginary part of bins 1, 2, ..., and for
    an even n_fft the real part of the last bin. Squared, each counts with the weight of its bin.
    """
    packed = np.repeat(filters, 2, axis=1)[:, 1 : n_fft + 1]
    blocks = []
    for first in range(0, len(packed), _BANDS):
        rows = packed[first : first + _BANDS]
        used = np.flatnonzero(rows.any(axis=0))
        low, high = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 1)
        weights = np.ascontiguousarray(rows[:, low:high].T)
        blocks.append(_BandBlock(slice(first, first + len(rows)), slice(low, high), weights))
    return blocks
