"""Fixtures that several tests share."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import ray_jobs  # noqa: F401 - sets the environment that Ray reads when a test imports it

REPOSITORY = Path(__file__).resolve().parent.parent

# a shell's background jobs, and all they start, ignore interrupts
signal.signal(signal.SIGINT, signal.default_int_handler)
# tiny networks: threads that wait for each other on a busy machine take ten times as long
torch.set_num_threads(1)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real music to develop against, where it is at hand."""
    path = REPOSITORY.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip("no real music beside the repository (../shared/data)")
    return path


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with prepared features of a small composed corpus; shared, so tests write elsewhere."""
    from running import make_home

    return make_home(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def bucket_server() -> Iterator[dict[str, str]]:
    """Environment variables that lead to a moto server with an empty bucket."""
    from moto.server import ThreadedMotoServer
    from pyarrow import fs

    from genre import storage

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
    storage._s3.cache_clear()  # clients of an earlier server
    maker, _ = fs.FileSystem.from_uri("s3://bucket?allow_bucket_creation=true")
    maker.create_dir("bucket")
    yield variables
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})
    server.stop()
