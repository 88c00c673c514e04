"""The books of a features folder: what is done, what is not, and that nothing gets lost between two runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from music import config_of

from genre import corpora
from genre.corpora import Track
from genre.errors import ArtifactError
from genre.features import Manifest, duplicates, finishing, ledger, splits
from genre.features.manifest import Counts, DuplicateCounts
from genre.features.recipe import Recipe
from genre.features.scan import scan
from genre.features.schema import OUTCOME_SCHEMA, SCAN_SCHEMA, TRACK_SCHEMA
from genre.storage import Location


@pytest.fixture
def folder(tmp_path: Path) -> Location:
    return Location.of(tmp_path / "features")


def listed(names: str, modified: float = 1.0) -> pa.Table:
    """A scan: a track for each letter, of genre a or b in turn."""
    rows = [
        {"track_id": name, "path": f"/{name}", "genre": "ab"[i % 2], "size": 10, "modified": modified}
        for i, name in enumerate(names)
    ]
    return pa.Table.from_pylist(rows, SCAN_SCHEMA)


def outcome(name: str, part: str | None = "00001-x.parquet", modified: float = 1.0, **facts: object) -> dict:
    done = {"content": f"c{name}", "sound": f"s{name}", "seconds": 1.0, "truncated": False, "clips": 1, "part": part}
    base = {"track_id": name, "path": f"/{name}", "size": 10, "modified": modified}
    return base | (done if part else {"reason": "empty", "message": "the file has no bytes"}) | facts


def write_outcomes(folder: Location, name: str, *rows: dict, with_part: bool = True) -> None:
    (folder / "outcomes" / name).write_table(pa.Table.from_pylist(list(rows), OUTCOME_SCHEMA))
    if with_part:
        (folder / "clips" / name).write_bytes(b"clips")


def ids(table: pa.Table) -> str:
    return "".join(sorted(table["track_id"].to_pylist()))


class TestScan:
    def test_is_sorted_and_leaves_out_what_is_excluded(self, monkeypatch):
        tracks = [
            Track("b", "/b", "x", 1, 1.0),
            Track("c", "/c", "x", 1, 1.0, split="excluded"),
            Track("a", "/a", "y", 1, 1.0),
        ]
        monkeypatch.setattr(corpora, "scan", lambda _: iter(tracks))
        assert scan(None)["track_id"].to_pylist() == ["a", "b"]

    def test_two_tracks_of_one_name_are_refused(self, monkeypatch):
        monkeypatch.setattr(corpora, "scan", lambda _: (Track(name, "/", "x", 1, 1.0) for name in "abcb"))
        with pytest.raises(ArtifactError, match="lists track_id 'b' twice"):
            scan(None)


class TestOutcomes:
    def test_an_empty_folder_has_none(self, folder):
        assert len(ledger.read_outcomes(folder)) == 0
        assert ledger.next_run(folder) == 1
        assert ids(ledger.select_undone(listed("abc"), ledger.read_outcomes(folder))) == "abc"

    def test_a_later_run_is_newer_whatever_its_name(self, folder):
        """Two killed runs may both have an outcome of a file that changed between them."""
        write_outcomes(folder, "00002-a.parquet", outcome("x", "00002-a.parquet", modified=2.0))
        write_outcomes(folder, "00001-z.parquet", outcome("x", "00001-z.parquet", modified=1.0))
        (row,) = ledger.read_outcomes(folder).to_pylist()
        assert row["part"] == "00002-a.parquet"
        assert ledger.next_run(folder) == 3

    def test_an_outcome_without_its_clips_is_none(self, folder):
        """A killed run's last worker may write an outcome after its clips were tidied away."""
        write_outcomes(folder, "00001-a.parquet", outcome("x", "00001-a.parquet"), with_part=False)
        write_outcomes(folder, "00001-b.parquet", outcome("y", None), with_part=False)
        assert ids(ledger.read_outcomes(folder)) == "y"

    def test_a_change_of_size_or_time_makes_a_file_pending(self, folder):
        write_outcomes(folder, "00001-x.parquet", outcome("a"), outcome("b", modified=7.0), outcome("c", size=11))
        assert ids(ledger.select_undone(listed("abcd"), ledger.read_outcomes(folder))) == "bcd"


class TestSuspects:
    def test_only_touched_files_are_compared(self, folder):
        write_outcomes(
            folder,
            "00001-x.parquet",
            outcome("a"),
            outcome("b", modified=7.0),
            outcome("c", size=11),
            outcome("d", None),
        )
        done = ledger.read_outcomes(folder)
        assert ids(ledger.select_for_comparison(listed("abcde"), done)) == "b"
        assert ids(ledger.select_for_comparison(listed("abcde"), done, verify_content=True)) == "ab"

    def test_what_was_only_touched_is_done_and_what_changed_is_not(self, folder):
        write_outcomes(folder, "00001-x.parquet", *(outcome(name, modified=7.0) for name in "abc"), outcome("d"))
        done = ledger.read_outcomes(folder)
        compared = ledger.select_for_comparison(listed("abcd"), done)
        same = compared.filter(pc.not_equal(compared["track_id"], "b"))
        sure = ledger.apply_comparison(done, compared, same, folder, run=2)
        assert ids(ledger.select_undone(listed("abcd"), sure)) == "b"
        written = ledger.read_outcomes(folder)  # so a kill after this loses nothing
        assert ids(ledger.select_undone(listed("abcd"), written)) == "b"
        assert written.filter(pc.equal(written["track_id"], "a"))["part"].to_pylist() == ["00001-x.parquet"]


class TestSettings:
    def test_the_difference_is_named(self, folder, tmp_path):
        recipe = Recipe.of(config_of("m", tmp_path))
        ledger.claim(folder, recipe)
        ledger.check_settings(folder, recipe)
        other = recipe.model_copy(update={"spectrogram": recipe.spectrogram.model_copy(update={"n_mels": 20})})
        with pytest.raises(ArtifactError, match=r"spectrogram.n_mels is 16, expected 20; choose another output"):
            ledger.check_settings(folder, other)

    def test_a_first_run_that_was_killed_keeps_its_rejects(self, folder, tmp_path):
        recipe = Recipe.of(config_of("m", tmp_path))
        ledger.claim(folder, recipe)
        write_outcomes(folder, "00001-x.parquet", outcome("a"), outcome("b", None), outcome("c", truncated=True))
        assert ids(ledger.select_reusable(ledger.read_outcomes(folder), folder, recipe)) == "abc"

    def test_limits_that_changed_bring_rejects_back_until_a_run_is_finished(self, folder, tmp_path):
        recipe = Recipe.of(config_of("m", tmp_path))
        write_outcomes(
            folder,
            "00001-x.parquet",
            outcome("a"),
            outcome("b", None),
            outcome("c", truncated=True),
            outcome("d", seconds=1e6),
        )
        done = ledger.read_outcomes(folder)
        ledger.claim(folder, Recipe.of(config_of("m", tmp_path, file_timeout_s=1)))
        ledger.claim(folder, recipe)
        assert ids(ledger.select_reusable(done, folder, recipe)) == "a"
        (folder / "settings.json").write_json((folder / "settings.json").read_json() | {"limits": recipe.limits()})
        assert ids(ledger.select_reusable(done, folder, recipe)) == "abcd"
        again = Recipe.of(config_of("m", tmp_path, retry_rejects=True))
        assert ids(ledger.select_reusable(done, folder, again)) == "acd"


class TestFinish:
    def test_writes_tables_and_manifest_and_tidies(self, folder, tmp_path):
        config = config_of("m", tmp_path)
        write_outcomes(folder, "00001-x.parquet", outcome("a"), outcome("b"), outcome("c", None))
        (folder / "clips" / "00000-old.parquet").write_bytes(b"of a removed track")
        (folder / "clips" / ".00001-y.parquet.1234").write_bytes(b"half written")
        (folder / ".tracks.parquet.1234").write_bytes(b"half written")
        manifest = finishing.finish(folder, listed("abc"), config)
        expected = Counts(scanned=3, tracks=2, clips=2, truncated=0, rejected=1, reasons={"empty": 1})
        assert replace(manifest.counts, splits={}) == expected
        assert manifest.classes == ["a", "b"]
        written = json.loads(Path(folder.path, "manifest.json").read_text())
        assert written == manifest.to_json()
        assert Manifest.from_json(written) == manifest
        assert written["counts"]["duplicates"] == {"sets": 0, "copies": 0, "of_several_genres": 0, "excluded": 0}
        assert [info.base_name for info in (folder / "clips").children()] == ["00001-x.parquet"]
        assert not (folder / "outcomes").exists()
        assert not any(info.base_name.startswith(".") for info in folder.children())
        assert (folder / "tracks.parquet").read_table().schema.names == TRACK_SCHEMA.names

    def test_a_late_word_of_an_earlier_run_is_no_news(self, folder, tmp_path):
        """A machine that was cut off may write long after its job was killed and another one has finished."""
        config = config_of("m", tmp_path)
        write_outcomes(folder, "00002-x.parquet", outcome("a", "00002-x.parquet"), outcome("b", None))
        finishing.finish(folder, listed("ab"), config)
        late = [outcome("a", None, reason="crashed"), outcome("b", "00001-z.parquet")]
        write_outcomes(folder, "00001-z.parquet", *late)
        assert ledger.read_outcomes(folder)["part"].to_pylist() == ["00002-x.parquet", None]
        write_outcomes(folder, "00003-w.parquet", *late)
        assert ledger.read_outcomes(folder)["part"].to_pylist() == [None, "00001-z.parquet"]

    def test_numbers_of_runs_grow_even_when_nothing_of_them_stays(self, folder, tmp_path):
        for number in (1, 2):
            assert ledger.next_run(folder) == number
            write_outcomes(folder, f"{number:05d}-x.parquet", outcome("a", None), with_part=False)
            finishing.finish(folder, listed("a", modified=1.0), config_of("m", tmp_path, file_timeout_s=number))

    def test_a_lost_track_is_a_violation(self, folder, tmp_path):
        write_outcomes(folder, "00001-x.parquet", outcome("a"), outcome("b"))
        with pytest.raises(ArtifactError, match="3 tracks scanned, but 2 with features and 0 rejected"):
            finishing.finish(folder, listed("abc"), config_of("m", tmp_path))
        assert not (folder / "manifest.json").exists()

    @pytest.mark.parametrize("step", range(1, 9))
    def test_a_kill_at_any_step_loses_nothing(self, folder, tmp_path, monkeypatch, step):
        """The steps are the writes and deletions, each of which happens wholly or not at all."""
        config = config_of("m", tmp_path)
        write_outcomes(folder, "00001-x.parquet", outcome("a"), outcome("b"), outcome("c", None))
        finishing.finish(folder, listed("abc"), config)
        write_outcomes(
            folder, "00002-y.parquet", outcome("a", "00002-y.parquet", modified=2.0), outcome("d", "00002-y.parquet")
        )
        scanned = pa.concat_tables([listed("a", modified=2.0), listed("cd")])
        steps = 0

        class Killed(BaseException):
            pass

        def counted(method):
            def call(*arguments, **options):
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
                finishing.finish(folder, scanned, config)
        assert len(ledger.select_undone(scanned, ledger.read_outcomes(folder))) == 0
        manifest = finishing.finish(folder, scanned, config)
        assert (manifest.counts.tracks, manifest.counts.rejected) == (2, 1)
        assert [info.base_name for info in (folder / "clips").children()] == ["00002-y.parquet"]


class TestDuplicates:
    def tracks(self, sounds: str, given: list[str | None]) -> pa.Table:
        rows = [
            {"track_id": f"t{i}", "path": f"/t{i}", "genre": "ab"[i % 2], "sound": sound, "split": split, "clips": 1}
            for i, (sound, split) in enumerate(zip(sounds, given, strict=True))
        ]
        return pa.Table.from_pylist(rows, TRACK_SCHEMA)

    def test_a_published_split_keeps_its_test_tracks(self):
        tracks = self.tracks("xxxyyzzw", ["train", "test", "valid", "valid", "train", "train", "train", "test"])
        parted = duplicates.exclude_copies(tracks)
        assert parted["split"].to_pylist() == [
            "excluded", "test", "excluded", "valid", "excluded", "train", "train", "test",
        ]  # fmt: skip
        splits.check(parted.select(["track_id", "split"]).append_column("content", parted["sound"]))
        copies = duplicates.find(parted)
        assert ids(copies) == "t0t1t2t3t4t5t6"
        assert duplicates.count(copies) == DuplicateCounts(sets=3, copies=4, of_several_genres=3, excluded=3)
        assert duplicates.describe(copies)[0] == "t0 (a, excluded) = t1 (b, test) = t2 (a, excluded)"

    def test_none_is_fine(self):
        tracks = self.tracks("abc", ["train", "train", "test"])
        assert duplicates.exclude_copies(tracks).equals(tracks)
        assert duplicates.count(duplicates.find(tracks)) == DuplicateCounts()
        assert duplicates.describe(duplicates.find(tracks)) == []

    def test_finish_never_parts_equal_audio(self, folder, tmp_path):
        names = [f"{n:03d}" for n in range(60)]
        rows = [outcome(name, sound=f"s{number % 20}") for number, name in enumerate(names)]
        write_outcomes(folder, "00001-x.parquet", *rows)
        scanned = pa.concat_tables([listed([name]) for name in names])
        finishing.finish(folder, scanned, config_of("m", tmp_path))
        tracks = (folder / "tracks.parquet").read_table()
        pairs = tracks.group_by("sound").aggregate([("split", "count_distinct")])
        assert set(pairs["split_count_distinct"].to_pylist()) == {1}
        assert len(np.unique(tracks["split"].to_pylist())) > 1
