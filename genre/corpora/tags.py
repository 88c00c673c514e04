"""Your own music as it is: any tree of files, whose own tags name genre, artist and album.

    corpus.root=~/Music    every audio file at any depth

The genre is the first one in the tags that is a class. A file of mappings (`params.genres`, default `_genres.yaml` next
to this module) decides which spellings are the same genre, which genre counts as which, and what is no genre. A genre
with fewer than `min_tracks` tracks or `min_artists` artists is no class, since it could not be judged.

A file without a genre that is a class is a track with the split `unlabelled`: its features are prepared, and training
leaves it out.

The group is the artist of the album, else of the track, without featured artists, compared without case, accents and
punctuation. "Various Artists" and the like are nobody; where there is no artist, the album is the group.

`track_id` is the path below the root. Changing tags changes the file, which is then prepared again. There is no
published split.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from pydantic import Field

from genre.audio import tags
from genre.audio.tags import Tags
from genre.corpora import MISSING, UNLABELLED, AudioFile, Track, open_folder, walk
from genre.corpora._artists import artist_key
from genre.corpora._genre_names import GenreNames, fold
from genre.corpora._library_report import LibraryFile, LibraryReport
from genre.errors import ConfigError
from genre.settings import CorpusSettings, Settings
from genre.storage import Location

_THREADS = 32  # they wait for disks and networks; reading itself takes 0.1 to 0.3 ms
_CHUNK = 64  # files that a thread reads before it reports
_REPORT_SECONDS = 10.0


class Params(Settings):
    """What counts as a genre."""

    genres: str = Field("", description="YAML file of aliases, parents and texts to ignore; empty: the one that ships")
    min_tracks: int = Field(20, ge=1, description="genres with fewer tracks are not learned; their tracks: unlabelled")
    min_artists: int = Field(3, ge=1, description="genres of fewer artists are not learned; their tracks: unlabelled")


def classes(settings: CorpusSettings, params: Params) -> None:
    """Return None: the genres are those of the tags."""


def scan(settings: CorpusSettings, params: Params) -> Iterator[Track]:
    """Yield every audio file, in the order of `walk`. Raises `ConfigError` as `walk` does."""
    return scan_with_report(settings, params, lambda line: None)


def scan_with_report(settings: CorpusSettings, params: Params, report: Callable[[str], None]) -> Iterator[Track]:
    """Yield what `scan` does, after reporting progress, the classes, and what is odd, a line each."""
    if settings.split == "official":
        raise ConfigError("corpus.split=official: a library has no published split; use random or auto")
    tags.require("corpus.kind=tags")
    names = GenreNames(params.genres)
    files = list(_read_files(settings, names, report))
    counted = LibraryReport(files, names, params.min_tracks, params.min_artists)
    for line in counted.lines():
        report(line)
    for file in files:
        genre, audio = counted.genre_of(file), file.audio
        split = None if genre else UNLABELLED
        yield Track(audio.relative, audio.path, genre, audio.size, audio.modified, file.group, split)


def group_of(found: Tags) -> str | None:
    """Return the artist, or without one the album, in the form in which names are compared; None without either."""
    for artist in (found.album_artist, found.artist):
        if key := artist_key(artist.partition(";")[0]):
            return key
    album = fold(found.album)
    return f"album {album}" if album else None


def _read_files(settings: CorpusSettings, names: GenreNames, report: Callable[[str], None]) -> Iterator[LibraryFile]:
    """Yield each file with its tags, in the order of `walk`, read by several threads."""
    listed = list(walk(open_folder(settings.root)))
    chunks = [listed[begin : begin + _CHUNK] for begin in range(0, len(listed), _CHUNK)]
    done, reported = 0, time.monotonic()
    pool = ThreadPoolExecutor(_THREADS)
    try:
        for read in pool.map(lambda chunk: [_read_file(audio, names) for audio in chunk], chunks):
            yield from read
            done += len(read)
            if time.monotonic() - reported > _REPORT_SECONDS:
                reported = time.monotonic()
                report(f"tags of {done} of {len(listed)} files read")
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C the rest is not read


def _read_file(audio: AudioFile, names: GenreNames) -> LibraryFile:
    found, problem = Tags(), ""
    if audio.size != MISSING:
        try:
            found = tags.read(Location.of(audio.path))
        except (OSError, ValueError) as error:
            problem = " ".join((getattr(error, "strerror", None) or str(error)).split())
    keys = dict.fromkeys(key for genre in found.genres for key in names.resolve(genre))
    return LibraryFile(audio, found.genres, tuple(keys), group_of(found), found.is_repaired, problem)
