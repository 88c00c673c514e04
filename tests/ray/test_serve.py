"""The service and its page, in a real headless browser."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY
from running import ENVIRONMENT
from saving import CLASSES, save_model, song

from genre.config import load
from ray_jobs import serve

pytest.importorskip("ray.serve", reason="Ray Serve is not installed (install the extra serve)")
pytestmark = [pytest.mark.ray, pytest.mark.slow]

QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


def settings_in(folder: Path) -> tuple[str, ...]:
    """Settings of a small service with its own model, at a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return (
        f"model={save_model(folder / 'model')}",
        f"output={folder / 'out'}",
        f"serve.port={port}",
        "serve.max_upload_mb=1",
        "serve.upload_timeout_s=3",
        "cluster.cpus=2",
        "cluster.object_store_mb=200",
    )


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serve.serving(load(None, settings_in(tmp_path_factory.mktemp("serve")))) as address:
        yield address


def post(address: str, body: bytes, **headers: str) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(f"{address}/tag", body, {"X-Song-Name": "a%20song"} | headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_a_bad_file_does_not_affect_the_next(address: str, tmp_path: Path) -> None:
    good = song(tmp_path / "good.flac", seconds=5).read_bytes()
    bad = {
        422: (b"this is no music", b"", good[: len(good) // 8]),
        413: (b"x" * 1_200_000,),
    }
    first = post(address, good)
    assert first[0] == 200
    for status, bodies in bad.items():
        for body in bodies:
            returned, answer = post(address, body)
            assert returned == status
            assert answer["reason"]
            assert answer["message"]
            assert post(address, good) == first
    assert first[1]["name"] == "a song"
    assert sorted(genre for genre, _ in first[1]["genres"]) == sorted(CLASSES)
    assert len(first[1]["timeline"]) == 3


def test_the_command_serves_until_an_interrupt_and_prints_two_lines(tmp_path: Path) -> None:
    """In its own process: as `__main__`, the job is another module than the one that tests import."""
    command = [sys.executable, "-m", "ray_jobs.serve", *settings_in(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY, env=ENVIRONMENT) as service:
        try:
            assert service.stderr
            lines = []
            for line in service.stderr:
                lines.append(line)
                if line.startswith("serve: http"):
                    break
            else:
                pytest.fail("".join(lines))
            address = lines[-1].split()[1]
            with urllib.request.urlopen(address, timeout=60) as response:
                page = response.read().decode()
            assert all(name in page for name in CLASSES)
            status, answer = post(address, song(tmp_path / "song.flac").read_bytes())
            assert status == 200
            assert sorted(genre for genre, _ in answer["genres"]) == sorted(CLASSES)
        finally:
            service.send_signal(signal.SIGINT)
            _, rest = service.communicate(timeout=60)
    assert service.returncode == 0
    assert lines == [f"serve: {address} (Ctrl-C ends it)\n"]
    assert rest == "serve: ended\n"


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "[::1]"])
def test_requests_to_the_names_of_this_machine_are_accepted(address: str, host: str) -> None:
    port = address.rpartition(":")[2]
    request = urllib.request.Request(address, headers={"Host": f"{host}:{port}"})
    with urllib.request.urlopen(request, timeout=30) as response:
        assert response.status == 200


@pytest.mark.parametrize(
    "host", ["evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example:{port}", ""]
)
@pytest.mark.parametrize("body", [None, b"x"])
def test_requests_with_a_foreign_host_name_are_refused(address: str, host: str, body: bytes | None) -> None:
    """DNS rebinding: to the browser, such a page and this service have the same origin; only the host name differs."""
    target = f"{address}/tag" if body else address
    headers = {"Host": host.format(port=address.rpartition(":")[2]), "X-Song-Name": "a"}
    with pytest.raises(urllib.error.HTTPError, match="421") as error:
        urllib.request.urlopen(urllib.request.Request(target, body, headers), timeout=30)
    assert json.load(error.value)["reason"] == "wrong_host"


def test_requests_without_a_name_and_unknown_paths_are_refused(address: str) -> None:
    request = urllib.request.Request(f"{address}/tag", b"x")
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(request, timeout=30)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{address}/etc/passwd", timeout=30)


def test_a_slow_upload_is_refused(address: str) -> None:
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as client:
        head = f"POST /tag HTTP/1.1\r\nHost: {host}:{port}\r\nX-Song-Name: a\r\nContent-Length: 1000\r\n\r\n"
        client.sendall(head.encode() + b"abc")
        assert b" 408 " in client.recv(4096).split(b"\r\n")[0]


def test_a_song_dropped_in_a_browser_shows_genres_and_timeline(address: str, tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    good, bad = song(tmp_path / "<b>good.flac", seconds=5), tmp_path / "bad.mp3"
    bad.write_bytes(b"this is no music")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=list(QUIET))
        page = browser.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
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
        assert errors == []
        browser.close()
