"""Jobs on a cluster of several Ray nodes, while machines come and go."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY
from music import InTurn, config_of, tables, write_music
from ray.cluster_utils import Cluster
from running import ENVIRONMENT, SETTINGS, command, job, make_home

from ray_jobs.prepare import prepare  # sets what Ray reads when it is imported

pytestmark = [pytest.mark.ray, pytest.mark.slow]

NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20}


@contextlib.contextmanager
def machines() -> Iterator[Cluster]:
    """A head that runs no tasks and one worker of one CPU."""
    made = Cluster(True, head_node_args=NODE | {"num_cpus": 0, "include_dashboard": False})
    try:
        made.add_node(**NODE)
        made.wait_for_nodes()
        yield made
    finally:
        made.shutdown()


@contextlib.contextmanager
def started(name: str, home: Path, made: Cluster, *settings: str) -> Iterator[subprocess.Popen[str]]:
    """A job on that cluster."""
    token = {key: os.environ[key] for key in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")}
    environment = ENVIRONMENT | token | {"RAY_ADDRESS": made.address}
    with subprocess.Popen(
        command(name, home, *settings), cwd=REPOSITORY, env=environment, text=True, stderr=subprocess.PIPE
    ) as running:
        yield running
        running.kill()


def wait_for(condition: Callable[[], bool], running: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert running.poll() is None, running.communicate()[1]
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.05)


def test_a_machine_that_joins_in_the_middle_goes_on_when_the_first_is_lost(tmp_path: Path) -> None:
    write_music(tmp_path / "music", genres=4, per_genre=150)
    config = config_of(tmp_path / "music", tmp_path / "out", tracks_per_block=1)
    (tmp_path / "run.yaml").write_text(config.model_dump_json())
    parts = tmp_path / "out/features/clips"
    with machines() as made, started("prepare", tmp_path, made) as running:
        (first,) = made.worker_nodes
        wait_for(lambda: parts.exists() and len(list(parts.iterdir())) > 20, running)
        made.add_node(**NODE)
        made.remove_node(first, allow_graceful=False)
        assert running.poll() is None  # all that is left is done by the new one
        told = running.communicate(timeout=300)[1]
    assert running.returncode == 0, told

    prepare(config_of(tmp_path / "music", tmp_path / "calm"), InTurn())
    disturbed, calm = tables(tmp_path / "out"), tables(tmp_path / "calm")
    assert all(disturbed[name].equals(calm[name]) for name in ("tracks", "clips", "rejects"))


def test_a_lost_head_is_told_and_on_a_new_one_the_same_command_goes_on(tmp_path: Path) -> None:
    home, epochs = make_home(tmp_path), 12
    settings = SETTINGS["train"] | {"epochs": epochs, "learning_rate": 0.001, "dtype": "fp32"}
    configuration = yaml.safe_load((home / "run.yaml").read_text()) | {"train": settings}
    (home / "run.yaml").write_text(yaml.safe_dump(configuration))
    with machines() as made, started("train", home, made, "architecture=crnn") as running:
        assert running.stderr
        seen: list[str] = []
        address = made.address
        while "epoch   3/" not in "".join(seen):
            seen.append(running.stderr.readline())
            assert seen[-1], seen
        made.head_node.kill_all_processes(check_alive=False, allow_graceful=False)
        told = running.communicate(timeout=180)[1]
    assert running.returncode == 1, told
    assert told.splitlines()[-1].startswith(f"error: the head of the cluster, {address}, has not answered for")
    assert "Traceback" not in told

    with machines() as made, started("train", home, made, "architecture=crnn") as running:
        told = running.communicate(timeout=300)[1]
    assert running.returncode == 0, told
    assert "epoch   1/" not in told
    assert f"epoch  {epochs}/{epochs}" in told
    assert losses(home) == pytest.approx(calm_losses(home), abs=1e-5)


def losses(home: Path) -> list[float]:
    card = json.loads((home / "out/models/crnn/model.json").read_text())
    return [epoch["train_loss"] for epoch in card["facts"]["history"]]


def calm_losses(home: Path) -> list[float]:
    """Of the same training without a cluster, from its beginning."""
    job("train", home, "architecture=crnn", "train.resume=false", "cluster.cpus=1")
    return losses(home)
