from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from genre.errors import ArtifactError
from genre.report import Board, CorpusFacts, Entry, Run, read_board, tabulate, text_table, write
from genre.report.advice import advise
from genre.report.charts import pareto
from genre.report.confused import confused_tracks
from genre.report.files import to_json
from genre.report.page import html
from genre.report.svg import Scale, element
from genre.storage import Location

GENRES = ["blues", "disco", "metal", "rock"]
TRUTH = np.repeat(np.arange(4), 25)
EVIL = "<script>alert('x')</script>"


def probabilities(skill, seed, classes=4):
    """Answers of which a share `skill` is right, the same tracks being hard for every model."""
    hard = np.random.default_rng(0).random(len(TRUTH))
    rng = np.random.default_rng(seed + 1)
    wrong = (TRUTH + rng.integers(1, classes, len(TRUTH))) % classes
    chosen = np.where(hard + 0.4 * rng.random(len(TRUTH)) < skill + 0.2, TRUTH, wrong)
    table = rng.random((len(TRUTH), classes)) * 0.5
    table[np.arange(len(TRUTH)), chosen] += 1
    return (table / table.sum(axis=1, keepdims=True)).astype(np.float32)


def network(name, skill, seeds=(0, 1), **facts):
    history = [{"epoch": e, "train_loss": 2 / e, "valid_loss": 2.1 / e, "valid_f1": 1 - 1 / e} for e in range(1, 6)]
    runs = [Run(seed, probabilities(skill, seed), 60.0 + seed, history, best_epoch=4) for seed in seeds]
    return Entry(name, "network", runs, {"train.learning_rate": 1.25e-06, "model.params.width": 32}, 8, skill, **facts)


def majority():
    table = np.zeros((len(TRUTH), 4), dtype=np.float32)
    table[:, 0] = 1
    return Entry("majority", "majority", [Run(0, table)])


def classical(skill):
    return Entry("mfcc_svm", "classical", [Run(0, probabilities(skill, 9), 1.5)])


def board(*entries, **changes):
    facts = CorpusFacts(
        "synthetic",
        "random",
        "By artist, stratified by genre.",
        tracks={"train": dict.fromkeys(GENRES, 60), "test": dict.fromkeys(GENRES, 25)},
        groups={"train": 20, "test": 8},
        rejects={"truncated": 2, "silent": 1},
    )
    parts = {
        "title": "Test board",
        "classes": GENRES,
        "track_ids": [f"{GENRES[t]}/{i:03d}.wav" for i, t in enumerate(TRUTH)],
        "truth": TRUTH,
        "entries": list(entries),
        "corpus": facts,
        "created": "2025-01-02T03:04:05+00:00",
        "hardware": "2 CPU cores",
        "commands": ["python -m ray_jobs.tune --config configs/demo.yaml"],
        "versions": {"torch": "2.11.0"},
        "notes": ["A note."],
    }
    return Board(**parts | changes)


@pytest.fixture
def full():
    return board(
        network("resnet", 0.8, parameters=11_000_000, clips_per_second=50.0, latency_ms=21.0),
        network("cnn", 0.78, parameters=400_000, clips_per_second=400.0),
        network("vgg16", 0.4, parameters=14_000_000, clips_per_second=20.0),
        classical(0.3),
        majority(),
    )


@pytest.fixture
def folder(tmp_path):
    return Location.of(tmp_path / "leaderboard")


class Page(HTMLParser):
    """What the tests look at: tags with their attributes, cells by column key, and the text."""

    def __init__(self, source):
        super().__init__()
        self.tags = []
        self.text = []
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text.append(data)

    def values(self, key):
        return [attributes["data-value"] for _, attributes in self.tags if attributes.get("data-key") == key]

    def all(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


# -- the four files ---------------------------------------------------------------------------------------------------


def test_the_board_comes_back_from_its_json(full, folder):
    write(full, folder)
    again = read_board(folder)
    assert to_json(again) == to_json(full)
    assert again.truth.dtype == np.int64
    np.testing.assert_array_equal(again.entries[0].runs[1].probabilities, full.entries[0].runs[1].probabilities)
    assert again.entries[0].settings["train.learning_rate"] == 1.25e-06


def test_a_report_made_again_is_the_same_to_the_byte(full, folder, tmp_path):
    write(full, folder)
    other = Location.of(tmp_path / "again")
    write(read_board(folder), other)
    for suffix in ("json", "csv", "md", "html"):
        assert (other / f"leaderboard.{suffix}").read_bytes() == (folder / f"leaderboard.{suffix}").read_bytes()


def test_csv_json_html_and_markdown_agree(full, folder):
    write(full, folder)
    lines = list(csv.DictReader(io.StringIO((folder / "leaderboard.csv").read_bytes().decode())))
    rows = json.loads((folder / "leaderboard.json").read_bytes())["rows"]
    page = Page((folder / "leaderboard.html").read_bytes().decode())
    markdown = (folder / "leaderboard.md").read_bytes().decode()
    assert [line["name"] for line in lines] == [row["name"] for row in rows]
    for line, row in zip(lines, rows, strict=True):
        assert line == {key: "" if value is None else str(value) for key, value in row.items()}
        assert f"{row['f1']:.3f} ({row['f1_low']:.3f}–{row['f1_high']:.3f})" in markdown
    for key in ("f1", "accuracy", "precision", "recall", "calibration_error", "parameters", "train_seconds"):
        assert page.values(key) == [line[key] for line in lines]


def test_what_cannot_be_read_says_so(full, folder):
    with pytest.raises(ArtifactError, match="no such file"):
        read_board(folder)
    write(full, folder)
    content = (folder / "leaderboard.json").read_json()
    for broken in ({}, [], content | {"schema": 99}, content | {"board": {}}, content | {"board": content["rows"]}):
        (folder / "leaderboard.json").write_json(broken)
        with pytest.raises(ArtifactError, match="make the leaderboard again"):
            read_board(folder)


def test_values_that_are_not_finite_become_unknown(folder):
    run = Run(0, probabilities(0.7, 0), float("nan"), [{"epoch": 1, "valid_f1": float("nan"), "train_loss": 2.0}])
    write(board(Entry("cnn", "network", [run], clips_per_second=float("inf"))), folder)
    entry = read_board(folder).entries[0]
    assert entry.clips_per_second is None
    assert entry.runs[0].train_seconds is None
    assert entry.runs[0].history == [{"epoch": 1, "valid_f1": None, "train_loss": 2.0}]


# -- the data model ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"truth": TRUTH[:-1]}, "truth has shape"),
        ({"truth": TRUTH + 1}, "truth leaves"),
        ({"groups": ["a"]}, "1 groups"),
        ({"classes": GENRES[:3], "truth": TRUTH % 3}, "probabilities are"),
    ],
)
def test_parts_that_do_not_fit_are_refused(full, change, message):
    with pytest.raises(ArtifactError, match=message):
        dataclasses.replace(full, **change)


def test_entries_need_runs_their_own_names_and_finite_answers():
    for entries, message in (
        ([Entry("cnn", "network", [])], "no run"),
        ([network("cnn", 0.5), network("cnn", 0.6)], "2 entries"),
        ([Entry("cnn", "network", [Run(0, np.full((100, 4), np.nan))])], "finite"),
    ):
        with pytest.raises(ArtifactError, match=message):
            board(*entries)


# -- ranks and advice -------------------------------------------------------------------------------------------------


def test_the_same_predictions_share_a_rank_and_different_ones_do_not(full):
    twin = dataclasses.replace(full.entries[0], name="twin")
    table = tabulate(dataclasses.replace(full, entries=[*full.entries, twin]))
    ranks = {row.entry.name: row.rank for row in table.rows}
    assert ranks["resnet"] == ranks["twin"] == 1
    assert ranks["vgg16"] > ranks["cnn"]
    assert ranks["majority"] > ranks["vgg16"]
    assert all(row.tied for row in table.rows if row.rank == 1)
    assert [row.f1.mean for row in table.rows] == sorted((row.f1.mean for row in table.rows), reverse=True)


def test_ranks_count_like_in_sport():
    table = tabulate(board(network("a", 0.9), network("b", 0.9), network("c", 0.5), majority()))
    assert [row.rank for row in table.rows] == [1, 1, 3, 4]


def test_an_ensemble_is_compared_but_has_no_rank(full):
    ensemble = Entry("ensemble", "ensemble", [Run(0, probabilities(0.97, 5))])
    table = tabulate(dataclasses.replace(full, entries=[*full.entries, ensemble]))
    assert table.rows[0].entry.name == "ensemble"
    assert table.rows[0].rank is None
    assert table.rows[0].p_value is not None
    assert table.rows[1].rank == 1
    assert table.rows[1].p_value is None
    advice = advise(table)
    assert advice.sentence.startswith("Use resnet")
    assert any("ensemble" in reason and "measurably better" in reason for reason in advice.reasons)


def test_means_spread_and_intervals_are_over_seeds(full):
    row = tabulate(full).rows[0]
    assert row.f1.least <= row.f1.mean <= row.f1.most
    assert row.f1.low < row.f1.mean < row.f1.high
    assert row.f1.std == pytest.approx((row.f1.most - row.f1.least) / 2**0.5)
    assert row.train_seconds == 60.5
    assert row.confusion.sum() == len(TRUTH)
    assert tabulate(board(majority())).rows[0].f1.std is None


def test_groups_take_part_in_the_intervals(full):
    grouped = dataclasses.replace(full, groups=[f"artist {i // 5}" for i in range(len(TRUTH))])
    widths = [row.f1.high - row.f1.low for row in (tabulate(full).rows[0], tabulate(grouped).rows[0])]
    assert widths[0] != widths[1]


def test_advice_names_the_best_network_its_equals_and_the_cheaper_one(full):
    advice = advise(tabulate(full))
    assert advice.pick is not None
    assert re.match(r"Use resnet: macro F1 0\.\d\d \(95 % interval", advice.sentence)
    said = " ".join(advice.reasons)
    assert "cannot be told apart from cnn" in said
    assert "clearly ahead of vgg16" in said
    assert "take cnn: 8.0 times as fast and 27.5 times smaller" in said
    assert "clearly ahead of the classical baseline mfcc_svm" in said


def test_advice_is_honest_when_a_reference_row_is_not_beaten():
    better = advise(tabulate(board(network("cnn", 0.5), classical(0.9), majority())))
    assert better.sentence.startswith("Use mfcc_svm, the classical baseline, which no network beats")
    equal = advise(tabulate(board(network("cnn", 0.74), classical(0.66), majority())))
    assert equal.sentence.startswith("Use cnn")
    assert any("not measurably better than the classical baseline" in reason for reason in equal.reasons)
    useless = advise(tabulate(board(network("cnn", 0.0), classical(0.0), majority())))
    assert useless.sentence.startswith("Use none of these")
    assert useless.pick is None


@pytest.mark.parametrize("entries", [[], [network("cnn", 0.7)], [majority()], [classical(0.6)]])
def test_boards_of_no_entry_or_one_work(entries, folder):
    table = write(board(*entries), folder)
    assert len(table.rows) == len(entries)
    assert advise(table).sentence
    assert text_table(table)
    assert len(read_board(folder).entries) == len(entries)


def test_a_board_without_tracks_works(folder):
    run = Run(0, np.zeros((0, 4), dtype=np.float32))
    write(board(Entry("cnn", "network", [run]), truth=np.array([], int), track_ids=[]), folder)
    assert read_board(folder).track_ids == []


# -- the page ---------------------------------------------------------------------------------------------------------


def evil_board():
    return board(
        Entry(f"net {EVIL}", "network", [Run(0, probabilities(0.4, 0))], {f"key {EVIL}": EVIL}),
        classes=[EVIL, "a|b", "[x](http://evil.example)", '"><img src=x onerror=alert(1)>'],
        track_ids=[f"{i} {EVIL} | ![x](http://evil.example/{i}.png)" for i in range(len(TRUTH))],
        title=f"Title {EVIL}",
        corpus=CorpusFacts(EVIL, EVIL, EVIL, {EVIL: {EVIL: 1}}, {EVIL: 2}, {EVIL: 3}, EVIL),
        commands=[f"run '{EVIL}'"],
        notes=[EVIL],
        versions={EVIL: EVIL},
        hardware=EVIL,
        created=EVIL,
    )


def test_text_from_outside_is_escaped_in_html():
    source = html(tabulate(evil_board()))
    page = Page(source)
    assert EVIL not in source
    assert len(page.all("script")) == 1
    assert not page.all("img")
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert sum(EVIL in text for text in page.text) > 10


def test_text_from_outside_is_escaped_in_markdown(folder):
    write(evil_board(), folder)
    source = (folder / "leaderboard.md").read_bytes().decode()
    prose = "\n".join(line for line in source.splitlines() if not line.startswith("    "))  # but code is code
    assert "<script" not in prose
    assert not re.search(r"(?<!\\)\[x(?<!\\)\]\(", prose)
    tables = [block.splitlines() for block in prose.split("\n\n") if block.startswith("|")]
    assert len(tables) == 4
    for lines in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1


def test_the_page_asks_nothing_of_the_network(full):
    source = html(tabulate(full))
    page = Page(source)
    assert not re.search(r"https?://|url\(|@import|//[a-z]+\.", source)
    for _, attributes in page.tags:
        assert "src" not in attributes
        assert attributes.get("href", "#").startswith(("#", "data:,"))
    policy = next(
        meta["content"] for meta in page.all("meta") if "content" in meta and "default-src" in meta["content"]
    )
    assert "default-src 'none'" in policy


def test_headings_go_down_one_level_at_a_time_and_headers_have_a_scope(full):
    page = Page(html(tabulate(full)))
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert all(heading.get("scope") in ("col", "row") for heading in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(drawing.get("aria-label") for drawing in page.all("svg"))
    identifiers = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    assert {link["href"][1:] for link in page.all("a")} <= set(identifiers)


def test_the_picked_row_and_the_reference_rows_are_marked(full):
    source = html(tabulate(full))
    assert source.count("use this") == 1
    assert "reference: classical baseline" in source
    assert "reference: most common genre" in source


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_colours_keep_the_contrast_of_wcag_aa(scheme):
    style = (Path(__file__).parents[2] / "genre/report/page.css").read_text()
    block = re.findall(r":root \{(.*?)\}", style, re.DOTALL)[scheme]
    colour = dict(re.findall(r"--(\w+): (#\w{6})", block))
    half = "#" + "".join(
        f"{(int(colour['accent'][i : i + 2], 16) + int(colour['sheet'][i : i + 2], 16)) // 2:02x}" for i in (1, 3, 5)
    )
    for ink in ("ink", "soft", "accent"):
        for ground in ("paper", "sheet", "tint"):
            assert contrast(colour[ink], colour[ground]) >= 4.5, (ink, ground)
    assert contrast(colour["ink"], half) >= 4.5


# -- parts ------------------------------------------------------------------------------------------------------------


def test_the_terminal_table_is_narrow_and_complete(full):
    long_name = dataclasses.replace(full.entries[0], name="a-very-long-name-" * 4)
    text = text_table(dataclasses.replace(full, entries=[*full.entries, long_name]))
    assert max(map(len, text.splitlines())) <= 110
    assert all(name in text for name in ("resnet", "mfcc_svm*", "majority*", "Use "))
    assert "\t" not in text


def test_confused_tracks_are_those_that_most_networks_miss(full):
    found = confused_tracks(tabulate(full))
    assert found
    assert all(track.wrong * 2 >= track.asked == 3 for track in found)
    assert [track.wrong for track in found] == sorted((track.wrong for track in found), reverse=True)
    worst = found[0]
    assert sorted(name for _, names in worst.answers for name in names) == ["cnn", "resnet", "vgg16"]
    assert worst.truth == worst.track.split("/")[0]


def test_the_pareto_front_has_no_point_that_another_beats(full):
    table = tabulate(full)
    points = [(row.entry.parameters, row) for row in table.of("network")]
    assert [row.entry.name for _, row in pareto(points)] == ["cnn", "resnet"]


def test_svg_elements_escape_and_scales_have_round_ticks():
    assert element("text", EVIL, class_='"x"', stroke_width=1.5) == (
        '<text class="&#34;x&#34;" stroke-width="1.5">&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;</text>'
    )
    assert Scale(0, 1, 0, 100).ticks() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert Scale(3e5, 3e7, 0, 100, log=True).ticks() == [1e6, 1e7]
    assert len(Scale(12, 40, 0, 100, log=True).ticks()) >= 2
    assert Scale(1, 100, 0, 10, log=True)(10) == pytest.approx(5)
    assert Scale(2, 2, 0, 10)(2) == 5
