"""Tests of the final tables and the manifest of prepare."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from music import config_of
from outcomes import outcome, scanned, write_outcomes

from genre.errors import ArtifactError
from genre.features import Manifest
from genre.features.columns import replaced
from genre.features.manifest import Counts
from genre.features.preparing import finishing
from genre.features.preparing.finishing import finish
from genre.features.preparing.ledger import Ledger, select_pending
from genre.features.recipe import Recipe
from genre.features.schema import TRACK_SCHEMA
from genre.settings import Config
from genre.storage import Location


@pytest.fixture
def folder(tmp_path: Path) -> Location:
    return Location.of(tmp_path / "features")


def ledger_of(folder: Location) -> Ledger:
    return Ledger(folder, Recipe.of(config_of("m", "out")))


def finish_in(folder: Location, tracks: pa.Table, config: Config) -> Manifest:
    return finish(Ledger(folder, Recipe.of(config)), tracks, config.corpus)


def test_writes_tables_and_manifest_and_deletes_the_rest(folder: Location, tmp_path: Path) -> None:
    config = config_of("m", tmp_path)
    write_outcomes(folder, "00001-x.parquet", outcome("a"), outcome("b"), outcome("c", None))
    (folder / "clips" / "00000-old.parquet").write_bytes(b"of a removed track")
    (folder / "clips" / ".00001-y.parquet.1234").write_bytes(b"half written")
    (folder / ".tracks.parquet.1234").write_bytes(b"half written")
    manifest = finish_in(folder, scanned("abc"), config)
    expected = Counts(scanned=3, tracks=2, clips=2, truncated=0, rejected=1, reasons={"empty": 1})
    assert replace(manifest.counts, splits={}) == expected
    assert manifest.classes == ["a", "b"]
    written = json.loads(Path(folder.path, "manifest.json").read_text())
    assert written == manifest.to_json()
    assert Manifest.from_json(written) == manifest
    assert written["counts"]["duplicates"] == dict.fromkeys(
        ["sets", "copies", "near", "of_several_genres", "excluded"], 0
    )
    assert [info.base_name for info in (folder / "clips").children()] == ["00001-x.parquet"]
    assert not (folder / "outcomes").exists()
    assert not any(info.base_name.startswith(".") for info in folder.children())
    assert (folder / "tracks.parquet").read_table().schema.names == TRACK_SCHEMA.names
    header, *rejected = (folder / "rejects.csv").read_bytes().decode().splitlines()
    assert header == '"track_id","path","reason","message"'
    assert [line.split(",")[0] for line in rejected] == ['"c"']


def test_published_folds_are_the_last_column_and_may_come_and_go(folder: Location, tmp_path: Path) -> None:
    config = config_of("m", tmp_path)
    write_outcomes(folder, "00001-x.parquet", outcome("a"), outcome("b"), outcome("c", None))
    tracks, contents = scanned("abc"), []
    for fold in (None, ["1", "2", "1"], ["1", None, "2"], None):
        known = pa.array(fold or [None] * 3, pa.string())
        manifest = finish_in(folder, replaced(tracks, "fold", known), config)
        names = TRACK_SCHEMA.names + (["fold"] if fold else [])
        for file in ("tracks", "rejects"):
            assert (folder / f"{file}.parquet").read_table().schema.names == names
        if fold:
            assert (folder / "tracks.parquet").read_table()["fold"].to_pylist() == fold[:2]
        assert len(select_pending(tracks, ledger_of(folder).reusable_outcomes())) == 0
        contents.append(manifest.contents)
    assert contents[0] == contents[3]
    assert len(set(contents)) == 3


def test_the_command_is_kept_and_another_one_changes_nothing(folder: Location, tmp_path: Path) -> None:
    write_outcomes(folder, "00001-x.parquet", outcome("a"), outcome("b"))
    ledger, corpus = ledger_of(folder), config_of("m", tmp_path).corpus
    first = finish(ledger, scanned("ab"), corpus, "genre prepare one")
    assert first.command == "genre prepare one"
    assert finish(ledger, scanned("ab"), corpus, "genre prepare two") == first


def test_nothing_is_written_when_nothing_changed(
    folder: Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finishing, "_COMPARED", 2)
    config = config_of("m", tmp_path)
    write_outcomes(folder, "00001-x.parquet", *map(outcome, "abcde"), outcome("f", None))
    first = finish_in(folder, scanned("abcdef"), config)
    tables = {name: Path(folder.path, f"{name}.parquet") for name in ("tracks", "rejects")}
    before = {name: file.stat() for name, file in tables.items()}
    assert finish_in(folder, scanned("abcdef"), config) == first
    assert {name: file.stat() for name, file in tables.items()} == before
    table = pq.read_table(tables["tracks"])
    splits = table["split"].to_pylist()
    altered = table.set_column(table.schema.get_field_index("split"), "split", pa.array([*splits[:4], "excluded"]))
    pq.write_table(altered, tables["tracks"])
    finish_in(folder, scanned("abcdef"), config)
    assert pq.read_table(tables["tracks"])["split"].to_pylist() == splits


@pytest.mark.parametrize("rows", [0, 1, 4, 5, 6])
def test_a_file_holds_a_table_only_with_all_its_rows(
    rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finishing, "_COMPARED", 2)
    table = pa.table({"number": range(6)})
    pq.write_table(table.slice(0, 5), tmp_path / "five.parquet")
    file = Location.of(tmp_path / "five.parquet")
    assert finishing._holds(file, table.slice(0, rows)) == (rows == 5)
    assert not finishing._holds(file, table.slice(1, 5))
    assert not finishing._holds(file, table.slice(0, 5).cast(pa.schema([("number", pa.int32())])))


def test_late_outcome_of_an_earlier_run_is_ignored(folder: Location, tmp_path: Path) -> None:
    """A disconnected machine may write long after its job was killed and another one has finished."""
    config = config_of("m", tmp_path)
    write_outcomes(folder, "00002-x.parquet", outcome("a", "00002-x.parquet"), outcome("b", None))
    finish_in(folder, scanned("ab"), config)
    late = [outcome("a", None, reason="crashed"), outcome("b", "00001-z.parquet")]
    write_outcomes(folder, "00001-z.parquet", *late)
    assert ledger_of(folder).outcomes()["part"].to_pylist() == ["00002-x.parquet", None]
    write_outcomes(folder, "00003-w.parquet", *late)
    assert ledger_of(folder).outcomes()["part"].to_pylist() == [None, "00001-z.parquet"]


def test_run_numbers_grow_even_when_no_file_of_a_run_remains(folder: Location, tmp_path: Path) -> None:
    for number in (1, 2):
        assert ledger_of(folder).next_run() == number
        write_outcomes(folder, f"{number:05d}-x.parquet", outcome("a", None), with_part=False)
        finish_in(folder, scanned("a", modified=1.0), config_of("m", tmp_path, file_timeout_s=number))


def test_lost_track_is_an_error(folder: Location, tmp_path: Path) -> None:
    write_outcomes(folder, "00001-x.parquet", outcome("a"), outcome("b"))
    with pytest.raises(ArtifactError, match="3 tracks scanned, but 2 with features and 0 rejected"):
        finish_in(folder, scanned("abc"), config_of("m", tmp_path))
    assert not (folder / "manifest.json").exists()


@pytest.mark.parametrize("step", range(1, 9))
def test_kill_at_any_step_loses_nothing(
    folder: Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """The steps are the writes and deletions; each of them is atomic."""
    config = config_of("m", tmp_path)
    write_outcomes(folder, "00001-x.parquet", outcome("a"), outcome("b"), outcome("c", None))
    finish_in(folder, scanned("abc"), config)
    write_outcomes(
        folder, "00002-y.parquet", outcome("a", "00002-y.parquet", modified=2.0), outcome("d", "00002-y.parquet")
    )
    changed = pa.concat_tables([scanned("a", modified=2.0), scanned("cd")])
    steps = 0

    class Killed(BaseException):
        pass

    def counted(method: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: object, **options: object) -> None:
            nonlocal steps
            steps += 1
            if steps == step:
                raise Killed
            return method(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        for name in ("write_table", "write_json", "delete"):
            patch.setattr(Location, name, counted(getattr(Location, name)))
        with pytest.raises(Killed):
            finish_in(folder, changed, config)
    assert len(select_pending(changed, ledger_of(folder).outcomes())) == 0
    manifest = finish_in(folder, changed, config)
    assert (manifest.counts.tracks, manifest.counts.rejected) == (2, 1)
    assert [info.base_name for info in (folder / "clips").children()] == ["00002-y.parquet"]


def test_equal_audio_is_in_one_split(folder: Location, tmp_path: Path) -> None:
    names = [f"{n:03d}" for n in range(60)]
    rows = [outcome(name, sound=f"s{number % 20}") for number, name in enumerate(names)]
    write_outcomes(folder, "00001-x.parquet", *rows)
    finish_in(folder, pa.concat_tables([scanned([name]) for name in names]), config_of("m", tmp_path))
    tracks = (folder / "tracks.parquet").read_table()
    pairs = tracks.group_by("sound").aggregate([("split", "count_distinct")])
    assert set(pairs["split_count_distinct"].to_pylist()) == {1}
    assert len(np.unique(tracks["split"].to_pylist())) > 1
