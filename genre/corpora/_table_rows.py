"""The rows of a table that are tracks: without empty rows and repeated ones, with slashes in their paths.

A row that repeats another one with the same labels is left out. One with other labels contradicts it. Of each row only
a hash and the number are kept, 16 bytes, to find those whose id is repeated; these alone are read again and compared.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genre.arrays import Bools, Ints
from genre.corpora._artists import artist_key
from genre.corpora._genre_names import fold
from genre.corpora._shards import SPLIT_OF
from genre.corpora._spellings import short
from genre.corpora._table_file import TableFile
from genre.errors import ConfigError
from genre.wording import and_more, plural

ROW = "row"  # the name of the numbers of rows in a batch
_WINDOWS = r"^([A-Za-z]:[\\/]|\\\\)"  # C:\Music, C:/Music, \\server\music
_SLASH_FIRST = r"^[^\\]*/"  # rock/AC\DC.wav; some programs of Windows write rock\AC-DC/1.wav
_SHOWN = 3  # rows that contradict another one
_LABELS = ("genre", "group", "split", "fold")


class TableRows:
    """Reads the rows of a table. `repeated` is the number of rows that repeat another one.

    `windows` has the number of paths of a Windows machine, with the first of them and its row, which is 0 without any.
    """

    def __init__(self, table: TableFile, *, reads_splits: bool) -> None:
        """Read the ids of all rows. Without `reads_splits`, rows with different splits and folds are the same.

        Raises `ConfigError` where all paths are absolute ones of a Windows machine.
        """
        self.table = table
        self._compared = _LABELS if reads_splits else _LABELS[:2]
        self._left_out: Ints = np.empty(0, np.int64)
        self._has_backslashes = False
        self.windows = self._read_paths()
        rows, firsts = self._repeats()
        self._contradicting = self._compare(rows, firsts) if len(rows) else np.zeros(0, bool)
        self._pairs = rows, firsts
        self._left_out = np.sort(rows)
        self.repeated = int((~self._contradicting).sum())

    def batches(self, names: Iterable[str]) -> Iterator[dict[str, pa.Array]]:
        """Yield the columns `names` of batches of rows, and their numbers, which start at 1 after the header."""
        for texts in self._all_batches(names):
            is_left_out = _contained(texts[ROW].to_numpy(), self._left_out)
            if is_left_out.any():
                kept = pa.array(~is_left_out)
                texts = {name: values.filter(kept) for name, values in texts.items()}
            yield texts

    def check(self) -> None:
        """Raise `ConfigError` where rows contradict others: their number, and the first of them."""
        rows, firsts = (numbers[self._contradicting] for numbers in self._pairs)
        if not len(rows):
            return
        order = np.argsort(rows)[:_SHOWN]
        pairs = list(zip(rows[order].tolist(), firsts[order].tolist(), strict=True))
        found = {row[ROW]: row for row in self._rows_of(np.unique(np.array(pairs)))}
        examples = "; ".join(self._difference(found[row], found[first]) for row, first in pairs)
        has_ids = any(found[row]["track_id"] for row, _ in pairs)
        has_folders = any("/" in (found[row]["path"] or "") for row, _ in pairs)
        advice = ", or give each file a track id of its own" if has_ids else ", or write paths with folders"
        kind = "track id" if has_ids else "path"
        advice = "" if has_folders and not has_ids else advice
        verb = "contradicts" if len(rows) == 1 else "contradict"
        raise ConfigError(
            f"{self.table.file}: {plural(len(rows), 'row')} {verb} an earlier one of the same {kind}: {examples}"
            f"{and_more(len(rows), _SHOWN)}; keep the right row of each{advice}"
        )

    def _all_batches(self, names: Iterable[str]) -> Iterator[dict[str, pa.Array]]:
        first = 1
        for texts in self.table.batches(names):
            if self._has_backslashes and "path" in texts:
                texts["path"] = pc.replace_substring(texts["path"], "\\", "/")
            size = len(next(iter(texts.values())))
            yield texts | {ROW: pa.array(np.arange(first, first + size))}
            first += size

    def _read_paths(self) -> tuple[int, str, int]:
        """Find whether backslashes separate folders, and the paths of Windows."""
        total = of_windows = with_backslash = slash_first = first = 0
        example = ""
        for texts in self._all_batches(("path",)):
            paths, rows = texts["path"], texts[ROW]
            total += len(paths) - paths.null_count
            is_of_windows = pc.fill_null(pc.match_substring_regex(paths, _WINDOWS), False)
            count = pc.sum(is_of_windows).as_py() or 0
            if count and not of_windows:
                place = pc.index(is_of_windows, True).as_py()
                example, first = paths[place].as_py(), rows[place].as_py()
            of_windows += count
            is_slash_first = pc.match_substring_regex(paths, _SLASH_FIRST)
            slash_first += pc.sum(is_slash_first).as_py() or 0
            with_backslash += pc.sum(pc.and_not(pc.match_substring(paths, "\\"), is_slash_first)).as_py() or 0
        if of_windows and of_windows == total:
            raise ConfigError(
                f"{self.table.file} lists paths of a Windows machine, such as {example}, which do not exist here; "
                f"write paths relative to the folder of the table, {self.table.file.parent}, or to "
                "corpus.params.folder"
            )
        self._has_backslashes = with_backslash > slash_first
        return of_windows, example, first

    def _repeats(self) -> tuple[Ints, Ints]:
        """Return the rows whose id an earlier one has, and the first row with it, both as numbers."""
        hashes, numbers = array("Q"), array("q")
        for texts in self._all_batches(("path", "track_id")):
            ids = pc.coalesce(texts["track_id"], texts["path"])
            is_valid = ids.is_valid()
            hashes.extend(map(_digest, ids.filter(is_valid).to_pylist()))
            numbers.frombytes(texts[ROW].filter(is_valid).to_numpy(zero_copy_only=False).tobytes())
        codes = np.frombuffer(hashes, np.uint64)
        order = np.argsort(codes, kind="stable")  # equal ones stay in the order of their rows
        is_new = np.ones(len(codes), bool)
        is_new[1:] = np.diff(codes[order]) != 0
        firsts = np.flatnonzero(is_new)[np.cumsum(is_new) - 1] if len(codes) else np.empty(0, np.int64)
        rows = np.frombuffer(numbers, np.int64)[order]
        return rows[~is_new], rows[firsts[~is_new]]

    def _compare(self, rows: Ints, firsts: Ints) -> Bools:
        """Return which rows have other labels than the first row with their id."""
        numbers = np.unique(np.concatenate([rows, firsts]))
        hashes = array("Q", (_digest(repr(self._labels(row))) for row in self._rows_of(numbers)))
        codes = np.frombuffer(hashes, np.uint64)
        different: Bools = codes[np.searchsorted(numbers, rows)] != codes[np.searchsorted(numbers, firsts)]
        return different

    def _rows_of(self, numbers: Ints) -> Iterator[dict[str, Any]]:
        """Yield the rows with these numbers, which are sorted."""
        for texts in self._all_batches(("path", *_LABELS, "track_id")):
            wanted = pa.array(_contained(texts[ROW].to_numpy(), numbers))
            yield from pa.table(texts).filter(wanted).to_pylist()
            if texts[ROW][-1].as_py() >= numbers[-1]:
                return

    def _labels(self, row: dict[str, Any]) -> tuple[str | None, ...]:
        """Return what must be equal in rows of the same id: names as they are compared, not as they are written."""
        split, genre = row["split"], row["genre"]
        same = {
            "genre": genre and fold(genre),
            "group": artist_key(row["group"]),
            "split": split and SPLIT_OF.get(split.lower(), split.lower()),
            "fold": row["fold"],
        }
        return row["path"], *(same[name] for name in self._compared)

    def _difference(self, row: dict[str, Any], first: dict[str, Any]) -> str:
        """Return where two rows of an id are, their genres, and which other labels differ."""
        pairs = zip(("path", *self._compared), self._labels(row), self._labels(first), strict=True)
        differing = [name for name, one, other in pairs if one != other and name != "genre"]
        names = ["genre", *differing]
        here, there = (" and ".join(_named(name, each) for name in names) for each in (row, first))
        place, first_place = self.table.place(row[ROW]), self.table.place(first[ROW])
        return f"{place} has {row['track_id'] or row['path']!r} with {here}, {first_place} with {there}"


def _named(name: str, row: dict[str, Any]) -> str:
    return f"{name} {short(row[name])!r}" if row[name] else f"no {name}"


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _contained(rows: Ints, numbers: Ints) -> Bools:
    """Return which `rows` are among the sorted `numbers`."""
    if not len(numbers):
        return np.zeros(len(rows), bool)
    contained: Bools = numbers[np.searchsorted(numbers, rows).clip(max=len(numbers) - 1)] == rows
    return contained
