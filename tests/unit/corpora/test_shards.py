"""Tracks in Parquet and tar files: the same features as from loose files, and what is damaged is a reject or a line."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from library import tone
from music import InTurn, clip_rows, config_of, write_song
from scanning import ids, refused, scan, settings, states

from genre import corpora
from genre.audio import members, recordings
from genre.config import validate
from genre.corpora import UNLABELLED, parquet
from genre.corpora._shards import find_shards
from genre.errors import AudioError, StorageError
from genre.settings import Config
from genre.storage import Location
from ray_jobs.prepare import prepare

GENRES = ("blues", "jazz")


def write_loose(root: Path, count: int = 10) -> list[Path]:
    """Write songs in two genres' folders, the last one too damaged to be decoded."""
    paths = [write_song(root / GENRES[number % 2] / f"{number:02d}.wav", number) for number in range(count)]
    paths[-1].write_bytes(paths[-1].read_bytes()[:30])
    return paths


def hugging_face(target: Path, files: list[Path], row_group: int = 4, **columns: list[Any]) -> Path:
    """Write files as Hugging Face's hub does: a struct of bytes and path, and a ClassLabel."""
    audio = [{"bytes": path.read_bytes(), "path": path.name} for path in files]
    labels = [GENRES.index(path.parent.name) for path in files]
    feature = {"label": {"names": list(GENRES), "_type": "ClassLabel"}, "audio": {"_type": "Audio"}}
    table = pa.table({"audio": audio, "label": labels} | columns)
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": feature}})})
    target.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, target, row_group_size=row_group)
    return target


def webdataset(target: Path, files: list[Path]) -> Path:
    """Write files and their labels into a tar file, by turns as JSON and as text."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(target, "w") as archive:
        for number, path in enumerate(files):
            add(archive, f"{path.stem}{path.suffix}", path.read_bytes())
            genre = path.parent.name
            if number % 2:
                add(archive, f"{path.stem}.cls", genre.encode())
            else:
                add(archive, f"{path.stem}.json", json.dumps({"genre": genre, "artist": f"a{number}"}).encode())
    return target


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


def config(kind: str, root: Path, output: Path) -> Config:
    """Return the settings of `config_of` for another kind of corpus."""
    plain = config_of(root, output).model_dump()
    return validate(Config, plain | {"corpus": {"kind": kind, "root": str(root), "split": "random"}})


def spectrograms(output: Path) -> list[tuple[Any, ...]]:
    """Return everything in the clips but the names of their tracks, in a fixed order."""
    rows = clip_rows(output).to_pylist()
    return sorted((row["spectrogram"], row["clip"], row["peak_db"], row["start_seconds"]) for row in rows)


@pytest.mark.parametrize("kind", ["parquet", "webdataset"])
def test_features_are_those_of_the_loose_files(tmp_path: Path, kind: str) -> None:
    files = write_loose(tmp_path / "loose")
    for number, some in enumerate((files[:7], files[7:])):
        if kind == "parquet":
            hugging_face(tmp_path / "shards" / f"{number}.parquet", some)
        else:
            webdataset(tmp_path / "shards" / f"{number}.tar", some)
    prepare(config_of(tmp_path / "loose", tmp_path / "a"), InTurn())
    workers = InTurn()
    manifest = prepare(config(kind, tmp_path / "shards", tmp_path / "b"), workers)
    assert spectrograms(tmp_path / "a") == spectrograms(tmp_path / "b")
    assert (manifest.counts.tracks, manifest.counts.rejected, manifest.classes) == (9, 1, list(GENRES))
    contents = [
        sorted(pq.read_table(tmp_path / output / "features/tracks.parquet")["content"].to_pylist()) for output in "ab"
    ]
    assert contents[0] == contents[1]
    prepare(config(kind, tmp_path / "shards", tmp_path / "b"), workers)
    assert workers.tracks == 10, "the second run decodes nothing"


def test_touched_shards_are_compared_and_not_decoded_again(tmp_path: Path) -> None:
    shard = hugging_face(tmp_path / "shards/0.parquet", write_loose(tmp_path / "loose"))
    prepare(config("parquet", tmp_path / "shards", tmp_path / "out"), InTurn())
    shard.touch()
    workers = InTurn()
    prepare(config("parquet", tmp_path / "shards", tmp_path / "out"), workers)
    assert workers.tracks == 10, "nine contents are compared, and the reject is tried again"


class TestParquet:
    def test_labels_have_the_names_of_the_metadata(self, tmp_path: Path) -> None:
        files = write_loose(tmp_path / "loose")
        hugging_face(tmp_path / "a.parquet", files, artist=[f"x{n}" for n in range(9)] + [None])
        tracks = scan("parquet", tmp_path / "a.parquet")
        assert [track.genre for track in tracks] == [path.parent.name for path in files]
        assert tracks[0].group == "x0"
        assert tracks[-1].group is None
        assert ids(tracks)[:2] == ["a.parquet#00000000", "a.parquet#00000001"]

    def test_binary_columns_and_text_labels_need_no_metadata(self, tmp_path: Path) -> None:
        song = tone(tmp_path / "a.wav").read_bytes()
        pq.write_table(pa.table({"sound": [song, song], "style": [" Rock ", None]}), tmp_path / "a.parquet")
        tracks = scan("parquet", tmp_path / "a.parquet", audio_column="sound", genre_column="style")
        assert [(track.genre, track.split) for track in tracks] == [("Rock", None), (None, UNLABELLED)]
        assert [recordings.read(track.path) for track in tracks] == [song, song]

    @pytest.mark.parametrize("layout", ["data/{}-00000-of-00001.parquet", "default/{}/0000.parquet"])
    def test_file_names_say_the_split(self, tmp_path: Path, layout: str) -> None:
        files = write_loose(tmp_path / "loose", 2)
        for split in ("train", "validation", "test"):
            hugging_face(tmp_path / "hub" / layout.format(split), files)
        by_file = {track.track_id.split("#")[0]: track.split for track in scan("parquet", tmp_path / "hub")}
        assert by_file == {
            layout.format("train"): "train", layout.format("validation"): "valid", layout.format("test"): "test",
        }  # fmt: skip
        assert {track.split for track in scan("parquet", tmp_path / "hub", "random")} == {None}

    def test_splits_without_validation_are_no_published_split(self, tmp_path: Path) -> None:
        files = write_loose(tmp_path / "loose", 2)
        for split in ("train", "test"):
            hugging_face(tmp_path / f"{split}.parquet", files)
        assert {track.split for track in scan("parquet", tmp_path)} == {None}
        assert "do not name train, validation and test" in refused("parquet", tmp_path, "official")

    def test_rows_without_bytes_are_rejects(self, tmp_path: Path) -> None:
        audio = [{"bytes": None, "path": "/elsewhere/a.wav"}, {"bytes": None, "path": None}, None]
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        pq.write_table(pa.table({"audio": pa.array(audio, kind), "genre": ["a", "a", "b"]}), tmp_path / "a.parquet")
        messages = []
        for track in scan("parquet", tmp_path / "a.parquet"):
            with pytest.raises(AudioError) as error:
                recordings.read(track.path)
            messages.append(str(error.value))
        assert "'/elsewhere/a.wav'" in messages[0]
        assert all("no bytes" in message for message in messages[1:])

    def test_a_column_of_paths_is_refused(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"audio": ["a.wav"], "genre": ["a"]}), tmp_path / "a.parquet")
        assert "corpus.kind=table corpus.params.path_column=audio" in refused("parquet", tmp_path / "a.parquet")
        pq.write_table(pa.table({"audio": [1.0], "genre": ["a"]}), tmp_path / "a.parquet")
        assert "is double" in refused("parquet", tmp_path / "a.parquet")
        assert "it has audio, genre" in refused("parquet", tmp_path / "a.parquet", genre_column="x")

    def test_a_file_cut_in_half_is_refused(self, tmp_path: Path) -> None:
        shard = hugging_face(tmp_path / "a.parquet", write_loose(tmp_path / "loose"))
        shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
        message = refused("parquet", tmp_path)
        assert "a.parquet: not Parquet, or truncated" in message
        assert message.endswith("); copy it again")
        assert message.count("again") == message.count("a.parquet") == 1
        (tmp_path / "b").mkdir()
        assert "holds no .parquet file" in refused("parquet", tmp_path / "b")

    @pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
    def test_a_cut_file_among_good_ones_is_a_line(self, tmp_path: Path, share: float) -> None:
        files = write_loose(tmp_path / "loose")
        shards = [hugging_face(tmp_path / "shards" / f"{name}.parquet", files) for name in "abc"]
        complete = scan("parquet", tmp_path / "shards")
        shards[1].write_bytes(shards[1].read_bytes()[: int(share * shards[1].stat().st_size)])
        found: list[str] = []
        tracks = list(corpora.scan(settings("parquet", tmp_path / "shards"), found.append))
        assert tracks == [track for track in complete if not track.track_id.startswith("b")]
        assert len(found) == 1
        assert found[0].startswith(f"odd: rows are left out: {shards[1]}: ")

    def test_of_a_list_the_first_value_counts(self, tmp_path: Path) -> None:
        song = tone(tmp_path / "a.wav").read_bytes()
        styles = [["", None, " Rock ", "Jazz"], [], None, [None], ["Jazz"]]
        for kind in (pa.list_(pa.string()), pa.large_list(pa.large_string())):
            columns = {"audio": [song] * 5, "genre": pa.array(styles, kind), "artist": pa.array(styles, kind)}
            pq.write_table(pa.table(columns), tmp_path / "a.parquet")
            tracks = scan("parquet", tmp_path / "a.parquet")
            assert [track.genre for track in tracks] == ["Rock", None, None, None, "Jazz"]
            assert [track.group for track in tracks] == ["rock", None, None, None, "jazz"]

    def test_of_a_list_of_numbers_the_first_that_has_a_name_counts(self, tmp_path: Path) -> None:
        feature = {"label": {"feature": {"names": list(GENRES), "_type": "ClassLabel"}, "_type": "List"}}
        table = pa.table({"audio": [b"a", b"b", b"c"], "label": [[7, 1, 0], [], [0]]})
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": feature}})})
        pq.write_table(table, tmp_path / "a.parquet")
        assert [track.genre for track in scan("parquet", tmp_path)] == ["jazz", None, "blues"]

    def test_a_genre_of_another_type_is_refused(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"audio": [b"a"], "genre": [{"name": "rock"}]}), tmp_path / "a.parquet")
        assert "column 'genre' of" in (message := refused("parquet", tmp_path))
        assert "it should be text, numbers, or lists of them" in message

    def test_a_damaged_row_group_is_a_reject_of_its_rows(self, tmp_path: Path) -> None:
        files = write_loose(tmp_path / "loose")
        shard = hugging_face(tmp_path / "a.parquet", files)
        content = bytearray(shard.read_bytes())
        content[4:3000] = bytes(2996)
        shard.write_bytes(content)
        tracks = scan("parquet", shard)
        with pytest.raises(AudioError):
            recordings.read(tracks[0].path)
        assert recordings.read(tracks[5].path) == files[5].read_bytes()

    @pytest.mark.parametrize("error", [pa.ArrowInvalid("damaged"), pa.ArrowMemoryError("too large"), OSError("away")])
    def test_after_a_failure_no_row_gets_the_audio_of_another(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        contents = [f"audio {row}".encode() for row in range(20)]
        pq.write_table(pa.table({"audio": contents, "genre": ["blues"] * 20}), tmp_path / "a.parquet")
        tracks, batches = scan("parquet", tmp_path / "a.parquet"), pq.ParquetFile.iter_batches

        def failing(*arguments: Any, **options: Any) -> Iterator[pa.RecordBatch]:
            yield next(batches(*arguments, **options))
            raise error

        assert recordings.read(tracks[0].path) == contents[0]  # then the rest of the row group fails
        with monkeypatch.context() as patch:
            patch.setattr(pq.ParquetFile, "iter_batches", failing)
            members._local.rows = None
            assert recordings.read(tracks[7].path) == contents[7]
            with pytest.raises((AudioError, MemoryError, StorageError)):
                recordings.read(tracks[8].path)
        assert recordings.read(tracks[9].path) == contents[9]

    def test_rows_are_read_in_any_order(self, tmp_path: Path) -> None:
        files = write_loose(tmp_path / "loose", 30)
        tracks = scan("parquet", hugging_face(tmp_path / "a.parquet", files, row_group=20))
        for number in (25, 3, 4, 19, 0, 29, 20):
            assert recordings.read(tracks[number].path) == files[number].read_bytes()
        with pytest.raises(AudioError, match="no row 99"):
            recordings.read(members.row_address(Location.of(tmp_path / "a.parquet"), "audio", 0, 99))

    def test_one_row_group_is_in_memory_at_a_time(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        contents = [rng.bytes(1 << 20) for _ in range(16)]
        pq.write_table(pa.table({"audio": contents, "genre": ["blues"] * 16}), tmp_path / "a.parquet", row_group_size=4)
        tracks, usual = scan("parquet", tmp_path / "a.parquet"), pa.default_memory_pool()
        peaks = []
        for rows in (range(4), range(16)):
            pa.set_memory_pool(pool := pa.proxy_memory_pool(usual))
            try:
                with ThreadPoolExecutor(1) as thread:  # whose row group nobody has opened
                    for row in rows:
                        assert thread.submit(recordings.read, tracks[row].path).result() == contents[row]
            finally:
                pa.set_memory_pool(usual)
            peaks.append(pool.max_memory())
        assert 4 << 20 < peaks[1] < 1.2 * peaks[0]


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


@pytest.mark.parametrize("kind", ["parquet", "webdataset"])
def test_shards_in_a_bucket_have_the_same_tracks(tmp_path: Path, kind: str, bucket_server: dict[str, str]) -> None:
    files = write_loose(tmp_path / "loose")
    shard = hugging_face(tmp_path / "a.parquet", files) if kind == "parquet" else webdataset(tmp_path / "a.tar", files)
    remote = Location.of("s3://bucket/shards") / shard.name
    remote.write_bytes(shard.read_bytes())
    tracks = scan(kind, "s3://bucket/shards")
    assert ids(tracks) == ids(scan(kind, shard))
    assert [recordings.read(track.path) for track in tracks] == [path.read_bytes() for path in files]
    assert {members.file_of(track.path) for track in tracks} == {str(remote)}


def test_addresses_of_plain_files_are_unchanged() -> None:
    for address in ("/music/a#b.wav", "s3://bucket/a?region=x", "/row=a/1/2", "/music/#bytes=x"):
        assert members.file_of(address) == address
    odd = members.row_address(Location.of("/a#row=b/1/2.parquet"), "my column/#1", 3, 4)
    assert members.file_of(odd) == "/a#row=b/1/2.parquet"


def test_the_settings_of_a_group_column_that_does_not_exist_are_refused(tmp_path: Path) -> None:
    hugging_face(tmp_path / "a.parquet", write_loose(tmp_path / "loose", 2))
    assert parquet.Params().group_column is None
    assert {track.group for track in scan("parquet", tmp_path, group_column="")} == {None}
    assert "corpus.params.group_column" in refused("parquet", tmp_path, group_column="singer")
