"""The tracks of a tagged collection in the order in which a person should review them: filters and pages.

Memory holds `tags.parquet` with artists and titles, without the probabilities of all genres, timelines and embeddings
(docs/LOG.md has figures). A filter is evaluated on columns, and only the tracks of a page become objects.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genre.arrays import Bools, Ints
from genre.errors import ArtifactError
from genre.features.columns import combined
from genre.model.calibration import UNKNOWN
from genre.storage import Location

PAGE_ROWS = 50
State = Literal["todo", "suspicious", "unknown", "untagged", "reviewed", "all"]
_LEDGER_COLUMNS = ("path", "artist", "title", "group")
_NOT_SUSPICIOUS = np.iinfo(np.int64).max  # rank after all suspicious labels


@dataclass(frozen=True)
class Filter:
    """Which tracks are listed: those that meet all conditions."""

    state: State = "todo"
    genre: str = ""  # that a person gave or, without one, the best of the model; empty: any
    text: str = ""  # in path, artist or title, in any case
    below: float = 1.0  # probability of the best genre; 1: any


@dataclass(frozen=True)
class ReviewTrack:
    """A track as it is shown."""

    row: int
    path: str
    name: str  # the path below the folder that all tracks share
    artist: str
    title: str
    seconds: float
    answer: str  # of the model, or unknown
    guesses: list[tuple[str, float]]  # the best genres and their probabilities
    label: str | None  # the label of the corpus, if it is suspicious and not what the model answers
    own_genre: str  # in the file's own tags
    genre: str | None  # that a person gave


@dataclass(frozen=True)
class Page:
    """Some of the tracks that match a filter. `previous` and `next` are the first rows of the neighbouring pages."""

    tracks: list[ReviewTrack]
    first: int  # number of matching tracks before this page
    matching: int
    previous: int | None
    next: int | None


@dataclass(frozen=True)
class Suspicion:
    """A label that the networks of a leaderboard doubt."""

    track_id: str
    label: str


@dataclass(eq=False)
class Collection:
    """Tracks, numbered in the order of review: suspicious labels, the worst first, then the least certain genres."""

    tags: pa.Table  # tags.parquet with artist, title, group and suspicious label
    genres: list[str]  # those of the model, the most frequent first, then those that a person added
    ambiguous: Sequence[str] = ()  # ids of suspicious tracks that several files end in
    is_reviewed: Bools = field(init=False)  # (tracks,)
    _of_model: int = field(init=False)  # number of genres that the model has
    _current: Ints = field(init=False)  # (tracks,) index of the genre that a person gave, or else of the best
    _best: Ints = field(init=False)  # (tracks,) index of the best genre of the model
    _is_unknown: Bools = field(init=False)
    _is_untagged: Bools = field(init=False)  # the own tags of the file name no genre

    def __post_init__(self) -> None:
        self._of_model = len(self.genres)
        self._best = combined(pc.index_in(self.tags["best"], pa.array(self.genres, pa.string()))).to_numpy(
            zero_copy_only=False
        )
        self._current = self._best.copy()
        self._is_unknown = pc.equal(self.tags["genre"], UNKNOWN).to_numpy(zero_copy_only=False)
        own_genres = pc.utf8_trim_whitespace(pc.fill_null(self.tags["own_genre"], ""))
        self._is_untagged = pc.equal(own_genres, "").to_numpy(zero_copy_only=False)
        self.is_reviewed = np.zeros(len(self), np.bool_)
        ends = pc.min_max(self.tags["path"]).as_py()
        self._root = os.path.commonprefix([ends["min"], ends["max"]]).rpartition("/")[0] + "/"  # noqa: RUF071 - of addresses as well
        self._top_k = sum(name.startswith("probability") for name in self.tags.column_names)

    @classmethod
    def open(cls, folder: Location, classes: list[str], suspicions: Iterable[Suspicion] = ()) -> Collection:
        """Read the tables in `folder`, OUTPUT/tags; `classes` are the genres of the model.

        Raises `ArtifactError` when they are missing, empty or of another kind.
        """
        tags = _read_tags(folder)
        counts = {entry["values"]: entry["counts"] for entry in pc.value_counts(tags["best"]).to_pylist()}
        if foreign := sorted(counts.keys() - set(classes)):
            raise ArtifactError(f"{folder}: has genres ({foreign[0]}) that the model does not know; name its own model")
        names = _read_names(folder, tags["path"])
        labels, ranks, ambiguous = _labels(tags["path"], tags["best"], suspicions)
        for name in names.column_names:
            tags = tags.append_column(name, names[name])
        tags = tags.append_column("label", pa.array(labels, pa.string()))
        order = np.lexsort((tags["probability"].to_numpy(), ranks))
        ordered = tags.take(pa.array(order)).combine_chunks()
        return cls(ordered, sorted(classes, key=lambda name: (-counts.get(name, 0), name)), ambiguous)

    def __len__(self) -> int:
        return len(self.tags)

    def path(self, row: int) -> str:
        return str(self.tags["path"][row])

    def group(self, row: int) -> str | None:
        """Return the artist of a track in the form in which names are compared."""
        group: str | None = self.tags["group"][row].as_py()
        return group

    def rows_of(self, paths: list[str]) -> list[int | None]:
        """Return the row of each path, None for a file that is not in the collection."""
        rows: list[int | None] = pc.index_in(pa.array(paths, pa.string()), combined(self.tags["path"])).to_pylist()
        return rows

    def set_genre(self, row: int, genre: str | None) -> None:
        """Set the genre that a person gave to a track; None: the track is not reviewed.

        A genre that a person added and that no track has any longer is removed: it was a slip.
        """
        if genre is not None and genre not in self.genres:
            self.genres.append(genre)
        earlier = int(self._current[row])
        self._current[row] = self._best[row] if genre is None else self.genres.index(genre)
        self.is_reviewed[row] = genre is not None
        if earlier >= self._of_model and not (self._current == earlier).any():
            del self.genres[earlier]
            self._current[self._current > earlier] -= 1

    def page(self, wanted: Filter, start: int = 0) -> Page:
        """Return the tracks that match, from the row `start` on."""
        rows = np.flatnonzero(self._matches(wanted))
        first = int(np.searchsorted(rows, start))
        shown = rows[first : first + PAGE_ROWS]
        before = int(rows[max(0, first - PAGE_ROWS)]) if first else None
        after = int(rows[first + PAGE_ROWS]) if len(rows) > first + PAGE_ROWS else None
        return Page(self._tracks(shown), first, len(rows), before, after)

    def _matches(self, wanted: Filter) -> Bools:
        matches: Bools = {
            "todo": ~self.is_reviewed,
            "suspicious": self.tags["label"].is_valid().to_numpy(),
            "unknown": self._is_unknown,
            "untagged": self._is_untagged,
            "reviewed": self.is_reviewed,
            "all": np.ones(len(self), np.bool_),
        }[wanted.state]
        if wanted.genre:
            matches = matches & (self._current == self._index(wanted.genre))
        if wanted.below < 1:
            matches = matches & (self.tags["probability"].to_numpy() < wanted.below)
        if wanted.text:
            matches_text = [
                pc.fill_null(pc.match_substring(self.tags[name], wanted.text, ignore_case=True), False).to_numpy()
                for name in ("path", "artist", "title")
            ]
            matches = matches & np.logical_or.reduce(matches_text)
        return matches

    def _index(self, genre: str) -> int:
        return self.genres.index(genre) if genre in self.genres else -1

    def _tracks(self, rows: Ints) -> list[ReviewTrack]:
        shown = self.tags.take(pa.array(rows)).to_pylist()
        return [self._track(int(row), values) for row, values in zip(rows, shown, strict=True)]

    def _track(self, row: int, values: dict[str, Any]) -> ReviewTrack:
        guesses = [(values["best"], values["probability"])]
        guesses += [(values[f"genre_{rank}"], values[f"probability_{rank}"]) for rank in range(2, self._top_k + 1)]
        path: str = values["path"]
        return ReviewTrack(
            row=row,
            path=path,
            name=path.removeprefix(self._root),
            artist=values["artist"] or "",
            title=values["title"] or "",
            seconds=values["seconds"],
            answer=values["genre"],
            guesses=[(genre, round(share, 4)) for genre, share in guesses],
            own_genre=values["own_genre"] or "",
            label=values["label"],
            genre=self.genres[self._current[row]] if self.is_reviewed[row] else None,
        )


def read_suspicions(file: Location) -> list[Suspicion]:
    """Return the rows of a `label_issues.csv`, the most certain first. Raises `ArtifactError` for another file."""
    try:
        text = file.read_bytes().decode("utf-8-sig")
        rows = csv.DictReader(io.StringIO(text, newline=""))
        if not {"track_id", "genre"} <= set(rows.fieldnames or ()):
            raise ValueError("no columns track_id and genre")
        # an apostrophe protects spreadsheets from a text that looks like a formula
        return [Suspicion(row["track_id"].removeprefix("'"), row["genre"].removeprefix("'")) for row in rows]
    except FileNotFoundError:
        raise ArtifactError(f"{file}: no such file; name the label_issues.csv of a leaderboard") from None
    except (ValueError, AttributeError, csv.Error) as error:
        raise ArtifactError(f"{file}: not a label_issues.csv ({error}); name that of a leaderboard") from None


def _read_tags(folder: Location) -> pa.Table:
    file = folder / "tags.parquet"
    if not file.exists():
        raise ArtifactError(f"{file}: there is no such file; tag the collection first, with the same output")
    tags = file.read_table()
    missing = {"path", "genre", "probability", "best", "seconds", "own_genre"} - set(tags.column_names)
    if missing:
        raise ArtifactError(f"{file}: has no column {min(missing)}; tag the collection again")
    if not len(tags):
        raise ArtifactError(f"{file}: has no tracks; see failures.csv next to it")
    return tags


def _read_names(folder: Location, paths: pa.ChunkedArray) -> pa.Table:
    """Return artist, title and group of each of `paths`, from the tag table (ledger.parquet)."""
    file = folder / "ledger.parquet"
    if not file.exists():
        raise ArtifactError(f"{file}: there is no such file; tag the collection first, with the same output")
    ledger = file.read_table(list(_LEDGER_COLUMNS))
    return ledger.drop_columns("path").take(pc.index_in(paths, value_set=combined(ledger["path"])))


def _labels(
    paths: pa.ChunkedArray, best: pa.ChunkedArray, suspicions: Iterable[Suspicion]
) -> tuple[list[str | None], Ints, list[str]]:
    """Return the suspicious label of each path, None where it has none, its place in the list, and the ambiguous ids.

    A track id is a path below the root of its corpus: it names the file whose path ends in it. An id that several files
    end in is ambiguous, and none of them gets its label. Nor does a file with the label as its `best` genre: this model
    and the label agree.
    """
    places = {suspicion.track_id.lstrip("/"): (place, suspicion) for place, suspicion in enumerate(suspicions)}
    rows_of: dict[str, list[int]] = {}
    names = {track_id.rpartition("/")[2] for track_id in places}
    for row, path in enumerate(_texts(paths) if places else ()):
        # most files are not suspicious, and a look at their names is enough
        if path.rpartition("/")[2] in names and (track_id := _id_of(path, places.keys())):
            rows_of.setdefault(track_id, []).append(row)
    labels: list[str | None] = [None] * len(paths)
    ranks = np.full(len(paths), _NOT_SUSPICIOUS, np.int64)
    for track_id, rows in rows_of.items():
        place, suspicion = places[track_id]
        if len(rows) == 1 and suspicion.label != best[rows[0]].as_py():
            labels[rows[0]], ranks[rows[0]] = suspicion.label, place
    return labels, ranks, sorted(track_id for track_id, rows in rows_of.items() if len(rows) > 1)


def _texts(column: pa.ChunkedArray) -> Iterator[str]:
    for chunk in column.iterchunks():
        yield from chunk.to_pylist()


def _id_of(path: str, track_ids: Set[str]) -> str:
    """Return the longest of `track_ids` that is the end of a path, "" if none is."""
    end = path.lstrip("/")
    while end and end not in track_ids:
        end = end.partition("/")[2]
    return end
