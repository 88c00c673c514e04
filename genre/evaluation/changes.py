"""Changes of a recording that happen to real files: noise, lossy encoding, another level, another speed.

A change acts on the decoded file at its own sample rate and with its own channels. Afterwards the changed file goes
through mixing down, resampling, trimming, normalisation and cutting like every other file.

    noise 20 dB     white noise, 20 dB below the track's mean power; the same on all channels, so that mixing down
                    does not weaken it
    mp3 64 kbit/s   encoded by LAME at a constant 64 kbit/s for all channels together, and decoded again
    -12 dB          a quarter of the amplitude; shows whether the level of a file matters
    5 % faster      played faster, which raises the pitch by 5 % (0.84 semitones) and the tempo with it

Every change is deterministic: the same file gives the same result on every machine.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import soundfile
import soxr

from genre.arrays import Float32
from genre.audio import recordings
from genre.audio.decoders import Block, open_stream
from genre.settings import DecodingSettings


@dataclass(frozen=True)
class Sound:
    """A decoded file: samples (frames, channels), full scale 1, at its own rate in Hz."""

    samples: Float32
    sample_rate: int


Change = Callable[[Sound], Sound]

# MPEG layer III: its sample rates in Hz, and the lowest and highest bit rate in kbit/s from each sample rate upwards
_MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_MP3_BIT_RATES = {32000: (32, 320), 16000: (8, 160), 0: (8, 64)}


def read(address: str, limits: DecodingSettings = DecodingSettings()) -> Sound:
    """Decode a complete file: changes need all channels at the file's own rate. Raises `AudioError`."""
    with open_stream(recordings.read(address)) as stream:
        blocks = [_full_scale(block) for block in recordings.limited(stream, limits)]
        samples = np.concatenate(blocks) if blocks else np.zeros((0, stream.channels), np.float32)
        return Sound(samples, stream.sample_rate)


def add_noise(sound: Sound, snr_db: float = 20.0) -> Sound:
    """Add white Gaussian noise `snr_db` below the mean power of the mono mix, the same on every channel."""
    power = float(np.mean(np.square(sound.samples.mean(axis=1, dtype=np.float64))))
    noise = np.random.default_rng(0).standard_normal((len(sound.samples), 1), dtype=np.float32)
    return replace(sound, samples=sound.samples + noise * np.float32(np.sqrt(power) * 10 ** (-snr_db / 20)))


def change_level(sound: Sound, gain_db: float = -12.0) -> Sound:
    """Multiply every sample by a gain; nothing clips, since samples are floating point."""
    return replace(sound, samples=sound.samples * np.float32(10 ** (gain_db / 20)))


def change_speed(sound: Sound, factor: float = 1.05) -> Sound:
    """Resample to 1 / `factor` of the length at the same rate: tempo and pitch change together."""
    return replace(sound, samples=_resample(sound.samples, sound.sample_rate * factor, sound.sample_rate))


def through_mp3(sound: Sound, kbit_s: int = 64) -> Sound:
    """Encode as MP3 of constant bit rate and decode again; libsndfile removes the encoder's delay."""
    encoded = encode_mp3(sound, kbit_s)
    return Sound(*soundfile.read(io.BytesIO(encoded), dtype="float32", always_2d=True))


def encode_mp3(sound: Sound, kbit_s: int = 64) -> bytes:
    """Return `sound` as an MP3 file.

    A rate that MP3 lacks is lowered to the next one that it has; more than two channels are mixed to one.
    """
    samples = sound.samples
    if samples.shape[1] > 2:
        samples = samples.mean(axis=1, keepdims=True)
    rate = max((known for known in _MP3_RATES if known <= sound.sample_rate), default=_MP3_RATES[0])
    if rate != sound.sample_rate:
        samples = _resample(samples, sound.sample_rate, rate)
    low, high = next(bounds for start, bounds in _MP3_BIT_RATES.items() if rate >= start)
    file = io.BytesIO()
    soundfile.write(
        file,
        samples,
        rate,
        format="MP3",
        subtype="MPEG_LAYER_III",
        bitrate_mode="CONSTANT",
        # libsndfile maps 0..1 to the bit rates that the sample rate allows, highest first
        compression_level=min(max((high - kbit_s) / (high - low), 0.0), 1.0),
    )
    return file.getvalue()


CHANGES: dict[str, Change] = {
    "noise 20 dB": add_noise,
    "mp3 64 kbit/s": through_mp3,
    "-12 dB": change_level,
    "5 % faster": change_speed,
}


def _full_scale(block: Block) -> Float32:
    """Return a copy of a block, which the next one may overwrite, as float32 of full scale 1."""
    scale = np.float32(1 / 32768 if block.dtype == np.int16 else 1)
    scaled: Float32 = block * scale
    return scaled


def _resample(samples: Float32, rate: float, target: float) -> Float32:
    """Resample (frames, channels) by soxr, at rates that need not be integers."""
    resampled: Float32 = soxr.resample(samples, rate, target, quality="HQ")
    return resampled
