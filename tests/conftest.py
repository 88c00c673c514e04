"""Fixtures that several test modules use."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
import pytest
import torch
from faulty_storage import Proxy, behind, healthy
from hypothesis import settings

import ray_jobs  # noqa: F401 - sets the environment that Ray reads when a test imports it

REPOSITORY = Path(__file__).resolve().parent.parent

# A shell starts background jobs with interrupts ignored, and child processes inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Copies of features, also those of jobs that tests start. It is deleted when the tests end.
_CACHE = tempfile.TemporaryDirectory(prefix="genre-tests-")
os.environ["GENRE_CACHE"] = _CACHE.name
# The networks are tiny: on a busy machine, several threads take ten times as long as one.
torch.set_num_threads(1)
# The same examples in every run, however slow the machine, and no files in the working folder.
settings.register_profile("tests", deadline=None, derandomize=True, database=None)
settings.load_profile("tests")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real music next to the repository; skip the test without it."""
    path = REPOSITORY.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip("no real music in ../shared/data, next to the repository")
    return path


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with run.yaml and the features of a small composed corpus. Tests must not write to it."""
    from running import make_home

    return make_home(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the folder of an untrained model, for the tests of one module."""
    from saving import save_model

    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def music(tmp_path: Path) -> Path:
    """Return a folder with 0.flac, 1.flac and 2.flac of different pitch."""
    from saving import song

    for number in range(3):
        song(tmp_path / "music" / f"{number}.flac", hertz=200 + 150 * number)
    return tmp_path / "music"


@pytest.fixture(scope="module")
def bucket_server() -> Iterator[dict[str, str]]:
    """Start an S3 server with an empty bucket; yield the environment variables that point to it."""
    from moto.server import ThreadedMotoServer
    from pyarrow import fs

    from genre.storage import location

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
    # all servers of a process share their buckets: drop what an earlier module left
    urlopen(Request(f"{variables['AWS_ENDPOINT_URL']}/moto-api/reset", method="POST")).close()
    location._client.cache_clear()  # drop the clients of an earlier server
    client, _ = fs.FileSystem.from_uri("s3://bucket?allow_bucket_creation=true")
    client.create_dir("bucket")
    yield variables
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})
    server.stop()


@pytest.fixture
def bucket(bucket_server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Start a proxy in front of the S3 server that records the requests, to which all requests go."""
    with behind(bucket_server, healthy, monkeypatch) as server:
        yield server
