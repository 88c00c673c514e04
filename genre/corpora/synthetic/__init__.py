"""Synthetic music: a corpus of ten genres that is composed from a seed when it is first scanned.

A genre is a structure in time and pitch: where in the bar the drums, the bass and the chords play. Tempo, loudness,
instruments and mix are drawn from the same ranges for all genres, so that no single statistic separates them. All
tracks of an artist share instruments and mix, and are one group of the split. Some tracks borrow layers from another
genre (`ambiguity`): no classifier can get all of them right.

The files have several containers, sample rates and channel counts, and some are damaged. They are written by the first
scan and reused by later ones. Without `corpus.root` they are in the user's own cache folder: in a shared one, such as
/tmp, other users could create links under the names of the files. Equal settings give equal bytes on every processor,
except for Ogg Vorbis, where libsndfile draws a random serial number; there the decoded audio is equal. On a cluster,
`corpus.root` must be a folder that all machines can read.
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
from genre.config import fingerprint
from genre.corpora import SPLITS, Track
from genre.corpora.synthetic import files
from genre.corpora.synthetic.compose import VERSION, compose
from genre.corpora.synthetic.styles import STYLES
from genre.errors import ConfigError
from genre.settings import CorpusSettings, Settings
from genre.storage import Location

MARKER = "corpus.json"  # the fingerprint of a folder's settings, and whether all files are written
SYSTEM_FILE = "._system.wav"  # named like a file that macOS writes for itself: not a track

# Artist n is in split n of this cycle: of 8 artists 5 train, 1 validates and 2 test; of 3 artists, one each.
_SPLIT_CYCLE = ("train", "test", "valid", "train", "train", "test", "train", "train")


class Params(Settings):
    """The synthetic corpus's own settings."""

    tracks_per_genre: int = Field(40, ge=1, le=100000, description="intact tracks in each of the ten genres")
    artists_per_genre: int = Field(8, ge=1, le=1000, description="artists (groups) that share each genre's tracks")
    seconds: float = Field(8.0, ge=1, le=600, description="typical length of a track; lengths vary around it")
    seed: int = Field(0, ge=0, description="another seed composes other tracks of the same genres")
    damaged: int = Field(8, ge=0, le=10000, description="damaged files in total, in addition to the intact tracks")
    ambiguity: float = Field(0.15, ge=0, le=1, description="share of tracks that borrow layers from another genre")


@dataclass(frozen=True)
class _Item:
    """A file of the corpus; `damage` is one of `files.DAMAGES`, or None for an intact track."""

    genre: str
    artist: int
    name: str
    damage: str | None = None

    @property
    def track_id(self) -> str:
        return f"{self.genre}/artist{self.artist:02d}_{self.name}"


def classes(settings: CorpusSettings, params: Params) -> list[str]:
    """Return the ten genres."""
    return sorted(STYLES)


def scan(settings: CorpusSettings, params: Params) -> Iterator[Track]:
    """Yield every track by `track_id`, after writing the files that do not exist yet."""
    root = _folder(settings, params)
    _render(root, params)
    for item in sorted(_items(params), key=lambda item: item.track_id):
        path = _location(root, item, params).path
        status = os.stat(path)
        yield Track(
            track_id=item.track_id,
            path=path,
            genre=item.genre,
            size=status.st_size,
            modified=status.st_mtime,
            group=f"{item.genre}-{item.artist:02d}",
            split=None if settings.split == "random" else _SPLIT_CYCLE[item.artist % len(_SPLIT_CYCLE)],
        )


def sizes(params: Params) -> dict[str, int]:
    """Return the number of intact tracks in each of the corpus's own splits."""
    counts = Counter(_SPLIT_CYCLE[item.artist % len(_SPLIT_CYCLE)] for item in _items(params) if item.damage is None)
    return {split: counts[split] for split in SPLITS}


def sample(params: Params, number: int) -> bytes:
    """Return the file content of intact track `number` without writing it, to measure how long composing takes."""
    return _content(next(itertools.islice(_items(params), number, None)), params)


def is_composed(settings: CorpusSettings) -> bool:
    """Return whether an earlier scan has written all files. Raises `ConfigError` for a folder with other files."""
    root = _folder(settings, Params.model_validate(settings.params))
    _check_own(root)
    marker = root / MARKER
    return marker.exists() and bool(marker.read_json()["complete"])


def _folder(settings: CorpusSettings, params: Params) -> Location:
    root = settings.root or os.path.join(_cache(), "genre", f"synthetic-{_version(params)}")
    if "://" in root:
        raise ConfigError(f"corpus.root={root}: the synthetic corpus needs a local folder; name one, or leave it empty")
    return Location.of(root)


def _cache() -> str:
    """Return the user's cache folder, by the XDG base directory specification."""
    folder = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(folder):
        return folder
    try:
        return str(Path.home() / ".cache")
    except RuntimeError:
        raise ConfigError(
            "corpus.root is empty, and this user has no home folder for the music; name a folder"
        ) from None


def _version(params: Params) -> str:
    return fingerprint(params, {"composer": VERSION})


def _items(params: Params) -> Iterator[_Item]:
    for genre in STYLES:
        for number in range(params.tracks_per_genre):
            yield _Item(genre, number % params.artists_per_genre, f"{number:03d}")
    genres, kinds = list(STYLES), list(files.DAMAGES)
    for number in range(params.damaged):
        kind = kinds[number % len(kinds)]
        artist = number // len(genres) % params.artists_per_genre
        yield _Item(genres[number % len(genres)], artist, f"{kind}{number:02d}", kind)


def _render(root: Location, params: Params) -> None:
    """Write the missing files, on all CPUs. Each appears complete or not at all, so that a later call can resume.

    Threads are enough: transforms, resampling and encoding release the GIL.
    """

    def write(item: _Item) -> None:
        target = _location(root, item, params)
        if not target.exists():
            target.write_bytes(_content(item, params))

    try:
        _claim(root, params)
        with memory.reuse_freed(), ThreadPoolExecutor(os.cpu_count()) as pool:
            for _ in pool.map(write, _items(params)):  # re-raises the errors of the threads
                pass
        if params.damaged and not (root / SYSTEM_FILE).exists():
            (root / SYSTEM_FILE).write_bytes(b"\x00\x05\x16\x07")
        if not (root / MARKER).read_json()["complete"]:
            (root / MARKER).write_json({"fingerprint": _version(params), "complete": True})
    except OSError as error:
        raise ConfigError(f"corpus.root={root}: cannot be written ({error.strerror}); name another folder") from None


def _claim(root: Location, params: Params) -> None:
    """Mark the folder as made with `params`.

    Raises `ConfigError` when it was made with other settings, or holds anything else, as the folder of a user's music.
    """
    _check_own(root)
    if not (root / MARKER).exists():
        (root / MARKER).write_json({"fingerprint": _version(params), "complete": False})
    elif (root / MARKER).read_json()["fingerprint"] != _version(params):
        raise ConfigError(f"corpus.root={root}: holds a synthetic corpus with other settings; name another folder")


def _check_own(root: Location) -> None:
    """Raise `ConfigError` when the folder holds files of others, but for hidden ones and lost+found."""
    if not root.exists() or all(name.startswith(".") or name == "lost+found" for name in os.listdir(root.path)):
        return
    if not (root / MARKER).exists():
        raise ConfigError(
            f"corpus.root={root}: holds other files, and corpus.kind=synthetic writes composed music; for your own "
            "music set corpus.kind=folder, tags or table, for composed music name an empty folder"
        )


def _location(root: Location, item: _Item, params: Params) -> Location:
    if item.damage:
        return root / f"{item.track_id}.{files.DAMAGES[item.damage].extension}"
    return root / f"{item.track_id}.{_form(item, params).container.extension}"


def _form(item: _Item, params: Params) -> files.Form:
    return files.Form.draw(np.random.default_rng(_seed(params, f"form/{item.track_id}")))


def _content(item: _Item, params: Params) -> bytes:
    if item.damage:
        return files.DAMAGES[item.damage].make()
    track_seed = _seed(params, item.track_id)
    artist_seed = _seed(params, f"{item.genre}-{item.artist}")
    seconds = params.seconds * _relative_length(np.random.default_rng(track_seed))
    audio = compose(item.genre, artist_seed, track_seed, seconds, params.ambiguity)
    return files.encode(audio, _form(item, params))


def _relative_length(rng: np.random.Generator) -> float:
    """Draw a length near 1; one in twenty is twice as long."""
    return float(rng.uniform(0.85, 1.15) * (2 if rng.random() < 0.05 else 1))


def _seed(params: Params, name: str) -> int:
    """Return a seed that depends only on the corpus's seed and on `name`."""
    return zlib.crc32(f"{params.seed}/{name}".encode())
