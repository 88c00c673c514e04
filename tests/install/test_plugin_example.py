"""The example of a plug-in package, installed next to genre, is searched like the others."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY
from music import SETTINGS, write_song
from running import ENVIRONMENT

from genre.storage import Location

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Install the example into a folder and return variables with which Python finds it."""
    folder = tmp_path_factory.mktemp("plugin")
    source = shutil.copytree(REPOSITORY / "examples/genre_plugin_example", folder / "source")
    offline = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index")
    target = ("--target", str(folder / "site"), str(source))
    command = [sys.executable, "-m", "pip", "install", *offline, *target]
    subprocess.run(command, check=True, capture_output=True)
    return ENVIRONMENT | {"PYTHONPATH": os.pathsep.join([str(folder / "site"), str(REPOSITORY)])}


def genre(*arguments: str, folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ray_jobs.engine.command", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, check=False)


def test_an_installed_plugin_is_prepared_and_searched(environment: dict[str, str], tmp_path: Path) -> None:
    for number in range(24):
        write_song(tmp_path / "music" / f"{('folk', 'jazz', 'rock')[number % 3]}-{number}.wav", number)
    settings = SETTINGS | {
        "corpus": {"kind": "prefixed", "root": str(tmp_path / "music")},
        "output": str(tmp_path / "out"),
        "train": {"epochs": 2, "window_seconds": 0.5, "batch_size": 8},
        "tune": {"architectures": ["band_statistics"], "trials": 1, "seeds": 1, "grace_epochs": 1, "robustness": False},
        "architectures": {"band_statistics": {"dropout": 0.1}},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    for job in ("prepare", "tune"):
        done = genre(job, "--config", "run.yaml", folder=tmp_path, environment=environment)
        assert done.returncode == 0, done.stdout + done.stderr
    manifest = Location.of(tmp_path / "out/features/manifest.json").read_json()
    assert manifest["classes"] == ["folk", "jazz", "rock"]
    card = Location.of(tmp_path / "out/models/band_statistics/model.json").read_json()
    assert card["architecture"] == "band_statistics"
    assert card["params"] == {"dropout": 0.1}
    assert card["facts"]["package"].startswith("genre-plugin-example ")
    description = Location.of(tmp_path / "out/models/band_statistics/MODEL_CARD.md").read_bytes().decode()
    assert "A linear classifier on the mean and the maximum of each mel band over time." in description


def test_help_and_errors_know_an_installed_plugin(environment: dict[str, str], tmp_path: Path) -> None:
    shown = genre("train", "--help-all", folder=tmp_path, environment=environment).stdout
    assert "of the architecture band_statistics:" in shown
    assert "with corpus.kind=prefixed:" in shown
    wrong = "architectures.band_statistics.droput=0"
    refused = genre("train", wrong, "--dry-run", folder=tmp_path, environment=environment)
    assert refused.returncode == 2
    assert "did you mean 'architectures.band_statistics.dropout'?" in refused.stderr


def test_the_plugins_keep_their_contracts(environment: dict[str, str], tmp_path: Path) -> None:
    tests = REPOSITORY / "examples/genre_plugin_example/test_contract.py"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tests)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout
