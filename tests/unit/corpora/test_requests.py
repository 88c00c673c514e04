"""The number of requests that a scan sends to an object store."""

from __future__ import annotations

import threading
import time

import pytest
from faulty_storage import Handler, Proxy, refusing
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from pyarrow import fs
from scanning import ids, scan

from genre import corpora
from genre.corpora._shards import find_shards
from genre.errors import ConfigError, StorageError
from genre.settings import CorpusSettings
from genre.storage import Location
from genre.storage.faults import STORAGE_SECONDS

FOLDERS = 550


@pytest.fixture
def music(bucket: Proxy) -> Location:
    """Return a folder of a bucket with two songs in each of many folders. They are put into the server's memory."""
    server = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
    for number in range(2 * FOLDERS):
        server.put_object("bucket", f"music/rock/artist {number // 2}/{number:04d}.wav", b"song")
    return Location.of("s3://bucket/music")


def test_a_listing_costs_a_request_for_each_thousand_files_in_whatever_folders(bucket: Proxy, music: Location) -> None:
    assert len(set(ids(scan("folder", music)))) == 2 * FOLDERS
    assert len([request for request in bucket.requests if "max-keys=1000" in request]) == 2
    assert len(bucket.requests) <= 5  # the others find out what the root is


@pytest.mark.parametrize("ending", [".wav", ".parquet"])
def test_a_listing_is_repeated_until_the_storage_answers(bucket: Proxy, ending: str) -> None:
    root, lists = Location.of("s3://bucket/listed"), iter(range(99))
    for number in range(3):
        (root / "rock" / f"{number}{ending}").write_bytes(b"song")
    bucket.fault = refusing(400, "ExpiredToken", lambda request: "max-keys=1000" in request.path and next(lists) < 2)
    if ending == ".wav":
        assert len(ids(scan("folder", root))) == 3
    else:
        assert len(find_shards(CorpusSettings(root=str(root)), ending)) == 3
    assert next(lists) > 2


@pytest.mark.parametrize("kind", ["folder", "parquet", "webdataset"])
def test_a_root_that_cannot_be_reached_is_refused_without_waiting(bucket: Proxy, kind: str) -> None:
    bucket.fault = refusing(400, "ExpiredToken", lambda request: True)
    started = time.monotonic()
    with pytest.raises(ConfigError, match=r"check address and access|credentials have expired"):
        scan(kind, Location.of("s3://bucket/elsewhere"))
    assert time.monotonic() - started < STORAGE_SECONDS / 2


def test_a_table_looks_up_many_files_at_a_time(bucket: Proxy) -> None:
    (table := Location.of("s3://bucket/many.csv")).write_text(
        "\n".join(["path,genre", *(f"{number}.wav,rock" for number in range(256))])
    )
    lock, counts, many = threading.Lock(), {"now": 0}, threading.Event()

    def slow(request: Handler, number: int) -> bool:
        if ".wav" not in request.path:
            return False
        with lock:
            counts["now"] += 1
            if counts["now"] > 40:  # 25 are the least of an S3 client of Arrow
                many.set()
        many.wait(2)  # less than the client waits for an answer
        with lock:
            counts["now"] -= 1
        request.send_response_only(200)
        request.send_header("Content-Length", "4")
        request.end_headers()
        return True

    bucket.fault = slow
    assert [track.size for track in scan("table", table)] == [4] * 256
    assert many.is_set()


def test_a_table_with_sizes_and_times_asks_for_no_file(bucket: Proxy, music: Location) -> None:
    """Without these columns each file costs a request."""
    info = fs.FileSelector(music.path, recursive=True)
    files = [each for each in music.filesystem.get_file_info(info) if each.type == fs.FileType.File][:60]
    rows = [f"{each.path.removeprefix('bucket/')},rock,{each.size},{each.mtime.timestamp()}" for each in files]
    (table := Location.of("s3://bucket/with.csv")).write_text("\n".join(["path,genre,size,modified", *rows]))
    bucket.requests.clear()
    listed = scan("table", table)
    assert [track.size for track in listed] == [4] * 60
    assert not [request for request in bucket.requests if ".wav" in request]
    assert len(bucket.requests) <= 8
    (table := Location.of("s3://bucket/without.csv")).write_text(
        "\n".join([",".join(row.split(",")[:2]) for row in ["path,genre", *rows]])
    )
    bucket.requests.clear()
    looked_up = scan("table", table)
    assert len([request for request in bucket.requests if ".wav" in request]) == 60
    assert {(track.path, track.size) for track in looked_up} == {(track.path, track.size) for track in listed}


def test_files_of_a_table_are_looked_up_until_the_storage_answers(
    bucket: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Location.of("s3://bucket/rows")
    (root / "a.wav").write_bytes(b"song")
    (table := root / "rows.csv").write_text("path,genre\na.wav,rock\nabsent.wav,rock\n")
    lookups = iter(range(99))
    bucket.fault = refusing(400, "ExpiredToken", lambda request: "a.wav" in request.path and next(lookups) < 2)
    assert [track.size for track in scan("table", table)] == [4, corpora.MISSING]
    assert next(lookups) > 2
    monkeypatch.setattr("genre.corpora.table.STORAGE_SECONDS", 0)
    bucket.fault = refusing(400, "ExpiredToken", lambda request: "a.wav" in request.path)
    with pytest.raises(StorageError, match=r"rows/a.wav cannot be reached"):
        scan("table", table)


def test_denied_files_of_a_table_are_refused_without_waiting(bucket: Proxy) -> None:
    (table := Location.of("s3://bucket/denied.csv")).write_text("path,genre\nsecret/a.wav,rock\n")
    bucket.fault = refusing(403, "AccessDenied", lambda request: "secret" in request.path)
    started = time.monotonic()
    with pytest.raises(ConfigError, match=r"'secret/a\.wav' cannot be reached .*check your access"):
        scan("table", table)
    assert time.monotonic() - started < STORAGE_SECONDS / 2
