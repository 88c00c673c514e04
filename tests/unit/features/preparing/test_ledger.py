"""Tests of the ledger: which tracks are done, which are not, and that no outcome is lost between two runs."""

from __future__ import annotations

from pathlib import Path

import pyarrow.compute as pc
import pytest
from music import config_of
from outcomes import ids, outcome, scanned, write_outcomes

from genre.errors import ArtifactError
from genre.features.preparing.ledger import Ledger, select_for_comparison, select_pending
from genre.features.recipe import Recipe
from genre.storage import Location


@pytest.fixture
def folder(tmp_path: Path) -> Location:
    return Location.of(tmp_path / "features")


def ledger_of(folder: Location) -> Ledger:
    return Ledger(folder, Recipe.of(config_of("m", "out")))


class TestOutcomes:
    def test_empty_folder_has_none(self, folder: Location) -> None:
        assert len(ledger_of(folder).outcomes()) == 0
        assert ledger_of(folder).next_run() == 1
        assert ids(select_pending(scanned("abc"), ledger_of(folder).outcomes())) == "abc"

    def test_outcome_of_the_later_run_counts(self, folder: Location) -> None:
        """Two killed runs may both have an outcome of a file that changed between them."""
        write_outcomes(folder, "00002-a.parquet", outcome("x", "00002-a.parquet", modified=2.0))
        write_outcomes(folder, "00001-z.parquet", outcome("x", "00001-z.parquet", modified=1.0))
        (row,) = ledger_of(folder).outcomes().to_pylist()
        assert row["part"] == "00002-a.parquet"
        assert ledger_of(folder).next_run() == 3

    def test_outcome_without_its_clips_is_ignored(self, folder: Location) -> None:
        """The last worker of a killed run may write an outcome after its clips were deleted."""
        write_outcomes(folder, "00001-a.parquet", outcome("x", "00001-a.parquet"), with_part=False)
        write_outcomes(folder, "00001-b.parquet", outcome("y", None), with_part=False)
        assert ids(ledger_of(folder).outcomes()) == "y"

    def test_file_of_another_size_or_time_needs_decoding(self, folder: Location) -> None:
        write_outcomes(folder, "00001-x.parquet", outcome("a"), outcome("b", modified=7.0), outcome("c", size=11))
        assert ids(select_pending(scanned("abcd"), ledger_of(folder).outcomes())) == "bcd"


class TestComparison:
    def test_only_touched_files_are_compared(self, folder: Location) -> None:
        write_outcomes(
            folder,
            "00001-x.parquet",
            outcome("a"),
            outcome("b", modified=7.0),
            outcome("c", size=11),
            outcome("d", None),
        )
        done = ledger_of(folder).outcomes()
        assert ids(select_for_comparison(scanned("abcde"), done)) == "b"
        assert ids(select_for_comparison(scanned("abcde"), done, verify_content=True)) == "ab"

    def test_touched_files_are_done_and_changed_files_are_not(self, folder: Location) -> None:
        write_outcomes(folder, "00001-x.parquet", *(outcome(name, modified=7.0) for name in "abc"), outcome("d"))
        done = ledger_of(folder).outcomes()
        compared = select_for_comparison(scanned("abcd"), done)
        same = compared.filter(pc.not_equal(compared["track_id"], "b"))
        checked = ledger_of(folder).apply_comparison(done, compared, same, run=2)
        assert ids(select_pending(scanned("abcd"), checked)) == "b"
        written = ledger_of(folder).outcomes()  # a kill after this loses nothing
        assert ids(select_pending(scanned("abcd"), written)) == "b"
        assert written.filter(pc.equal(written["track_id"], "a"))["part"].to_pylist() == ["00001-x.parquet"]


class TestSettings:
    def test_error_names_the_difference(self, folder: Location, tmp_path: Path) -> None:
        recipe = Recipe.of(config_of("m", tmp_path))
        Ledger(folder, recipe).claim()
        Ledger(folder, recipe)
        other = recipe.model_copy(update={"spectrogram": recipe.spectrogram.model_copy(update={"n_mels": 20})})
        with pytest.raises(ArtifactError, match=r"spectrogram.n_mels is 16, expected 20; choose another output"):
            Ledger(folder, other)

    def test_killed_first_run_keeps_its_rejects(self, folder: Location, tmp_path: Path) -> None:
        recipe = Recipe.of(config_of("m", tmp_path))
        Ledger(folder, recipe).claim()
        write_outcomes(folder, "00001-x.parquet", outcome("a"), outcome("b", None), outcome("c", truncated=True))
        assert ids(Ledger(folder, recipe).reusable_outcomes()) == "abc"

    def test_changed_limits_make_rejects_invalid_until_a_run_finishes(self, folder: Location, tmp_path: Path) -> None:
        recipe = Recipe.of(config_of("m", tmp_path))
        write_outcomes(
            folder,
            "00001-x.parquet",
            outcome("a"),
            outcome("b", None),
            outcome("c", truncated=True),
            outcome("d", seconds=1e6),
        )
        Ledger(folder, Recipe.of(config_of("m", tmp_path, file_timeout_s=1))).claim()
        Ledger(folder, recipe).claim()
        assert ids(Ledger(folder, recipe).reusable_outcomes()) == "a"
        (folder / "settings.json").write_json((folder / "settings.json").read_json() | {"limits": recipe.limits()})
        assert ids(Ledger(folder, recipe).reusable_outcomes()) == "abcd"
        write_outcomes(
            folder, "00002-x.parquet", outcome("a", None, reason="denied"), outcome("e", None, reason="denied")
        )
        assert ids(Ledger(folder, recipe).reusable_outcomes()) == "bcd"  # the next run reads what was denied
        (folder / "outcomes/00002-x.parquet").delete()
        retrying = Recipe.of(config_of("m", tmp_path, retry_rejects=True))
        assert ids(Ledger(folder, retrying).reusable_outcomes()) == "acd"
