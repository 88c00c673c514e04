"""`prepare` with its music and its features on an S3 server of this machine."""

from __future__ import annotations

import contextlib
import os
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY
from making import load
from music import InTurn, config_of, tables, write_music
from pyarrow import fs
from running import ENVIRONMENT

from genre.errors import ConfigError
from genre.features import Features
from genre.settings import Config
from genre.storage import Location
from ray_jobs.prepare import prepare

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def upload(music: Path, name: str = "music") -> None:
    """Copy a folder to s3://bucket/<name>, without objects that stand for folders."""
    bucket, _ = fs.FileSystem.from_uri("s3://bucket")
    for path in music.rglob("*.wav"):
        with bucket.open_output_stream(f"bucket/{name}/{path.relative_to(music)}") as stream:
            stream.write(path.read_bytes())


def job(config: Config, home: Path) -> subprocess.CompletedProcess[str]:
    """Run `prepare` in a process of its own, which reads its configuration from `home`."""
    (home / "run.json").write_text(config.model_dump_json())
    command = [sys.executable, "-m", "ray_jobs.prepare", "--config", str(home / "run.json")]
    environment = ENVIRONMENT | {key: value for key, value in os.environ.items() if key.startswith("AWS_")}
    return subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, env=environment, check=False)


def test_a_bucket_gets_the_same_features_as_a_folder(bucket_server: dict[str, str], tmp_path: Path) -> None:
    write_music(tmp_path / "music")
    odd = tmp_path / "music/genre0/naïve #1? 100%.wav"
    (tmp_path / "music/genre0/song00.wav").rename(odd)
    (tmp_path / "music/genre1/bad.wav").write_bytes(b"no music")
    upload(tmp_path / "music")
    config = config_of("s3://bucket/music", "s3://bucket/run")
    done = job(config, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "18 tracks with 30 clips, 1 rejected" in done.stderr

    prepare(config_of(tmp_path / "music", tmp_path / "local"), InTurn())
    local, remote = tables(tmp_path / "local"), tables("s3://bucket/run")
    assert remote["clips"] == local["clips"]
    differing = ["path", "modified"]
    for name in ("tracks", "rejects"):
        assert remote[name].drop_columns(differing) == local[name].drop_columns(differing)
    folder = Location.of("s3://bucket/run/features")
    assert len(load(Features.open(folder), "train")["train"]) > 0
    names = {info.base_name.removesuffix(".parquet") for info in folder.children()}
    assert names == {
        "clips", "duplicates", "manifest.json", "rejects", "rejects.csv", "settings.json", "splits", "tracks"
    }  # fmt: skip

    again = job(config, tmp_path)
    assert "19 already done, 0 to do" in again.stderr
    assert again.returncode == 0


@contextlib.contextmanager
def slow_proxy(endpoint: str, seconds: float) -> Iterator[str]:
    """Start a proxy of an endpoint that delays each piece of at most 64 KiB; yield its address."""
    host, _, port = endpoint.removeprefix("http://").partition(":")

    def forward(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):  # either side may close the connection
            while piece := source.recv(1 << 16):
                time.sleep(seconds)
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)

    class Connection(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection((host, int(port))) as server:
                back = threading.Thread(target=forward, args=(server, self.request), daemon=True)
                back.start()
                forward(self.request, server)
                back.join()

    class Proxy(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False

    with Proxy(("127.0.0.1", 0), Connection) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{proxy.server_address[1]}"
        proxy.shutdown()


def test_slow_storage_does_not_change_the_features(
    bucket_server: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_music(tmp_path / "music")
    upload(tmp_path / "music", "slow-music")
    config = config_of("s3://bucket/slow-music", "s3://bucket/slow")
    with slow_proxy(bucket_server["AWS_ENDPOINT_URL"], seconds=0.1) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        done = job(config, tmp_path)
    assert done.returncode == 0, done.stderr
    monkeypatch.setenv("AWS_ENDPOINT_URL", bucket_server["AWS_ENDPOINT_URL"])

    prepare(config_of(tmp_path / "music", tmp_path / "local"), InTurn())
    local, remote = tables(tmp_path / "local"), tables("s3://bucket/slow")
    assert remote["clips"].equals(local["clips"])
    assert remote["tracks"]["sound"].equals(local["tracks"]["sound"])
    assert len(remote["rejects"]) == 0


def test_a_missing_bucket_is_reported_at_once(bucket_server: dict[str, str], tmp_path: Path) -> None:
    write_music(tmp_path / "music")
    with pytest.raises(
        ConfigError, match=r"output=s3://elsewhere/run cannot be written \(.*bucket.*\); choose another"
    ):
        prepare(config_of(tmp_path / "music", "s3://elsewhere/run"), InTurn())
