"""Tracks in tar files: what is damaged or skipped is a line."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import pytest
from music import InTurn, write_song
from scanning import ids, refused, scan, settings, states
from sharding import add, config, webdataset, write_loose

from genre import corpora
from genre.audio import recordings
from genre.corpora._shards import find_shards
from genre.errors import AudioError
from ray_jobs.prepare import prepare


class TestWebDataset:
    def test_labels_are_beside_the_audio(self, tmp_path: Path) -> None:
        with tarfile.open(tmp_path / "a.tar", "w") as archive:
            add(archive, "1.cls", b"1")
            for name in ("1.mp3", "2.flac", "deep/3.wav", "4.wav", "5.wav", "6.wav"):
                add(archive, name, name.encode())
            add(archive, "2.json", b'{"style": "rock", "singer": 7}')
            add(archive, "deep/3.json", b'{"style": ["rock"]}')
            add(archive, "4.cls", b"7")
            add(archive, "._5.mp3", b"a system file")
            add(archive, "5.json", b"[1]")
            add(archive, "6.json", b'{"cls": 1}')
        params: dict[str, Any] = {"genre_key": "style", "group_key": "singer", "classes": ["a", "b"]}
        tracks = scan("webdataset", tmp_path / "a.tar", **params)
        assert [(track.track_id, track.genre, track.group) for track in tracks] == [
            ("a.tar/1.mp3", "b", None), ("a.tar/2.flac", "rock", "7"), ("a.tar/deep/3.wav", None, None),
            ("a.tar/4.wav", None, None), ("a.tar/5.wav", None, None), ("a.tar/6.wav", "b", None),
        ]  # fmt: skip
        assert [recordings.read(track.path).decode() for track in tracks][2] == "deep/3.wav"
        assert lines(tmp_path / "a.tar", **params) == [
            "odd: a.tar: 1 member skipped: labels that are not a JSON object; the first is 5.json"
        ]

    def test_links_and_absolute_paths_do_no_harm(self, tmp_path: Path) -> None:
        with tarfile.open(tmp_path / "a.tar", "w") as archive:
            add(archive, "/etc/1.wav", b"one")
            add(archive, "../2.wav", b"two")
            for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE):
                link = tarfile.TarInfo("link.wav")
                link.type, link.linkname = kind, "/etc/passwd"
                archive.addfile(link)
        tracks = scan("webdataset", tmp_path)
        assert [recordings.read(track.path) for track in tracks] == [b"one", b"two"]
        assert lines(tmp_path) == ["odd: a.tar: 3 members skipped: links or devices; the first is link.wav"]

    def test_nothing_outside_the_output_is_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        song = write_song(tmp_path / "loose/a.wav", seed=1).read_bytes()
        for place in (shards := tmp_path / "a/b/shards", tmp_path / "a/b/typed"):
            place.mkdir(parents=True)
        monkeypatch.chdir(tmp_path / "a/b/typed")
        with tarfile.open(shards / "a.tar", "w") as archive:
            for name in (f"{tmp_path}/absolute.wav", "../above.wav", "../../a/b/shards/a.tar.wav", "here.wav"):
                add(archive, name, song)
            for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                link = tarfile.TarInfo("link")
                link.type, link.linkname = kind, str(tmp_path)
                archive.addfile(link)
            add(archive, "link/behind.wav", song)
        before = states(tmp_path, without=tmp_path / "out")
        manifest = prepare(config("webdataset", shards, tmp_path / "out"), InTurn())
        assert (manifest.counts.tracks, manifest.counts.rejected) == (5, 0)
        assert states(tmp_path, without=tmp_path / "out") == before

    def test_what_is_skipped_has_a_line(self, tmp_path: Path) -> None:
        with tarfile.open(tmp_path / "a\nb.tar", "w", format=tarfile.PAX_FORMAT) as archive:
            for number in range(3):
                add(archive, "twice.wav", str(number).encode())
            add(archive, "line\nbreak.json", b"[" * 100_000)
            add(archive, "line\nbreak.wav", b"song")
            add(archive, "large.cls", b"rock" * 300_000)
            sparse = tarfile.TarInfo("holes.wav")
            sparse.pax_headers = {"GNU.sparse.size": "9", "GNU.sparse.map": "0,0"}
            archive.addfile(sparse)
            folder = tarfile.TarInfo("folder.wav")
            folder.type = tarfile.DIRTYPE
            archive.addfile(folder)
        tracks = scan("webdataset", tmp_path)
        assert [recordings.read(track.path) for track in tracks] == [b"2", b"song"]
        skipped = "odd: a b.tar: {} skipped: {}; the first is {}"
        assert lines(tmp_path) == [
            skipped.format("2 members", "a later one has the same name", "twice.wav"),
            skipped.format("1 member", "labels that are not a JSON object", "line break.json"),
            skipped.format("1 member", "labels of more than 1 MiB", "large.cls"),
            skipped.format("1 member", "sparse files", "holes.wav"),
        ]

    def test_a_shard_cut_in_half_gives_its_first_half(self, tmp_path: Path) -> None:
        files = write_loose(tmp_path / "loose")
        shard = webdataset(tmp_path / "a.tar", files)
        complete = scan("webdataset", shard)
        size = shard.stat().st_size
        first_header = 512 + -(-files[0].stat().st_size // 512) * 512
        for cut in (size // 2, size // 3, first_header + 512, first_header + 100, first_header, 700):
            shard.write_bytes(shard.read_bytes()[:cut])
            tracks = scan("webdataset", shard)
            assert ids(tracks) == ids(complete)[: len(tracks)]
            assert "truncated after" in lines(shard)[0]
            for track, file in zip(tracks[:-1], files, strict=False):
                assert recordings.read(track.path) == file.read_bytes()
        with pytest.raises(AudioError, match=r"a\.tar ends after"):
            recordings.read(tracks[0].path)

    @pytest.mark.parametrize("kept", [0, 300, 520])
    def test_a_shard_cut_before_its_first_recording_is_a_line(self, tmp_path: Path, kept: int) -> None:
        with tarfile.open(tmp_path / "a.tar", "w") as archive:
            add(archive, "0.json", b"{}" + b" " * 2000)
        (tmp_path / "a.tar").write_bytes((tmp_path / "a.tar").read_bytes()[:kept])
        assert scan("webdataset", tmp_path) == []
        webdataset(tmp_path / "b.tar", files := write_loose(tmp_path / "loose"))
        assert len(scan("webdataset", tmp_path)) == len(files)
        assert lines(tmp_path) == ["odd: a.tar: truncated after 0 recordings; copy it again"]

    def test_a_damaged_header_has_a_line(self, tmp_path: Path) -> None:
        shard = webdataset(tmp_path / "a.tar", write_loose(tmp_path / "loose"))
        content = bytearray(shard.read_bytes())
        with tarfile.open(shard) as archive:
            content[archive.getmembers()[4].offset + 150] ^= 255  # its checksum
        shard.write_bytes(content)
        assert len(scan("webdataset", shard)) == 2
        assert lines(shard) == ["odd: a.tar: truncated after 2 recordings; copy it again"]

    def test_a_genre_that_is_no_text_for_parquet_is_escaped(self, tmp_path: Path) -> None:
        with tarfile.open(tmp_path / "a.tar", "w") as archive:
            add(archive, "0.wav", b"song")
            add(archive, "0.json", b'{"genre": "\\ud800rock"}')
        assert [track.genre for track in scan("webdataset", tmp_path)] == ["\\ud800rock"]

    def test_what_is_no_tar_file_is_a_line_and_alone_refused(self, tmp_path: Path) -> None:
        (tmp_path / "b.tar").write_bytes(b"no tar file" * 100)
        assert "b.tar: cannot be read as a tar file (" in refused("webdataset", tmp_path)
        webdataset(tmp_path / "a.tar", files := write_loose(tmp_path / "loose"))
        assert len(scan("webdataset", tmp_path)) == len(files)
        (line,) = lines(tmp_path)
        assert line.startswith("odd: b.tar: cannot be read as a tar file (")

    def test_a_shard_that_vanishes_after_the_listing_is_a_line(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        webdataset(tmp_path / "a.tar", files := write_loose(tmp_path / "loose"))
        gone = webdataset(tmp_path / "b.tar", files)

        def listed(*arguments: Any) -> list[Any]:
            shards = find_shards(*arguments)
            gone.unlink()
            return shards

        monkeypatch.setattr("genre.corpora.webdataset.find_shards", listed)
        (line,) = lines(tmp_path)
        assert line.startswith("odd: b.tar: cannot be read as a tar file (")


def lines(root: Path, **params: Any) -> list[str]:
    found: list[str] = []
    list(corpora.scan(settings("webdataset", root, **params), found.append))
    return found
