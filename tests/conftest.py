"""Fixtures that several tests share."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest
import torch

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
