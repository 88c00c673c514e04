"""Your own music as it is: any tree of files, whose own tags name genre, artist and album.

    corpus.root=~/Music    every audio file at any depth

The genre is the first one in the tags that is a class. A file of mappings (`params.genres`, default `_genres.yaml` next
to this module) decides which spellings are the same genre, which genre counts as which, and what is no genre. A genre
with fewer than `min_tracks` tracks or `min_artists` artists is no class, since it could not be judged.

A file without a genre that is a class is a track with the split `unlabelled`: its features are prepared, and training
leaves it out.

The group is the artist of the album, else of the track, without featured artists, compared without case, accents and
punctuation. "Various Artists" and the like are no artist; without an artist, the album is the group.

`track_id` is the path below the root. Changing tags changes the file, which is then prepared again. There is no
published split. What the tags say is kept in OUTPUT/scan: a scan that was interrupted resumes, and a later one reads
new and changed files only. A genre that `tag` wrote with the same output is a prediction, and no label.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

from pydantic import Field

from genre.audio import tags
from genre.audio.tags import FileTags
from genre.corpora import MISSING, UNLABELLED, AudioFile, Track, open_folder, walk
from genre.corpora._artists import group_of
from genre.corpora._findings import Findings
from genre.corpora._genre_names import GenreNames
from genre.corpora._library_report import LibraryFile, LibraryReport
from genre.corpora._predicted_genres import PredictedGenres
from genre.errors import ConfigError, one_line
from genre.settings import CorpusSettings, Settings
from genre.storage import Location

_THREADS = 32  # they wait for disks and networks; reading itself takes 0.1 to 0.3 ms
_CHUNK = 64  # files that a thread reads before it reports
_REPORT_SECONDS = 10.0
_FOLDER = "tags-2"  # of the findings; a new number when `genre.audio.tags` reads other values
_NO_TAGS = FileTags()


class Params(Settings):
    """What counts as a genre."""

    genres: str = Field("", description="YAML file of aliases, parents and texts to ignore; empty: the one that ships")
    min_tracks: int = Field(20, ge=1, description="genres with fewer tracks are not learned")
    min_artists: int = Field(
        3, ge=1, description="genres of fewer artists are not learned; a track gets the next genre in its tags, or none"
    )


def scan(settings: CorpusSettings, params: Params) -> Iterator[Track]:
    """Yield every audio file, in the order of `walk`. Raises `ConfigError` as `walk` does."""
    return scan_with_report(settings, params, lambda line: None, None)


def scan_with_report(
    settings: CorpusSettings,
    params: Params,
    report: Callable[[str], None],
    folder: Location | None,
    written: Location | None = None,
) -> Iterator[Track]:
    """Yield what `scan` does, after reporting progress, the classes, and what is odd, a line each.

    What was read is kept in `folder`. Genres that the table `written` of `tag` lists are no labels. Raises
    `StorageError` when files that were listed cannot be reached, and `ArtifactError` when the table cannot be read.
    """
    if settings.split == "official":
        raise ConfigError("corpus.split=official: a library has no published split; use random or auto")
    tags.require("corpus.kind=tags")
    names = GenreNames(params.genres)
    findings = Findings(folder and folder / _FOLDER)
    predicted = PredictedGenres(written)
    found = _find_tags(settings, report, findings)
    files = [_library_file(audio, finding, names, predicted) for audio, finding in found]
    for line in predicted.lines():
        report(line)
    counted = LibraryReport(files, names, params.min_tracks, params.min_artists)
    for line in counted.lines():
        report(line)
    for file in files:
        genre, audio = counted.genre_of(file), file.audio
        split = None if genre else UNLABELLED
        yield Track(audio.relative, audio.path, genre, audio.size, audio.modified, file.group, split)


@dataclass(frozen=True)
class _Finding:
    """What a file says of itself."""

    tags: FileTags = _NO_TAGS
    problem: str = ""  # why the tags could not be read; empty if they could
    is_final: bool = True  # whether it holds until the file changes; not where the file was missing or denied

    def to_json(self) -> str:
        return json.dumps({"problem": self.problem} | asdict(self.tags))

    @classmethod
    def from_json(cls, text: str) -> _Finding:
        values = json.loads(text)
        return cls(problem=values.pop("problem"), tags=FileTags(**values | {"genres": tuple(values["genres"])}))


def _library_file(audio: AudioFile, finding: _Finding, names: GenreNames, predicted: PredictedGenres) -> LibraryFile:
    genres = predicted.without(audio.path, finding.tags.genres)
    keys = dict.fromkeys(key for genre in genres for key in names.resolve(genre))
    return LibraryFile(audio, genres, tuple(keys), group_of(finding.tags), finding.tags.is_repaired, finding.problem)


def _find_tags(
    settings: CorpusSettings, report: Callable[[str], None], findings: Findings
) -> Iterator[tuple[AudioFile, _Finding]]:
    """Yield each file with what it says, in the order of `walk`. What no earlier scan found is read."""
    listed = list(walk(open_folder(settings.root)))
    known = findings.known(listed)
    pending = [audio for audio, text in zip(listed, known, strict=True) if text is None]
    if len(pending) < len(listed):
        report(f"tags of {len(listed) - len(pending)} of {len(listed)} files are known from an earlier scan")
    with contextlib.closing(_read_files(pending, report, findings)) as read:
        for audio, text in zip(listed, known, strict=True):
            yield audio, next(read) if text is None else _Finding.from_json(text)
    findings.finish(listed)


def _read_files(files: list[AudioFile], report: Callable[[str], None], findings: Findings) -> Generator[_Finding]:
    """Yield what each file says, read by several threads, and keep it."""
    chunks = [files[begin : begin + _CHUNK] for begin in range(0, len(files), _CHUNK)]
    done, reported = 0, time.monotonic()
    pool = ThreadPoolExecutor(_THREADS)
    try:
        with findings.written():
            for read in pool.map(lambda chunk: [(audio, _read_file(audio)) for audio in chunk], chunks):
                for audio, finding in read:
                    if finding.is_final:
                        findings.add(audio, finding.to_json())
                yield from (finding for _, finding in read)
                done += len(read)
                if time.monotonic() - reported > _REPORT_SECONDS:
                    reported = time.monotonic()
                    report(f"tags of {done} of {len(files)} files read")
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C the rest is not read


def _read_file(audio: AudioFile) -> _Finding:
    """Return what a file says. Raises `StorageError` when its storage is unavailable."""
    if audio.size == MISSING:
        return _Finding(is_final=False)
    if audio.size == 0:
        return _Finding(problem="the file has no bytes")
    try:
        return _Finding(tags.read(Location.of(audio.path)))
    except ValueError as error:
        return _Finding(problem=one_line(error))
    except OSError as error:
        return _Finding(problem=one_line(error), is_final=False)
