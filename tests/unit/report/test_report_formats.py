from __future__ import annotations

import csv
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import boards
import pytest
from boards import EVIL, TRUTH, Page, board, probabilities

from genre.report import (
    Board,
    Compared,
    ComparedRow,
    CorpusFacts,
    Entry,
    Search,
    SeedRun,
    Trial,
    read_board,
    rendering,
    tabulate,
    text_table,
    write,
)
from genre.report.formats import score
from genre.report.leaderboard_page import html
from genre.report.markdown import markdown
from genre.report.table import Estimate
from genre.report.text import csv_text
from genre.storage import Location


@pytest.fixture
def full() -> Board:
    return boards.full()


@pytest.fixture
def folder(tmp_path: Path) -> Location:
    return Location.of(tmp_path / "leaderboard")


def evil_board() -> Board:
    return board(
        Entry(
            f"net {EVIL}", "network", [SeedRun(0, probabilities(0.4, 0))], {f"key {EVIL}": EVIL}, robustness={EVIL: 0.5}
        ),
        classes=[EVIL, "a|b", "[x](http://evil.example)", '"><img src=x onerror=alert(1)>'],
        track_ids=[f"{i} {EVIL} | ![x](http://evil.example/{i}.png)" for i in range(len(TRUTH))],
        title=f"Title {EVIL}",
        corpus=CorpusFacts(EVIL, EVIL, EVIL, {EVIL: {EVIL: 1}}, {EVIL: 2}, {EVIL: 3}, EVIL),
        commands=[f"run '{EVIL}'"],
        notes=[EVIL],
        versions={EVIL: EVIL},
        hardware=EVIL,
        created=EVIL,
        commit=EVIL,
        search=Search([Trial(EVIL, {EVIL: value}, "failed", error=EVIL) for value in (EVIL, "other")], budget=EVIL),
        compared=[Compared(EVIL, EVIL, EVIL, 1, [ComparedRow(EVIL, "network", 0.5, 0.4, 0.6, 0.5)])],
        missing={EVIL: EVIL},
    )


def test_every_report_names_an_architecture_without_a_model(folder: Location) -> None:
    reason = "killed by signal 6 (SIGABRT), tried 2 times"
    table = write(board(boards.network("cnn", 0.8), boards.majority(), missing={"resnet": reason}), folder)
    page = Page((folder / "leaderboard.html").read_bytes().decode())
    assert [row.get("class") for row in page.all("tr")].count("missing") == 1
    assert f" No model: {reason}" in page.text
    assert f"- No model of resnet: {reason}." in (folder / "leaderboard.md").read_bytes().decode()
    assert f"No model of resnet: {reason}." in text_table(table)
    assert read_board(folder).missing == {"resnet": reason}


def test_architectures_without_a_model_for_one_reason_share_a_sentence(folder: Location) -> None:
    missing = {"crnn": "too slow", "resnet": "killed", "vgg19": "too slow"}
    write(board(boards.network("cnn", 0.8), boards.majority(), missing=missing), folder)
    text = (folder / "leaderboard.md").read_bytes().decode()
    assert "- No model of crnn, vgg19: too slow.\n- No model of resnet: killed.\n" in text
    assert read_board(folder).missing == missing


def test_text_from_outside_is_escaped_in_html() -> None:
    source = html(tabulate(evil_board()))
    page = Page(source)
    assert EVIL not in source
    assert len(page.all("script")) == 1
    assert not page.all("img")
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert sum(EVIL in text for text in page.text) > 10


def test_text_from_outside_is_escaped_in_markdown(folder: Location) -> None:
    write(evil_board(), folder)
    source = (folder / "leaderboard.md").read_bytes().decode()
    prose = "\n".join(line for line in source.splitlines() if not line.startswith("    "))  # but code is code
    assert "<script" not in prose
    assert not re.search(r"(?<!\\)\[x(?<!\\)\]\(", prose)
    tables = [block.splitlines() for block in prose.split("\n\n") if block.startswith("|")]
    assert len(tables) == 7
    for lines in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1


def test_the_page_loads_nothing_from_the_network() -> None:
    source = html(tabulate(boards.everything()))
    page = Page(source)
    assert not re.search(r"https?://|url\(|@import|//[a-z]+\.", source)
    for _, attributes in page.tags:
        assert "src" not in attributes
        assert (attributes.get("href") or "#").startswith(("#", "data:,"))
    policy = next(content for meta in page.all("meta") if "default-src" in (content := meta.get("content") or ""))
    assert "default-src 'none'" in policy


@pytest.mark.parametrize("make_board", [boards.full, boards.everything])
def test_headings_descend_by_one_level_and_headers_have_a_scope(make_board: Callable[[], Board]) -> None:
    page = Page(html(tabulate(make_board())))
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert all(heading.get("scope") in ("col", "row") for heading in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(drawing.get("aria-label") or drawing.get("aria-hidden") for drawing in page.all("svg"))
    identifiers = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    assert {(link["href"] or "")[1:] for link in page.all("a")} <= set(identifiers)


def test_the_picked_row_and_the_reference_rows_are_marked(full: Board) -> None:
    source = html(tabulate(full))
    assert source.count("use this") == 1
    assert "reference: classical baseline" in source
    assert "reference: most common genre" in source


@pytest.mark.parametrize("f1", [0.53149, 0.531499999, 0.5315, 0.5315049, 0.53150500001])
def test_a_score_reads_the_same_in_all_reports(f1: float) -> None:
    """It is written with three digits, also where a file holds it with five."""
    compared = Compared("random", "synthetic", "shuffled", 120, [ComparedRow("cnn", "network", 0.9, 0.8, 0.95, 0.9)])
    entries = [boards.network("cnn", 0.9), boards.network("vgg16", 0.1)]
    table = tabulate(board(*entries, search=boards.search(("cnn",)), compared=[compared]))
    estimate = Estimate(f1, 0.2, 0.8, 0.01, 0.2, 0.8)
    table = replace(table, rows=[replace(table.rows[0], f1=estimate), *table.rows[1:]])
    texts = {"terminal": text_table(table), "page": html(table), "text": markdown(table)}
    written = {name: re.findall(r"(?<![\d.])0\.53\d(?!\d)", text) for name, text in texts.items()}
    assert {name: set(found) for name, found in written.items()} == {name: {score(f1)} for name in texts}
    assert all(len(found) > 1 for found in written.values())
    (stored,) = (row["f1"] for row in csv.DictReader(csv_text(table).splitlines()) if row["name"] == "cnn")
    assert score(float(stored)) == score(f1)


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(ink: str, ground: str) -> float:
    dark, light = sorted((luminance(ink), luminance(ground)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_colours_keep_the_contrast_of_wcag_aa(scheme: int) -> None:
    style = (Path(__file__).parents[3] / "genre/report/templates/base.css").read_text()
    block = re.findall(r":root \{(.*?)\}", style, re.DOTALL)[scheme]
    colour = dict(re.findall(r"--(\w+): (#\w{6})", block))
    half = "#" + "".join(
        f"{(int(colour['accent'][i : i + 2], 16) + int(colour['sheet'][i : i + 2], 16)) // 2:02x}" for i in (1, 3, 5)
    )
    for ink in ("ink", "soft", "accent", "fail"):
        for ground in ("paper", "sheet", "tint"):
            assert contrast(colour[ink], colour[ground]) >= 4.5, (ink, ground)
    assert contrast(colour["ink"], half) >= 4.5


def test_optional_sections_appear_only_with_content(full: Board) -> None:
    optional = {"robustness", "comparison", "search"}
    for shown_board, shown in ((full, set()), (boards.everything(), optional)):
        identifiers = {attributes.get("id") for _, attributes in Page(html(tabulate(shown_board))).tags}
        assert identifiers & optional == shown


def test_robustness_shows_differences_and_a_dash_for_unknown_scores() -> None:
    table = tabulate(boards.everything())
    first = table.rows[0]
    assert first.entry.name == "resnet"
    source, text = html(table), markdown(table)
    assert "noise 20 dB" in source
    loss = "\N{MINUS SIGN}0.180"  # from the score on the same tracks, which may be a sample
    assert f"0.600<small>{loss}</small>" in source
    assert f"0.600 ({loss})" in text
    row = next(line for line in text.split("## Robustness")[1].splitlines() if line.startswith("| vgg16"))
    assert row.count("–") == 3


def test_scores_on_another_split_are_shown_with_their_difference() -> None:
    table = tabulate(boards.everything())
    text = markdown(table)
    gap = 0.9 - next(row.f1.mean for row in table.rows if row.entry.name == "resnet")
    assert f"On the shuffled split of the same music the same networks score {abs(gap):.3f} higher" in text
    section = text.split("## On other test sets")[1].split("##")[0]
    assert f"0.900 (+{gap:.3f})" in section
    assert re.search(r"\| crnn +\| – +\| 0\.700", section)


def test_failed_and_stopped_trials_are_reported() -> None:
    text, source = markdown(tabulate(boards.everything())), html(tabulate(boards.everything()))
    assert "16 trials: 4 finished, 4 stopped, 2 not ended, 6 failed" in text
    assert "resnet: the loss is nan (3 times)" in text
    assert "sum of trial times: 8 min 00 s" in text
    assert "slots busy: 80%" in text
    assert source.count('class="error"') == 6


def test_less_than_before_a_number_is_plain_in_markdown() -> None:
    assert rendering._escaped("< 0.001") == "< 0.001"
    assert rendering._escaped("<b> a <") == "&lt;b> a &lt;"
