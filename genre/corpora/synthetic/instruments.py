"""The instruments and the mix of an artist of the synthetic corpus. They do not depend on the genre.

All waveforms are float32 at `SAMPLE_RATE`, mono, shape (samples,). Complete tracks are computed with sums, products,
divisions, roots and scipy's transforms only, which give the same bits with any vector instructions. NumPy's `exp` and
`tanh` in float32, its matrix products and its complex products do not: the same seed would give other bytes on another
processor. Short tables are computed in float64 and then rounded.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import scipy  # submodules load on first use: every job imports this module for its settings
from numpy.typing import NDArray

from genre.arrays import Float32, Float64

SAMPLE_RATE = 22050  # Hz
_TABLE_BITS = 11
_TABLE = 2**_TABLE_BITS  # samples of one period
_PHASE_BITS = 32  # a period of an oscillator is 2**32 steps, so that the phase wraps around by integer overflow
_PARTIALS = 24
_SINES = np.sin(2 * np.pi * np.arange(1, _PARTIALS + 1)[:, None] * np.arange(_TABLE) / _TABLE)
_FRAME = 32768  # samples transformed at a time
_EQUALISER = 1024  # samples of the equaliser's response on each side of its centre
_TAIL = SAMPLE_RATE // 2  # samples of reverberation


@dataclass(frozen=True, eq=False)
class Timbre:
    """A pitched instrument: strengths of the partials (24,), and an envelope in seconds (sustain: 0 to 1)."""

    partials: Float32
    attack: float
    decay: float
    sustain: float
    release: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Timbre:
        """Draw a random instrument."""
        number = np.arange(1, _PARTIALS + 1)
        strength = number ** -rng.uniform(0.9, 2.2) * rng.uniform(0.5, 1.0, _PARTIALS)
        strength[1::2] *= rng.uniform(0.1, 1.0)  # with weak even partials it sounds hollow
        return cls(
            partials=(strength / np.sqrt(np.sum(strength**2))).astype(np.float32),
            attack=rng.uniform(0.004, 0.03),
            decay=rng.uniform(0.1, 0.5),
            sustain=rng.uniform(0.35, 0.8),
            release=rng.uniform(0.02, 0.06),
        )

    def tone(self, frequency: float, seconds: float) -> Float32:
        """Return a note of `frequency` Hz and `seconds`, with a peak near 1."""
        count = max(1, int(seconds * SAMPLE_RATE))
        step = np.uint32(frequency / SAMPLE_RATE * 2**_PHASE_BITS)
        phase = (np.arange(count, dtype=np.uint32) * step) >> np.uint32(_PHASE_BITS - _TABLE_BITS)
        audible = max(1, min(_PARTIALS, int(0.45 * SAMPLE_RATE / frequency)))
        note = self._periods[audible - 1].take(phase)
        note *= self.sustain + (1 - self.sustain) * _decay(self.decay, count)
        rise, fall = (min(count, int(edge * SAMPLE_RATE)) for edge in (self.attack, self.release))
        note[:rise] *= _ramp(self.attack, rise)
        note[count - fall :] *= _ramp(self.release, fall)[::-1]
        return np.asarray(note)

    @functools.cached_property
    def _periods(self) -> Float32:
        """One period with only the first partial, with the first two, and so on: (24, 2048)."""
        return np.cumsum(self.partials[:, None] * _SINES, axis=0).astype(np.float32)


@dataclass(frozen=True)
class DrumKit:
    """One sound for each stroke of the patterns in `styles`, each with a peak near 1."""

    kick: Float32
    snare: Float32
    hat: Float32
    open_hat: Float32

    @classmethod
    def draw(cls, rng: np.random.Generator) -> DrumKit:
        """Draw a random kit."""
        low, high = np.sort(rng.uniform(3000, 9500, 2))
        return cls(
            kick=_kick(rng.uniform(42, 70), rng.uniform(2, 5), rng.uniform(0.06, 0.16)),
            snare=_snare(rng, rng.uniform(160, 260), rng.uniform(0.05, 0.14), rng.uniform(0.4, 0.9)),
            hat=_noise(rng, 0.1, rng.uniform(0.012, 0.03), low, high + 800),
            open_hat=_noise(rng, 0.35, rng.uniform(0.06, 0.12), low, high + 800),
        )


def _time(seconds: float) -> Float64:
    return np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE


def _decay(seconds: float, count: int) -> Float32:
    """Return `count` samples of a decay by 1/e in `seconds`, as the product of a coarse and a fine table."""
    per_sample, fine = -1 / (seconds * SAMPLE_RATE), 256
    coarse = np.exp(np.arange(0, count, fine) * per_sample).astype(np.float32)
    return np.asarray(
        np.multiply.outer(coarse, np.exp(np.arange(fine) * per_sample).astype(np.float32)).ravel()[:count]
    )


def _ramp(seconds: float, count: int) -> Float32:
    """Return the first `count` samples of a line from 0 to 1 in `seconds`."""
    return np.arange(count, dtype=np.float32) / np.float32(seconds * SAMPLE_RATE)


def _kick(frequency: float, sweep: float, decay: float) -> Float32:
    """Return a sine that falls to `frequency` Hz from `1 + sweep` times that, like a struck drum head."""
    time = _time(4 * decay)
    phase = frequency * (time + sweep * 0.03 * (1 - np.exp(-time / 0.03)))
    return np.sin(2 * np.pi * phase).astype(np.float32) * _decay(decay, len(time))


def _snare(rng: np.random.Generator, frequency: float, decay: float, rattle: float) -> Float32:
    """Return a short tone mixed with noise; `rattle` is the share of the noise."""
    time = _time(4 * decay)
    skin = np.sin(2 * np.pi * frequency * time).astype(np.float32) * _decay(0.6 * decay, len(time))
    wires = _noise(rng, 4 * decay, decay, 900, 8000)
    return np.float32(1 - rattle) * skin + np.float32(rattle) * wires


def _noise(rng: np.random.Generator, seconds: float, decay: float, low: float, high: float) -> Float32:
    """Return noise between `low` and `high` Hz that decays by 1/e in `decay` seconds."""
    count = int(seconds * SAMPLE_RATE)
    size = scipy.fft.next_fast_len(count, real=True)
    frequency = scipy.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    gain = 1 / (1 + (low / np.maximum(frequency, 1)) ** 4 + (frequency / high) ** 4)
    spectrum = scipy.fft.rfft(rng.standard_normal(size, dtype=np.float32))
    noise = scipy.fft.irfft(spectrum * gain.astype(np.float32), size)[:count] * _decay(decay, count)
    return np.asarray(noise / np.max(np.abs(noise)))


@dataclass(frozen=True)
class Room:
    """The effects on the mix: equaliser and reverberation in one response, soft clipping and noise."""

    response: NDArray[np.complex64]  # spectrum of a frame; it delays by `_EQUALISER` samples
    drive: float
    noise: float  # peak

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Room:
        """Draw random effects."""
        tilt = rng.uniform(-2.0, 2.0)
        gains_db = tilt * np.linspace(-4, 4, 9) + rng.uniform(-3, 3, 9)  # at octaves from 43 Hz
        wet, decay = rng.uniform(0.0, 0.5), rng.uniform(0.08, 0.3)
        tail = rng.standard_normal(_TAIL, dtype=np.float32) * _decay(decay, _TAIL)
        tail *= wet / np.sqrt(np.sum(tail**2))
        tail[0] += 1
        return cls(
            response=_product(scipy.fft.rfft(_equaliser(gains_db), _FRAME), scipy.fft.rfft(tail, _FRAME)),
            drive=rng.uniform(0.5, 2.0),
            noise=np.sqrt(3) * 10 ** (rng.uniform(-60, -40) / 20),
        )

    def apply(self, mix: Float32, rng: np.random.Generator) -> Float32:
        """Return `mix`, of any level, with equaliser, reverberation, soft clipping and noise."""
        sound = self._respond(mix)
        sound *= np.float32(0.5 * self.drive) / (np.sqrt(np.mean(sound**2)) + np.float32(1e-9))
        sound /= np.sqrt(1 + sound**2)
        noise = rng.random(len(mix), dtype=np.float32) - np.float32(0.5)
        sound += noise * np.float32(2 * self.noise)
        return sound

    def _respond(self, mix: Float32) -> Float32:
        """Return the convolution of `mix` with the response, by overlapping frames."""
        hop = _FRAME - (2 * _EQUALISER + _TAIL)
        frames = -(-len(mix) // hop)
        parts = np.zeros((frames, hop), np.float32)
        parts.reshape(-1)[: len(mix)] = mix
        parts = scipy.fft.irfft(_product(scipy.fft.rfft(parts, _FRAME), self.response), _FRAME)
        sound = np.zeros((frames - 1) * hop + _FRAME, np.float32)
        for number, part in enumerate(parts):
            sound[number * hop : number * hop + _FRAME] += part
        return sound[_EQUALISER : _EQUALISER + len(mix)]


def _equaliser(gains_db: Float64) -> Float32:
    """Return the impulse response to gains at nine octaves from 43 Hz: symmetric around sample `_EQUALISER`."""
    octave = np.log2(np.maximum(scipy.fft.rfftfreq(_FRAME, 1 / SAMPLE_RATE), 20) / 43)
    response = scipy.fft.irfft(10 ** (np.interp(octave, np.arange(9), gains_db) / 20), _FRAME)
    return np.asarray(np.roll(response, _EQUALISER)[: 2 * _EQUALISER].astype(np.float32))


def _product(spectra: NDArray[np.complex64], response: NDArray[np.complex64]) -> NDArray[np.complex64]:
    """Return the product with every step rounded; NumPy's fuses two of them on some processors."""
    product = np.empty_like(spectra)
    product.real = spectra.real * response.real - spectra.imag * response.imag
    product.imag = spectra.real * response.imag + spectra.imag * response.real
    return product


@dataclass(frozen=True)
class Artist:
    """What all tracks of an artist have in common: instruments, levels, effects, mode and timing."""

    bass: Timbre
    chords: Timbre
    lead: Timbre
    drums: DrumKit
    room: Room
    levels_db: dict[str, float]
    minor: bool
    jitter: float  # seconds, standard deviation of the players' timing

    @classmethod
    @functools.lru_cache(maxsize=64)  # an artist plays many tracks; an entry is 0.5 MB
    def draw(cls, seed: int) -> Artist:
        """Draw a random artist."""
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
