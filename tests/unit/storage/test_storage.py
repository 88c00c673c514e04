"""Files at addresses: whole or not at all."""

from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import fs

from genre.errors import ArtifactError
from genre.storage import Location, location


@pytest.fixture
def place(tmp_path: Path) -> Location:
    return Location.of(tmp_path)


def test_addresses_go_down_and_keep_their_query() -> None:
    assert str(Location.of("/a/b/") / "c d") == "/a/b/c d"
    bucket = Location.of("s3://bucket/run?region=us-east-1") / "what #1? 100%é"
    assert bucket.path == "bucket/run/what #1? 100%é"
    assert Location.of(str(bucket)).path == bucket.path
    assert bucket.name == "what #1? 100%é"
    assert not bucket.is_local


@pytest.mark.parametrize(
    ("address", "parent"), [("/a/b", "/a"), ("/a", "/"), ("s3://bucket/a%20b/c?region=x", "s3://bucket/a%20b?region=x")]
)
def test_the_parent_has_its_path_and_address(address: str, parent: str) -> None:
    assert Location.of(address).parent == Location.of(parent)


@pytest.mark.parametrize(
    "address", ["s3://bucket/a%20b/c?region=us-east-1", "s3://key:secret@bucket/x?region=us-east-1"]
)
def test_paths_of_buckets_are_those_of_pyarrow(address: str) -> None:
    assert Location.of(address).path == fs.FileSystem.from_uri(address)[1]


def test_addresses_of_one_bucket_share_a_client() -> None:
    first, second = (Location.of(f"s3://bucket/{name}?region=us-east-1") for name in "ab")
    assert first.filesystem is second.filesystem
    assert pickle.loads(pickle.dumps(first)).path == "bucket/a"  # noqa: S301


def test_an_unknown_scheme_is_named() -> None:
    with pytest.raises(ArtifactError, match="ftp://host/x: not an address pyarrow can open"):
        Location.of("ftp://host/x")


def test_bytes_json_and_tables_come_back(place: Location) -> None:
    (place / "a" / "b.bin").write_bytes(b"\0music")
    assert (place / "a/b.bin").read_bytes() == b"\0music"
    assert (place / "a/b.bin").sha256() == hashlib.sha256(b"\0music").hexdigest()
    (place / "c.json").write_json({"x": [1, None]})
    assert (place / "c.json").read_json() == {"x": [1, None]}
    table = pa.table({"x": [1, 2]})
    (place / "t.parquet").write_table(table)
    assert (place / "t.parquet").read_table() == table
    assert [file.name for file in place.files()] == ["c.json", "t.parquet"]


def test_a_large_file_is_hashed_in_pieces(place: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(location, "_CHUNK_BYTES", 1000)
    (place / "a").write_bytes(bytes(range(256)) * 30)
    assert (place / "a").sha256() == hashlib.sha256(bytes(range(256)) * 30).hexdigest()


def test_a_damaged_page_is_named_and_a_missing_file_is_not_damaged(tmp_path: Path) -> None:
    table = Location.of(tmp_path / "x.parquet")
    table.write_table(pa.table({"name": [f"song {number % 313}" for number in range(20_000)]}))
    content = bytearray(table.read_bytes())
    content[4:400] = bytes(396)  # behind the magic bytes: the first page
    table.write_bytes(bytes(content))
    with pytest.raises(ArtifactError, match="not the Parquet file that was expected"):
        table.read_table()
    with pytest.raises(FileNotFoundError):
        Location.of(tmp_path / "absent.parquet").read_table()


@pytest.mark.parametrize("content", [b"{", b"\xff", b""])
def test_broken_files_are_named(place: Location, content: bytes) -> None:
    (place / "x").write_bytes(content)
    with pytest.raises(ArtifactError, match="not JSON; it was altered or truncated"):
        (place / "x").read_json()
    with pytest.raises(ArtifactError, match="not the Parquet file that was expected"):
        (place / "x").read_table()
    with pytest.raises(ArtifactError, match="not Parquet, or truncated"), (place / "x").open_parquet():
        pass


def test_a_table_in_pieces_appears_at_the_end(place: Location) -> None:
    schema = pa.schema([("x", pa.int64())])
    with (place / "sub" / "t.parquet").table_writer(schema) as writer:
        writer.write_table(pa.table({"x": [1]}))
        assert not (place / "sub/t.parquet").exists()
        writer.write_table(pa.table({"x": [2]}))
    with (place / "sub/t.parquet").open_parquet() as reader:
        assert reader.num_row_groups == 2
        assert reader.read()["x"].to_pylist() == [1, 2]


def test_an_error_leaves_what_was_there(place: Location) -> None:
    (place / "t.parquet").write_table(pa.table({"x": [1]}))
    schema = pa.schema([("x", pa.int64())])
    with pytest.raises(ZeroDivisionError), (place / "t.parquet").table_writer(schema) as writer:  # noqa: PT012
        writer.write_table(pa.table({"x": [2]}))
        raise ZeroDivisionError
    assert (place / "t.parquet").read_table()["x"].to_pylist() == [1]
    assert os.listdir(place.path) == ["t.parquet"]


def test_hidden_files_are_no_files_and_deleting_nothing_is_fine(place: Location) -> None:
    (place / ".hidden.parquet").write_bytes(b"")
    assert list(place.files()) == []
    (place / "nothing").delete()
    (place / ".hidden.parquet").delete()
    assert not place.children()


def test_names_of_new_folders_are_on_the_disk_before_a_file_in_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    sync = os.fsync

    def recorded(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", recorded)
    target = Location.of(tmp_path / "a" / "b" / "x")
    target.write_bytes(b"1")
    hidden = [path for path in synced if Path(path).name.startswith(".x.")]
    assert synced == [str(tmp_path), f"{tmp_path}/a", *hidden, f"{tmp_path}/a/b"]
    assert len(hidden) == 1
    synced.clear()
    target.write_bytes(b"2")
    assert len(synced) == 2  # the folders are there
    with pytest.raises(OSError, match=r"(?i)exists|not a directory"):
        (target / "below").write_bytes(b"3")
