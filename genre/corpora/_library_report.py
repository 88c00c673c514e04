"""Which genres of a library are classes, and what a person should know about its tags."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from genre.corpora._genre_names import LONGEST, GenreNames
from genre.corpora._spellings import by_count, counted, misspelt, most_common, written
from genre.corpora._walk import AudioFile
from genre.wording import listed, plural

_SHOWN = 6  # of a list that may be long
_NAMED = 60  # genres that are no class
_MANY_GENRES = 4  # of one artist


@dataclass(frozen=True)
class LibraryFile:
    """A file and what its tags say."""

    audio: AudioFile
    genres: tuple[str, ...]  # as written
    keys: tuple[str, ...]  # of the genres that they name, in their order
    group: str | None
    is_repaired: bool
    problem: str  # why the tags could not be read; empty if they could


class LibraryReport:
    """Counts the genres of files once, and decides which are classes."""

    def __init__(self, files: Sequence[LibraryFile], names: GenreNames, min_tracks: int, min_artists: int) -> None:
        self._files, self._names = files, names
        self._limits = min_tracks, min_artists
        self._tracks: Counter[str] = Counter()  # by the first genre of a file, which decides what is a class
        units: dict[str, set[str]] = defaultdict(set)
        self._spellings: dict[str, Counter[str]] = defaultdict(Counter)
        for file in files:
            for text in file.genres:
                for key in names.resolve(text):
                    self._spellings[key][text] += 1
            if file.keys:
                self._tracks[file.keys[0]] += 1
                units[file.keys[0]].add(_unit(file))
        self._classes = {
            key for key, count in self._tracks.items() if count >= min_tracks and len(units[key]) >= min_artists
        }
        self._titles = {key: self._title(key) for key in self._spellings}
        learned: dict[str, set[str]] = defaultdict(set)
        for file in files:
            if genre := self._class_of(file):
                learned[genre].add(_unit(file))
        self._units = {**units, **learned}  # of a class by the genre that a file gets, of another by its first

    def genre_of(self, file: LibraryFile) -> str | None:
        """Return the first genre of a file that is a class; None where there is none."""
        key = self._class_of(file)
        return self._titles[key] if key else None

    def _class_of(self, file: LibraryFile) -> str | None:
        return next((key for key in file.keys if key in self._classes), None)

    def lines(self) -> Iterator[str]:
        """Yield the report: the classes, what is unlabelled and why, and what is odd."""
        files = self._files
        labelled = Counter(self.genre_of(file) for file in files)
        unlabelled = labelled.pop(None, 0)
        artists = len({file.group for file in files if file.group})
        yield (
            f"tags: {plural(len(files), 'file')} of {plural(artists, 'artist')}: {len(files) - unlabelled} with "
            f"{plural(len(self._classes), 'genre')}, {unlabelled} unlabelled"
        )
        for key in sorted(self._classes, key=lambda key: (-labelled[self._titles[key]], key)):
            title = self._titles[key]
            yield f"  {labelled[title]:>6} {title}, {self._artist_count(key)}{written(self._spellings[key], title)}"
        yield from self._unlabelled()
        yield from self._odd()

    def _title(self, key: str) -> str:
        """Return a genre as the mappings write it, or as most files do."""
        if name := self._names.name(key):
            return name
        counts: Counter[str] = Counter()
        for text, count in self._spellings[key].items():
            counts.update(dict.fromkeys(self._parts(text, key), count))
        return most_common(counts)

    def _parts(self, text: str, key: str) -> list[str]:
        """Return the parts of a text that name the genre `key`."""
        return [part for part in self._names.split(text) if self._names.resolve(part) == [key]]

    def _artist_count(self, key: str) -> str:
        units = self._units[key]
        artists = sum(not unit.startswith("track ") for unit in units)
        alone = len(units) - artists
        return plural(artists, "artist") + (f" and {plural(alone, 'track')} without one" if alone else "")

    def _unlabelled(self) -> Iterator[str]:
        small = [key for key, _ in by_count(self._tracks) if key not in self._classes]
        if small:
            names = [
                f"{self._titles[key]} ({plural(self._tracks[key], 'track')}, {self._artist_count(key)})"
                for key in small
            ]
            yield (
                f"not learned: genres with fewer than corpus.params.min_tracks={self._limits[0]} or "
                f"min_artists={self._limits[1]}: {listed(names, _NAMED)}"
            )
        ignored = Counter(text for file in self._files if not file.keys for text in file.genres)
        if ignored:
            yield "unlabelled: no genre in " + counted(ignored)
        empty = sum(not file.genres for file in self._files)
        if empty:
            yield f"unlabelled: {plural(empty, 'file')} without a genre"
        if len(self._classes) < 2:
            remedy = (
                "lower corpus.params.min_tracks or min_artists" if self._tracks else "list them with corpus.kind=table"
            )
            yield f"odd: fewer than two genres can be learned; {remedy}"

    def _odd(self) -> Iterator[str]:
        yield from (f"odd: {problem}" for problem in self._names.problems)
        small = [key for key, _ in by_count(self._tracks) if key not in self._classes][:_NAMED]
        for rare, common in list(misspelt(small, sorted(self._classes)))[:_SHOWN]:
            yield f"odd: {self._titles[rare]} may be {self._titles[common]} misspelt; corpus.params.genres can map it"
        for key in sorted(self._classes):
            first, *others = self._units[key]
            if not others and not first.startswith("track "):
                yield f"odd: {self._titles[key]} has one artist, {first}"
        genres: dict[str, set[str]] = defaultdict(set)
        for file in self._files:
            if file.group and (genre := self.genre_of(file)):
                genres[file.group].add(genre)
        many = sorted((group for group in genres if len(genres[group]) >= _MANY_GENRES), key=lambda g: -len(genres[g]))
        for group in many[:_SHOWN]:
            yield f"odd: artist {group} has {len(genres[group])} genres: {listed(sorted(genres[group]), _SHOWN)}"
        if len(many) > _SHOWN:
            yield f"odd: {len(many) - _SHOWN} more artists with {_MANY_GENRES} genres or more"
        yield from self._odd_files()

    def _odd_files(self) -> Iterator[str]:
        """Yield a line for each kind of odd files, with the first of them."""
        several = [file for file in self._files if len(set(file.keys) & self._classes) > 1]
        long = [file for file in self._files if any(len(text) > LONGEST and not file.keys for text in file.genres)]
        kinds = {
            "several genres, of which the first counts": several,
            f"a genre of more than {LONGEST} characters, which is not used": long,
            "tags in Windows-1251, read as such": [file for file in self._files if file.is_repaired],
        }
        for noun, files in kinds.items():
            if files:
                yield f"odd: {plural(len(files), 'file')} with {noun}; the first is {files[0].audio.relative}"
        unreadable = [file for file in self._files if file.problem]
        if unreadable:
            first = unreadable[0]
            yield (
                f"odd: {plural(len(unreadable), 'file')} without readable tags; the first is {first.audio.relative} "
                f"({first.problem})"
            )


def _unit(file: LibraryFile) -> str:
    """Return the artist of a file. A track without one is a unit of its own when splits are drawn."""
    return file.group or f"track {file.audio.relative}"
