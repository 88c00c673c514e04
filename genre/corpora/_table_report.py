"""Which genres the rows of a table name, and what a person should know about it before music is decoded."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc

from genre.corpora import EXCLUDED
from genre.corpora._genre_names import fold
from genre.corpora._spellings import by_count, counted, misspelt, most_common, short, written
from genre.corpora._table_columns import columns_of_names
from genre.corpora._table_rows import TableRows
from genre.wording import listed, plural

_GENRES = 30  # listed
_COLUMNS = 20  # listed
_SHOWN = 6  # genres that may be misspelt
_MANY = 20  # genres; more, with fewer than two tracks each, are rather titles
_FEW = 4  # tracks: a genre with fewer may be another one misspelt
_NAMED = 60  # of these genres are compared with the others


class TableReport:
    """Counts the genres of a table, and decides how they are named."""

    def __init__(self, rows: TableRows, *, reads_splits: bool, min_tracks: int = 1) -> None:
        """Read the table once. With `reads_splits`, rows that its split excludes are not counted.

        Genres with fewer tracks than `min_tracks` are not learned.
        """
        self._min_tracks = min_tracks
        self._rows, self._table = rows, rows.table
        self._spellings: dict[str, Counter[str]] = defaultdict(Counter)  # by folded genre
        self._folds: Counter[str] = Counter()
        self._unlabelled = 0
        for texts in rows.batches(("path", "genre", "split", "fold")):
            is_used = pc.or_(texts["path"].is_valid(), texts["genre"].is_valid())  # others are empty rows
            if reads_splits:
                is_used = pc.and_(is_used, pc.fill_null(pc.not_equal(pc.utf8_lower(texts["split"]), EXCLUDED), True))
            self._count(texts["genre"].filter(is_used))
            if reads_splits:
                self._folds.update(texts["fold"].filter(is_used).drop_null().to_pylist())
        self._tracks = Counter({key: spellings.total() for key, spellings in self._spellings.items()})
        self._names = {key: most_common(spellings) for key, spellings in self._spellings.items()}
        self._small = {key for key, count in self._tracks.items() if count < min_tracks}
        self._name_of = {
            text: None if key in self._small else self._names[key]
            for key, spellings in self._spellings.items()
            for text in spellings
        }

    def name_of(self, genre: str | None) -> str | None:
        """Return the most frequent spelling of a genre of the table, None for a genre that is not learned."""
        return None if genre is None else self._name_of.get(genre, genre)

    def lines(self) -> Iterator[str]:
        """Yield the report: the encoding if it was guessed, the genres, and what is odd."""
        line = self._table.guessed_from
        if line is not None:
            yield (
                f"table: line {line} is not UTF-8, so the table is read as Windows-1252 (cp1252); if letters are "
                'wrong, save it as "CSV UTF-8"'
            )
        learned = Counter({key: count for key, count in self._tracks.items() if key not in self._small})
        labelled, genres = learned.total(), plural(len(learned), "genre")
        total = self._tracks.total() + self._unlabelled
        yield f"table: {plural(total, 'track')}: {labelled} with {genres}, {total - labelled} unlabelled"
        ranked = by_count(learned)
        for key, count in ranked[:_GENRES]:
            yield f"  {count:>6} {short(self._names[key])}{written(self._spellings[key], self._names[key])}"
        if rest := ranked[_GENRES:]:
            yield f"  {sum(count for _, count in rest):>6} in {plural(len(rest), 'more genre')}"
        if self._small:
            small = by_count(Counter({key: self._tracks[key] for key in self._small}))
            names = (f"{short(self._names[key])} ({plural(count, 'track')})" for key, count in small)
            yield (
                f"not learned: genres with fewer than corpus.params.min_tracks={self._min_tracks}: "
                f"{listed(names, _COLUMNS)}"
            )
            if len(learned) < 2:
                yield "odd: fewer than two genres can be learned; lower corpus.params.min_tracks"
        if self._folds:
            folds = plural(len(self._folds), "published fold")
            yield f"table: {folds} for a cross-validation: {counted(self._folds)}"
        yield from self._odd()

    def _count(self, genres: pa.Array) -> None:
        for entry in pc.value_counts(genres).to_pylist():
            genre, count = entry["values"], entry["counts"]
            if genre is None:
                self._unlabelled += count
            else:
                self._spellings[fold(genre)][genre] += count

    def _misspelt(self) -> Iterator[str]:
        rare = [key for key, count in by_count(self._tracks) if count < _FEW]
        for key, near in islice(misspelt(rare[:_NAMED], sorted(self._tracks.keys() - rare)), _SHOWN):
            yield f"odd: {short(self._names[key])} may be {self._names[near]} misspelt; correct the table if it is"

    def _odd(self) -> Iterator[str]:
        genres, others = len(self._tracks), listed(self._table.others, _COLUMNS)
        are_titles = genres > max(_MANY, self._tracks.total() / 2)
        if repeated := self._rows.repeated:
            yield f"odd: {plural(repeated, 'row')} {'repeats' if repeated == 1 else 'repeat'} another one"
        number, example, row = self._rows.windows
        if number:
            yield (
                f"odd: {plural(number, 'path')} of a Windows machine, which cannot be found here, the first in "
                f"{self._table.place(row)}: {example}; write paths relative to the folder of the music"
            )
        if not are_titles:
            yield from self._misspelt()
        if others and (genres < 2 or are_titles):
            yield (
                f"odd: {plural(genres, 'genre')}; if the column {self._table.columns['genre']!r} has no genres, set "
                f"corpus.params.genre_column to the one that has: {others}"
            )
        if others and "group" not in self._table.columns:
            artists = listed(columns_of_names(self._table), _COLUMNS)
            candidates = f", if it is one of {artists}" if artists else ", if there is one"
            yield (
                "odd: artists are unknown: tracks of one artist may be in several splits, which makes scores too high; "
                f"set corpus.params.group_column to the column of artists or albums{candidates}"
            )
