"""OUTPUT/review/corrections.csv: the genre that a person gave to each file, in the order of the decisions.

    path    the file, as in tags.parquet
    genre   of the person, also where the model predicts it
    group   the artist in the form in which names are compared; empty where it is not known

`corpus.corrections` and `corpus.kind=table` read the file as it is. It is replaced with every decision, so that it
holds each one complete or not at all; with 100,000 rows that takes less than a tenth of a second (docs/LOG.md). Further
columns are kept.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

from genre.errors import ArtifactError
from genre.storage import Location

NAME = "corrections.csv"
COLUMNS = ("path", "genre", "group")


class Corrections:
    """The rows of the file. `incomplete` is the unfinished last row that was removed when it was opened, or ""."""

    def __init__(self, file: Location) -> None:
        """Read `file` if it exists. Raises `ArtifactError` when it is no table of corrections."""
        self.file = file
        self._columns: list[str] = list(COLUMNS)
        self._lines: dict[str, str] = {}  # rows as CSV, by path
        self.genres: dict[str, str] = {}  # by path
        self.incomplete = ""
        if file.exists():
            self._read()

    def put(self, path: str, genre: str, group: str | None) -> str | None:
        """Save the genre of a file. Return its earlier line, for `restore`. Raises `OSError` when it is not saved."""
        earlier = self._lines.get(path)
        row = dict(zip(self._columns, next(csv.reader([earlier])), strict=True)) if earlier else {}
        row |= {"path": path, "genre": genre, "group": row.get("group") or group or ""}
        self._save(path, _line(row.get(column, "") for column in self._columns))
        self.genres[path] = genre
        return earlier

    def restore(self, path: str, line: str | None) -> str | None:
        """Replace the line of a file by its earlier `line`; None removes it. Return the genre in `line`."""
        genre = dict(zip(self._columns, next(csv.reader([line])), strict=True))["genre"] if line else None
        self._save(path, line)
        if genre is None:
            self.genres.pop(path, None)
        else:
            self.genres[path] = genre
        return genre

    def _save(self, path: str, line: str | None) -> None:
        lines = {key: value for key, value in self._lines.items() if key != path}
        if line is not None:
            lines[path] = line
        self.file.write_text(_line(self._columns) + "".join(lines.values()))
        self._lines = lines

    def _read(self) -> None:
        try:
            text = self.file.read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError:
            raise ArtifactError(f"{self.file}: not UTF-8 text; move it away") from None
        complete = _complete(text)
        rows = list(csv.reader(io.StringIO(complete, newline="")))
        self._columns = rows.pop(0) if rows else []
        self.incomplete = text[len(complete) :]
        if self.incomplete and (last := _cells(self.incomplete, len(self._columns))):  # only the line break is missing
            rows.append(last)
            self.incomplete = ""
        if missing := [name for name in COLUMNS if name not in self._columns]:
            raise ArtifactError(f"{self.file}: has no column {missing[0]}; move it away")
        for number, cells in enumerate(rows, 1):
            row = dict(zip(self._columns, cells, strict=False))
            if len(cells) != len(self._columns) or not row["path"]:
                raise ArtifactError(
                    f"{self.file}: row {number} has {len(cells)} cells, of which path may not be empty; correct it"
                )
            self._lines[row["path"]] = _line(cells)
            self.genres[row["path"]] = row["genre"]
        if self.incomplete:
            self.file.write_text(complete)  # otherwise a reader would take the rest for a row


def _cells(text: str, count: int) -> list[str]:
    """Return the cells of a row that lacks its line break, [] unless there are `count`."""
    cells = next(csv.reader([text])) if text.count('"') % 2 == 0 and "\n" not in text else []
    return cells if len(cells) == count else []


def _line(cells: Iterable[str]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(cells)
    return out.getvalue()


def _complete(text: str) -> str:
    """Return the text up to the end of its last complete row: a line break outside quotes."""
    end = text.rfind("\n") + 1
    while end and text.count('"', 0, end) % 2:
        end = text.rfind("\n", 0, end - 1) + 1
    return text[:end]
