"""Corrected genres: they replace those of a corpus, and files that it does not list are added.

`corpus.corrections` is a table as corpus.kind=table reads it, such as OUTPUT/review/corrections.csv of `genre review`.
Rows without a genre correct nothing, and splits of the table are ignored. Files are compared by their addresses, so
that music inside archives never matches.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from genre import corpora
from genre.corpora import EXCLUDED, MISSING, UNLABELLED, Track, fold
from genre.errors import ConfigError
from genre.settings import CorpusSettings
from genre.wording import plural


def corrected(
    tracks: Iterable[Track], settings: CorpusSettings, report: Callable[[str], None] | None = None
) -> Iterator[Track]:
    """Yield the tracks of a corpus with the genres of `settings.corrections`, and last the files that it adds.

    A genre is written as the corpus writes it. Published splits are kept, also `excluded`. Nothing is added to a corpus
    without a file, which is a mistake in its address. `report` is called with the number of changes. Raises
    `ConfigError` when the corrections cannot be read.
    """
    corrections = read(settings.corrections)
    spellings = Counter(corpora.classes(settings) or ())
    matches: list[tuple[Track, Track]] = []  # held back until all spellings of the corpus are known
    has_file = False
    for track in tracks:
        has_file |= track.size != MISSING
        if track.genre is not None and track.split != EXCLUDED:
            spellings[track.genre] += 1
        if correction := corrections.get(_file(track.path)):
            matches.append((track, correction))
        else:
            yield track
    names = _Names(spellings)
    changed = excluded = 0
    for track, correction in matches:
        genre = names.name_of(correction.genre)
        if track.split == EXCLUDED:
            excluded += 1
            yield track
        else:
            changed += genre != track.genre
            yield replace(track, genre=genre, split=None if track.split == UNLABELLED else track.split)
    listed = {_file(track.path) for track, _ in matches}
    added = [correction for file, correction in corrections.items() if has_file and file not in listed]
    yield from (replace(correction, genre=names.name_of(correction.genre)) for correction in added)
    if report:
        report(_described(changed, len(added), excluded, len(corrections)))


class _Names:
    """The names of the genres of a corpus, by their spellings."""

    def __init__(self, spellings: Counter[str]) -> None:
        self._exact = spellings
        self._names: dict[str, str] = {}  # the most frequent spelling, by folded genre
        for genre, _ in sorted(spellings.items(), key=lambda item: (-item[1], item[0])):
            self._names.setdefault(fold(genre), genre)

    def name_of(self, genre: str | None) -> str | None:
        """Return the spelling of the corpus; a genre that the corpus does not have stays as it is."""
        return genre if genre is None or genre in self._exact else self._names.get(fold(genre), genre)


def _described(changed: int, added: int, excluded: int, rows: int) -> str:
    line = f"corrections: {plural(changed, 'genre')} changed, {plural(added, 'track')} added"
    if excluded:
        return f"{line}, {excluded} left out by the published split"
    if changed or added:
        return line
    return f"{line}; the corpus has these genres already" if rows else f"{line}; the table gives no genre"


def read(address: str) -> dict[str, Track]:
    """Return the labelled rows of the table at `address`, by file. Raises `ConfigError` when it cannot be read."""
    table = CorpusSettings(kind="table", root=address, split="random")
    try:
        return {_file(track.path): track for track in corpora.scan(table) if track.genre is not None}
    except ConfigError as error:  # its remedies are those of corpus.kind=table
        problem = str(error).removeprefix("corpus.root=").partition("; set corpus.params.")[0]
        raise ConfigError(f"corpus.corrections: {problem}") from None


def _file(path: str) -> str:
    """Return the address of a file in the form in which addresses are compared."""
    return path if "://" in path else os.path.normpath(path)
