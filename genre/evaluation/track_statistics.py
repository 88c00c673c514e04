"""Statistics of timbre and rhythm of tracks, from their stored log-mel spectrograms.

- 20 MFCCs: mean, standard deviation, skewness; standard deviations of their first and second differences
  (Tzanetakis and Cook, "Musical genre classification of audio signals", IEEE TSAP 10(5), 2002). Means of
  differences are left out: they telescope to the last value minus the first;
- spectral contrast, the difference between peaks and valleys in seven bands: mean and standard deviation (Jiang et
  al., "Music type classification by spectral contrast feature", ICME 2002);
- the modulation spectrum, the strength of ten ranges of modulation rates in the levels of eight bands (Pampalk, Rauber
  and Merkl, "Content-based organization and visualization of music archives", ACM Multimedia 2002).
"""

from __future__ import annotations

import itertools

import librosa
import numpy as np

from genre import features
from genre.arrays import Float32, Float64
from genre.features import Clips

MFCCS = 20
_CONTRAST_BANDS = 7
_MODULATION_BANDS = 8
_MODULATION_RATES = (0.4, 14.0)  # Hz: from a note every other bar to a fast roll
_RATE_RANGES = 10  # evenly spaced in the logarithm of the rate
_SMALLEST_MODULATION = 1e-3  # dB


def of_clips(clips: Clips) -> Float32:
    """Return the statistics of each track, averaged over its clips: (tracks, statistics)."""
    rows = [
        _of_clip(features.decode(spectrogram, peak, clips.shape.range_db), clips.shape.frame_seconds)
        for spectrogram, peak in zip(clips.spectrograms, clips.peak_db, strict=True)
    ]
    total = np.zeros((len(clips.track_ids), len(rows[0])))
    np.add.at(total, clips.track, rows)
    return (total / np.bincount(clips.track, minlength=len(total))[:, None]).astype(np.float32)


def _of_clip(levels: Float32, frame_seconds: float) -> Float64:
    """Return the statistics of one clip from its `levels` in dB (bins, frames)."""
    mfcc = librosa.feature.mfcc(S=levels, n_mfcc=min(MFCCS, len(levels)))
    differences = _differences(mfcc)
    contrast = _contrast(levels)
    parts = (
        mfcc.mean(axis=1),
        mfcc.std(axis=1),
        _skewness(mfcc),
        differences.std(axis=1),
        _differences(differences).std(axis=1),
        contrast.mean(axis=1),
        contrast.std(axis=1),
        _modulation(levels, frame_seconds).ravel(),
    )
    return np.concatenate(parts).astype(np.float64)


def _differences(values: Float32) -> Float32:
    """Return the differences along time, with a zero after the last, so that a single frame has one as well."""
    return np.diff(values, axis=1, append=values[:, -1:])


def _skewness(values: Float32) -> Float32:
    """Return the third standardised moment along time; zero where nothing changes."""
    centred = values - values.mean(axis=1, keepdims=True)
    deviation = np.maximum(centred.std(axis=1, keepdims=True), 1e-3)
    scaled = centred / deviation
    skewness: Float32 = (scaled * scaled * scaled).mean(axis=1)  # a power of 3 takes ten times as long
    return skewness


def _contrast(levels: Float32) -> Float32:
    """Return the mean of the highest fifth of each band minus that of the lowest, in dB: (bands, frames)."""
    bands = [np.sort(band, axis=0) for band in np.array_split(levels, min(_CONTRAST_BANDS, len(levels)))]
    fifths = [max(1, round(len(band) / 5)) for band in bands]
    return np.stack([band[-n:].mean(axis=0) - band[:n].mean(axis=0) for band, n in zip(bands, fifths, strict=True)])


def _modulation(levels: Float32, frame_seconds: float) -> Float64:
    """Return the log of the modulation of each band's mean level in dB, (bands, _RATE_RANGES)."""
    bands = np.stack([band.mean(axis=0) for band in np.array_split(levels, min(_MODULATION_BANDS, len(levels)))])
    window = np.hanning(bands.shape[1] + 2)[1:-1]  # without its zeros
    spectrum = np.abs(np.fft.rfft((bands - bands.mean(axis=1, keepdims=True)) * window, axis=1)) / window.sum()
    rates = np.fft.rfftfreq(bands.shape[1], frame_seconds)
    slowest, fastest = _MODULATION_RATES
    edges = np.geomspace(slowest, min(fastest, 0.5 / frame_seconds), _RATE_RANGES + 1)
    modulation = np.zeros((len(bands), _RATE_RANGES))  # zero where no rate of the spectrum is in a range
    for number, (low, high) in enumerate(itertools.pairwise(edges)):
        inside = (rates >= low) & (rates < high)
        if inside.any():
            modulation[:, number] = spectrum[:, inside].mean(axis=1)
    return np.log(modulation + _SMALLEST_MODULATION)
