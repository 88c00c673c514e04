"""Tracks in Parquet files: what is damaged is a reject or a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from library import tone
from scanning import ids, refused, scan, settings
from sharding import GENRES, hugging_face, write_loose

from genre import corpora
from genre.audio import members, recordings
from genre.corpora import UNLABELLED, parquet
from genre.errors import AudioError, StorageError
from genre.storage import Location


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


def test_the_settings_of_a_group_column_that_does_not_exist_are_refused(tmp_path: Path) -> None:
    hugging_face(tmp_path / "a.parquet", write_loose(tmp_path / "loose", 2))
    assert parquet.Params().group_column is None
    assert {track.group for track in scan("parquet", tmp_path, group_column="")} == {None}
    assert "corpus.params.group_column" in refused("parquet", tmp_path, group_column="singer")
