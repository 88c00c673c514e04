"""The leaderboard page in a real browser: sorting, filtering, keyboard, layout."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boards
import pytest
from browsing import CHROMIUM, launched

from genre.report import Board, tabulate
from genre.report.leaderboard_page import html

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; apt-get install chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launched() as opened:
        yield opened


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Opens a board's page; afterwards nothing may have gone wrong in it, nor left the machine."""
    wrong: list[str] = []
    contexts: list[Any] = []

    def dismiss(dialog: Any) -> None:
        wrong.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def check(request: Any) -> None:
        if not request.url.startswith(("file:", "data:")):
            wrong.append(request.url)

    def opened(board: Board, width: int = 1280, **options: Any) -> Any:
        path = tmp_path / "leaderboard.html"
        path.write_text(html(tabulate(board)), encoding="utf-8")
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        context.set_default_timeout(10_000)
        page = context.new_page()
        page.on("console", lambda message: wrong.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        page.on("dialog", dismiss)
        page.on("request", check)
        page.goto(path.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []


def column(page: Any, key: str) -> list[str]:
    """The values of one column of the leaderboard, as shown from top to bottom."""
    cells = page.locator(f"#board-table td[data-key={key}]:visible")
    values: list[str] = cells.evaluate_all("cells => cells.map(c => c.dataset.value)")
    return values


def heading(page: Any, name: str) -> Any:
    return page.locator("#board-table").get_by_role("columnheader", name=name, exact=True)


def test_a_click_on_a_heading_sorts_and_sets_aria_sort(show: Callable[..., Any]) -> None:
    page = show(boards.full())
    best_first = column(page, "f1")
    assert best_first == sorted(best_first, key=float, reverse=True)
    assert heading(page, "Macro F1").get_attribute("aria-sort") == "descending"
    heading(page, "Macro F1").get_by_role("button").click()
    assert column(page, "f1") == best_first[::-1]
    assert heading(page, "Macro F1").get_attribute("aria-sort") == "ascending"
    heading(page, "Recall").get_by_role("button").click()
    assert heading(page, "Macro F1").get_attribute("aria-sort") is None
    assert heading(page, "Recall").get_attribute("aria-sort") == "descending"
    assert column(page, "recall") == sorted(column(page, "recall"), key=float, reverse=True)


def test_unknown_values_stay_last_in_both_directions(show: Callable[..., Any]) -> None:
    page = show(boards.full())
    for _ in range(2):
        heading(page, "Spread").get_by_role("button").click()
        assert column(page, "f1_std")[-2:] == ["", ""]


def test_the_keyboard_reaches_and_sorts_every_table(show: Callable[..., Any]) -> None:
    page = show(boards.everything())
    page.get_by_role("searchbox", name="Filter").first.focus()
    page.keyboard.press("Tab")  # the scrolling region
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Rank"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    assert heading(page, "Rank").get_attribute("aria-sort") == "ascending"
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert heading(page, "Model").get_attribute("aria-sort") == "ascending"
    names = page.locator("#board-table tbody th").all_inner_texts()
    assert names == sorted(names, key=str.lower)
    for table in page.locator("table[data-sortable]").all():
        assert table.locator("th[data-sort]:not(:has(button))").count() == 0


def test_details_open_by_keyboard(show: Callable[..., Any]) -> None:
    page = show(boards.full())
    closed = page.locator("#models details:not([open]) summary").first
    name = closed.locator("h3").inner_text()
    closed.focus()
    page.keyboard.press("Enter")
    assert page.get_by_role("region", name=f"Confusion matrix of {name}", exact=True).is_visible()


def test_the_filter_hides_rows_and_shows_their_number(show: Callable[..., Any]) -> None:
    page = show(boards.full())
    box = page.locator("#leaderboard .filter")
    box.get_by_role("searchbox").fill("reference classical")
    assert page.locator("#board-table tbody tr:visible th").all_inner_texts()[0].startswith("mfcc_svm")
    assert box.locator("output").inner_text() == "1 of 5"
    box.get_by_role("searchbox").fill("")
    assert page.locator("#board-table tbody tr:visible").count() == 5
    assert box.locator("output").inner_text() == ""


def test_nearest_training_tracks_are_next_to_wrong_predictions_and_labels_to_check(show: Callable[..., Any]) -> None:
    page = show(boards.everything())
    for section in ("#neighbours", "#labels"):
        page.locator(f"nav a[href='{section}']").click()
        row = page.locator(f"{section} tbody tr").first
        assert row.locator(".near div").count() == 3
        assert row.locator(".near").bounding_box()["x"] > row.locator("td.n").last.bounding_box()["x"]
        assert "train" in row.locator(".near").inner_text()
    page = show(boards.full())
    assert page.locator("#labels tbody tr").count()
    assert page.locator(".near").count() == 0
    assert "Nearest training tracks" not in page.locator("body").inner_text()


def test_the_page_is_readable_without_script(show: Callable[..., Any]) -> None:
    page = show(boards.everything(), java_script_enabled=False)
    assert page.get_by_role("heading", name="Leaderboard").is_visible()
    assert page.locator("#board-table tbody tr").count() == 6
    assert page.locator(".filter:visible").count() == 0
    assert page.get_by_role("button").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_the_screen_and_follows_the_scheme(
    show: Callable[..., Any], tmp_path: Path, width: int, scheme: str
) -> None:
    page = show(boards.everything(), width, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    red = int(page.evaluate("getComputedStyle(document.body).backgroundColor").removeprefix("rgb(").split(",")[0])
    assert (red > 200) == (scheme == "light")
    assert page.locator(".answer .sentence").bounding_box()["y"] < 300  # the answer is seen without scrolling
    table = page.locator("#leaderboard .scroll")
    if width == 1280:  # all scores are in sight
        assert table.evaluate("box => box.scrollWidth - box.clientWidth") == 0
    picture = tmp_path / "page.png"
    page.screenshot(path=picture, full_page=True)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 50_000


def test_genres_of_many_models_fit_a_laptop_and_scroll_in_their_box_on_a_phone(show: Callable[..., Any]) -> None:
    """Ten rows with the names of a search over all architectures."""
    names = ("cnn", "crnn", "crnn_attention", "resnet", "vgg16", "vgg19", "a-name-of-an-ensemble")
    others = [boards.neighbours(of="cnn"), boards.classical(0.3), boards.majority()]
    made = boards.board(*(boards.network(name, 0.7) for name in names), *others)
    for width in (1280, 800, 420):
        page = show(made, width)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        box = page.locator("#genres .scroll")
        if width == 1280:
            assert box.evaluate("box => box.scrollWidth - box.clientWidth") == 0
        box.evaluate("box => box.scrollLeft = 9999")
        last, edge = page.locator("#genres thead th").last.bounding_box(), box.bounding_box()
        assert last["x"] + last["width"] <= edge["x"] + edge["width"]
        first = page.locator("#genres thead th").first.bounding_box()
        assert first["x"] == page.locator("#genres tbody th").first.bounding_box()["x"] >= edge["x"]


def test_names_in_a_cost_plot_do_not_overlap(show: Callable[..., Any]) -> None:
    page = show(boards.full())
    boxes = page.locator("#cost svg").evaluate_all(
        "plots => plots.map(p => [...p.querySelectorAll('.name')].map(n => n.getBoundingClientRect().toJSON()))"
    )
    assert len(boxes) == 3
    for names in boxes:
        assert len(names) >= 2
        for i, a in enumerate(names):
            for b in names[:i]:
                apart = a["left"] >= b["right"] or b["left"] >= a["right"]
                assert apart or a["top"] >= b["bottom"] - 3 or b["top"] >= a["bottom"] - 3  # 3: room below letters


def test_names_from_outside_run_no_script(show: Callable[..., Any]) -> None:
    evil = [f"{boards.EVIL}<img src=x onerror=alert({i})>" for i in range(4)]
    page = show(boards.board(boards.network(boards.EVIL, 0.6), boards.majority(), classes=evil, title=boards.EVIL))
    assert page.title() == boards.EVIL
    assert page.locator("img").count() == 0
