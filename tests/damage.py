"""Audio files with the faults that old collections have, and unusual ones that are valid.

    paths = damage.write(folder, count=500, seed=0)       # files on disk, for jobs
    for case in damage.cases(count=500, seed=0): ...      # the same in memory, with the expected results

Equal arguments give equal files, but for Ogg, whose stream number libsndfile draws at random.
"""

from __future__ import annotations

import io
import itertools
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import av
import numpy as np
import soundfile

SECONDS = 3.0
CLIPS = "clips"  # the outcome of a file that gives features

# container: soundfile's format and subtype
CONTAINERS = {
    "wav": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "aiff": ("AIFF", "PCM_16"),
    "au": ("AU", "PCM_16"),
}
SUBTYPES = ("PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM")
RATES = (8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000, 88200, 96000)
CHANNELS = (1, 2, 3, 4, 6, 8)
NAMES = (
    "сестра моя жизнь",
    "音楽 – 第九",
    "naïve café",
    "a b\tc",
    "'quoted' & (odd) #1 %20",
    "x" * 240,
    "é" * 120,
    "-rf",
)


@dataclass(frozen=True)
class Case:
    """A file: its fault, name and bytes, and the possible outcomes: `CLIPS` or reason codes, None for any of them."""

    fault: str
    name: str
    content: bytes
    outcome: frozenset[str] | None = None


def music(rate: int = 22050, channels: int = 1, seconds: float = SECONDS, seed: int = 0) -> np.ndarray:
    """Return beats and a tune with overtones, shape (frames, channels), within -1 and 1."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(rate * seconds)) / rate
    overtones = (np.sin(2 * np.pi * 220 * k * time) * np.exp(-4 * (time % (0.5 / k))) / k for k in range(1, 6))
    tune = sum(overtones, start=np.zeros(len(time)))
    beats = rng.standard_normal((len(time), channels)) * np.exp(-30 * (time % 0.25))[:, None]
    sound = 0.3 * tune[:, None] + 0.15 * beats
    return np.asarray(0.8 * sound / np.abs(sound).max())


def encoded(samples: np.ndarray, rate: int, container: str = "wav", subtype: str | None = None) -> bytes:
    """Return samples (frames, channels) as a file."""
    form, usual = CONTAINERS[container]
    target = io.BytesIO()
    soundfile.write(target, samples, rate, format=form, subtype=subtype or usual)
    return target.getvalue()


def cases(count: int = 500, seed: int = 0) -> Iterator[Case]:
    """Yield `count` files, with all kinds of faults in turn."""
    kinds: list[Callable[[np.random.Generator, int], Case]] = [
        _truncated, _flipped, _header_edited, _wrong_extension, _odd_subtype, _odd_rate, _many_channels, _odd_name,
        _blanked, _not_audio, _absurd, _bad_samples, _live, _joined, _mpeg4,
    ]  # fmt: skip
    rng = np.random.default_rng(seed)
    for number, kind in zip(range(count), itertools.cycle(kinds)):
        yield kind(rng, number)


def write(folder: Path, count: int = 500, seed: int = 0) -> list[Path]:
    """Write the cases below `folder` under unique names and return their paths."""
    paths = []
    for number, case in enumerate(cases(count, seed)):
        path = folder / case.fault / f"{number:04d} {case.name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(case.content)
        paths.append(path)
    return paths


@cache
def sound_file(container: str, seed: int = 0) -> bytes:
    """Return a file without a fault: `SECONDS` of stereo at 22,050 Hz."""
    samples = music(channels=2, seed=seed)
    return mpeg4(samples, 22050) if container == "m4a" else encoded(samples, 22050, container)


def mpeg4(samples: np.ndarray, rate: int) -> bytes:
    """Return samples (frames, channels) as AAC in an MPEG-4 file, written by PyAV."""
    target = io.BytesIO()
    with av.open(target, mode="w", format="mp4") as container:
        stream = container.add_stream("aac", rate=rate, layout="stereo" if samples.shape[1] == 2 else "mono")
        packed = np.ascontiguousarray(samples.T, dtype=np.float32)
        for start in range(0, len(samples), 1024):
            frame = av.AudioFrame.from_ndarray(packed[:, start : start + 1024], "fltp", stream.layout.name)
            frame.sample_rate, frame.pts = rate, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return target.getvalue()


def _pick(rng: np.random.Generator) -> tuple[str, bytes]:
    container = str(rng.choice(list(CONTAINERS)))
    return container, sound_file(container, int(rng.integers(8)))


def _truncated(rng: np.random.Generator, number: int) -> Case:
    container, content = _pick(rng)
    return Case("truncated", f"cut.{container}", content[: int(len(content) * rng.uniform(0, 1))])


def _flipped(rng: np.random.Generator, number: int) -> Case:
    container, content = _pick(rng)
    bits = np.unpackbits(np.frombuffer(content, np.uint8))
    bits[rng.integers(0, len(bits), int(10 ** rng.uniform(0, 4)))] ^= 1
    return Case("flipped", f"bits.{container}", np.packbits(bits).tobytes())


def _header_edited(rng: np.random.Generator, number: int) -> Case:
    container, content = _pick(rng)
    edited = bytearray(content)
    for position in rng.integers(0, 64, rng.integers(1, 6)):
        edited[position] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, int(rng.integers(256))])
    return Case("header", f"header.{container}", bytes(edited))


def _wrong_extension(rng: np.random.Generator, number: int) -> Case:
    _, content = _pick(rng)
    return Case("extension", f"wrong.{rng.choice([*CONTAINERS, 'm4a'])}", content, frozenset({CLIPS}))


def _odd_subtype(rng: np.random.Generator, number: int) -> Case:
    subtype = SUBTYPES[number % len(SUBTYPES)]
    samples = music(channels=int(rng.integers(1, 3)), seed=number)
    if subtype in ("FLOAT", "DOUBLE"):
        samples = samples * 10 ** rng.uniform(-2, 2)  # samples far beyond full scale are valid
    return Case("subtype", f"{subtype}.wav", encoded(samples, 22050, "wav", subtype), frozenset({CLIPS}))


def _odd_rate(rng: np.random.Generator, number: int) -> Case:
    rate, container = int(rng.choice(RATES)), str(rng.choice(["wav", "flac", "aiff", "au"]))
    samples = music(rate, int(rng.integers(1, 3)), seed=number)
    return Case("rate", f"{rate}.{container}", encoded(samples, rate, container), frozenset({CLIPS}))


def _many_channels(rng: np.random.Generator, number: int) -> Case:
    channels, container = int(rng.choice(CHANNELS)), str(rng.choice(["wav", "flac", "aiff"]))
    content = encoded(music(channels=channels, seed=number), 22050, container)
    return Case("channels", f"{channels}ch.{container}", content, frozenset({CLIPS}))


def _odd_name(rng: np.random.Generator, number: int) -> Case:
    container, content = _pick(rng)
    return Case("name", f"{NAMES[number % len(NAMES)]}.{container}", content, frozenset({CLIPS}))


def _blanked(rng: np.random.Generator, number: int) -> Case:
    """Replace a part of the file, or all of it, by zeros or noise, as a bad disk does."""
    container, content = _pick(rng)
    kind = number % 4
    if kind == 0:
        return Case("blanked", f"zero.{container}", b"", frozenset({"empty"}))
    if kind == 1:
        return Case("blanked", f"zeros.{container}", bytes(len(content)), frozenset({"unsupported", "unreadable"}))
    start, length = int(rng.integers(0, len(content))), int(rng.integers(1, len(content)))
    hole = bytes(length) if kind == 2 else rng.bytes(length)
    return Case("blanked", f"hole.{container}", (content[:start] + hole + content[start + length :])[: len(content)])


def _not_audio(rng: np.random.Generator, number: int) -> Case:
    contents = [
        b"<html><body>404 Not Found</body></html>\n",
        b"\x89PNG\r\n\x1a\n" + rng.bytes(3000),
        b"\x00\x05\x16\x07" + bytes(4092),  # what macOS writes next to a file
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        b"RIFF\x24\x00\x00\x00WAVE",
        b"fLaC",
        b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f",
        b"\x00\x00\x00\x20ftypM4A " + rng.bytes(2000),
        b"\xff\xf1" + rng.bytes(4000),
        rng.bytes(int(rng.integers(1, 20000))),
    ]
    return Case("not_audio", "page.mp3", contents[number % len(contents)])


def _absurd(rng: np.random.Generator, number: int) -> Case:
    """Return headers that declare years of sound, thousands of channels or impossible rates."""
    kind = number % 4
    if kind == 0:
        flac = bytearray(sound_file("flac"))
        flac[21:26] = bytes([flac[21] | 0x0F, 0xFF, 0xFF, 0xFF, 0xFF])  # 2^36 - 1 samples
        return Case("absurd", "years.flac", bytes(flac), frozenset({"absurd_header"}))
    wav = bytearray(sound_file("wav"))
    if kind == 1:
        struct.pack_into("<H", wav, 22, int(rng.integers(1025, 65536)))
    elif kind == 2:
        struct.pack_into("<I", wav, 24, int(rng.integers(10**6, 2**31)))
    else:
        struct.pack_into("<I", wav, 40, int(rng.integers(2**28, 2**30)))
    refused = frozenset({"absurd_header", "unreadable", "unsupported", "truncated"})
    return Case("absurd", "header.wav", bytes(wav), refused)


def _bad_samples(rng: np.random.Generator, number: int) -> Case:
    samples = music(channels=2, seed=number)
    kind = ("nan", "inf", "silent", "hum", "short", "nothing", "opposite", "offset")[number % 8]
    outcome = {"nan": "non_finite", "inf": "non_finite", "silent": "silent", "hum": "silent", "short": "too_short",
               "nothing": "empty", "opposite": CLIPS, "offset": CLIPS}[kind]  # fmt: skip
    if kind in ("nan", "inf"):
        samples[rng.integers(0, len(samples)), rng.integers(0, 2)] = np.nan if kind == "nan" else -np.inf
    elif kind in ("silent", "hum"):
        samples = samples * (0 if kind == "silent" else 1e-5)
    elif kind in ("short", "nothing"):
        samples = samples[: int(rng.integers(50, 10000)) if kind == "short" else 0]
    elif kind == "opposite":
        samples[:, 1] = -samples[:, 0]
    else:
        samples = 0.3 * samples + 0.5
    return Case("samples", f"{kind}.wav", encoded(samples, 22050, "wav", "FLOAT"), frozenset({outcome}))


def _live(rng: np.random.Generator, number: int) -> Case:
    """Return files without a valid length: from a recorder that crashed, from a pipe, MP3 without a Xing header."""
    kind = number % 4
    if kind == 3:
        return Case("live", "bare.mp3", bare_mp3(seed=number), frozenset({CLIPS}))
    wav = bytearray(sound_file("wav"))
    struct.pack_into("<I", wav, 40, (0, 0xFFFFFFFF, 0x7FFFFFFF)[kind])
    if kind == 0:
        struct.pack_into("<I", wav, 4, 0)
    return Case("live", "stream.wav", bytes(wav), frozenset({CLIPS}))


def _joined(rng: np.random.Generator, number: int) -> Case:
    """Add tags, padding or a second file before or after a valid file."""
    container, content = _pick(rng)
    tail = [bytes(1000), b"TAG" + bytes(125), sound_file("wav"), rng.bytes(500)][number % 4]
    if container == "mp3" and number % 2:
        return Case(
            "joined", "tagged.mp3", b"ID3\x03\x00\x00\x00\x00\x07\x68" + bytes(1000) + content, frozenset({CLIPS})
        )
    return Case("joined", f"tail.{container}", content + tail, frozenset({CLIPS}) if container != "ogg" else None)


def _mpeg4(rng: np.random.Generator, number: int) -> Case:
    content = sound_file("m4a", int(rng.integers(4)))
    if number % 2:
        return Case("mpeg4", "cut.m4a", content[: int(len(content) * rng.uniform(0, 1))])
    edited = np.frombuffer(content, np.uint8).copy()
    edited[rng.integers(0, len(edited), int(10 ** rng.uniform(0, 2.5)))] ^= 0xFF
    return Case("mpeg4", "bits.m4a", edited.tobytes())


def bare_mp3(seconds: float = SECONDS, seed: int = 0) -> bytes:
    """Return a variable-rate MP3 without the frame that declares its length, loud at first and then quiet."""
    samples = music(44100, 2, seconds, seed)
    samples[len(samples) // 3 :] *= 1e-3
    content = encoded(samples, 44100, "mp3")
    tag = content.index(b"Xing")
    return content[content.index(content[:2], tag) :]
