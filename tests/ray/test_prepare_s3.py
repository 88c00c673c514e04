"""Music read from, and features written to, a real S3 server on this machine, through the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY
from music import InTurn, config_of, tables, write_music
from pyarrow import fs

from genre import features
from genre.errors import ConfigError
from genre.storage import Location
from ray_jobs.prepare import prepare

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    """Environment variables that lead to a moto server with an empty bucket."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    variables = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    before = {name: os.environ.get(name) for name in variables}
    os.environ |= variables
    maker, _ = fs.FileSystem.from_uri("s3://bucket?allow_bucket_creation=true")
    maker.create_dir("bucket")
    yield variables
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})
    server.stop()


def upload(music: Path) -> None:
    """The folder as s3://bucket/music, without the objects that would mark folders."""
    bucket, _ = fs.FileSystem.from_uri("s3://bucket")
    for path in music.rglob("*.wav"):
        with bucket.open_output_stream(f"bucket/music/{path.relative_to(music)}") as stream:
            stream.write(path.read_bytes())


def job(config, home: Path) -> subprocess.CompletedProcess[str]:
    (home / "run.json").write_text(config.model_dump_json())
    command = [sys.executable, "-m", "ray_jobs.prepare", "--config", str(home / "run.json")]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    return subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, env=clean, check=False)


def test_the_bucket_holds_what_the_disk_would(server, tmp_path):
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
    elsewhere = ["path", "modified"]
    for name in ("tracks", "rejects"):
        assert remote[name].drop_columns(elsewhere) == local[name].drop_columns(elsewhere)
    folder = Location.of("s3://bucket/run/features")
    assert len(features.load(folder, "train")) > 0
    left = {info.base_name.removesuffix(".parquet") for info in folder.children()}
    assert left == {"clips", "duplicates", "manifest.json", "rejects", "settings.json", "tracks"}

    again = job(config, tmp_path)
    assert "19 already done, 0 to do" in again.stderr
    assert again.returncode == 0


def test_a_bucket_that_is_not_there_is_told_at_once(server, tmp_path):
    write_music(tmp_path / "music")
    with pytest.raises(
        ConfigError, match=r"output=s3://elsewhere/run cannot be written \(.*bucket.*\); choose another"
    ):
        prepare(config_of(tmp_path / "music", "s3://elsewhere/run"), InTurn())
