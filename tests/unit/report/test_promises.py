"""What thresholds promise, and what they keep on the tracks of a report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import boards
import numpy as np
import pytest

from genre import report
from genre.model.calibration import Calibration
from genre.report import Entry, Search, text_table
from genre.report.advice import advise
from genre.report.leaderboard_page import html
from genre.report.markdown import markdown
from genre.report.promises import promises
from genre.report.table import Table, tabulate
from genre.storage import Location

FITTED = Calibration(temperature=0.5, thresholds=(0.5, 0.9, 0.6, 2.0), precision=0.8, tracks=40, folds=5)


@pytest.fixture
def table() -> Table:
    entry = boards.network("cnn", 0.8)
    runs = [replace(run, correction=FITTED) for run in entry.runs]
    return tabulate(boards.board(replace(entry, runs=runs), boards.network("other", 0.5), boards.majority()))


def test_shares_are_those_of_answers_above_the_threshold_of_their_genre(table: Table) -> None:
    (made,) = promises(table)
    named = right = total = 0
    for run in next(row for row in table.rows if row.entry.name == "cnn").entry.runs:
        for truth, row in zip(table.board.truth, run.probabilities.astype(float), strict=True):
            answer = row**2 / (row**2).sum()  # temperature 0.5
            total += 1
            if answer.max() >= FITTED.thresholds[answer.argmax()]:
                named += 1
                right += answer.argmax() == truth
    assert 0 < right < named < total
    assert made.named == pytest.approx(named / total)
    assert made.correct == pytest.approx(right / named)


def test_the_page_and_the_text_say_what_was_promised(table: Table) -> None:
    for text in (html(table), markdown(table)):
        assert "40 tracks of a 5-fold cross-validation" in text
        assert "0.50 to 0.90, depending on the genre" in text
        assert "the share of the 100 test tracks" in text
    assert "Certain enough" not in html(tabulate(boards.full()))


def test_a_network_that_names_no_genre_comes_with_what_helps(table: Table) -> None:
    helps = "A lower min_precision, more held-out tracks (corpus.valid_fraction, tune.folds) or a better model help."
    never = replace(FITTED, thresholds=(2.0,) * 4)
    entries = [
        replace(entry, runs=[replace(run, correction=never) for run in entry.runs]) if entry.name == "other" else entry
        for entry in table.board.entries
    ]
    for text in (html, markdown):
        assert helps not in text(table)
        assert helps in text(tabulate(replace(table.board, entries=entries)))


def test_a_board_keeps_how_its_models_are_calibrated(table: Table, tmp_path: Path) -> None:
    report.write(table.board, Location.of(tmp_path))
    again = report.read_board(Location.of(tmp_path))
    assert [run.correction for run in again.entries[0].runs] == [FITTED, FITTED]
    assert again.entries[1].runs[0].correction is None
    assert np.array_equal(again.entries[0].runs[0].probabilities, table.board.entries[0].runs[0].probabilities)


def test_the_advice_warns_of_a_network_that_names_no_genre() -> None:
    def calibrated(entry: Entry, limit: float) -> Entry:
        correction = replace(FITTED, thresholds=(limit,) * 4)
        return replace(entry, runs=[replace(run, correction=correction) for run in entry.runs])

    best, equal = boards.network("cnn", 0.8), boards.network("other", 0.8)
    for limits, warned in (((2.0, 0.0), True), ((2.0, 2.0), False), ((0.0, 2.0), None)):
        made = boards.board(calibrated(best, limits[0]), calibrated(equal, limits[1]), boards.majority())
        table = tabulate(replace(made, search=Search()))
        assert not advise(tabulate(made)).on_terminal  # without a search tag may use another model
        advice = advise(table)
        assert advice.pick is not None
        assert advice.pick.entry.name == "cnn"
        warning = " ".join(advice.on_terminal)
        assert ("With cnn the job tag names no genre" in warning) == (warned is not None)
        assert ("other, of the same rank, names 100 % of these tracks." in warning) == bool(warned)
        assert warning in text_table(table, 1000)
        assert advice.reasons[: len(advice.on_terminal)] == advice.on_terminal
