"""Audio files in several formats from a waveform, and damaged files, for the synthetic corpus."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy  # submodules load on first use: every job imports this module for its settings
import soundfile
import soxr

from genre.arrays import Float32
from genre.corpora.synthetic.instruments import SAMPLE_RATE


@dataclass(frozen=True)
class Container:
    """A file format and its encoding, in libsndfile's names."""

    extension: str
    format: str
    subtype: str


_WAV_16 = Container("wav", "WAV", "PCM_16")
_WAV_24 = Container("wav", "WAV", "PCM_24")
_WAV_FLOAT = Container("wav", "WAV", "FLOAT")
_FLAC = Container("flac", "FLAC", "PCM_16")
_OGG = Container("ogg", "OGG", "VORBIS")
_MP3 = Container("mp3", "MP3", "MPEG_LAYER_III")

# Probabilities. MP3 and Vorbis are rare because encoding takes 30 and 10 times as long as for the others, and longer
# than composing.
_CONTAINERS = {_WAV_16: 0.45, _WAV_24: 0.08, _WAV_FLOAT: 0.06, _FLAC: 0.34, _OGG: 0.04, _MP3: 0.03}
_RATES = {16000: 0.15, 22050: 0.25, 32000: 0.15, 44100: 0.3, 48000: 0.15}  # Hz
_BLOCK = 65536  # frames; libsndfile's Vorbis encoder overflows the stack when it gets a long file at once


@dataclass(frozen=True)
class Form:
    """The file format of a track. It is drawn independently of genre and artist, so it reveals nothing about them."""

    container: Container
    rate: int  # Hz
    pan: float | None  # -1 left to 1 right; None: mono

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Form:
        """Draw a random format."""
        return cls(
            container=list(_CONTAINERS)[rng.choice(len(_CONTAINERS), p=list(_CONTAINERS.values()))],
            rate=int(rng.choice(list(_RATES), p=list(_RATES.values()))),
            pan=float(rng.uniform(-0.3, 0.3)) if rng.random() < 0.5 else None,
        )


def encode(audio: Float32, form: Form) -> bytes:
    """Return `audio`, mono at `SAMPLE_RATE`, as a file of the given form."""
    sound = np.clip(soxr.resample(audio, SAMPLE_RATE, form.rate), -1, 1)
    if form.pan is not None:
        sides = np.array([1 - form.pan, 1 + form.pan], dtype=np.float32) / np.float32(1 + abs(form.pan))
        sound = sound[:, None] * sides
    return _write(sound, form.rate, form.container)


def _write(sound: Float32, rate: int, container: Container) -> bytes:
    """Return a file of `sound`, shape (frames,) or (frames, channels)."""
    buffer = io.BytesIO()
    if container is _WAV_FLOAT:  # libsndfile would write the time of day into it
        scipy.io.wavfile.write(buffer, rate, sound.astype(np.float32))
        return buffer.getvalue()
    with soundfile.SoundFile(
        buffer, "w", rate, np.atleast_2d(sound.T).shape[0], container.subtype, format=container.format
    ) as file:
        for start in range(0, len(sound), _BLOCK):
            file.write(sound[start : start + _BLOCK])
    return buffer.getvalue()


@dataclass(frozen=True)
class Damage:
    """A file that must end in the rejects, and its extension."""

    extension: str
    make: Callable[[], bytes]


def _tone() -> Float32:
    """Return three seconds of a sine tone, which is then damaged."""
    time = np.arange(3 * SAMPLE_RATE) / SAMPLE_RATE
    return np.asarray(0.3 * np.sin(2 * np.pi * 220 * time), dtype=np.float32)


def _truncated() -> bytes:
    content = _write(_tone(), SAMPLE_RATE, _FLAC)
    return content[: len(content) // 4]


def _not_a_number() -> bytes:
    sound = _tone()
    sound[SAMPLE_RATE : SAMPLE_RATE + 100] = np.nan
    return _write(sound, SAMPLE_RATE, _WAV_FLOAT)


DAMAGES: dict[str, Damage] = {
    "empty": Damage("mp3", lambda: b""),
    "truncated": Damage("flac", _truncated),
    "text": Damage("wav", lambda: b"This is not music.\n" * 100),
    "silent": Damage("wav", lambda: _write(np.zeros(3 * SAMPLE_RATE, np.float32), SAMPLE_RATE, _WAV_16)),
    "nan": Damage("wav", _not_a_number),
    "short": Damage("wav", lambda: _write(_tone()[: SAMPLE_RATE // 20], SAMPLE_RATE, _WAV_16)),
}
