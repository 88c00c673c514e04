"""The service and its page, in a real headless browser."""

from __future__ import annotations

import json
import shutil
import socket
import urllib.error
import urllib.request

import pytest
from saving import CLASSES, save_model, song

from genre.config import load
from ray_jobs import serve

pytest.importorskip("ray.serve", reason="Ray Serve is not installed (pip install 'genre[serve]')")
pytestmark = [pytest.mark.ray, pytest.mark.slow]

QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = (
        f"model={save_model(folder / 'model')}",
        f"output={folder / 'out'}",
        f"serve.port={port}",
        "serve.max_upload_mb=1",
        "serve.upload_timeout_s=3",
        "cluster.cpus=2",
        "cluster.object_store_mb=200",
    )
    with serve.serving(load(None, settings)) as found:
        yield found


def post(address: str, body: bytes, **headers: str) -> tuple[int, dict]:
    request = urllib.request.Request(f"{address}/tag", body, {"X-Song-Name": "a%20song"} | headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_one_bad_file_never_affects_the_next(address, tmp_path):
    good = song(tmp_path / "good.flac", seconds=5).read_bytes()
    bad = {
        422: (b"this is no music", b"", good[: len(good) // 8]),
        413: (b"x" * 1_200_000,),
    }
    first = post(address, good)
    assert first[0] == 200
    for status, bodies in bad.items():
        for body in bodies:
            found, answer = post(address, body)
            assert found == status
            assert answer["reason"]
            assert answer["message"]
            assert post(address, good) == first
    assert first[1]["name"] == "a song"
    assert sorted(genre for genre, _ in first[1]["genres"]) == sorted(CLASSES)
    assert len(first[1]["timeline"]) == 3


def test_other_pages_and_other_paths_are_refused(address):
    request = urllib.request.Request(f"{address}/tag", b"x")
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(request, timeout=30)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{address}/etc/passwd", timeout=30)


def test_a_slow_upload_is_ended(address):
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as client:
        client.sendall(b"POST /tag HTTP/1.1\r\nHost: x\r\nX-Song-Name: a\r\nContent-Length: 1000\r\n\r\nabc")
        assert b" 408 " in client.recv(4096).split(b"\r\n")[0]


def test_a_song_dropped_in_a_browser_shows_genres_and_timeline(address, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    good, bad = song(tmp_path / "<b>good.flac", seconds=5), tmp_path / "bad.mp3"
    bad.write_bytes(b"this is no music")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=list(QUIET))
        page = browser.new_page()
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(address)
        page.set_input_files("#file", good)
        page.wait_for_selector("#answer:not([hidden])", timeout=60_000)
        assert page.locator("#genres .share").count() == len(CLASSES)
        assert page.locator("#timeline > div").count() == 3
        assert "<b>good.flac, 0:05" in page.inner_text("#song")
        page.screenshot(path=tmp_path / "served.png")
        page.set_input_files("#file", bad)
        page.wait_for_selector("#status.error", timeout=60_000)
        assert "bad.mp3: Format not recognised" in page.inner_text("#status")
        assert page.locator("#answer").is_hidden()
        page.set_input_files("#file", good)
        page.wait_for_selector("#answer:not([hidden])", timeout=60_000)
        assert complaints == []
        browser.close()
