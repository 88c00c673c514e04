"""Each network as configured, tuned, and as the mean of its seeds."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import boards
import numpy as np
import pytest

from genre.report import Board, Entry, Search, SeedRun, Trial, merge, tabulate, text_table, write
from genre.report.advice import advise
from genre.report.columns import records
from genre.report.tuning import tunings, versions
from genre.storage import Location

SEARCH = Search(
    [
        Trial("cnn", {"params.width": 64}, "finished", 0.7, 9, 20.0, is_configured=True),
        Trial("cnn", {"params.width": 32}, "finished", 0.74, 9, 30.0, is_chosen=True),
        Trial("cnn", {"params.width": 16}, "stopped", 0.8, 3, 5.0),  # of its first fold only
        Trial("resnet", {}, "stopped", 0.6, 3, 10.0, is_configured=True, is_chosen=True, row="resnet-imagenet"),
        Trial("resnet", {}, "failed", row="resnet-imagenet"),
    ]
)


def same_seeds(name: str, skill: float) -> Entry:
    """Return a network whose two seeds predict the same."""
    entry = boards.network(name, skill)
    return dataclasses.replace(entry, runs=[dataclasses.replace(entry.runs[0], seed=seed) for seed in (0, 1)])


def test_the_validation_score_of_the_configured_settings_is_next_to_that_of_the_chosen_ones() -> None:
    board = boards.board(boards.network("cnn", 0.8), boards.network("resnet-imagenet", 0.6), search=SEARCH)
    default, tuned, ensembled, *of_resnet = versions(tabulate(board))
    assert [each.name for each in (default, tuned, ensembled)] == ["default", "tuned", "ensembled"]
    assert (default.valid_f1, default.trained, default.seconds) == (0.7, "1 trial", 20.0)
    assert (tuned.valid_f1, tuned.trained, tuned.seconds) == (0.74, "3 trials", 55.0)
    assert tuned.valid_change == pytest.approx(0.04)
    assert default.f1 is None  # it was not judged on these tracks
    assert (ensembled.trained, ensembled.seconds) == ("2 seeds", 121.0)
    kept = of_resnet[0]
    assert kept.network == "resnet-imagenet"
    assert kept.trained == "1 trial, stopped"
    assert (kept.f1, kept.accuracy) == (of_resnet[1].f1, of_resnet[1].accuracy)  # the same models


def test_a_single_trial_is_not_shown_twice() -> None:
    """Nothing was searched: a line of equal numbers would say that tuning gained nothing."""
    search = Search([Trial("cnn", {}, "finished", 0.7, 9, 20.0, is_configured=True, is_chosen=True)])
    one_seed = tabulate(boards.board(boards.network("cnn", 0.8, seeds=(0,)), search=search))
    assert versions(one_seed) == []
    assert "tuned" not in text_table(one_seed)
    two_seeds = tabulate(boards.board(boards.network("cnn", 0.8), search=search))
    assert [version.name for version in versions(two_seeds)] == ["default", "ensembled"]


def test_the_mean_of_equal_seeds_changes_nothing_and_that_of_others_is_tested_on_the_same_tracks() -> None:
    row = tabulate(boards.board(same_seeds("cnn", 0.7))).rows[0]
    assert row.ensembled is not None
    assert (row.ensembled.f1.mean, row.ensembled.f1.low) == pytest.approx((row.f1.mean, row.f1.low))
    assert row.ensembled.p_value == 1.0
    assert not any("mean of its" in reason for reason in advise(tabulate(boards.board(row.entry))).reasons)
    table = tabulate(boards.board(boards.network("cnn", 0.7, seeds=tuple(range(5)))))
    mean = table.rows[0].ensembled
    assert mean is not None
    assert mean.p_value < 0.05
    assert mean.f1.mean > table.rows[0].f1.mean
    assert any("The mean of its 5 seeds is significantly better" in reason for reason in advise(table).reasons)


def test_the_advice_says_when_the_search_chose_the_configured_settings() -> None:
    trial = SEARCH.trials[0]
    others = [Trial("cnn", {}, "stopped", 0.5, seconds=40.0)]
    for trials, said in (([dataclasses.replace(trial, is_chosen=True), *others], True), (SEARCH.trials, False)):
        table = tabulate(boards.board(same_seeds("cnn", 0.7), search=Search(trials)))
        reasons = [reason for reason in advise(table).reasons if "configured settings" in reason]
        assert bool(reasons) is said
    table = tabulate(boards.board(same_seeds("cnn", 0.7), search=Search([dataclasses.replace(trial, is_chosen=True)])))
    assert not any("The search" in reason for reason in advise(table).reasons)  # there was one trial to choose from


def test_the_configured_settings_are_compared_on_the_tracks_and_are_no_candidate() -> None:
    """Far better than the tuned network, they neither win nor change a rank."""
    tuned, other = boards.network("cnn", 0.5), boards.network("vgg16", 0.6)
    for skill, said in ((0.95, "significantly higher"), (0.6, "not significantly lower"), (0.2, "")):
        board = boards.board(tuned, other, boards.default(other, skill), boards.default(tuned, 0.4), boards.majority())
        table = tabulate(board)
        plain = tabulate(dataclasses.replace(board, entries=[tuned, other, boards.majority()]))
        assert [(row.entry.name, row.rank) for row in table.without_defaults().rows] == [
            (row.entry.name, row.rank) for row in plain.rows
        ]
        advice = advise(table)
        assert advice.sentence == advise(plain).sentence
        assert any(said in reason for reason in advice.reasons if "gained nothing" in reason) is bool(said)
        tuning = tunings(table)[0]
        (row,) = [row for row in table.of("default") if row.entry.default_of == "vgg16"]
        assert tuning.judged_default is row
        record = next(record for record in records(table) if record["name"] == "vgg16")
        assert (record["default_f1"], record["p_value_default"]) == (
            round(row.f1.mean, 5),
            round(tuning.p_value or 0.0, 5),
        )
    assert "vgg16 default" not in text_table(tabulate(board))  # its scores are in the line of vgg16
    default, best, _ = versions(tabulate(dataclasses.replace(board, search=searched("vgg16"))))[:3]
    assert default.f1 is not None
    assert best.f1 is not None
    assert best.change == pytest.approx(best.f1.mean - default.f1.mean)
    assert best.p_value is not None
    assert best.p_value < 0.05


def searched(name: str) -> Search:
    """Return a search of two trials of a network, of which the second was chosen."""
    return Search(
        [Trial(name, {}, "finished", 0.5, is_configured=True), Trial(name, {}, "finished", 0.6, is_chosen=True)]
    )


def searched_board(row: str, skill: float, *f1: float) -> Board:
    """Return a board of a network whose search had trials of these scores; of a network without a search if none."""
    architecture = row.partition("-")[0]
    trials = [
        Trial(architecture, {}, "finished", value, is_configured=i == 0, is_chosen=i == 1, row=row)
        for i, value in enumerate(f1)
    ]
    return dataclasses.replace(boards.board(boards.network(row, skill)), search=Search(trials) if f1 else None)


def test_in_a_merged_report_each_network_has_the_trials_of_its_own_search() -> None:
    failed = boards.board(boards.network("vgg16", 0.7), search=Search([Trial("cnn", {}, "failed")]))
    merged = merge(
        {
            "a": searched_board("resnet-imagenet", 0.8, 0.5, 0.6),
            "b": searched_board("resnet-imagenet", 0.5, 0.3, 0.4),
            "c": searched_board("resnet", 0.6),
            "d": searched_board("resnet", 0.9, 0.1, 0.2),
            "e": failed,
            "f": searched_board("cnn", 0.3, 0.7, 0.9),
            "again": searched_board("cnn", 0.3, 0.7, 0.9),
        }
    )
    tried = {each.row.entry.name: [trial.valid_f1 for trial in each.trials] for each in tunings(tabulate(merged))}
    assert tried == {
        "resnet-imagenet": [0.5, 0.6],
        "resnet-imagenet (b)": [0.3, 0.4],
        "resnet": [],
        "resnet (d)": [0.1, 0.2],
        "vgg16": [],
        "cnn": [0.7, 0.9],
    }
    assert merged.search is not None
    assert merged.search.architectures == ["resnet", "resnet (b)", "resnet (d)", "cnn", "cnn (f)"]


def test_in_a_merged_report_each_network_is_next_to_its_own_configured_settings() -> None:
    first, second = (
        boards.board(boards.network("cnn", skill), boards.default(boards.network("cnn", skill), skill - 0.2))
        for skill in (0.8, 0.5)
    )
    table = tabulate(merge({"a": first, "b": second}))
    defaults = {row.entry.default_of: row for row in table.of("default")}
    assert sorted(defaults) == ["cnn", "cnn (b)"]
    for tuning in tunings(table):
        assert tuning.default is defaults[tuning.row.entry.name]
        assert tuning.row.f1.mean > tuning.default.f1.mean
    # with the same default, and with a default in one of them only
    for entries in ([first.entries[0], second.entries[1]], [first.entries[0]]):
        table = tabulate(merge({"a": boards.board(*entries), "b": second}))
        assert [row.entry.name for row in table.of("default") if row.entry.default_of == "cnn (b)"] == [
            "cnn default (b)"
        ]


def test_every_file_has_the_versions_and_a_single_seed_without_search_has_none(tmp_path: Path) -> None:
    board = boards.board(boards.network("cnn", 0.8), search=SEARCH)
    write(board, Location.of(tmp_path))
    table = tabulate(board)
    (record,) = records(table)
    assert (record["default_valid_f1"], record["tuned_valid_f1"], record["search_seconds"]) == (0.7, 0.74, 55.0)
    mean = table.rows[0].ensembled
    assert mean is not None
    for key, value in (("seeds_f1", mean.f1.mean), ("seeds_accuracy", mean.accuracy.mean)):
        assert record[key] == round(value, 5)
        assert f"{value:.3f}" in (tmp_path / "leaderboard.md").read_text()
        assert f'data-value="{round(value, 5)}"' in (tmp_path / "leaderboard.html").read_text()
    text = text_table(tabulate(board))
    assert f"{mean.f1.mean:.3f}" in text.split("ensembled")[1]
    assert "single" not in text
    assert "single" in text_table(tabulate(boards.board(boards.network("cnn", 0.8))))
    alone = boards.board(Entry("cnn", "network", [SeedRun(0, boards.probabilities(0.8, 0))]), boards.majority())
    assert versions(tabulate(alone)) == []
    assert "ensembled" not in text_table(tabulate(alone))
    assert [tuning.row.entry.name for tuning in tunings(tabulate(alone))] == ["cnn"]
    assert np.all([record["seeds_f1"] is None for record in records(tabulate(alone))])
