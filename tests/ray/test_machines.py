"""Jobs on a cluster of several Ray nodes that gains and loses machines."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from clip_features import write_features
from conftest import REPOSITORY
from music import InTurn, config_of, tables, write_music
from ray.cluster_utils import Cluster
from running import ENVIRONMENT, SETTINGS, command, job, make_home, write_config

from genre.features import Features, Shape
from genre.features.cache import ClipCache
from genre.settings import CacheSettings
from genre.storage import Location
from ray_jobs.prepare import prepare  # sets what Ray reads when it is imported

pytestmark = [pytest.mark.ray, pytest.mark.slow]

NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20}


@contextlib.contextmanager
def machines(**worker: Any) -> Iterator[Cluster]:
    """Start a head that runs no tasks and a worker of one CPU; yield the cluster."""
    cluster = Cluster(True, head_node_args=NODE | {"num_cpus": 0, "include_dashboard": False})
    try:
        cluster.add_node(**NODE, **worker)
        cluster.wait_for_nodes()
        yield cluster
    finally:
        cluster.shutdown()


@contextlib.contextmanager
def started(name: str, home: Path, cluster: Cluster, *settings: str) -> Iterator[subprocess.Popen[str]]:
    """Start a job on the cluster, yield its process and kill it afterwards."""
    token = {key: os.environ[key] for key in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")}
    environment = ENVIRONMENT | token | {"RAY_ADDRESS": cluster.address}
    with subprocess.Popen(
        command(name, home, *settings), cwd=REPOSITORY, env=environment, text=True, stderr=subprocess.PIPE
    ) as running:
        yield running
        running.kill()


def wait_for(condition: Callable[[], bool], running: subprocess.Popen[str]) -> None:
    """Wait until the condition holds, while the job runs."""
    deadline = time.monotonic() + 300
    while not condition():
        assert running.poll() is None, running.communicate()[1]
        assert time.monotonic() < deadline, "timeout"
        time.sleep(0.05)


def test_a_machine_that_joins_later_continues_when_the_first_is_lost(tmp_path: Path) -> None:
    write_music(tmp_path / "music", genres=4, per_genre=150)
    config = config_of(tmp_path / "music", tmp_path / "out", tracks_per_block=1)
    (tmp_path / "run.yaml").write_text(config.model_dump_json())
    parts = tmp_path / "out/features/clips"
    with machines() as cluster, started("prepare", tmp_path, cluster) as running:
        (first,) = cluster.worker_nodes
        wait_for(lambda: parts.exists() and len(list(parts.iterdir())) > 20, running)
        cluster.add_node(**NODE)
        cluster.remove_node(first, allow_graceful=False)
        assert running.poll() is None  # the new machine does the remaining tracks
        output = running.communicate(timeout=300)[1]
    assert running.returncode == 0, output

    prepare(config_of(tmp_path / "music", tmp_path / "undisturbed"), InTurn())
    disturbed, undisturbed = tables(tmp_path / "out"), tables(tmp_path / "undisturbed")
    assert all(disturbed[name].equals(undisturbed[name]) for name in ("tracks", "clips", "rejects"))


def test_a_lost_head_is_reported_and_the_command_resumes_on_a_new_one(tmp_path: Path) -> None:
    home, epochs = make_home(tmp_path), 12
    settings = SETTINGS["train"] | {"epochs": epochs, "learning_rate": 0.001, "dtype": "fp32"}
    configuration = yaml.safe_load((home / "run.yaml").read_text()) | {"train": settings}
    (home / "run.yaml").write_text(yaml.safe_dump(configuration))
    with machines() as cluster, started("train", home, cluster, "architecture=crnn") as running:
        assert running.stderr
        lines: list[str] = []
        address = cluster.address
        while "epoch   3/" not in "".join(lines):
            lines.append(running.stderr.readline())
            assert lines[-1], lines
        cluster.head_node.kill_all_processes(check_alive=False, allow_graceful=False)
        output = running.communicate(timeout=180)[1]
    assert running.returncode == 1, output
    assert output.splitlines()[-1].startswith(f"error: the head of the cluster, {address}, has not answered for")
    assert "Traceback" not in output

    with machines() as cluster, started("train", home, cluster, "architecture=crnn") as running:
        output = running.communicate(timeout=300)[1]
    assert running.returncode == 0, output
    assert "epoch   1/" not in output
    assert f"epoch  {epochs}/{epochs}" in output
    assert losses(home) == pytest.approx(undisturbed_losses(home), abs=1e-5)


def test_two_machines_with_a_copy_of_the_clips_each_lose_one_at_any_time(tmp_path: Path) -> None:
    """A machine is lost while it waits to make its copy, and another while it trains; the losses stay the same."""
    home, epochs = make_home(tmp_path), 40  # long enough that the machine is lost before training ends
    settings = SETTINGS["train"] | {"epochs": epochs, "learning_rate": 0.001, "dtype": "fp32", "workers": 2}
    configuration = yaml.safe_load((home / "run.yaml").read_text()) | {"train": settings}
    (home / "run.yaml").write_text(yaml.safe_dump(configuration))
    caches = [tmp_path / f"cache{number}" for number in range(4)]
    for cache in caches:
        cache.mkdir()
    with (
        machines(env_vars={"GENRE_CACHE": str(caches[0])}) as cluster,
        (caches[1] / "building.lock").open("w") as lock,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = cluster.add_node(**NODE, env_vars={"GENRE_CACHE": str(caches[1])})
        with started("train", home, cluster, "architecture=crnn") as running:
            assert running.stderr
            lines = [running.stderr.readline()]
            while f"waiting for another process that copies features to {caches[1]}" not in lines[-1]:
                lines.append(running.stderr.readline())
                assert lines[-1], lines
            trains = cluster.add_node(**NODE, env_vars={"GENRE_CACHE": str(caches[2])})
            cluster.remove_node(waiting, allow_graceful=False)
            while "epoch   3/" not in lines[-1]:
                lines.append(running.stderr.readline())
                assert lines[-1], lines
            cluster.remove_node(trains, allow_graceful=False)
            cluster.add_node(**NODE, env_vars={"GENRE_CACHE": str(caches[3])})
            output = running.communicate(timeout=300)[1]
    assert running.returncode == 0, output
    assert [len(list(cache.glob("features-*"))) for cache in caches] == [1, 0, 1, 1]
    assert losses(home) == pytest.approx(undisturbed_losses(home, "cluster.cpus=2"), abs=1e-5)


def test_a_machine_that_is_lost_while_it_makes_its_copy(tmp_path: Path) -> None:
    """Its process is killed in the middle of the copy, another machine takes its place, and the losses are the same."""
    write_config(tmp_path)
    settings = SETTINGS["train"] | {"learning_rate": 0.001, "dtype": "fp32", "workers": 2, "windows_per_clip": 1}
    configuration = yaml.safe_load((tmp_path / "run.yaml").read_text()) | {"train": settings}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(configuration))
    write_features(tmp_path / "out/features", tracks=300, shape=Shape(32, 8000, 80.0, 0.01))  # 0.15 GB to copy
    caches = [tmp_path / f"cache{number}" for number in range(3)]
    with machines(env_vars={"GENRE_CACHE": str(caches[0])}) as cluster:
        lost = cluster.add_node(**NODE, env_vars={"GENRE_CACHE": str(caches[1])})
        with started("train", tmp_path, cluster, "architecture=crnn") as running:
            wait_for(lambda: any(caches[1].glob("*.unfinished/clips")), running)
            os.kill(process_with_lock(caches[1] / "building.lock"), signal.SIGKILL)
            assert not list(caches[1].glob("*/header.json"))
            cluster.remove_node(lost, allow_graceful=False)
            cluster.add_node(**NODE, env_vars={"GENRE_CACHE": str(caches[2])})
            output = running.communicate(timeout=300)[1]
    assert running.returncode == 0, output
    assert [len(list(cache.glob("*/header.json"))) for cache in caches] == [1, 0, 1]
    assert losses(tmp_path) == pytest.approx(undisturbed_losses(tmp_path, "cluster.cpus=2"), abs=1e-5)


def test_a_search_names_the_machine_that_has_no_disk_for_the_clips_and_resumes_without_it(tmp_path: Path) -> None:
    home, caches = make_home(tmp_path), [tmp_path / "cache0", tmp_path / "cache1"]
    settings = ["tune.architectures=[cnn]", "tune.workers_per_trial=2"]
    with machines(env_vars={"GENRE_CACHE": str(caches[0])}) as cluster:
        caches[1].touch()  # where a folder is expected
        without_disk = cluster.add_node(**NODE, env_vars={"GENRE_CACHE": str(caches[1])})
        with started("tune", home, cluster, *settings) as running:
            output = running.communicate(timeout=300)[1]
        assert running.returncode == 1, output
        assert output.splitlines()[-1].startswith(f"error: cache.folder={caches[1]}: cannot be read or written")
        cluster.remove_node(without_disk)
        caches[1].unlink()
        caches[1].mkdir()
        with (caches[1] / "building.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            cluster.add_node(**NODE, env_vars={"GENRE_CACHE": str(caches[1])})
            with started("tune", home, cluster, *settings) as running:
                assert running.stderr
                line = running.stderr.readline()
                while line != f"tune: waiting for another process that copies features to {caches[1]}\n":
                    assert line
                    line = running.stderr.readline()
                fcntl.flock(lock, fcntl.LOCK_UN)
                output = running.communicate(timeout=300)[1]
        assert running.returncode == 0, output
    assert (home / "out/models/cnn/model.json").exists()


def test_machines_that_are_too_small_keep_a_share_each(tmp_path: Path) -> None:
    """The copy of all clips is larger than `cache.max_gb`. The training is killed and resumed."""
    home, epochs = make_home(tmp_path), 12
    features = Features.open(Location.of(home / "out/features"))
    size = ClipCache.of(features, CacheSettings()).size()
    settings = SETTINGS["train"] | {"epochs": epochs, "learning_rate": 0.001, "dtype": "fp32", "workers": 2}
    configuration = yaml.safe_load((home / "run.yaml").read_text()) | {"train": settings}
    (home / "run.yaml").write_text(yaml.safe_dump(configuration | {"cache": {"max_gb": 0.7 * size / 1e9}}))
    caches = [tmp_path / "cache0", tmp_path / "cache1"]
    with machines(env_vars={"GENRE_CACHE": str(caches[0])}) as cluster:
        cluster.add_node(**NODE, env_vars={"GENRE_CACHE": str(caches[1])})
        with started("train", home, cluster, "architecture=crnn") as running:
            assert running.stderr
            lines = [running.stderr.readline()]
            while "epoch   3/" not in lines[-1]:
                lines.append(running.stderr.readline())
                assert lines[-1], lines
        assert "each of 2 machines keeps a share" in "".join(lines)
        parts = [tracks_in(cache) for cache in caches]
        assert abs(len(parts[0]) - len(parts[1])) <= 2
        assert not parts[0] & parts[1]
        assert parts[0] | parts[1] == {
            track for split in ("train", "valid") for track in features.tracks(split)["track_id"].to_pylist()
        }
        with started("train", home, cluster, "architecture=crnn") as running:
            output = running.communicate(timeout=300)[1]
        assert running.returncode == 0, output
    assert "epoch   1/" not in output
    assert len(losses(home)) == epochs
    assert losses(home)[-1] < losses(home)[0]
    answers = pq.read_table(home / "out/models/crnn/validation.parquet")
    assert len(answers) == len(features.tracks("valid"))
    assert np.allclose([sum(row) for row in answers["probabilities"].to_pylist()], 1, atol=1e-3)  # of both machines


def test_a_trial_in_two_processes_on_machines_that_are_too_small(tmp_path: Path) -> None:
    """Each process of the trial keeps a share of the clips, on a machine of its own."""
    home = make_home(tmp_path)
    features = Features.open(Location.of(home / "out/features"))
    size = ClipCache.of(features, CacheSettings()).size()
    caches = [tmp_path / "cache0", tmp_path / "cache1"]
    settings = ["tune.architectures=[cnn]", "tune.workers_per_trial=2", f"cache.max_gb={0.7 * size / 1e9:.6f}"]
    with machines(env_vars={"GENRE_CACHE": str(caches[0])}) as cluster:
        cluster.add_node(**NODE, env_vars={"GENRE_CACHE": str(caches[1])})
        with started("tune", home, cluster, *settings) as running:
            output = running.communicate(timeout=300)[1]
        assert running.returncode == 0, output
    parts = [tracks_in(cache) for cache in caches]
    assert not parts[0] & parts[1]
    assert {len(parts[0]), len(parts[1])} == {20}
    answers = pq.read_table(home / "out/models/cnn/seed-0/validation.parquet")
    assert len(answers) == len(features.tracks("valid"))


def process_with_lock(file: Path) -> int:
    """Return the process that holds the lock of a file."""
    inode = str(file.stat().st_ino)
    locks = (line.split() for line in Path("/proc/locks").read_text().splitlines() if "->" not in line)
    (holder,) = {int(fields[4]) for fields in locks if fields[5].rpartition(":")[2] == inode}
    return holder


def tracks_in(cache: Path) -> set[str]:
    """Return the tracks whose clips are in the only copy of a machine."""
    (copy,) = cache.glob("features-*")
    table = pa.ipc.open_file(copy / "tracks").read_all()
    return set(table.filter(table["here"])["track_id"].to_pylist())


def losses(home: Path) -> list[float]:
    """Return the training loss of each epoch."""
    card = json.loads((home / "out/models/crnn/model.json").read_text())
    return [epoch["train_loss"] for epoch in card["facts"]["history"]]


def undisturbed_losses(home: Path, *settings: str) -> list[float]:
    """Train again from the start, without a cluster, and return the losses."""
    job("train", home, "architecture=crnn", "train.resume=false", *(settings or ["cluster.cpus=1"]))
    return losses(home)
