"""Faults of a storage, separated from what a file is: with an S3 server behind a proxy, and with folders."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path
from urllib.request import urlopen
from xml.etree import ElementTree

import faulty_storage
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from faulty_storage import Fault, Handler, behind, refusing

from genre.errors import ConfigError, StorageError, one_line
from genre.storage import Location
from genre.storage.faults import check_place, explain, full_disk_named, is_fault, retry

SONG = bytes(range(256)) * 4096


def read(file: Location, seconds: float = 0.0) -> bytes:
    return retry(file.read_bytes, file, seconds)


def song(name: str = "song.wav") -> Location:
    return Location.of(f"s3://bucket/faults/{name}")


@pytest.mark.parametrize("fault", [faulty_storage.busy, faulty_storage.cutting], ids=["busy", "cutting"])
def test_requests_that_fail_now_and_then_are_repeated(
    bucket_server: dict[str, str], monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    with behind(bucket_server, fault, monkeypatch) as proxy:
        song().write_bytes(SONG)
        assert all(read(song()) == SONG for _ in range(8))
        assert proxy.faults


def test_a_denied_file_is_a_file_and_a_denied_bucket_a_fault(
    bucket_server: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    song().write_bytes(SONG)
    one = refusing(403, "AccessDenied", lambda request: "song.wav" in request.path)
    with behind(bucket_server, one, monkeypatch), pytest.raises(OSError, match="ACCESS_DENIED"):
        read(song())
    every = refusing(403, "AccessDenied", lambda request: True)
    with behind(bucket_server, every, monkeypatch), pytest.raises(StorageError, match=r"song.* cannot be reached"):
        read(song())


def test_an_expired_token_is_a_fault(bucket_server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    song().write_bytes(SONG)
    expired = refusing(400, "ExpiredToken", lambda request: True)
    with behind(bucket_server, expired, monkeypatch), pytest.raises(StorageError, match="run the same command again"):
        read(song())


def test_a_missing_object_is_a_file(bucket_server: dict[str, str]) -> None:
    song().write_bytes(SONG)
    with pytest.raises(FileNotFoundError):
        read(song("other.wav"), seconds=60)


def test_a_missing_file_is_no_fault_unless_its_folder_is_away(tmp_path: Path) -> None:
    folder = tmp_path / "music"
    folder.mkdir()
    (folder / "other.wav").write_bytes(SONG)
    file = Location.of(folder / "song.wav")
    with pytest.raises(FileNotFoundError):
        read(file, seconds=60)
    (folder / "other.wav").unlink()  # what a mount point looks like without its storage
    with pytest.raises(StorageError, match="No such file"):
        read(file)
    folder.rmdir()
    with pytest.raises(StorageError, match="No such file"):
        read(file)


def test_a_folder_that_comes_back_in_time_is_read(tmp_path: Path) -> None:
    (tmp_path / "away").mkdir()
    (tmp_path / "away/song.wav").write_bytes(SONG)
    back = threading.Timer(1, os.rename, (tmp_path / "away", tmp_path / "music"))
    back.start()
    assert read(Location.of(tmp_path / "music/song.wav"), seconds=60) == SONG
    back.join()


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.ENOTCONN, errno.ETIMEDOUT])
def test_errors_of_network_folders_are_faults(tmp_path: Path, number: int) -> None:
    assert is_fault(OSError(number, os.strerror(number)), Location.of(tmp_path / "song.wav"))


@pytest.mark.parametrize("number", [errno.ELOOP, errno.EISDIR, errno.ENAMETOOLONG])
def test_errors_of_names_and_kinds_are_files(tmp_path: Path, number: int) -> None:
    assert not is_fault(OSError(number, os.strerror(number)), Location.of(tmp_path / "song.wav"))


def test_a_page_that_cannot_be_decoded_is_no_fault(tmp_path: Path) -> None:
    """Without this, a damaged recording in an object store would end every run."""
    rng, messages = np.random.default_rng(0), set()
    for compression in ("none", "snappy", "gzip", "zstd", "lz4", "brotli"):
        for _ in range(20):
            table = pa.table({"audio": [rng.bytes(20) * 50 for _ in range(20)]})
            pq.write_table(table, tmp_path / "a.parquet", compression=compression, use_dictionary=False)
            column = pq.read_metadata(tmp_path / "a.parquet").row_group(0).column(0)
            content = bytearray((tmp_path / "a.parquet").read_bytes())
            place = column.data_page_offset + int(rng.integers(column.total_compressed_size - 8))
            content[place : place + 8] = rng.bytes(8)
            (tmp_path / "a.parquet").write_bytes(content)
            try:
                pq.read_table(tmp_path / "a.parquet")
            except OSError as error:
                messages.add(str(error))
            except pa.ArrowInvalid:
                continue  # no OSError, so never taken for a fault
    assert len(messages) > 4
    remote = Location.of("s3://bucket/a.parquet?region=us-east-1")
    faults = {message for message in messages if is_fault(OSError(message), remote)}
    assert faults <= {"Unexpected end of stream"}  # as after a cut connection
    assert is_fault(OSError("When reading information: AWS Error NETWORK_CONNECTION during GetObject"), remote)


def test_a_file_is_uploaded_completely_or_not_at_all(
    bucket_server: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = Location.of("s3://bucket/out/large.bin")
    with pytest.raises(ZeroDivisionError), target.open_output() as stream:  # noqa: PT012
        stream.write(SONG)
        raise ZeroDivisionError
    assert not target.exists()

    def second_part(request: Handler) -> bool:
        return "partNumber=2" in request.path

    content = SONG * 25  # more than two parts of an upload
    with behind(bucket_server, refusing(403, "AccessDenied", second_part), monkeypatch):
        with pytest.raises(OSError, match="ACCESS_DENIED"):
            Location.of(target.address).write_bytes(content)
        time.sleep(0.5)
        assert not target.exists()
    target.write_bytes(content)
    assert target.size() == len(content)


def test_only_a_large_file_leaves_pieces_when_its_upload_fails(
    bucket_server: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pieces of a large one are those that the rule of docs/CLUSTER.md deletes, until pyarrow can."""

    def names_of_uploads() -> list[str]:
        with urlopen(f"{bucket_server['AWS_ENDPOINT_URL']}/bucket?uploads") as answer:
            names = [key.text or "" for key in ElementTree.parse(answer).iter() if key.tag.endswith("Key")]
        return [name for name in names if name.startswith("uploads/")]

    small, large = Location.of("s3://bucket/uploads/small"), Location.of("s3://bucket/uploads/large")
    with behind(bucket_server, faulty_storage.healthy, monkeypatch) as proxy:
        for content in (b"", SONG):
            Location.of(small.address).write_bytes(content)
            assert small.read_bytes() == content
        assert [request.split()[0] for request in proxy.requests] == ["PUT", "PUT"]
    ends = refusing(403, "AccessDenied", lambda request: request.command == "POST" and "uploadId" in request.path)
    with behind(bucket_server, ends, monkeypatch), pytest.raises(OSError, match="ACCESS_DENIED"):
        Location.of(large.address).write_bytes(SONG * 11)
    puts = refusing(403, "AccessDenied", lambda request: request.command == "PUT")
    with behind(bucket_server, puts, monkeypatch), pytest.raises(OSError, match="ACCESS_DENIED"):
        Location.of(small.address).write_bytes(SONG)
    assert names_of_uploads() == ["uploads/large"]
    assert not large.exists()


def test_the_reason_of_an_error_has_no_path(tmp_path: Path) -> None:
    for read in (Location.of(tmp_path / "none").read_bytes, (tmp_path / "none").read_bytes):
        with pytest.raises(FileNotFoundError) as caught:
            read()
        assert one_line(caught.value) == "No such file or directory"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named(tmp_path: Path, number: int) -> None:
    output = str(tmp_path)
    for name, folder in (
        (f"{output}/features/clips/a.parquet", f"{output}/features/clips"),
        (None, output),
        (5, output),
    ):
        with pytest.raises(StorageError) as error, full_disk_named(output):
            raise OSError(number, "Error writing bytes to file", name)
        assert str(error.value) == (
            f"{folder}: cannot be written ({os.strerror(number)}); free space and run the same command again"
        )
    with pytest.raises(FileNotFoundError), full_disk_named(output):
        (tmp_path / "none").read_bytes()


_KEYS = "access is denied; check your credentials and their rights"
_OLD = "the credentials have expired; renew them"


@pytest.mark.parametrize(
    ("status", "code", "says"),
    [
        (403, "AccessDenied", _KEYS),
        (403, "InvalidAccessKeyId", _KEYS),
        (403, "SignatureDoesNotMatch", _KEYS),
        (400, "ExpiredToken", _OLD),
    ],
)
def test_a_refusal_says_what_to_do(
    status: int, code: str, says: str, bucket_server: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    song().write_bytes(SONG)
    with behind(bucket_server, refusing(status, code, lambda request: True), monkeypatch):
        with pytest.raises(OSError, match="HeadObject") as raised:
            song().read_bytes()
        assert explain(raised.value, song()) == says
        with pytest.raises(ConfigError, match=f"output=s3://bucket/run: {says}"):
            check_place(Location.of("s3://bucket/run"), "output")


def test_a_missing_bucket_is_told_from_a_missing_file(bucket_server: dict[str, str]) -> None:
    song().write_bytes(SONG)
    for address, says in (("s3://wrong/a.csv", "the bucket wrong"), ("s3://bucket/a.csv", "it")):
        with pytest.raises(FileNotFoundError) as raised:
            Location.of(address).read_bytes()
        assert explain(raised.value, Location.of(address)) == f"{says} does not exist; check the address"


def test_a_place_is_checked_without_writing(
    bucket_server: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with behind(bucket_server, faulty_storage.healthy, monkeypatch) as proxy:
        check_place(Location.of("s3://bucket/new/run"), "output")
        with pytest.raises(ConfigError, match=r"^output=s3://wrong/run: the bucket wrong does not exist; check"):
            check_place(Location.of("s3://wrong/run"), "output")
        assert {request.split()[0] for request in proxy.requests} == {"HEAD", "GET"}
    # a policy that allows only a part of the bucket denies the question for the bucket itself
    part = refusing(403, "AccessDenied", lambda request: request.path.strip("/") == "bucket")
    with behind(bucket_server, part, monkeypatch):
        check_place(Location.of("s3://bucket/new/run"), "output")
    check_place(Location.of(tmp_path / "new" / "run"), "output")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"output=.*/file/run: .*/file is not a folder; choose another"):
        check_place(Location.of(tmp_path / "file" / "run"), "output")
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
