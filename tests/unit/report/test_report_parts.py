from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import re
import statistics
from itertools import pairwise
from typing import Any

import boards
import numpy as np
import pytest
from boards import EVIL, Page
from hypothesis import assume, given
from hypothesis import strategies as st

from genre.report import Board, Entry, Search, Trial, describe_hardware, tabulate, text_table
from genre.report.advice import advise
from genre.report.board import SeedRun
from genre.report.charts import BOTTOM, COSTS, PLOT_HEIGHT, cost_plot, pareto
from genre.report.columns import records
from genre.report.label_issues import LabelIssue, csv_text, label_issues
from genre.report.leaderboard_page import html
from genre.report.neighbours import Mistake, mistakes
from genre.report.search import expected_best
from genre.report.search_plots import budgets, by_architecture
from genre.report.svg import Scale, element
from genre.retrieval.neighbours import Neighbour


@pytest.fixture
def full() -> Board:
    return boards.full()


def test_the_terminal_table_is_narrow_and_complete(full: Board) -> None:
    long_name = dataclasses.replace(full.entries[0], name="a-very-long-name-" * 4)
    text = text_table(tabulate(dataclasses.replace(full, entries=[*full.entries, long_name])))
    assert max(map(len, text.splitlines())) <= 110
    assert all(name in text for name in ("resnet", "mfcc_svm*", "majority*", "Use "))
    assert "\t" not in text


@pytest.mark.parametrize(("width", "last"), [(80, "recall"), (94, "training"), (110, "clips/s")])
def test_columns_that_do_not_fit_the_terminal_are_left_out(full: Board, width: int, last: str) -> None:
    long_name = dataclasses.replace(full.entries[0], name="a-very-long-name-" * 4)
    lines = text_table(tabulate(dataclasses.replace(full, entries=[*full.entries, long_name])), width).splitlines()
    assert max(map(len, lines)) <= width
    assert next(line for line in lines if line.startswith("rank")).split()[-1] == last


def test_the_terminal_shows_the_mean_difference_on_another_split() -> None:
    text = text_table(tabulate(boards.everything()))
    assert "the same networks score" in text.splitlines()[-1]


def test_a_planted_wrong_label_is_an_issue_that_all_networks_report(full: Board) -> None:
    issues = label_issues(tabulate(full))
    names = {issue.track_id for issue in issues}
    right = full.entries[0].predicted[0] == full.truth
    planted = next(index for index, name in enumerate(full.track_ids) if right[index] and name not in names)
    truth = full.truth.copy()
    truth[planted] = (truth[planted] + 1) % 4
    found = label_issues(tabulate(dataclasses.replace(full, truth=truth)))
    issue = next(issue for issue in found if issue.track_id == full.track_ids[planted])
    assert issue.suggested == full.classes[full.truth[planted]]
    assert issue.genre == full.classes[truth[planted]]
    assert issue.agreeing <= issue.networks == 3
    assert label_issues(tabulate(dataclasses.replace(full, truth=truth, judged_on="train"))) == []
    assert label_issues(tabulate(boards.board(boards.majority()))) == []
    poor = boards.network("cnn", 0.0)
    assert label_issues(tabulate(boards.board(poor, boards.majority()))) == []
    assert label_issues(tabulate(boards.board(poor, boards.classical(0.9)))) == []


def test_the_page_does_not_call_a_label_wrong(full: Board) -> None:
    """It says how often the networks are wrong instead: of a poor model, most labels that it doubts are right."""
    page = html(tabulate(full))
    error = 1 - np.mean([row.accuracy.mean for row in tabulate(full).of("network")])
    assert f"on average the networks are wrong about {100 * error:.0f} % of the tracks" in page
    assert not re.search(r"(probably|may be) wrong", page)


def test_a_cost_is_drawn_where_there_is_a_choice_of_networks(full: Board) -> None:
    network, other, _, *references = full.entries
    assert len(Page(html(tabulate(full))).all("figure")) > 3
    alone = html(tabulate(boards.board(network, *references)))
    assert "Pareto" not in alone
    assert "Cost table" in alone
    assert "Pareto" in html(tabulate(boards.board(network, other)))


def test_label_issues_as_csv_run_nothing_in_a_spreadsheet(full: Board) -> None:
    named = dataclasses.replace(full, track_ids=[f"=1+1\n{name}" for name in full.track_ids])
    issues = label_issues(tabulate(named))
    lines = csv_text(issues).splitlines()
    assert lines[0].startswith("track_id,genre,suggested,p_genre,p_suggested,agreeing,networks,neighbour_1,")
    assert len(lines) == 1 + len(issues) > 1
    assert all(line.startswith("'=1+1 ") for line in lines[1:])


def test_flagged_labels_and_wrong_predictions_have_their_nearest_training_tracks(full: Board) -> None:
    entry = boards.neighbours()
    near = dataclasses.replace(full, entries=[*full.entries, entry])
    nearest = entry.runs[0].neighbours
    assert nearest is not None
    table = tabulate(near)
    plain, issues, wrong = label_issues(tabulate(full)), label_issues(table), mistakes(table)
    assert [dataclasses.replace(issue, neighbours=()) for issue in issues] == plain
    items: list[LabelIssue | Mistake] = [*issues, *wrong]
    for item in items:
        track = full.track_ids.index(item.track_id)
        assert [neighbour.track_id for neighbour in item.neighbours] == nearest.track_ids[track].tolist()
        assert (
            item.neighbours[1].genre == item.genre == full.classes[full.truth[track]]
        )  # as `boards.neighbours` made it
    assert [item.probability for item in wrong] == sorted((item.probability for item in wrong), reverse=True)
    assert all(item.predicted != item.genre for item in wrong)
    assert mistakes(tabulate(full)) == []
    assert mistakes(tabulate(boards.board(entry, boards.majority()))) == []

    lines = list(csv.DictReader(io.StringIO(csv_text(issues))))
    assert [line["neighbour_1"] for line in lines] == [issue.neighbours[0].track_id for issue in issues]
    assert {line["neighbour_3_cosine"] for line in lines} == {"0.75"}
    (heading, *values), (empty,) = csv_text(plain).splitlines(), csv_text([]).splitlines()
    assert heading == empty == ",".join(lines[0])
    assert all(line.endswith("," * 9) for line in values)
    evil = dataclasses.replace(issues[0], neighbours=(Neighbour("=1+1", "rock", 0.5),))
    assert ",'=1+1,rock,0.5" in csv_text([evil])


def test_the_worst_genre_is_named(full: Board) -> None:
    for row, record in zip(tabulate(full).rows, records(tabulate(full)), strict=True):
        assert record["worst_f1"] == pytest.approx(row.per_class.f1.min(), abs=1e-5)
        assert row.per_class.f1[full.classes.index(str(record["worst_genre"]))] == row.per_class.f1.min()


def test_all_seeds_of_a_network_score_what_their_ensemble_scores(full: Board) -> None:
    for row in tabulate(full).rows:
        if row.entry.kind != "network":
            assert row.ensembled is None
            continue
        mean = np.mean([run.probabilities for run in row.entry.runs], axis=0)
        alone = dataclasses.replace(row.entry, runs=[SeedRun(0, mean.astype(np.float32))])
        ensemble = tabulate(dataclasses.replace(full, entries=[alone])).rows[0]
        assert row.ensembled is not None
        for mean, same in ((row.ensembled.f1, ensemble.f1), (row.ensembled.accuracy, ensemble.accuracy)):
            assert [mean.mean, mean.low, mean.high] == pytest.approx([same.mean, same.low, same.high], abs=1e-3)
        assert ensemble.ensembled is None


def test_few_groups_are_a_warning(full: Board) -> None:
    few = dataclasses.replace(full, groups=[f"artist {index % 19}" for index in range(100)])
    enough = dataclasses.replace(full, groups=[f"artist {index % 20}" for index in range(100)])
    caveat = "; from 19 groups only, so the interval is too narrow)."
    assert advise(tabulate(few)).sentence.endswith(caveat)
    assert caveat in " ".join(text_table(tabulate(few)).split())
    assert "too narrow" not in advise(tabulate(enough)).sentence
    assert any("only 19 groups" in reason for reason in advise(tabulate(few)).reasons)
    assert not any("only" in reason and "groups" in reason for reason in advise(tabulate(enough)).reasons)


def test_the_pareto_front_holds_the_points_that_no_other_dominates(full: Board) -> None:
    table = tabulate(full)
    points = [(row.entry.parameters or 0.0, row) for row in table.of("network")]
    assert [row.entry.name for _, row in pareto(points)] == ["cnn", "resnet"]


def test_svg_elements_escape_and_scales_have_round_ticks() -> None:
    assert element("text", EVIL, class_='"x"', stroke_width=1.5) == (
        '<text class="&#34;x&#34;" stroke-width="1.5">&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;</text>'
    )
    assert Scale(0, 1, 0, 100).ticks() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert Scale(3e5, 3e7, 0, 100, log=True).ticks() == [1e6, 1e7]
    assert len(Scale(12, 40, 0, 100, log=True).ticks()) >= 2
    assert Scale(1, 100, 0, 10, log=True)(10) == pytest.approx(5)
    assert Scale(2, 2, 0, 10)(2) == 5


@given(
    ends=st.lists(st.floats(1e-6, 1e9), min_size=2, max_size=2).map(sorted),
    shares=st.lists(st.floats(0, 1), min_size=2, max_size=2).map(sorted),
    log=st.booleans(),
)
def test_a_scale_keeps_the_order_within_its_ends_and_its_ticks_lie_between_them(
    ends: list[float], shares: list[float], log: bool
) -> None:
    low, high = ends
    assume(high > 1.001 * low)
    scale = Scale(low, high, 50, 450, log)
    assert [scale(low), scale(high)] == pytest.approx([50, 450])
    below, above = (scale(low + share * (high - low)) for share in shares)
    assert 50 - 1e-6 <= below <= above + 1e-6 <= 450 + 2e-6
    ticks = scale.ticks()
    assert ticks == sorted(set(ticks))
    assert len(ticks) <= 11
    assert all(low - 1e-6 * (high - low) <= tick <= high + 1e-6 * (high - low) for tick in ticks)


def test_names_in_a_cost_plot_do_not_overlap_or_leave_the_plot(full: Board) -> None:
    twins = [dataclasses.replace(full.entries[0], name=f"crnn_attention {i}") for i in range(6)]
    plot = cost_plot(tabulate(dataclasses.replace(full, entries=[*full.entries, *twins])).rows, COSTS[0])
    assert plot is not None
    names = [(float(x), float(y)) for x, y in re.findall(r'<text x="([\d.]+)" y="([\d.]+)" class="name"', plot)]
    assert len(names) == 9
    assert len({x for x, _ in names}) == 1
    heights = [y for _, y in names]
    assert all(below - above >= 13 for above, below in pairwise(heights))
    assert min(heights) > 10
    assert max(heights) < PLOT_HEIGHT - BOTTOM + 10


@given(scores=st.lists(st.floats(0, 1), min_size=1, max_size=7), configured=st.booleans(), data=st.data())
def test_the_expected_best_is_the_mean_of_the_best_of_every_choice_with_the_configured_trial(
    scores: list[float], configured: bool, data: st.DataObject
) -> None:
    tried = data.draw(st.integers(1, len(scores)))
    trials = [
        Trial("cnn", {}, "finished", score, is_configured=configured and number == 0)
        for number, score in enumerate(scores)
    ]
    choices = [chosen for chosen in itertools.combinations(trials, tried) if not configured or trials[0] is chosen[0]]
    expected = statistics.fmean(max(trial.valid_f1 or 0.0 for trial in chosen) for chosen in choices)
    mixed = data.draw(st.permutations([*trials, Trial("cnn", {}, "failed")]))
    assert expected_best(mixed, tried) == pytest.approx(expected)
    assert expected_best(trials, len(scores) + 1) is None


def test_a_merged_search_may_have_two_configured_trials_of_an_architecture() -> None:
    trials = [Trial("cnn", {}, "finished", score, is_configured=True) for score in (0.5, 0.7)]
    assert expected_best(trials, 1) == 0.7
    assert expected_best([*trials, Trial("cnn", {}, "finished", 0.8)], 3) == 0.8


def test_budgets_double_up_to_the_most_trials_of_an_architecture() -> None:
    assert budgets(boards.search(("cnn", "resnet"), trials=8)) == [1, 2, 4, 7]  # one trial of each has no score
    assert budgets(Search()) == []


def test_each_panel_of_the_search_has_a_mark_per_trial() -> None:
    searches = by_architecture(boards.search(("cnn", "resnet"), trials=8))
    assert [item.name for item in searches] == ["cnn", "resnet"]
    assert [key for key, _ in searches[0].panels] == ["train.learning_rate", "train.mixup"]  # params.head never varies
    for _, panel in searches[0].panels:
        assert panel.count("<circle") + panel.count('class="cross"') == 8
        assert panel.count("best-trial") == 1
    assert searches[0].best == 0.7
    assert [trial.valid_f1 for trial in searches[0].trials][-1] is None


@pytest.mark.parametrize("values", [[1], [None, "a", True], [0.0, 5.0, 6.0, 7.0], [["a"], ["a", "b"]], [64, 128, 256]])
def test_panels_show_settings_of_any_type(values: list[Any]) -> None:
    trials = [Trial("cnn", {"x": value}, "finished", 0.5) for value in values]
    (search,) = by_architecture(Search([*trials, Trial("cnn", {}, "failed")]))
    assert len(search.panels) == 1


def test_a_search_without_a_successful_trial_is_shown() -> None:
    (search,) = by_architecture(Search([Trial("cnn", {"x": i}, "failed", error="no room") for i in range(5)]))
    assert search.best is None
    assert "No trial has a score." in search.panels[0][1]
    assert by_architecture(Search()) == []


def test_utilisation_is_the_share_of_busy_slots() -> None:
    search = boards.search(trials=5)
    assert search.trial_seconds == 300
    assert search.utilisation == 0.5
    assert Search(search.trials).utilisation is None


def test_hardware_is_named_once_or_for_each_measurement() -> None:
    def entry(name: str, trained: str, measured: str) -> Entry:
        made = boards.network(name, 0.5, seeds=(0,))
        return dataclasses.replace(made, runs=[dataclasses.replace(made.runs[0], hardware=trained)], hardware=measured)

    assert describe_hardware([entry("cnn", "a GPU", "a GPU"), entry("crnn", "a GPU", "a GPU")]) == "a GPU"
    words = describe_hardware([entry("cnn", "a GPU", "2 cores"), entry("crnn", "a GPU", "2 cores"), boards.majority()])
    assert words == "a GPU (training of cnn, training of crnn); 2 cores (speed of cnn, speed of crnn)"
    assert describe_hardware([boards.majority()]) == ""
