"""Measure how many near copies `prepare` finds, how many different tracks it takes for copies, and what it costs.

    python benchmarks/near_copies.py MUSIC [--every 4] [--settings '{"spectrogram": {"n_mels": 40}}']

MUSIC is a folder of different tracks. Every fourth is changed in several ways, and the changed track is compared with
the original: the table has the landmarks that they share at one distance in time. Then all originals are compared with
each other. The cost is that of the sketch as a share of decoding and spectrogram, in CPU time of one thread.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import soundfile
import soxr

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from genre.audio import recordings
from genre.errors import AudioError
from genre.evaluation import changes
from genre.evaluation.changes import Sound, encode_mp3
from genre.features.preparing import near_copies, sketches
from genre.features.preparing.tracks import TrackPreparer
from genre.features.recipe import Recipe
from genre.settings import Config

_BLOCK = 65536  # frames; libsndfile's Vorbis encoder overflows the stack when it gets a long file at once


def encode(sound: Sound, container: str, **options: float) -> bytes:
    file = io.BytesIO()
    subtype = {"WAV": "PCM_16", "OGG": "VORBIS"}[container]
    shape = sound.sample_rate, sound.samples.shape[1]
    with soundfile.SoundFile(file, "w", *shape, subtype, format=container, **options) as target:
        for begin in range(0, len(sound.samples), _BLOCK):
            target.write(sound.samples[begin : begin + _BLOCK])
    return file.getvalue()


def at_rate(sound: Sound, rate: int) -> Sound:
    return Sound(soxr.resample(sound.samples, sound.sample_rate, rate, quality="HQ"), rate)


def copies(sound: Sound, rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the file of each change; starts are cut anywhere, not at multiples of a frame."""

    def cut(source: Sound, low: float, high: float) -> Sound:
        return replace(source, samples=source.samples[int(rng.uniform(low, high) * source.sample_rate) :])

    seconds, cd = len(sound.samples) / sound.sample_rate, at_rate(sound, 44100)
    yield "mp3, 128 kbit/s", encode_mp3(cd, 128)
    yield "mp3, 64 kbit/s", encode_mp3(cd, 64)
    yield "Ogg Vorbis, quality 3", encode(sound, "OGG", compression_level=0.7)
    yield "-6 dB", encode(changes.change_level(sound, -6.0), "WAV")
    yield "at 44.1 kHz", encode(cd, "WAV")
    yield "at 16 kHz", encode(at_rate(sound, 16000), "WAV")
    if seconds < 8:
        yield "0.5 to 1 s cut, of 2 to 8 s", encode(cut(sound, 0.5, 1), "WAV")
    else:
        yield "0.5 to 5 s cut", encode(cut(sound, 0.5, 5), "WAV")
        yield "the same, mp3, 128 kbit/s, -6 dB", encode_mp3(cut(changes.change_level(cd, -6.0), 0.5, 5), 128)


class Sketcher:
    """Makes the sketch of a file, and adds up the CPU seconds."""

    def __init__(self, recipe: Recipe) -> None:
        self._preparer, self._recipe = TrackPreparer(recipe), recipe
        self.decoding = self.sketching = 0.0

    def __call__(self, content: bytes) -> bytes | None:
        began = time.thread_time()
        track = self._preparer.track(recordings.load(content, self._recipe.audio, self._recipe.decoding))
        decoded = time.thread_time()
        made = sketches.sketch(track.clips, track.end_seconds, self._recipe.shape())
        self.decoding, self.sketching = self.decoding + decoded - began, self.sketching + time.thread_time() - decoded
        return made


def shared(made: list[bytes | None], pairs: np.ndarray) -> list[int]:
    """Return what the pairs (pairs, 2) of sketches share at one distance in time."""
    column = pa.chunked_array([made], pa.binary())
    return [n for begin in range(0, len(pairs), 1024) for n in near_copies.aligned(column, pairs[begin : begin + 1024])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("music")
    parser.add_argument("--every", type=int, default=4)
    parser.add_argument("--settings", type=json.loads, default={})
    options = parser.parse_args()
    sketch, rng = Sketcher(Recipe.of(Config.model_validate(options.settings))), np.random.default_rng(0)
    originals: list[bytes | None] = []
    of_change: dict[str, list[int]] = defaultdict(list)
    for path in sorted(
        each for each in Path(options.music).rglob("*") if each.suffix in (".wav", ".flac", ".ogg", ".mp3")
    ):
        try:
            originals.append(sketch(path.read_bytes()))
        except AudioError as error:
            print(f"{path}: {error}", file=sys.stderr)
            continue
        if originals[-1] and len(originals) % options.every == 1:
            for name, content in copies(changes.read(str(path)), rng):
                copy = sketch(content)
                of_change[name] += shared([originals[-1], copy], np.array([[0, 1]])) if copy else [0]
    for name, counts in of_change.items():
        found = np.mean(np.array(counts) >= near_copies.LEAST)
        print(f"{name:<34}{len(counts):>5} copies{np.median(counts):>5.0f} shared{found:>8.3f} found")
    rows = np.array([row for row, made in enumerate(originals) if made])
    sketched = [originals[row] for row in rows]
    pairs = near_copies.sharing(pa.chunked_array([sketched], pa.binary()), np.arange(len(sketched)), least=1)
    print(f"{len(originals)} tracks, {len(originals) - len(rows)} without a sketch; pairs by what they share: ", end="")
    print({int(n): count for n, count in sorted(Counter(shared(sketched, pairs)).items())})
    print(f"cost: {sketch.sketching / sketch.decoding:.4f} of decoding and spectrogram")


if __name__ == "__main__":
    main()
