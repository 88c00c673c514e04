"""The corpus that comes with the project: ten genres of music composed on the spot, always the same from a seed.

A genre is a structure in time and pitch: where in the bar the drums, the bass and the chords play. Tempo,
loudness, instruments and mix are drawn from the same ranges for all genres, so that no single number tells
them apart. Each artist keeps instruments and mix in all of its tracks and is a group of the split. Some
tracks borrow layers from another genre (`ambiguity`): no classifier can get all of them right.

The files come in several containers, sample rates and channel counts, some of them damaged. They are made
where they are first asked for and used again afterwards; without `corpus.root` in the user's own cache, since
in a folder for all users, such as /tmp, others could put links where the files are to be. Equal settings give
equal bytes, whatever vector instructions the processor has, but for Ogg Vorbis, where libsndfile numbers the
stream at random: there the decoded audio is equal.
On a cluster `corpus.root` must be a folder that all machines see.
"""

from __future__ import annotations

import itertools
import os
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import Field

from genre import memory
from genre.config import CorpusSettings, Settings, fingerprint
from genre.corpora import Track
from genre.corpora.synthetic import files
from genre.corpora.synthetic.compose import VERSION, compose
from genre.corpora.synthetic.styles import STYLES
from genre.errors import ConfigError
from genre.storage import Location

MARKER = "corpus.json"  # which settings a folder is of, and whether all of it is there
SYSTEM_FILE = "._system.wav"  # what macOS leaves beside a file: not a track

# Artist n is in split n of this cycle: 5, 1 and 2 artists of 8, and each split has one from three artists on.
_SPLITS = ("train", "test", "valid", "train", "train", "test", "train", "train")


class Params(Settings):
    tracks_per_genre: int = Field(40, ge=1, le=100000, description="sound tracks in each of the ten genres")
    artists_per_genre: int = Field(8, ge=1, le=1000, description="groups among which each genre's tracks are dealt")
    seconds: float = Field(8.0, ge=1, le=600, description="typical length of a track; they vary around it")
    seed: int = Field(0, ge=0, description="composes another corpus of the same kind")
    damaged: int = Field(8, ge=0, le=10000, description="damaged files in all, beside the sound tracks")
    ambiguity: float = Field(0.15, ge=0, le=1, description="share of tracks that borrow layers from another genre")


@dataclass(frozen=True)
class _Piece:
    """A file that belongs to the corpus; `damage` is one of `_files.DAMAGES`, or None for a sound track."""

    genre: str
    artist: int
    name: str
    damage: str | None = None

    @property
    def track_id(self) -> str:
        return f"{self.genre}/artist{self.artist:02d}_{self.name}"


def classes(settings: CorpusSettings, params: Params) -> list[str]:
    return sorted(STYLES)


def scan(settings: CorpusSettings, params: Params) -> Iterator[Track]:
    """Every track by `track_id`, after making those that are not there yet."""
    root = _folder(settings, params)
    _render(root, params)
    for piece in sorted(_pieces(params), key=lambda piece: piece.track_id):
        path = _location(root, piece, params).path
        listed = os.stat(path)
        yield Track(
            track_id=piece.track_id,
            path=path,
            genre=piece.genre,
            size=listed.st_size,
            modified=listed.st_mtime,
            group=f"{piece.genre}-{piece.artist:02d}",
            split=None if settings.split == "random" else _SPLITS[piece.artist % len(_SPLITS)],
        )


def sizes(params: Params) -> dict[str, int]:
    """Sound tracks in each of the corpus's own splits."""
    counts = Counter(_SPLITS[piece.artist % len(_SPLITS)] for piece in _pieces(params) if piece.damage is None)
    return {split: counts[split] for split in ("train", "valid", "test")}


def sample(params: Params, number: int) -> bytes:
    """The file of one sound track, to measure how long it takes to make; nothing is written."""
    return _content(next(itertools.islice(_pieces(params), number, None)), params)


def _folder(settings: CorpusSettings, params: Params) -> Location:
    root = settings.root or os.path.join(_cache(), "genre", f"synthetic-{_version(params)}")
    if "://" in root:
        raise ConfigError(f"corpus.root={root}: the synthetic corpus is made in a local folder; name one, or none")
    return Location.of(root)


def _cache() -> str:
    """The user's folder for files that can be made again, by the XDG base directory specification."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(named):
        return named
    try:
        return str(Path.home() / ".cache")
    except RuntimeError:
        raise ConfigError("corpus.root is empty, and this user has no home for the music; name a folder") from None


def _version(params: Params) -> str:
    return fingerprint(params, {"composer": VERSION})


def _pieces(params: Params) -> Iterator[_Piece]:
    for genre in STYLES:
        for number in range(params.tracks_per_genre):
            yield _Piece(genre, number % params.artists_per_genre, f"{number:03d}")
    genres, kinds = list(STYLES), list(files.DAMAGES)
    for number in range(params.damaged):
        kind = kinds[number % len(kinds)]
        artist = number // len(genres) % params.artists_per_genre
        yield _Piece(genres[number % len(genres)], artist, f"{kind}{number:02d}", kind)


def _render(root: Location, params: Params) -> None:
    """Write the missing files, on all CPUs. Each appears complete or not at all, so that a later call continues.

    Threads suffice: transforms, resampling and encoding run outside the interpreter's lock.
    """

    def write(piece: _Piece) -> None:
        target = _location(root, piece, params)
        if not target.exists():
            target.write_bytes(_content(piece, params))

    try:
        _claim(root, params)
        with memory.reuse_freed(), ThreadPoolExecutor(os.cpu_count()) as pool:
            for _ in pool.map(write, _pieces(params)):  # which raises what a thread raised
                pass
        if params.damaged and not (root / SYSTEM_FILE).exists():
            (root / SYSTEM_FILE).write_bytes(b"\x00\x05\x16\x07")
        if not (root / MARKER).read_json()["complete"]:
            (root / MARKER).write_json({"fingerprint": _version(params), "complete": True})
    except OSError as error:
        raise ConfigError(f"corpus.root={root}: cannot be written ({error.strerror}); name another folder") from None


def _claim(root: Location, params: Params) -> None:
    """Mark the folder as that of `params`, or refuse it when it is that of others."""
    if not (root / MARKER).exists():
        (root / MARKER).write_json({"fingerprint": _version(params), "complete": False})
    elif (root / MARKER).read_json()["fingerprint"] != _version(params):
        raise ConfigError(f"corpus.root={root}: holds a synthetic corpus of other settings; name another folder")


def _location(root: Location, piece: _Piece, params: Params) -> Location:
    if piece.damage:
        return root / f"{piece.track_id}.{files.DAMAGES[piece.damage].extension}"
    return root / f"{piece.track_id}.{_form(piece, params).container.extension}"


def _form(piece: _Piece, params: Params) -> files.Form:
    return files.Form.draw(np.random.default_rng(_seed(params, f"form/{piece.track_id}")))


def _content(piece: _Piece, params: Params) -> bytes:
    if piece.damage:
        return files.DAMAGES[piece.damage].make()
    track_seed = _seed(params, piece.track_id)
    artist_seed = _seed(params, f"{piece.genre}-{piece.artist}")
    seconds = params.seconds * _relative_length(np.random.default_rng(track_seed))
    audio = compose(piece.genre, artist_seed, track_seed, seconds, params.ambiguity)
    return files.encode(audio, _form(piece, params))


def _relative_length(rng: np.random.Generator) -> float:
    """Mostly near 1, and one in twenty twice as long."""
    return float(rng.uniform(0.85, 1.15) * (2 if rng.random() < 0.05 else 1))


def _seed(params: Params, name: str) -> int:
    """A seed that depends on nothing but the corpus's seed and what it is for."""
    return zlib.crc32(f"{params.seed}/{name}".encode())
