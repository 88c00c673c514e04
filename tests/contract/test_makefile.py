"""Which files `make clean` and `make clean-outputs` delete."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import REPOSITORY

KEPT = ("outputs/run/models/cnn/weights.safetensors", "genre/config.py")
CACHES = (".venv/bin/python", ".mypy_cache/x", "genre/__pycache__/config.pyc", "genre.egg-info/PKG-INFO")

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a folder with the Makefile, a result and files to delete."""
    shutil.copy(REPOSITORY / "Makefile", tmp_path)
    for folder in ("ray_jobs", "tests", "benchmarks", "examples"):
        (tmp_path / folder).mkdir()
    for name in KEPT + CACHES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def make(checkout: Path, *arguments: str) -> str:
    """Run make as a user's shell does, not as a part of the make that runs the tests, and return its output."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    }
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=checkout, env=environment, check=True, capture_output=True, text=True).stdout


def test_clean_deletes_the_environment_and_caches_but_no_results(checkout: Path) -> None:
    make(checkout, "clean")
    assert [name for name in KEPT + CACHES if (checkout / name).exists()] == list(KEPT)
    assert not list(checkout.rglob("__pycache__"))


def test_install_says_what_it_does_before_it_takes_minutes(checkout: Path) -> None:
    (checkout / "requirements-dev.lock").touch()
    first, *_ = make(checkout, "--dry-run", "install").splitlines()
    assert first.startswith("echo ")
    assert ".venv from requirements-dev.lock" in first
    assert "minutes" in first


def test_clean_outputs_lists_and_deletes_the_outputs(checkout: Path) -> None:
    said = make(checkout, "clean-outputs")
    assert "outputs/run" in said
    assert not (checkout / "outputs").exists()
    assert (checkout / ".venv/bin/python").exists()
    assert "deleting" not in make(checkout, "clean-outputs")
    (checkout / "outputs").mkdir()
    make(checkout, "clean-outputs")
    assert not (checkout / "outputs").exists()
