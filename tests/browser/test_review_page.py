"""The page of `review` in a real browser, with the keyboard alone."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from browsing import CHROMIUM, launched
from faulty_storage import Proxy
from heads import free_ports
from reviewing import Tagged, write_tags
from running import SETTINGS, job, write_config
from saving import CLASSES, song

from genre import Tagger, corpora
from genre.config import load
from genre.report.label_issues import LabelIssue, csv_text
from genre.settings import CorpusSettings
from genre.storage import Location
from ray_jobs import review
from ray_jobs.pages import review_service

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; apt-get install chromium")
SMALL_CNN = {"width": 8, "depth": 3}
EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launched() as opened:
        yield opened


@pytest.fixture
def show(browser: Any) -> Iterator[Callable[..., Any]]:
    """Serves an output and opens its page; afterwards nothing may have gone wrong in it, nor left the machine."""
    wrong: list[str] = []
    services: list[Any] = []
    contexts: list[Any] = []

    def check(url: str, address: str) -> None:
        if not url.startswith((address, "data:")):
            wrong.append(url)

    def opened(output: Path, width: int = 1280, height: int = 900, **options: Any) -> Any:
        (port,) = free_ports(1)
        service = review_service.serving(review.opened(load(None, [f"output={output}"])), port, output.name)
        address = service.__enter__()
        services.append(service)
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        context.set_default_timeout(10_000)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        page.on("dialog", lambda dialog: wrong.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: check(request.url, address))
        page.goto(address)
        page.wait_for_selector("#title:not(:empty)")
        return page

    yield opened
    for context in contexts:
        context.close()
    for service in services:
        service.__exit__(None, None, None)
    assert wrong == []


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> list[Tagged]:
    """130 tracks, three pages, the least certain first."""
    folder = tmp_path_factory.mktemp("music")
    first = song(folder / "000.wav", seconds=40)
    for number in range(1, 130):
        (folder / f"{number:03d}.wav").symlink_to(first)
    return [
        Tagged(str(folder / f"{number:03d}.wav"), CLASSES[number % 3], 0.4 + number / 250, f"Artist {number % 7}")
        for number in range(130)
    ]


@pytest.fixture
def output(tmp_path: Path, music: list[Tagged]) -> Path:
    write_tags(tmp_path / "mine", music)
    return tmp_path / "mine"


def saved(output: Path) -> list[tuple[str, str]]:
    """The decisions on disk: the number in the name of the file, and its genre."""
    file = output / "review/corrections.csv"
    if not file.exists():
        return []
    return [(Path(row["path"]).stem, row["genre"]) for row in csv.DictReader(file.read_text().splitlines())]


def wait(page: Any, text: str, place: str = "#status") -> None:
    page.wait_for_function(
        "([place, text]) => document.querySelector(place).textContent.includes(text)", arg=[place, text]
    )


def test_keys_accept_correct_and_undo(show: Callable[..., Any], output: Path) -> None:
    page = show(output)
    assert page.locator("#tracks tr").count() == 50
    assert page.locator("#genres button").all_inner_texts()[0].split() == ["1", "blues", "40", "%"]
    page.keyboard.press("Enter")
    for key in "3213":  # faster than the answers
        page.keyboard.press(key)
    wait(page, "5 of 130", "#count")
    assert saved(output) == [("000", "blues"), ("001", "rock"), ("002", "jazz"), ("003", "blues"), ("004", "rock")]
    wait(page, "005.wav", "#title")
    page.keyboard.press("u")
    page.keyboard.press("Control+z")
    wait(page, "3 of 130", "#count")
    wait(page, "003.wav", "#title")
    assert saved(output) == [("000", "blues"), ("001", "rock"), ("002", "jazz")]
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    wait(page, "001.wav", "#title")
    page.keyboard.press("2")
    wait(page, "jazz. Saved")
    assert saved(output)[-1] == ("001", "jazz")
    page.reload()
    wait(page, "003.wav", "#title")  # what is decided is not shown again


def test_a_new_genre_is_added_on_the_second_enter(show: Callable[..., Any], output: Path) -> None:
    page = show(output)
    page.keyboard.press("g")
    page.keyboard.type("JAZZ")
    page.keyboard.press("Enter")
    wait(page, "000.wav: jazz. Saved")
    page.keyboard.press("g")
    page.keyboard.type("polka")
    page.keyboard.press("Enter")
    wait(page, "polka is a new genre")
    assert saved(output) == [("000", "jazz")]
    page.keyboard.press("Enter")
    wait(page, "001.wav: polka. Saved")
    page.keyboard.press("4")
    wait(page, "002.wav: polka. Saved")
    page.keyboard.press("g")
    page.keyboard.type("ska")
    page.keyboard.press("Enter")
    wait(page, "ska is a new genre")
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")  # accepts the answer of the model
    wait(page, "003.wav: blues. Saved")
    assert [genre for _, genre in saved(output)] == ["jazz", "polka", "polka", "blues"]
    assert "polka" in page.text_content("#genres")
    for _ in range(3):
        page.keyboard.press("u")
    wait(page, "Undone: not reviewed.")
    page.locator("#genres button", has_text="polka").wait_for(state="detached")
    assert page.locator("#genre option", has_text="polka").count() == 0


def test_filters_and_pages_by_keyboard(show: Callable[..., Any], output: Path) -> None:
    page = show(output)
    page.keyboard.press("n")
    wait(page, "51–100 of 130", "#range")
    page.keyboard.press("n")
    wait(page, "101–130 of 130", "#range")
    for _ in range(40):
        page.keyboard.press("ArrowDown")
    wait(page, "last track")
    page.keyboard.press("p")
    wait(page, "51–100 of 130", "#range")
    page.keyboard.press("ArrowUp")
    wait(page, "1–50 of 130", "#range")
    wait(page, "049.wav", "#title")
    page.keyboard.press("/")
    page.keyboard.type("artist 3")
    wait(page, "1–19 of 19", "#range")
    page.keyboard.press("Enter")
    page.keyboard.press("1")
    wait(page, "003.wav: blues. Saved")
    page.select_option("#state", "reviewed")
    wait(page, "1–1 of 1", "#range")
    page.locator("#text").fill("")
    page.select_option("#state", "all")
    page.select_option("#genre", "rock")
    page.locator("#below").fill("50")
    wait(page, "1–8 of 8", "#range")
    page.locator("#text").fill("nothing")
    wait(page, "none", "#range")
    assert page.get_by_text("No track matches.").is_visible()


def test_files_without_a_genre_of_their_own_are_a_filter(
    show: Callable[..., Any], tmp_path: Path, music: list[Tagged]
) -> None:
    write_tags(tmp_path / "mine", [replace(track, own_genre="Polka") for track in music[:6]] + music[6:10])
    page = show(tmp_path / "mine")
    wait(page, "1–10 of 10", "#range")
    page.select_option("#state", "untagged")
    wait(page, "1–4 of 4", "#range")
    wait(page, "006.wav", "#title")
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=f"{folder}/untagged.png")


def test_the_player_plays_seeks_and_goes_on_with_the_next_track(show: Callable[..., Any], output: Path) -> None:
    page = show(output)
    page.keyboard.press("Space")
    page.wait_for_function("() => player.currentTime > 0 && !player.paused")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("player.currentTime") > 14
    page.keyboard.press("Enter")
    page.wait_for_function(
        "() => player.getAttribute('src') === '/audio/1' && player.currentTime > 0 && !player.paused"
    )
    page.keyboard.press("Space")
    assert page.evaluate("player.paused")


def test_music_in_a_bucket_plays_and_seeks(show: Callable[..., Any], tmp_path: Path, bucket: Proxy) -> None:
    long = song(tmp_path / "long.wav", seconds=120)  # more than is sent at once
    Location.of("s3://bucket/long.wav").write_bytes(long.read_bytes())
    write_tags(tmp_path / "far", [Tagged("s3://bucket/long.wav", CLASSES[0], 0.5)])
    page = show(tmp_path / "far")
    page.keyboard.press("Space")
    page.wait_for_function("() => player.currentTime > 0 && !player.paused")
    page.evaluate("player.currentTime = 115")
    page.wait_for_function("() => player.ended", timeout=20_000)


def test_a_file_that_is_gone_or_is_no_music_is_said_and_the_next_one_works(
    show: Callable[..., Any], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"this is no music")
    names = (tmp_path / "gone.wav", bad, song(tmp_path / "good.wav"))
    write_tags(tmp_path / "out", [Tagged(str(name), "rock", 0.5 + 0.1 * n) for n, name in enumerate(names)])
    page = show(tmp_path / "out")
    wait(page, "The file is gone", "#hint")
    page.keyboard.press("1")
    wait(page, "gone.wav: the file is gone")
    page.keyboard.press("ArrowDown")
    wait(page, "cannot play bad.wav")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Space")
    page.wait_for_function("() => player.currentTime > 0")
    assert saved(tmp_path / "out") == []


def test_a_label_to_check_is_an_invitation_and_no_alarm(show: Callable[..., Any], tmp_path: Path) -> None:
    files = [song(tmp_path / name) for name in ("a.wav", "b.wav")]
    write_tags(tmp_path / "out", [Tagged(str(file), "blues", 0.41) for file in files])
    issues = [
        LabelIssue(name, label, "rock", 0.1, 0.8, 1, 1) for name, label in (("a.wav", "jazz"), ("b.wav", "blues"))
    ]
    (Location.of(tmp_path / "out") / "leaderboard/label_issues.csv").write_text(csv_text(issues))
    page = show(tmp_path / "out")
    wait(page, "Labelled jazz; worth a listen: the model hears blues (41 %).", "#hint")
    colour = "node => getComputedStyle(node).color"
    soft = page.locator("#by").evaluate(colour)
    assert page.locator("#hint").evaluate(colour) == soft
    marked = page.locator("td.doubted")
    assert marked.all_inner_texts() == ["jazz"]  # the model answers blues for the other one, as its label says
    assert marked.evaluate(colour) == page.locator("body").evaluate(colour)
    page.keyboard.press("3" if page.locator("#genres button").nth(2).inner_text().split()[1] == "jazz" else "2")
    wait(page, "a.wav: jazz. Saved")
    assert marked.count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 800, 390])
def test_the_page_fits_the_screen_and_follows_the_scheme(
    show: Callable[..., Any], output: Path, width: int, scheme: str
) -> None:
    page = show(output, width, 844, color_scheme=scheme, has_touch=width == 390)
    page.locator("#tracks tr").nth(20).click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    red = int(page.evaluate("getComputedStyle(document.body).backgroundColor").removeprefix("rgb(").split(",")[0])
    assert (red > 200) == (scheme == "light")
    for place in ("#player", "#accept", "#undo", "#genres button >> nth=2", "#tracks tr[aria-current]"):
        box = page.locator(place).bounding_box()
        assert box["y"] >= 0
        assert box["y"] + box["height"] <= 844
    row, desk = (page.locator(place).bounding_box() for place in ("#tracks tr[aria-current]", ".desk"))
    assert row["y"] + row["height"] <= desk["y"] or row["x"] + row["width"] <= desk["x"]  # is not covered
    if width == 390:
        page.locator("#genres button").nth(1).tap()
        wait(page, "020.wav: jazz. Saved")
        page.locator("#accept").tap()
        wait(page, "021.wav: blues. Saved")
        page.locator("#undo").tap()
        wait(page, "Undone")
        assert saved(output) == [("020", "jazz")]


def test_texts_from_outside_run_no_script(show: Callable[..., Any], tmp_path: Path) -> None:
    file = song(tmp_path / f"{EVIL.replace('/', '')}.wav")
    write_tags(tmp_path / "out", [Tagged(str(file), "rock", 0.5, EVIL, EVIL, EVIL)])
    page = show(tmp_path / "out")
    page.keyboard.press("g")
    page.keyboard.type(EVIL)
    for _ in range(2):
        page.keyboard.press("Enter")
        wait(page, "<img")
    wait(page, "1 of 1", "#count")
    assert page.locator("img").count() == 0
    assert saved(tmp_path / "out")[0][1] == EVIL


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with tracks of three composed genres, ten of them waltzes, a small model trained on them, and its tags."""
    home = tmp_path_factory.mktemp("loop")
    params = {"tracks_per_genre": 16, "artists_per_genre": 8, "seconds": 4.0, "damaged": 0, "ambiguity": 0.0}
    list(corpora.scan(CorpusSettings(kind="synthetic", root=str(home / "music"), params=params)))
    kept = {"drone": 16, "house": 16, "waltz": 10}
    for folder in (path for path in (home / "music").iterdir() if path.is_dir()):
        for track in sorted(folder.iterdir())[kept.get(folder.name, 0) :]:
            track.unlink()
    training = {"epochs": 40, "batch_size": 8, "mixup": 0.0, "mixstyle": 0.0, "time_mask": 0.0, "mel_mask": 0.0}
    write_config(
        home,
        SETTINGS
        | {"corpus": {"kind": "folder"}, "train": SETTINGS["train"] | training, "architectures": {"cnn": SMALL_CNN}},
    )
    job("prepare", home)
    job("train", home)
    job("tag", home, f"inputs={home / 'music'}", f"model={home / 'out/models/cnn'}")
    return home


@pytest.mark.ray
@pytest.mark.slow
def test_ten_corrected_labels_are_learned(show: Callable[..., Any], collection: Path) -> None:
    """To the end: the person calls the ten waltzes polkas, and agrees with the folders of the other tracks."""
    output = collection / "out"
    page = show(output)
    keys = {name: key for key, name in (text.split()[:2] for text in page.locator("#genres button").all_inner_texts())}
    assert set(keys) == {"drone", "house", "waltz"}
    for done in range(42):
        truth = Path(page.evaluate("current().path")).parent.name
        if truth != "waltz" or "polka" in keys:
            page.keyboard.press(keys["polka" if truth == "waltz" else truth])
        else:
            page.keyboard.press("g")
            page.keyboard.type("polka")
            page.keyboard.press("Enter")
            wait(page, "new genre")
            page.keyboard.press("Enter")
            keys["polka"] = "4"
        wait(page, f"{done + 1} of 42", "#count")
    file = output / "review/corrections.csv"
    corrected = {row["path"]: row["genre"] for row in csv.DictReader(file.read_text().splitlines())}
    assert Counter(corrected.values()) == {"drone": 16, "house": 16, "polka": 10}

    settings = (f"output={collection / 'corrected'}", "corpus.kind=table", f"corpus.root={file}")
    job("prepare", collection, *settings)
    job("train", collection, *settings, f"init_from={output / 'models/cnn'}")
    before, after = (Tagger.load(collection / folder / "models/cnn", precision=0) for folder in ("out", "corrected"))
    assert "polka" not in before.classes
    assert after.classes == ["drone", "house", "polka"]
    answers = {path: after(path).genre for path in corrected}
    polkas = [path for path, genre in corrected.items() if genre == "polka"]
    assert sum(answers[path] == "polka" for path in polkas) > len(polkas) / 2  # by chance a third
    assert sum(answers[path] == genre for path, genre in corrected.items()) >= 36
