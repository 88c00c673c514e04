"""Genres that `tag` wrote into files: predictions, which a model must not take for labels.

OUTPUT/tags/written.csv of `tag` says which they are. A genre that a person wrote since is a label, and so is a label of
a person that `tag` wrote, and any genre of a file that `tag undo=` restored.

A file is found by its path, through links as well. One that was renamed since is another file: its genre is a label.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import lru_cache

import pyarrow as pa
import pyarrow.compute as pc

from genre.audio import tags
from genre.errors import ArtifactError, first_line, one_line
from genre.spreadsheet import read_csv
from genre.storage import Location
from genre.wording import plural


class PredictedGenres:
    """Finds the genres that `tag` wrote, and counts them."""

    def __init__(self, written: Location | None) -> None:
        """Read the table `written`, if it exists. Raises `ArtifactError` when it is damaged."""
        self._table = written
        self._written = _written_genres(written) if written and written.exists() else {}
        self._not_scanned = set(self._written)
        self.count = 0  # of the files that have such a genre

    def without(self, path: str, genres: tuple[str, ...]) -> tuple[str, ...]:
        """Return the genres of the file at `path`; none where they are those that were written into it."""
        if not genres or not self._written:
            return genres
        file = _identity(path)
        self._not_scanned.discard(file)
        if genres not in self._written.get(file, ()):
            return genres
        self.count += 1
        return ()

    def lines(self) -> Iterator[str]:
        """Yield a line that says how many there are, and one for files that may have been renamed, if there are any."""
        if self.count:
            were, are = ("was", "is") if self.count == 1 else ("were", "are")
            yield (
                f"prepare: {plural(self.count, 'genre')} {were} written by tag and {are} not learned; to learn those "
                "that are right, accept them in review and set corpus.corrections"
            )
        if missing := sum(not os.path.exists(file) for file in self._not_scanned):
            yield (
                f"prepare: not found: {plural(missing, 'file')} that {self._table} lists; if renamed since, their "
                "genres are learned, although tag wrote them"
            )


def _written_genres(file: Location) -> dict[str, frozenset[tuple[str, ...]]]:
    """Return, by file, each list of predictions that was written into it, or may have been by a job that was killed.

    The column `undo` has the earlier ones as well, such as those of a file that could not be written the last time, and
    none of a file that was restored.
    """
    rows = _read(file, ("path", "field", "undo"))
    rows = rows.filter(pc.and_(pc.equal(rows["field"], "genre"), pc.is_valid(rows["undo"])))
    written: dict[str, frozenset[tuple[str, ...]]] = {}
    try:
        for path, undo in zip(rows["path"].to_pylist(), rows["undo"].to_pylist(), strict=True):
            if genres := _predictions(json.loads(undo)):
                key = _identity(path)
                written[key] = written[key] | genres if key in written else genres
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _damaged(file, "the column undo was altered") from None
    return written


def _predictions(change: dict[str, list[list[str]]]) -> frozenset[tuple[str, ...]]:
    """Return the predictions among the values of a `genre.tagging.file_tags.Change`, as they are read from a file."""
    labels = change.get("labels", [])
    return _as_read(tuple(tuple(values) for values in change["ours"] if values not in labels))


@lru_cache
def _as_read(written: tuple[tuple[str, ...], ...]) -> frozenset[tuple[str, ...]]:
    return frozenset(genres for values in written for genres in tags.genres_as_read(values))


def _identity(path: str) -> str:
    """Return the path of a local file without links, and the address of another."""
    location = Location.of(path)
    return os.path.realpath(location.path) if location.is_local else path


def _read(file: Location, columns: tuple[str, ...]) -> pa.Table:
    """Return columns of a table of `tag`, all of them texts."""
    try:
        with file.filesystem.open_input_stream(file.path) as stream:
            return read_csv(stream, columns)
    except OSError as error:
        raise _damaged(file, one_line(error)) from None
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise _damaged(file, first_line(error)) from None


def _damaged(file: Location, problem: str) -> ArtifactError:
    return ArtifactError(
        f"{file}: cannot be read ({problem}), so that predictions in files cannot be told from labels; restore it, or "
        "choose another output to take all of them for labels"
    )
