"""The service of `review`, over HTTP."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from conftest import REPOSITORY
from faulty_storage import Proxy, refusing
from heads import free_ports
from reviewing import Tagged, write_tags
from running import ENVIRONMENT
from saving import CLASSES, song

from genre.config import load
from genre.errors import ConfigError
from genre.storage import Location
from ray_jobs import review
from ray_jobs.pages import review_service

pytest.importorskip("uvicorn", reason="uvicorn is not installed (install the extra serve)")
SECRET = "outside the collection"
# by path, which is the order of the answers: the less certain, the earlier
NAMES = ("a.wav", "b <i>.wav", "gone.wav", "secret.txt", "fifo.wav")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    music = tmp_path / "music"
    for name in NAMES[:2]:
        song(music / name)
    (music / "secret.txt").write_text(SECRET)
    os.mkfifo(music / "fifo.wav")  # whoever opens it waits
    files = [Tagged(str(music / name), "rock", 0.6 + 0.05 * rank) for rank, name in enumerate(NAMES)]
    write_tags(tmp_path / "out", [*files, Tagged("s3://bucket/far.wav", "jazz", 0.95)])
    return tmp_path / "out"


@pytest.fixture
def address(output: Path) -> Iterator[str]:
    (port,) = free_ports(1)
    with review_service.serving(review.opened(load(None, [f"output={output}"])), port, "title") as address:
        yield address


def get(address: str, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    return sent(urllib.request.Request(address, headers=headers))


def post(address: str, content: Any, **headers: str) -> tuple[int, dict[str, Any]]:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    status, answer, _ = sent(urllib.request.Request(address, body, {"Content-Type": "application/json"} | headers))
    return status, json.loads(answer)


def sent(request: urllib.request.Request) -> tuple[int, bytes, dict[str, str]]:
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, response.read(), dict(response.headers.items())
    except urllib.error.HTTPError as error:
        return error.code, error.read(), dict(error.headers.items())


def rows(address: str, **query: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(get(f"{address}/rows?{urlencode(query)}")[1])
    return content


def test_the_rows_say_what_can_be_played(address: str) -> None:
    content = rows(address)
    assert [(track["name"].rpartition("/")[2], track["state"]) for track in content["tracks"]] == [
        ("a.wav", ""), ("b <i>.wav", ""), ("gone.wav", "gone"), ("secret.txt", "no_audio"), ("fifo.wav", "gone"),
        ("far.wav", ""),
    ]  # fmt: skip
    assert (content["reviewed"], content["total"], content["genres"]) == (0, 6, ["rock", "jazz", "blues"])
    assert rows(address, text="a.wav", below="0.61")["matching"] == 1


def test_any_part_of_a_file_is_served(address: str, output: Path) -> None:
    whole = (output.parent / "music/a.wav").read_bytes()
    status, body, headers = get(f"{address}/audio/0")
    assert (status, body, headers["content-type"]) == (200, whole, "audio/wav")
    status, body, headers = get(f"{address}/audio/0", Range="bytes=100-199")
    assert (status, body, headers["content-range"]) == (206, whole[100:200], f"bytes 100-199/{len(whole)}")
    assert get(f"{address}/audio/0", Range="bytes=-50")[1] == whole[-50:]
    assert get(f"{address}/audio/0", Range=f"bytes={len(whole)}-")[0] == 416


def test_parts_of_a_file_in_a_bucket_are_served(address: str, output: Path, bucket: Proxy) -> None:
    far = Location.of("s3://bucket/far.wav")
    assert get(f"{address}/audio/5")[0] == 410  # not there yet
    content = (output.parent / "music/a.wav").read_bytes() * 60
    far.write_bytes(content)
    assert get(f"{address}/audio/5")[:2] == (200, content)
    for wanted, first, last in (("100-199", 100, 199), ("-50", len(content) - 50, len(content) - 1), ("7-7", 7, 7)):
        status, body, headers = get(f"{address}/audio/5", Range=f"bytes={wanted}")
        assert (status, body) == (206, content[first : last + 1])
        assert (headers["content-range"], headers["content-type"]) == (
            f"bytes {first}-{last}/{len(content)}",
            "audio/wav",
        )
    assert get(f"{address}/audio/5", Range=f"bytes={len(content)}-")[0] == 416
    parts, size = b"", len(content)
    while len(parts) < size:  # as a player does that gets less than it asks for
        status, body, _ = get(f"{address}/audio/5", Range=f"bytes={len(parts)}-")
        assert (status, 0 < len(body) <= 2 << 20) == (206, True)
        parts += body
    assert parts == content
    bucket.fault = refusing(403, "AccessDenied", lambda request: True)
    status, body, _ = get(f"{address}/audio/5", Range="bytes=0-")
    assert (status, json.loads(body)["reason"]) == (410, "gone")


@pytest.mark.parametrize(
    "path",
    [
        "/audio/2", "/audio/3", "/audio/4", "/audio/6", "/audio/-1", "/audio/99999999999999999999",
        "/audio/../../secret.txt", "/audio/..%2f..%2fsecret.txt", "/audio/0/../secret.txt", "/audio//etc/passwd",
        "/secret.txt", "/audio/a.wav", "/audio/",
    ],
)  # fmt: skip
def test_no_other_file_can_be_read(address: str, path: str) -> None:
    status, body, _ = get(f"{address}{path}")
    assert status in (404, 410)
    assert set(json.loads(body)) == {"reason", "message"}
    assert SECRET.encode() not in body


@pytest.mark.parametrize(
    "host", ["evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example:{port}", ""]
)
def test_requests_with_a_foreign_host_name_are_refused(address: str, output: Path, host: str) -> None:
    headers = {"Host": host.format(port=address.rpartition(":")[2])}
    for path in ("/", "/rows", "/audio/0"):
        assert get(address + path, **headers)[0] == 421
    assert post(f"{address}/decide", {"row": 0, "genre": "jazz"}, **headers)[0] == 421
    assert not (output / "review").exists()


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_what_other_sites_can_send_is_refused(address: str, output: Path, kind: str) -> None:
    """Browsers send these types to another site without asking it first."""
    status, answer = post(f"{address}/decide", {"row": 0, "genre": "jazz"}, **{"Content-Type": kind})
    assert (status, answer["reason"]) == (415, "not_json")
    assert post(f"{address}/undo", {}, **{"Content-Type": kind})[0] == 415
    assert not (output / "review").exists()


def test_every_response_forbids_embedding_and_framing(address: str) -> None:
    for path in ("/", "/rows", "/audio/0", "/audio/2", "/none"):
        headers = {name.lower(): value for name, value in get(address + path)[2].items()}
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "access-control-allow-origin" not in headers
        assert "server" not in headers
    page = get(address)[1].decode()
    assert "default-src 'none'" in page
    assert "connect-src 'self'" in page


@pytest.mark.parametrize(
    ("content", "status", "reason"),
    [
        (b"", 400, "bad_request"),
        (b"[]", 400, "bad_request"),
        (b"\xff", 400, "bad_request"),
        ({"row": "0", "genre": "jazz"}, 400, "bad_request"),
        ({"row": 0}, 400, "bad_request"),
        ({"row": -1, "genre": "jazz"}, 404, "not_found"),
        ({"row": 6, "genre": "jazz"}, 404, "not_found"),
        ({"row": 2, "genre": "jazz"}, 410, "gone"),
        ({"row": 0, "genre": "polka"}, 409, "new_genre"),
        ({"row": 0, "genre": "=1+1", "is_new": True}, 422, "bad_genre"),
        ({"row": 0, "genre": "x" * 20_000}, 413, "too_large"),
    ],
)
def test_bad_decisions_are_refused(address: str, output: Path, content: Any, status: int, reason: str) -> None:
    returned, answer = post(f"{address}/decide", content)
    assert (returned, answer["reason"]) == (status, reason)
    assert "\n" not in answer["message"]
    assert not (output / "review").exists()
    for query in ("state=none", "below=x", "start=x"):
        assert get(f"{address}/rows?{query}")[0] == 400
    assert get(f"{address}/decide")[0] == 405


def test_a_decision_is_on_disk_before_the_answer_and_undo_takes_it_back(address: str, output: Path) -> None:
    status, answer = post(f"{address}/decide", {"row": 0, "genre": "jazz"})
    assert (status, answer["genre"], answer["reviewed"]) == (200, "jazz", 1)
    file = output / "review/corrections.csv"
    assert file.read_text().splitlines()[1:] == [f"{output.parent}/music/a.wav,jazz,"]
    assert post(f"{address}/decide", {"row": 1, "genre": "polka", "is_new": True})[1]["genres"][-1] == "polka"
    assert post(f"{address}/decide", {"row": 5, "genre": "POLKA"})[1]["genre"] == "polka"
    assert [track["genre"] for track in rows(address, state="reviewed")["tracks"]] == ["jazz", "polka", "polka"]
    assert [post(f"{address}/undo", {})[1].get("row") for _ in range(4)] == [5, 1, 0, None]
    assert post(f"{address}/undo", {})[1]["reason"] == "nothing_to_undo"
    assert file.read_text() == "path,genre,group\n"


def test_a_decision_that_cannot_be_saved_is_an_error_of_one_line(address: str, output: Path) -> None:
    (output / "review").write_text("no folder")
    status, answer = post(f"{address}/decide", {"row": 0, "genre": "jazz"})
    assert (status, answer["reason"]) == (507, "not_saved")
    assert rows(address)["reviewed"] == 0


def test_a_suspicious_label_of_several_files_is_reported_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tags(tmp_path, [Tagged(f"/{folder}/a/one.mp3", "rock", 0.5) for folder in ("music", "copy")])
    (tmp_path / "issues.csv").write_text("track_id,genre\na/one.mp3,jazz\n")
    review.opened(load(None, [f"output={tmp_path}", f"review.label_issues={tmp_path / 'issues.csv'}"]))
    assert capsys.readouterr().err == (
        "review: 1 label to check not shown, because several files of the collection end in the same track_id, such "
        "as a/one.mp3; tag the corpus alone, or delete the copies and tag again\n"
    )


def test_a_taken_port_is_an_error_of_one_line(output: Path) -> None:
    opened = review.opened(load(None, [f"output={output}"]))
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with (
            pytest.raises(ConfigError, match=f"review.port={port}: .*in use"),
            review_service.serving(opened, port, ""),
        ):
            pass


def test_the_command_runs_until_an_interrupt_and_refuses_a_second_reviewer(output: Path) -> None:
    first, second = free_ports(2)
    command = [sys.executable, "-m", "ray_jobs.engine.command", "review", f"output={output}"]
    options: dict[str, Any] = {"cwd": REPOSITORY, "env": ENVIRONMENT, "text": True}
    with subprocess.Popen([*command, f"review.port={first}"], stderr=subprocess.PIPE, **options) as service:
        try:
            assert service.stderr
            lines = [service.stderr.readline() for _ in range(2)]
            address = f"http://127.0.0.1:{first}"
            assert lines == [
                f"review: 6 tracks, 0 already reviewed -> {output}/review/corrections.csv\n",
                f"review: {address} (Ctrl-C ends it)\n",
            ]
            assert post(f"{address}/decide", {"row": 1, "genre": "jazz"})[0] == 200
            again = subprocess.run([*command, f"review.port={second}"], capture_output=True, check=False, **options)
            assert again.returncode == 1
            assert again.stderr.startswith(f"error: output={output} is being written by review (process {service.pid} ")
            assert again.stderr.count("\n") == 1
            # a player that reads slowly must not keep the job alive
            with socket.create_connection(("127.0.0.1", first), timeout=30) as player:
                player.sendall(f"GET /audio/0 HTTP/1.1\r\nHost: 127.0.0.1:{first}\r\n\r\n".encode())
                player.recv(10)
                service.send_signal(signal.SIGINT)
                _, rest = service.communicate(timeout=60)
        finally:
            service.kill()
    assert (service.returncode, rest) == (0, "review: ended; 1 of 6 tracks reviewed\n")
    continued = review.opened(load(None, [f"output={output}"]))
    assert continued.reviewed == 1
    assert continued.collection.genres == ["rock", "jazz", "blues"]
    assert sorted(continued.collection.genres) == sorted(CLASSES)
