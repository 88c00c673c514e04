from __future__ import annotations

import errno
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from scanning import ids, refused, scan, touch

from genre import corpora
from genre.corpora import _walk
from genre.errors import StorageError
from genre.storage import Location


@pytest.fixture(scope="module")
def addresses() -> Iterator[str]:
    """Return the address of an empty bucket on a real S3 server, with {} in place of the path."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_EC2_METADATA_DISABLED": "true"}
    with pytest.MonkeyPatch.context() as environment:
        for key, value in keys.items():
            environment.setenv(key, value)
        query = f"scheme=http&endpoint_override={host}:{port}&region=us-east-1&allow_bucket_creation=true"
        location = Location.of(f"s3://music?{query}")
        location.filesystem.create_dir(location.path)
        yield f"s3://music/{{}}?{query}"
    server.stop()


NAMES = st.sampled_from(["a", "B", "b c", "é", "10", "9"])
FOLDERS = st.one_of(st.just(""), NAMES)


class Faulty:
    """A listed file whose storage answers no question about it: no file system here fails at will."""

    def __init__(self, item: os.DirEntry[str]) -> None:
        self.path = item.path

    def stat(self) -> os.stat_result:
        raise OSError(errno.EIO, os.strerror(errno.EIO), self.path)


class TestWalk:
    def test_order_is_by_name_in_each_folder(self, tmp_path: Path) -> None:
        names = ["B/z.wav", "a/10.wav", "a/9.wav", "a/b/c.mp3", "a.flac", "é.ogg"]
        files = corpora.walk(Location.of(touch(tmp_path, *names)))
        assert [audio.relative for audio in files] == ["B/z.wav", "a/10.wav", "a/9.wav", "a/b/c.mp3", "a.flac", "é.ogg"]

    @examples(max_examples=20)
    @given(st.lists(st.tuples(FOLDERS, FOLDERS, NAMES), min_size=1, max_size=8, unique=True), st.booleans())
    def test_any_tree_is_listed_completely_in_the_order_of_its_parts(
        self, paths: list[tuple[str, str, str]], reverse: bool
    ) -> None:
        names = sorted({"/".join([*filter(None, folders), f"{name}.wav"]) for *folders, name in paths}, reverse=reverse)
        with tempfile.TemporaryDirectory() as root:
            touch(Path(root), *names)
            listed = [audio.relative for audio in corpora.walk(Location.of(root))]
        assert listed == sorted(names, key=lambda name: name.split("/"))

    def test_size_time_and_path(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.wav", content=b"12345")
        os.utime(tmp_path / "a.wav", (1_000_000_000.5, 1_000_000_000.5))
        (audio,) = corpora.walk(Location.of(tmp_path))
        assert (audio.path, audio.size, audio.modified) == (str(tmp_path / "a.wav"), 5, 1_000_000_000.5)

    def test_system_files_and_other_files_are_not_tracks(self, tmp_path: Path) -> None:
        others = "._a.wav .hidden.wav .git/b.wav __MACOSX/c.wav Thumbs.db cover.jpg a.cue notes.txt wav a.wav.part"
        touch(tmp_path, "a.WAV", "b.Mp3", "c.wv", *others.split())
        assert [audio.relative for audio in corpora.walk(Location.of(tmp_path))] == ["a.WAV", "b.Mp3", "c.wv"]

    def test_hidden_folder_above_the_root_is_accepted(self, tmp_path: Path) -> None:
        assert scan("folder", touch(tmp_path / ".cache", "rock/a.wav"))

    def test_only_links_to_files_inside_the_root_are_followed(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        outside = touch(tmp_path / "outside", "a.wav")
        root = touch(tmp_path / "root", "rock/a.wav", ".annex/key")
        (root / "rock" / "annexed.wav").symlink_to("../.annex/key")
        (root / "rock" / "broken.wav").symlink_to("../.annex/absent")
        (root / "rock" / "outside.wav").symlink_to(outside / "a.wav")
        (root / "rock" / "folder").symlink_to(outside)
        (root / "rock" / "loop").symlink_to(root)
        with caplog.at_level(logging.WARNING):
            sizes = {audio.relative: audio.size for audio in corpora.walk(Location.of(root))}
        assert sizes == {"rock/a.wav": 1, "rock/annexed.wav": 1, "rock/broken.wav": corpora.MISSING}
        assert "3 links not followed" in caplog.text

    @pytest.mark.parametrize("faults", [1, 99])
    def test_a_fault_of_the_storage_makes_no_file_missing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faults: int
    ) -> None:
        touch(tmp_path, "a.wav")
        (tmp_path / "b.wav").symlink_to("a.wav")
        left, really = [faults], _walk._stat

        def stat(item: os.DirEntry[str]) -> tuple[int, float]:
            left[0] -= 1
            return really(Faulty(item) if left[0] >= 0 else item)  # type: ignore[arg-type]

        monkeypatch.setattr(_walk, "_stat", stat)
        if faults == 1:
            assert [audio.size for audio in corpora.walk(Location.of(tmp_path))] == [1, 1]
        else:
            monkeypatch.setattr(_walk, "STORAGE_SECONDS", 0)
            with pytest.raises(StorageError, match="run the same command again when the storage answers"):
                list(corpora.walk(Location.of(tmp_path)))

    def test_root_may_be_a_link(self, tmp_path: Path) -> None:
        touch(tmp_path / "real", "rock/a.wav")
        (tmp_path / "link").symlink_to(tmp_path / "real")
        (tmp_path / "real" / "rock" / "b.wav").symlink_to("a.wav")
        assert ids(scan("folder", tmp_path / "link")) == ["rock/a.wav", "rock/b.wav"]

    def test_name_that_is_not_utf8_is_escaped_and_missing(self, tmp_path: Path) -> None:
        touch(tmp_path, "rock/a.wav")
        with open(os.fsencode(tmp_path) + b"/rock/caf\xe9.wav", "wb"):
            pass
        tracks = scan("folder", tmp_path)
        assert [(track.track_id, track.size) for track in tracks] == [("rock/a.wav", 1), ("rock/caf\\xe9.wav", -1)]
        assert tracks[1].path.encode()

    def test_error_names_a_folder_that_cannot_be_listed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        touch(tmp_path, "rock/a.wav", "secret/b.wav")
        scandir = os.scandir

        def denied(path: str) -> Any:
            if path.endswith("secret"):
                raise PermissionError(13, "Permission denied", path)
            return scandir(path)

        monkeypatch.setattr(os, "scandir", denied)  # tests may run as root, who can read everything
        assert f"{tmp_path}/secret cannot be listed (Permission denied)" in refused("folder", tmp_path)

    def test_refusals(self, tmp_path: Path) -> None:
        touch(tmp_path, "empty/cover.jpg", "file.wav")
        assert "corpus.root is empty; write corpus.root=/path" in refused("folder")
        assert "does not exist" in refused("folder", tmp_path / "absent")
        assert "is a file, not a folder" in refused("folder", tmp_path / "file.wav")
        assert "holds no audio file (.wav, .flac, .mp3, ...)" in refused("folder", tmp_path / "empty")
        assert "not an address pyarrow can open" in refused("folder", "nowhere://music")

    def test_object_storage_gives_the_same_tracks(self, addresses: str, tmp_path: Path) -> None:
        names = [
            "rock/The Band/a b.wav",
            "rock/é.wav",
            "folk/a#1.wav",
            "folk/what?.wav",
            "folk/50%25.wav",
            "folk/._a.wav",
        ]
        touch(tmp_path, *names, content=b"four")
        root = Location.of(addresses.format("folder"))
        for name in names:
            (root / name).write_bytes(b"four")
        remote, local = scan("folder", root), scan("folder", tmp_path)
        assert [(t.track_id, t.genre, t.group, t.size) for t in remote] == [
            (t.track_id, t.genre, t.group, t.size) for t in local
        ]
        assert {Location.of(track.path).read_bytes() for track in remote} == {b"four"}
        assert "does not exist" in refused("folder", addresses.format("absent"))


class TestTable:
    @staticmethod
    def write(root: Path, *lines: str, name: str = "tracks.csv") -> Path:
        touch(root, "a.wav", "sub/b.wav")
        (root / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        return root / name

    def test_csv(self, tmp_path: Path) -> None:
        elsewhere = touch(tmp_path / "elsewhere", "c.wav", content=b"123") / "c.wav"
        table = self.write(
            tmp_path / "music",
            "genre,mood,path,group,split",
            "rock,calm,sub/b.wav,007,train",
            'NA,,"a.wav",,',
            f"folk,,{elsewhere}, The Band ,excluded",
            "folk,,gone.wav,,test",
        )
        assert [(t.track_id, t.path, t.genre, t.group, t.split, t.size) for t in scan("table", table)] == [
            ("sub/b.wav", str(tmp_path / "music/sub/b.wav"), "rock", "007", "train", 1),
            ("a.wav", str(tmp_path / "music/a.wav"), "NA", None, None, 1),
            (str(elsewhere), str(elsewhere), "folk", "band", "excluded", 3),
            ("gone.wav", str(tmp_path / "music/gone.wav"), "folk", None, "test", -1),
        ]
        assert {track.split for track in scan("table", table, "random")} == {None}
        assert ids(scan("table", table, "official"))

    @pytest.mark.parametrize("split", ["auto", "random"])
    def test_a_row_without_a_genre_is_unlabelled(self, tmp_path: Path, split: str) -> None:
        table = self.write(tmp_path, "path,genre,split", "a.wav,rock,train", "b.wav, ,test", "c.wav,,")
        tracks = scan("table", table, split)
        assert [track.genre for track in tracks] == ["rock", None, None]
        assert [track.split for track in tracks][1:] == ["unlabelled", "unlabelled"]

    def test_other_names_of_splits(self, tmp_path: Path) -> None:
        names = ["Train", "validation", "val", "DEV", "Valid", "test", ""]
        rows = [f"{number}.wav,rock,{name}" for number, name in enumerate(names)]
        tracks = scan("table", self.write(tmp_path, "path,genre,split", *rows))
        assert [track.split for track in tracks] == ["train", "valid", "valid", "valid", "valid", "test", None]

    def test_tsv_and_a_byte_order_mark(self, tmp_path: Path) -> None:
        table = self.write(tmp_path, "\ufeffpath\tgenre", "a.wav\trock, hard", name="tracks.TSV")
        assert [track.genre for track in scan("table", table)] == ["rock, hard"]

    def test_parquet_in_batches_with_other_names(self, tmp_path: Path) -> None:
        n = 20000
        columns = {"file": [f"{i}.wav" for i in range(n)], "label": pa.array(["x", "y"] * (n // 2)).dictionary_encode()}
        pq.write_table(pa.table({**columns, "key": list(range(n))}), tmp_path / "list")
        named = {"path_column": "file", "genre_column": "label", "track_id_column": "key"}
        tracks = scan("table", tmp_path / "list", **named)
        assert ids(tracks) == [str(i) for i in range(n)]
        assert {track.genre for track in tracks} == {"x", "y"}

    @pytest.mark.parametrize(
        ("lines", "message"),
        [
            (["path,label", "a.wav,rock"], "has no column 'genre'; it has path, label; set corpus.params.genre_column"),
            (["path,genre", ",rock"], "line 2 has no path"),
            (
                ["path,genre,split", "a.wav,rock,eval"],
                "line 2: split 'eval' is not known; use train, valid, test, excluded or nothing",
            ),
            (
                ["path,genre", "a.wav,rock", "b.wav,folk", "a.wav,folk"],
                "1 row contradicts an earlier one of the same path: line 4 has 'a.wav' with genre 'folk', line 2 with "
                "genre 'rock'; keep the right row of each, or write paths with folders",
            ),
            (["path,genre", "a.wav,rock", "b.wav"], "is not a table"),
            ([""], "is not a table"),
        ],
    )
    def test_refusals(self, tmp_path: Path, lines: list[str], message: str) -> None:
        assert message in refused("table", self.write(tmp_path, *lines))

    def test_refusals_of_settings(self, tmp_path: Path) -> None:
        table = self.write(tmp_path, "path,genre", "a.wav,rock")
        assert "corpus.split=official" in refused("table", table, "official")
        assert "has no column 'artist'" in refused("table", table, group_column="artist")
        assert "absent.csv: it does not exist; check the address" in refused("table", tmp_path / "absent.csv")
        assert "is not a table" in refused("table", tmp_path)

    def test_object_storage(self, addresses: str) -> None:
        folder = Location.of(addresses.format("list"))
        (folder / "a 1.wav").write_bytes(b"12")
        address = (folder / "a 1.wav").address
        (folder / "t.csv").write_text(f"path,genre\na 1.wav,rock\n{address},folk\nabsent.wav,folk\n")
        tracks = scan("table", folder / "t.csv")
        assert [track.size for track in tracks] == [2, 2, -1]
        assert Location.of(tracks[0].path).read_bytes() == Location.of(tracks[1].path).read_bytes() == b"12"
