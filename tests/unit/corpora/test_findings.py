"""What a scan read of files is kept: an interrupted scan resumes, and its tracks are those of an undisturbed one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from faulty_storage import Handler, Proxy, healthy, refusing
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from library import tone, write_tags
from scanning import scan, settings, touch

from genre import corpora
from genre.audio import tags as tag_reader
from genre.audio.tags import FileTags
from genre.corpora import Track, tags
from genre.corpora import parquet as parquet_files
from genre.corpora import webdataset as tar_files
from genre.corpora._findings import Findings
from genre.errors import StorageError
from genre.storage import Location

FILES = 30


@dataclass(frozen=True)
class File:
    relative: str
    size: int
    modified: float


STATES = st.builds(File, st.sampled_from("abcd"), st.integers(0, 1), st.sampled_from([0.0, 1.5]))


@examples(max_examples=25)
@given(st.lists(st.tuples(st.lists(STATES, unique_by=lambda file: file.relative), st.booleans()), max_size=6))
def test_known_is_what_was_found_last_in_a_file_of_this_size_and_time(scans: list[tuple[list[File], bool]]) -> None:
    """Each scan adds what it does not know; some end, which drops what they did not list, and others do not."""
    model: dict[str, tuple[File, str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (files, ends) in enumerate(scans):
            findings = Findings(Location.of(folder))
            known = findings.known(files)
            found = dict(model.values())
            assert known == [found.get(file) for file in files]
            with findings.written():
                for file, text in zip(files, known, strict=True):
                    if text is None:
                        findings.add(file, f"{file} in scan {number}")
                        model[file.relative] = file, f"{file} in scan {number}"
            if ends:
                findings.finish(files)
                listed = {file.relative for file in files}
                model = {name: pair for name, pair in model.items() if name in listed}
                assert len(os.listdir(folder)) <= 1
        assert Findings(Location.of(folder)).known([file for file, _ in model.values()]) == [
            text for _, text in model.values()
        ]


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of files with tags, one of them without any and one that is no music."""
    root = tmp_path_factory.mktemp("findings")
    for number in range(FILES):
        path = tone(root / f"album{number % 5}" / f"{number:02d}.mp3", seed=number)
        if number:
            write_tags(path, genre=["Rock", "Jazz"][number % 2], artist=f"artist {number % 7}", album="é")
    (root / "album0" / "none.wav").write_bytes(b"no music")
    return root


@pytest.fixture
def library(music: Path, tmp_path: Path) -> Path:
    """Return a copy of the music."""
    return Path(shutil.copytree(music, tmp_path / "music"))


@dataclass
class Scanner:
    """Scans a corpus with a folder for findings, and counts the files that are read."""

    root: object
    folder: Location
    read: list[str]
    lines: list[str]
    kind: str = "tags"

    def __call__(self) -> list[Track]:
        self.read.clear()
        self.lines.clear()
        params: dict[str, Any] = {"min_tracks": 1, "min_artists": 1} if self.kind == "tags" else {}
        return list(corpora.scan(settings(self.kind, self.root, **params), self.lines.append, self.folder))


@pytest.fixture
def scanner(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scanner:
    read: list[str] = []

    def counted(file: Location) -> FileTags:
        read.append(file.name)
        return original(file)

    original = tag_reader.read
    monkeypatch.setattr(tag_reader, "read", counted)
    return Scanner(library, Location.of(tmp_path / "scan"), read, [])


def test_findings_change_no_track_and_no_line(scanner: Scanner) -> None:
    first = scanner()
    described = list(scanner.lines)
    assert len(scanner.read) == FILES + 1
    assert scanner() == first
    assert scanner.read == []
    assert scanner.lines == [f"tags of {FILES + 1} of {FILES + 1} files are known from an earlier scan", *described]
    scanner.folder.delete()
    assert scanner() == first


_KILLED = """
import os, signal, sys
from genre import corpora
from genre.corpora import _findings, tags
from genre.settings import CorpusSettings
from genre.storage import Location

parts = 0

def write(findings):
    global parts
    parts += 1
    if parts == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    original(findings)

original = _findings.Findings._write
_findings.Findings._write, _findings._WRITE_SECONDS, tags._CHUNK = write, 0, 8
list(corpora.scan(CorpusSettings(kind="tags", root=sys.argv[1]), print, Location.of(sys.argv[2])))
"""


def test_a_scan_that_was_killed_reads_only_the_rest(scanner: Scanner, tmp_path: Path) -> None:
    command = [sys.executable, "-c", _KILLED, str(scanner.root), str(scanner.folder)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    kept = sum(len(part.read_table()) for part in (scanner.folder / "tags-2").files())
    assert kept == 3
    resumed = scanner()
    assert len(scanner.read) == FILES + 1 - kept
    assert scanner.lines[0].startswith(f"tags of {kept} of {FILES + 1} files are known")
    scanner.folder.delete()
    assert scanner() == resumed


def test_what_was_read_before_ctrl_c_is_kept(scanner: Scanner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tags, "_CHUNK", 1)
    monkeypatch.setattr(tags, "_THREADS", 1)
    reader = tags._read_file

    def interrupted(audio: corpora.AudioFile) -> tags._Finding:
        if audio.relative == "album2/02.mp3":
            raise KeyboardInterrupt
        return reader(audio)

    monkeypatch.setattr(tags, "_read_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        scanner()
    monkeypatch.setattr(tags, "_read_file", reader)
    before = 2 * FILES // 5 + 1  # in albums 0 and 1
    scanner()
    assert len(scanner.read) == FILES + 1 - before


def test_changed_and_new_files_are_read_and_deleted_ones_forgotten(scanner: Scanner, library: Path) -> None:
    scanner()
    changed = library / "album1/01.mp3"
    write_tags(changed, genre="Blues")
    os.utime(changed, (1, 1))
    write_tags(tone(library / "new.mp3", seed=99), genre="Blues")
    (library / "album2/02.mp3").unlink()
    tracks = {track.track_id: track for track in scanner()}
    assert sorted(scanner.read) == ["01.mp3", "new.mp3"]
    assert tracks["album1/01.mp3"].genre == tracks["new.mp3"].genre == "Blues"
    assert "album2/02.mp3" not in tracks
    (part,) = (scanner.folder / "tags-2").files()
    names = part.read_table()["relative"].to_pylist()
    assert sorted(names) == sorted(tracks)


def test_a_file_of_findings_that_was_cut_is_read_again(scanner: Scanner, caplog: pytest.LogCaptureFixture) -> None:
    first = scanner()
    (part,) = (scanner.folder / "tags-2").files()
    with open(part.path, "r+b") as file:
        file.truncate(part.size() // 2)
    assert scanner() == first
    assert len(scanner.read) == FILES + 1
    assert "OUTPUT/scan/tags-2/000001.parquet is damaged; what it held is read again" in caplog.text
    scanner()
    assert scanner.read == []


def test_a_file_that_was_denied_is_asked_for_again(scanner: Scanner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rights change without the size and the time of a file."""
    reader = tag_reader.read

    def denied(file: Location) -> FileTags:
        if file.name == "01.mp3":
            raise PermissionError(13, "Permission denied", file.path)
        return reader(file)

    monkeypatch.setattr(tag_reader, "read", denied)
    assert next(track for track in scanner() if track.track_id == "album1/01.mp3").genre is None
    assert "1 file without readable tags" not in scanner.lines[-1]
    assert "the first is album0/none.wav" in scanner.lines[-1]
    monkeypatch.setattr(tag_reader, "read", reader)
    assert next(track for track in scanner() if track.track_id == "album1/01.mp3").genre == "Jazz"
    assert scanner.read == ["01.mp3"]


def upload(folder: Path, address: str) -> None:
    for path in folder.rglob("*.*"):
        (Location.of(address) / str(path.relative_to(folder))).write_bytes(path.read_bytes())


def of_files(server: Proxy) -> list[str]:
    """Return the requests for objects, without those that list."""
    return [request for request in server.requests if "list-type" not in request and "/music/" in request]


def test_a_bucket_that_goes_away_ends_the_scan_and_the_next_one_asks_for_the_rest(
    scanner: Scanner, library: Path, bucket: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault that passes makes no track unlabelled, and what was read before is not read again."""
    monkeypatch.setattr(tag_reader, "STORAGE_SECONDS", 0)
    monkeypatch.setattr(tags, "_CHUNK", 4)
    monkeypatch.setattr(tags, "_THREADS", 4)
    upload(library, "s3://bucket/music")
    scanner.root, local = "s3://bucket/music", [(track.track_id, track.genre, track.group) for track in scanner()]
    scanner.folder.delete()
    bucket.fault = refusing(400, "ExpiredToken", lambda request: "album3" in request.path)
    with pytest.raises(StorageError, match=r"album3/.*mp3 cannot be reached .*run the same command again"):
        scanner()
    bucket.fault = healthy
    bucket.requests.clear()
    assert [(track.track_id, track.genre, track.group) for track in scanner()] == local
    assert 0 < len(scanner.read) < FILES * 3 // 5
    assert {request.partition("/music/")[2].partition("/")[0] for request in of_files(bucket)} <= {
        "album2", "album3", "album4",
    }  # fmt: skip
    bucket.requests.clear()
    scanner()
    assert of_files(bucket) == []


@pytest.mark.parametrize("answered", [0, 1])
def test_a_parquet_file_that_cannot_be_reached_is_not_left_out(
    answered: int, bucket: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither its metadata nor, after them, its labels."""
    monkeypatch.setattr(parquet_files, "STORAGE_SECONDS", 0)
    for name in ("a", "b"):
        table = pa.table({"audio": [b"x"] * 5, "genre": ["a"] * 5})
        Location.of(f"s3://bucket/music/{name}.parquet").write_table(table)
    assert len(scan("parquet", "s3://bucket/music")) == 10
    gets = 0

    def fails_later(request: Handler, number: int) -> bool:
        nonlocal gets
        gets += request.command == "GET" and "b.parquet" in request.path
        if gets > answered and "b.parquet" in request.path:
            request.refuse(400, "ExpiredToken")
            return True
        return False

    bucket.fault = fails_later
    with pytest.raises(StorageError, match=r"b.parquet cannot be reached"):
        scan("parquet", "s3://bucket/music")


def test_a_tar_file_is_read_once_and_a_fault_does_not_shorten_it(
    tmp_path: Path, bucket: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tar_files, "STORAGE_SECONDS", 0)
    for name in ("a", "b"):
        with tarfile.open(touch(tmp_path / "shards", "notes.txt") / f"{name}.tar", "w") as archive:
            for number in range(5):
                path = touch(tmp_path / "loose", f"{number}.wav", content=bytes(50_000)) / f"{number}.wav"
                archive.add(path, path.name)
    upload(tmp_path / "shards", "s3://bucket/music")
    scanner = Scanner("s3://bucket/music", Location.of(tmp_path / "scan"), [], [], kind="webdataset")
    gets = 0

    def fails_later(request: Handler, number: int) -> bool:
        nonlocal gets
        gets += request.command == "GET" and "b.tar" in request.path
        if gets > 3 and "b.tar" in request.path:
            request.refuse(400, "ExpiredToken")
            return True
        return False

    bucket.fault = fails_later
    with pytest.raises(StorageError, match=r"b.tar cannot be reached"):
        scanner()
    bucket.fault = healthy
    bucket.requests.clear()
    tracks = scanner()
    assert len(tracks) == 10
    assert not any("a.tar" in request for request in of_files(bucket))
    bucket.requests.clear()
    assert scanner() == tracks
    assert of_files(bucket) == []
