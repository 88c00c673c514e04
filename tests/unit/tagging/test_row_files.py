"""Rows of several files in any order, and the set of known contents."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genre.storage import Location
from genre.tagging.known_contents import KnownContents
from genre.tagging.row_files import RowFiles

SCHEMA = pa.schema([("number", pa.int64()), ("list", pa.list_(pa.float32()))])


def table(numbers: range) -> pa.Table:
    return pa.table([list(numbers), [[0.5 * n] * (n % 3) for n in numbers]], schema=SCHEMA)


@pytest.fixture
def files(tmp_path: Path) -> RowFiles:
    """Numbers 0 to 99 in row groups of 7, and 100 to 149 in one."""
    pq.write_table(table(range(100)), tmp_path / "a.parquet", row_group_size=7)
    pq.write_table(table(range(100, 150)), tmp_path / "b.parquet")
    rows = RowFiles(SCHEMA, [Location.of(tmp_path / "a.parquet")])
    assert rows.add(Location.of(tmp_path / "b.parquet")) == 1
    return rows


def test_rows_are_taken_in_any_order_and_repeated(files: RowFiles, rng: np.random.Generator) -> None:
    numbers = rng.integers(0, 150, 400)
    taken = files.take((numbers >= 100).astype(np.int64), np.where(numbers < 100, numbers, numbers - 100))
    assert taken["number"].to_pylist() == numbers.tolist()
    assert taken["list"].to_pylist() == [[0.5 * n] * (n % 3) for n in numbers.tolist()]


def test_no_rows_are_an_empty_table(files: RowFiles) -> None:
    nothing = np.zeros(0, np.int64)
    assert files.take(nothing, nothing).equals(SCHEMA.empty_table())


def test_only_the_row_groups_of_the_rows_are_read(files: RowFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    read = pq.ParquetFile.read_row_groups
    groups: list[list[int]] = []

    def record(reader: pq.ParquetFile, numbers: list[int], **options: object) -> pa.Table:
        groups.append(numbers)
        return read(reader, numbers, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_groups", record)
    taken = files.take(np.zeros(3, np.int64), np.array([50, 6, 7]))
    assert taken["number"].to_pylist() == [50, 6, 7]
    assert groups == [[0, 1, 7]]


def test_known_contents_are_those_given() -> None:
    contents = [hashlib.sha256(bytes([n])).hexdigest() for n in range(50)]
    known = KnownContents.of(pa.chunked_array([contents[:20], contents[20:40]]), pa.chunked_array([[5] * 39 + [7]]))
    assert [content in known for content in contents] == [True] * 40 + [False] * 10
    assert None not in known
    assert [known.has_size(size) for size in (4, 5, 6, 7, 8)] == [False, True, False, True, False]


def test_a_slice_of_contents_is_read_from_its_start() -> None:
    contents = pa.chunked_array([[hashlib.sha256(bytes([n])).hexdigest() for n in range(9)]])
    known = KnownContents.of(contents.slice(3, 4), pa.chunked_array([[1] * 4]))
    assert [each.as_py() in known for each in contents] == [False] * 3 + [True] * 4 + [False] * 2


def test_no_contents_hold_nothing() -> None:
    assert "0" * 64 not in KnownContents.none()
    assert not KnownContents.none().has_size(0)
    empty = pa.chunked_array([], pa.string())
    assert "0" * 64 not in KnownContents.of(empty, pa.chunked_array([], pa.int64()))
