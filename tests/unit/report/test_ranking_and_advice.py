from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Literal

import boards
import numpy as np
import pytest
from boards import TRUTH, board, classical, majority, network, probabilities

from genre.report import Board, Entry, SeedRun, read_board, tabulate, text_table, write
from genre.report.advice import advise
from genre.report.table import Table
from genre.storage import Location


@pytest.fixture
def full() -> Board:
    return boards.full()


@pytest.fixture
def folder(tmp_path: Path) -> Location:
    return Location.of(tmp_path / "leaderboard")


def test_equal_predictions_share_a_rank_and_different_ones_do_not(full: Board) -> None:
    twin = dataclasses.replace(full.entries[0], name="twin")
    table = tabulate(dataclasses.replace(full, entries=[*full.entries, twin]))
    ranks = {row.entry.name: row.rank or 0 for row in table.rows}
    assert ranks["resnet"] == ranks["twin"] == 1
    assert ranks["vgg16"] > ranks["cnn"]
    assert ranks["majority"] > ranks["vgg16"]
    assert all(row.tied for row in table.rows if row.rank == 1)
    assert [row.f1.mean for row in table.rows] == sorted((row.f1.mean for row in table.rows), reverse=True)


def test_nearest_neighbours_change_no_rank_and_are_never_the_model_to_use(full: Board) -> None:
    """They are made of another row: even far better than the networks, they are not what `genre tag` can use."""
    before = tabulate(full)
    after = tabulate(dataclasses.replace(full, entries=[*full.entries, boards.neighbours(0.95)]))
    assert after.rows[0].entry.kind == "neighbours"
    assert after.rows[0].rank is None
    others = [row for row in after.rows if row.entry.kind != "neighbours"]
    for row, same in zip(others, before.rows, strict=True):
        assert (row.entry.name, row.rank, row.tied, row.p_value) == (
            same.entry.name,
            same.rank,
            same.tied,
            same.p_value,
        )
    assert advise(after).sentence == advise(before).sentence
    assert advise(after).reasons == advise(before).reasons


def test_shared_ranks_are_skipped_afterwards() -> None:
    table = tabulate(board(network("a", 0.9), network("b", 0.9), network("c", 0.5), majority()))
    assert [row.rank for row in table.rows] == [1, 1, 3, 4]


def test_an_ensemble_is_compared_but_has_no_rank(full: Board) -> None:
    ensemble = Entry("ensemble", "ensemble", [SeedRun(0, probabilities(0.97, 5))])
    table = tabulate(dataclasses.replace(full, entries=[*full.entries, ensemble]))
    assert table.rows[0].entry.name == "ensemble"
    assert table.rows[0].rank is None
    assert table.rows[0].p_value is not None
    assert table.rows[1].rank == 1
    assert table.rows[1].p_value is None
    advice = advise(table)
    assert advice.sentence.startswith("Use resnet")
    assert any("ensemble" in reason and "significantly better" in reason for reason in advice.reasons)


def test_means_spread_and_intervals_are_over_seeds(full: Board) -> None:
    row = tabulate(full).rows[0]
    assert row.f1.least <= row.f1.mean <= row.f1.most
    assert row.f1.low < row.f1.mean < row.f1.high
    assert row.f1.std == pytest.approx((row.f1.most - row.f1.least) / 2**0.5)
    assert row.train_seconds == 60.5
    assert row.confusion.sum() == len(TRUTH)
    assert tabulate(board(majority())).rows[0].f1.std is None


def test_groups_change_the_intervals(full: Board) -> None:
    grouped = dataclasses.replace(full, groups=[f"artist {i // 5}" for i in range(len(TRUTH))])
    widths = [row.f1.high - row.f1.low for row in (tabulate(full).rows[0], tabulate(grouped).rows[0])]
    assert widths[0] != widths[1]


def test_advice_names_the_best_network_those_as_good_and_the_cheaper_one(full: Board) -> None:
    advice = advise(tabulate(full))
    assert advice.pick is not None
    assert re.match(
        r"Use resnet for now: \d\d % of the 100 test tracks correct, macro F1 0\.\d\d \(95 % interval", advice.sentence
    )
    reasons = " ".join(advice.reasons)
    assert re.search(r"It is significantly better than vgg16 \(0\.\d\d\), but not than cnn \(0\.\d\d\)\.", reasons)
    assert "For speed and size, use cnn: 8.0 times as fast and 27.5 times smaller" in reasons
    assert "significantly better than the classical baseline mfcc_svm" in reasons


ARTISTS = np.arange(len(TRUTH)) % 10  # of the tracks


def wrong_for(name: str, wrong: np.ndarray, kind: Literal["network", "classical"] = "network") -> Entry:
    """Return an entry that is wrong for some tracks and right for the others."""
    table = probabilities(2.0, 3)  # right for all
    table[wrong] = np.roll(table[wrong], 1, axis=1)
    return Entry(name, kind, [SeedRun(0, table)])


def by_artists(*entries: Entry) -> Table:
    return tabulate(board(*entries, majority(), groups=[f"artist {number}" for number in ARTISTS]))


GOOD = np.zeros(len(TRUTH), bool)
EVENLY = np.arange(len(TRUTH)) // 10 % 6 == 0  # two tracks of each artist
SHAKY = np.isin(ARTISTS, (2, 7))  # all tracks of two artists
SHAKY[1] = True


def test_a_lower_network_with_a_wider_interval_is_not_called_significantly_worse() -> None:
    """It shares the rank of a network above it that is, since a row has at least the rank of those above it."""
    poor = network("vgg19", 0.1)
    table = by_artists(wrong_for("cnn", GOOD), wrong_for("vgg16", EVENLY), wrong_for("shaky", SHAKY), poor)
    rows = {row.entry.name: row for row in table.rows}
    assert rows["vgg16"].f1.mean > rows["shaky"].f1.mean
    assert rows["vgg16"].differs
    assert not rows["shaky"].differs
    assert (rows["cnn"].rank, rows["vgg16"].rank, rows["shaky"].rank) == (1, 2, 2)
    names = r"vgg16 \(0\.\d\d\) and vgg19 \(0\.\d\d\), but not than shaky \(0\.\d\d\)"
    (sentence,) = (reason for reason in advise(table).reasons if "vgg16" in reason)
    assert re.fullmatch(rf"It is significantly better than {names}\.", sentence)


def test_a_reference_row_of_a_lower_rank_is_judged_by_its_own_p_value() -> None:
    table = by_artists(wrong_for("cnn", GOOD), wrong_for("vgg16", EVENLY), wrong_for("mfcc_svm", SHAKY, "classical"))
    assert table.of("classical")[0].rank == 2
    assert any("not significantly better than the classical baseline" in reason for reason in advise(table).reasons)
    table = by_artists(
        wrong_for("mfcc_svm", GOOD, "classical"), wrong_for("ridge", EVENLY, "classical"), wrong_for("cnn", SHAKY)
    )
    assert table.of("network")[0].rank == 2
    assert advise(table).on_terminal[0].endswith("; not significantly lower.")


def test_advice_says_when_no_network_beats_a_reference_row() -> None:
    better = advise(tabulate(board(network("cnn", 0.5), classical(0.9), majority())))
    assert better.sentence.startswith("No network beats the classical baseline mfcc_svm (0.")
    assert "cannot tag music" in better.reasons[0]
    assert better.pick is None
    equal = advise(tabulate(board(network("cnn", 0.74), classical(0.66), majority())))
    assert equal.sentence.startswith("Use cnn:")
    assert any("not significantly better than the classical baseline" in reason for reason in equal.reasons)
    useless = advise(tabulate(board(network("cnn", 0.0), classical(0.0), majority())))
    assert useless.sentence.startswith("Use none of these models")
    assert useless.pick is None


def test_a_network_as_good_as_a_leading_baseline_is_picked() -> None:
    table = tabulate(board(network("cnn", 0.62), classical(0.6), majority()))
    advice = advise(table)
    assert advice.sentence.startswith("No network beats")
    assert advice.badge == "best network"
    assert "The best network is cnn, which the job tag uses" in text_table(table, 1000)
    assert advice.pick is not None
    assert advice.pick.entry.name == "cnn"


def test_few_seeds_make_the_advice_provisional() -> None:
    few = advise(tabulate(board(network("cnn", 0.9, seeds=(0,)), network("vgg16", 0.4, seeds=(0, 1, 2)))))
    assert few.sentence.startswith("Use cnn for now:")
    assert any("some networks were trained with only 1 seed," in reason for reason in few.reasons)
    seeds = (0, 1, 2)
    enough = advise(tabulate(board(network("cnn", 0.9, seeds=seeds), network("vgg16", 0.4, seeds=seeds))))
    assert enough.sentence.startswith("Use cnn:")
    assert not any("provisional" in reason for reason in enough.reasons)


def test_a_network_that_trained_less_and_was_still_improving_is_named() -> None:
    def trained(name: str, epochs: int, best_epoch: int, **scores: None) -> Entry:
        entry: Entry = network(name, 0.6, seeds=(0, 1, 2))
        history: list[dict[str, float | None]] = [{"epoch": float(epoch)} | scores for epoch in range(1, epochs + 1)]
        runs = [dataclasses.replace(run, history=history, best_epoch=best_epoch) for run in entry.runs]
        return dataclasses.replace(entry, runs=runs)

    advice = advise(tabulate(board(trained("cnn", 30, 29), trained("resnet", 14, 13), trained("vgg16", 20, 9))))
    assert "for now" in advice.sentence
    assert any("for 14 to 30 epochs; resnet was still improving" in reason for reason in advice.reasons)
    folds = advise(tabulate(board(trained("cnn", 30, 30, valid_f1=None), trained("resnet", 14, 14, valid_f1=None))))
    assert not any("still improving" in reason for reason in folds.reasons)


@pytest.mark.parametrize("entries", [[], [network("cnn", 0.7)], [majority()], [classical(0.6)]])
def test_boards_with_no_or_one_entry_work(entries: list[Entry], folder: Location) -> None:
    table = write(board(*entries), folder)
    assert len(table.rows) == len(entries)
    assert advise(table).sentence
    assert text_table(table)
    assert len(read_board(folder).entries) == len(entries)


def test_a_board_without_tracks_works(folder: Location) -> None:
    run = SeedRun(0, np.zeros((0, 4), dtype=np.float32))
    write(board(Entry("cnn", "network", [run]), truth=np.array([], int), track_ids=[]), folder)
    assert read_board(folder).track_ids == []


def test_advice_names_the_change_that_costs_the_pick_most() -> None:
    assert any(
        "(noise 20 dB): macro F1 falls from 0.78 to 0.60" in reason
        for reason in advise(tabulate(boards.everything())).reasons
    )
    steady = board(network("cnn", 0.7, robustness={"unchanged": 0.7, "-12 dB": 0.69}), majority())
    assert not any("weakest" in reason for reason in advise(tabulate(steady)).reasons)
