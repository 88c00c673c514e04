"""How the synthetic corpus sounds: one artist's instruments and mixing habits. Nothing here knows a genre.

All waveforms are float32 at `SAMPLE_RATE`, mono, shape (samples,).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy  # which loads its parts when they are used: every job imports this module for its settings
from numpy.typing import NDArray

Audio = NDArray[np.float32]

SAMPLE_RATE = 22050  # Hz
_TABLE = 2048  # samples of one period
_PARTIALS = 24
_SINES = np.sin(
    2 * np.pi * np.arange(1, _PARTIALS + 1)[:, None] * np.arange(_TABLE)[None, :] / _TABLE,
).astype(np.float32)


@dataclass(frozen=True)
class Timbre:
    """A pitched instrument: strengths of the partials (24,), and an envelope in seconds (sustain: 0 to 1)."""

    partials: Audio
    attack: float
    decay: float
    sustain: float
    release: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Timbre:
        number = np.arange(1, _PARTIALS + 1)
        strength = number ** -rng.uniform(0.9, 2.2) * rng.uniform(0.5, 1.0, _PARTIALS)
        strength[1::2] *= rng.uniform(0.1, 1.0)  # few even partials sound hollow
        return cls(
            partials=(strength / np.sqrt(np.sum(strength**2))).astype(np.float32),
            attack=rng.uniform(0.004, 0.03),
            decay=rng.uniform(0.1, 0.5),
            sustain=rng.uniform(0.35, 0.8),
            release=rng.uniform(0.02, 0.06),
        )

    def tone(self, frequency: float, seconds: float) -> Audio:
        """One note of `frequency` Hz that sounds for `seconds`, at a peak near 1."""
        audible = max(1, min(_PARTIALS, int(0.45 * SAMPLE_RATE / frequency)))
        period = self.partials[:audible] @ _SINES[:audible]
        count = max(1, int(seconds * SAMPLE_RATE))
        phase = (np.arange(count) * (frequency * _TABLE / SAMPLE_RATE)).astype(np.int64) % _TABLE
        return np.asarray(period[phase] * self._envelope(count))

    def _envelope(self, count: int) -> Audio:
        time = np.arange(count, dtype=np.float32) / SAMPLE_RATE
        level = self.sustain + (1 - self.sustain) * np.exp(-time / np.float32(self.decay))
        rise = np.minimum(1, time / np.float32(self.attack))
        fall = np.minimum(1, time[::-1] / np.float32(self.release))
        return np.asarray(level * rise * fall, dtype=np.float32)


@dataclass(frozen=True)
class DrumKit:
    """One sound for each stroke that `_styles` can write, each at a peak near 1."""

    kick: Audio
    snare: Audio
    hat: Audio
    open_hat: Audio

    @classmethod
    def draw(cls, rng: np.random.Generator) -> DrumKit:
        low, high = np.sort(rng.uniform(3000, 9500, 2))
        return cls(
            kick=_kick(rng.uniform(42, 70), rng.uniform(2, 5), rng.uniform(0.06, 0.16)),
            snare=_snare(rng, rng.uniform(160, 260), rng.uniform(0.05, 0.14), rng.uniform(0.4, 0.9)),
            hat=_noise(rng, 0.1, rng.uniform(0.012, 0.03), low, high + 800),
            open_hat=_noise(rng, 0.35, rng.uniform(0.06, 0.12), low, high + 800),
        )


def _time(seconds: float) -> Audio:
    return np.arange(int(seconds * SAMPLE_RATE), dtype=np.float32) / np.float32(SAMPLE_RATE)


def _kick(frequency: float, sweep: float, decay: float) -> Audio:
    """A sine that falls to `frequency` Hz from `1 + sweep` times it, as a struck skin does."""
    time = _time(4 * decay)
    phase = frequency * (time + sweep * 0.03 * (1 - np.exp(-time / 0.03)))
    return np.asarray(np.sin(2 * np.pi * phase) * np.exp(-time / decay), dtype=np.float32)


def _snare(rng: np.random.Generator, frequency: float, decay: float, rattle: float) -> Audio:
    time = _time(4 * decay)
    skin = np.sin(2 * np.pi * frequency * time) * np.exp(-time / (0.6 * decay))
    wires = _noise(rng, 4 * decay, decay, 900, 8000)
    return np.asarray((1 - rattle) * skin + rattle * wires, dtype=np.float32)


def _noise(rng: np.random.Generator, seconds: float, decay: float, low: float, high: float) -> Audio:
    """Noise between `low` and `high` Hz that falls by 1/e in `decay` seconds."""
    time = _time(seconds)
    spectrum = scipy.fft.rfft(rng.standard_normal(len(time), dtype=np.float32))
    frequency = scipy.fft.rfftfreq(len(time), 1 / SAMPLE_RATE)
    spectrum /= 1 + (low / np.maximum(frequency, 1)) ** 4 + (frequency / high) ** 4
    noise = scipy.fft.irfft(spectrum, len(time)) * np.exp(-time / decay)
    return np.asarray(noise / np.max(np.abs(noise)), dtype=np.float32)


@dataclass(frozen=True)
class Room:
    """The end of the chain: equaliser (dB at octave-spaced centres), reverberation, drive and noise floor."""

    gains_db: NDArray[np.float64]
    wet: float
    decay: float
    drive: float
    noise_db: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Room:
        tilt = rng.uniform(-2.0, 2.0)
        return cls(
            gains_db=tilt * np.linspace(-4, 4, 9) + rng.uniform(-3, 3, 9),
            wet=rng.uniform(0.0, 0.5),
            decay=rng.uniform(0.08, 0.3),
            drive=rng.uniform(0.5, 2.0),
            noise_db=rng.uniform(-60, -40),
        )

    def apply(self, mix: Audio, rng: np.random.Generator) -> Audio:
        """`mix`, at any level, as it leaves this room: equalised, reverberant, softly clipped and a little noisy."""
        size = scipy.fft.next_fast_len(len(mix) + SAMPLE_RATE // 2, real=True)
        response = self._equaliser(size) * (1 + self.wet * self._reverberation(size, rng))
        heard = scipy.fft.irfft(scipy.fft.rfft(mix, size) * response.astype(np.complex64), size)[: len(mix)]
        heard *= self.drive / (np.sqrt(np.mean(heard**2)) + 1e-9)
        noise = rng.standard_normal(len(mix), dtype=np.float32) * np.float32(10 ** (self.noise_db / 20))
        return np.asarray(np.tanh(heard * np.float32(0.5)) + noise, dtype=np.float32)

    def _equaliser(self, size: int) -> NDArray[np.float64]:
        octave = np.log2(np.maximum(scipy.fft.rfftfreq(size, 1 / SAMPLE_RATE), 20) / 43)
        return np.asarray(10 ** (np.interp(octave, np.arange(9), self.gains_db) / 20))

    def _reverberation(self, size: int, rng: np.random.Generator) -> NDArray[np.complex64]:
        time = _time(0.5)
        tail = rng.standard_normal(len(time), dtype=np.float32) * np.exp(-time / np.float32(self.decay))
        return np.asarray(scipy.fft.rfft(tail / np.sqrt(np.sum(tail**2)), size))


@dataclass(frozen=True)
class Artist:
    """What an artist's tracks have in common, whatever the genre: instruments, levels, room, mode, looseness."""

    bass: Timbre
    chords: Timbre
    lead: Timbre
    drums: DrumKit
    room: Room
    levels_db: dict[str, float]
    minor: bool
    jitter: float  # seconds, standard deviation of the players' timing

    @classmethod
    def draw(cls, seed: int) -> Artist:
        rng = np.random.default_rng(seed)
        layers = ("kick", "snare", "hat", "bass", "chords", "lead")
        return cls(
            bass=Timbre.draw(rng),
            chords=Timbre.draw(rng),
            lead=Timbre.draw(rng),
            drums=DrumKit.draw(rng),
            room=Room.draw(rng),
            levels_db={layer: float(rng.uniform(-4, 4)) for layer in layers},
            minor=bool(rng.random() < 0.5),
            jitter=float(rng.uniform(0.002, 0.008)),
        )
