"""A music library as people have it: artist and album folders, six containers, and tags with realistic mess."""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av
import mutagen
import numpy as np
import soundfile
from damage import mpeg4
from mutagen import apev2, id3

from genre.audio import tags as own_tags
from genre.corpora.synthetic.compose import compose
from genre.corpora.synthetic.instruments import SAMPLE_RATE
from genre.storage import Location

CONTAINERS = ("mp3", "flac", "ogg", "m4a", "wav", "aiff")
RATE = 22050
_FRAMES = {"genre": "TCON", "artist": "TPE1", "albumartist": "TPE2", "album": "TALB", "title": "TIT2"}
_MP4 = {"genre": "\xa9gen", "artist": "\xa9ART", "albumartist": "aART", "album": "\xa9alb", "title": "\xa9nam"}
_ASF = {
    "genre": "WM/Genre", "artist": "Author", "albumartist": "WM/AlbumArtist", "album": "WM/AlbumTitle",
    "title": "Title",
}  # fmt: skip
_ENCODERS = {".wma": ("asf", "wmav2", "fltp"), ".wv": ("wv", "wavpack", "s16p")}  # format, codec and samples in PyAV
# four genres of the composer, and how careless people write them
SPELLINGS = {
    "house": ("House", "house", "HOUSE music", "Deep House"),
    "waltz": ("Waltz", "waltz", "WALTZ", "Waltz; Other"),
    "reggae": ("Reggae", "reggae", "Dancehall", "Ska"),
    "drone": ("Drone", "drone", "Drone / Waltz", "DRONE"),
}
CLASSES = {"house": "Electronic", "waltz": "Waltz", "reggae": "Reggae", "drone": "Drone"}


def write_tags(path: Path, **fields: str | list[str]) -> Path:
    """Write tags into a file: genre, artist, albumartist, album and title."""
    return _write(path, fields, id3.Encoding.UTF8)


def read_genre(path: Path) -> str | None:
    """Return the first genre in a file's tags, or None."""
    return next(iter(own_tags.read(Location.of(path)).genres), None)


def write_cyrillic_tags(path: Path, **fields: str | list[str]) -> Path:
    """Write ID3 tags in Windows-1251 that are declared as Latin-1, as old programs did."""
    mistaken = {name: str(text).encode("cp1251").decode("latin-1") for name, text in fields.items()}
    return _write(path, mistaken, id3.Encoding.LATIN1)


def _write(path: Path, fields: Mapping[str, str | list[str]], encoding: int) -> Path:
    values = {name: [value] if isinstance(value, str) else value for name, value in fields.items()}
    file: Any = mutagen.File(path)
    if file.tags is None:
        file.add_tags()
    for name, texts in values.items():
        if hasattr(file.tags, "getall"):
            file.tags.setall(_FRAMES[name], [getattr(id3, _FRAMES[name])(encoding=encoding, text=texts)])
        else:
            keys = {".m4a": _MP4, ".wma": _ASF}.get(path.suffix, {})
            file.tags[keys.get(name, name)] = texts
    file.save()
    return path


def write_ape_tags(path: Path, **fields: str) -> Path:
    """Write APE tags alone at the end of a file."""
    tags: Any = apev2.APEv2()  # type: ignore[no-untyped-call]
    for name, text in fields.items():
        tags[name] = text
    tags.save(path)
    return path


def write_audio(path: Path, samples: np.ndarray, rate: int = RATE) -> Path:
    """Write samples (frames, channels) in the format of the file's suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".m4a":
        path.write_bytes(mpeg4(samples, rate))
    elif path.suffix in _ENCODERS:
        path.write_bytes(encoded_by_pyav(samples, rate, path.suffix))
    else:
        target = io.BytesIO()
        soundfile.write(target, samples, rate, format=path.suffix[1:].upper())
        path.write_bytes(target.getvalue())
    return path


def encoded_by_pyav(samples: np.ndarray, rate: int, suffix: str) -> bytes:
    """Return mono samples (frames, 1) as Windows Media Audio or WavPack."""
    container_format, codec, sample_format = _ENCODERS[suffix]
    target = io.BytesIO()
    with av.open(target, mode="w", format=container_format) as container:
        stream: Any = container.add_stream(codec, rate=rate, layout="mono")
        stream.bit_rate = 64_000
        stream.codec_context.format = sample_format
        for start in range(0, len(samples), rate):
            part = np.ascontiguousarray(samples[start : start + rate].T, dtype=np.float32)
            frame = av.AudioFrame.from_ndarray(part, "fltp", "mono")
            frame.sample_rate, frame.pts = rate, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return target.getvalue()


def tone(path: Path, seed: int = 0, seconds: float = 0.5) -> Path:
    """Write a short noise, different for each seed."""
    samples = np.random.default_rng(seed).normal(0, 0.1, (round(seconds * RATE), 1)).astype(np.float32)
    return write_audio(path, samples)


def write_library(root: Path, tracks_per_genre: int, artists: int = 5, seconds: float = 3.0) -> dict[str, str]:
    """Write composed tracks with tags, of which a third lack the genre; return the class of each path below `root`."""
    classes: dict[str, str] = {}
    spelled = itertools.count()
    for number, style in enumerate(SPELLINGS):
        for track in range(tracks_per_genre):
            artist = f"The {style.title()} Artist {track % artists}"
            samples = compose(style, 1000 * number + track % artists, 1000 * number + track, seconds)[:, None]
            container = CONTAINERS[(track + track // 6) % 6]  # every sixth track with another, so that all lack a genre
            name = f"{artist}/Album {track % 2}/{track:02d} Song.{container}"
            path = write_audio(root / name, samples, SAMPLE_RATE)
            tags: dict[str, str | list[str]] = {
                "artist": f"{artist.upper() if track % 3 else artist} feat. Someone",
                "albumartist": "Various Artists" if track % 4 == 0 else artist,
                "album": f"Album {track % 2}",
            }
            if (track // 2) % 3:
                tags["genre"] = SPELLINGS[style][next(spelled) % 4]
            write_tags(path, **tags)
            classes[name] = CLASSES[style]
    return classes
