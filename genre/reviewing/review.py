"""The review of a collection by one person: tracks, decisions and undo."""

from __future__ import annotations

import re
from dataclasses import dataclass

from genre.corpora import fold
from genre.model.calibration import UNKNOWN
from genre.reviewing.collection import Collection
from genre.reviewing.corrections import Corrections
from genre.spreadsheet import FORMULA

LONGEST = 60  # characters of a new genre


class GenreNameError(ValueError):
    """A text that cannot be the name of a genre."""


class NewGenreError(ValueError):
    """A genre that neither the model nor an earlier correction has."""


@dataclass(frozen=True)
class ReviewedRow:
    """The genre of a row after a decision or an undo; None: not reviewed."""

    row: int
    genre: str | None


class Review:
    """A collection and its corrections. Not for several threads at a time."""

    def __init__(self, collection: Collection, corrections: Corrections) -> None:
        """Continue from the decisions in `corrections`. Those about other files stay in its file."""
        self.collection, self.corrections = collection, corrections
        self._undo: list[tuple[int, str | None]] = []
        rows = collection.rows_of(list(corrections.genres))
        for row, genre in zip(rows, corrections.genres.values(), strict=True):
            if row is not None and genre:
                collection.set_genre(row, genre)

    @property
    def reviewed(self) -> int:
        """Number of reviewed tracks."""
        return int(self.collection.is_reviewed.sum())

    def decide(self, row: int, text: str, is_new: bool = False) -> ReviewedRow:
        """Save the genre of a track. Another spelling of a known genre is the known one.

        Raises `GenreNameError`, `NewGenreError` unless `is_new`, and `OSError` when it could not be saved.
        """
        genre = self._resolve(text, is_new)
        path = self.collection.path(row)
        earlier = self.corrections.put(path, genre, self.collection.group(row))
        self._undo.append((row, earlier))
        self.collection.set_genre(row, genre)
        return ReviewedRow(row, genre)

    def undo(self) -> ReviewedRow | None:
        """Take back the last decision of this session, and return the genre of its track now; None: there is none."""
        if not self._undo:
            return None
        row, earlier = self._undo[-1]
        genre = self.corrections.restore(self.collection.path(row), earlier) or None
        self._undo.pop()
        self.collection.set_genre(row, genre)
        return ReviewedRow(row, genre)

    def _resolve(self, text: str, is_new: bool) -> str:
        if text in self.collection.genres:
            return text
        name = " ".join(text.split())
        if not name or len(name) > LONGEST or not name.isprintable():
            raise GenreNameError(f"a genre has 1 to {LONGEST} characters, found {name[:LONGEST]!r}")
        # as in a corpus, case, accents, spaces and punctuation do not matter; of two spellings the more frequent
        known = {fold(genre): genre for genre in reversed(self.collection.genres)}
        if (folded := fold(name)) in known:
            return known[folded]
        if re.match(FORMULA, name):
            raise GenreNameError(f"a spreadsheet would run {name!r} as a formula; begin with a letter")
        if name.casefold() == UNKNOWN:
            raise GenreNameError(f"{UNKNOWN} is what the model says when it is unsure; skip the track")
        if not is_new:
            raise NewGenreError(f"{name!r} is a new genre")
        return name
