"""`prepare` and `tag` on a cluster without any machine: all start at once, all work, none stays reserved."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from autoscaling import Autoscaled, autoscaled
from conftest import REPOSITORY
from music import config_of
from ray.autoscaler.v2.sdk import get_cluster_status
from saving import save_model, song
from tagged_rows import tag_row_difference

from genre import Tagger
from genre.config import to_yaml
from genre.storage import Location
from genre.tagging import audio_files, tag_rows
from genre.tagging.known_contents import KnownContents

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SONGS = 24
BOTH_KINDS = {
    "cpu": {"resources": {"CPU": 1}, "max_workers": 2},
    "gpu": {"resources": {"CPU": 0, "GPU": 1}, "max_workers": 1},  # else it may decode all before another is up
}
ON_BOTH = """
import sys
import pyarrow as pa, pyarrow.parquet as pq
from genre.config import load
from genre.model.saved_model import SavedEnsemble
from genre.storage import Location
from genre.tagging.audio_files import list_files
from genre.tagging.known_contents import KnownContents
from ray_jobs.engine import cluster
from ray_jobs.tagging import distributed
model, music, target = sys.argv[1:]
config = load(None, ["output=s3://bucket/both", "tag.batch_files=2"])
ensemble = SavedEnsemble.read([Location.of(model)], 0.0)
with cluster.connected(config.cluster, config.output):
    collection = distributed.TagWork.of(config, ensemble, list_files(music), KnownContents.none(), workers=3)
    pq.write_table(pa.concat_tables(distributed.on_both(collection, 2, 3, 1.0, "cpu")), target)
"""


@pytest.fixture(scope="module")
def home(bucket_server: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with songs, one damaged file, a model and run.yaml, whose output is in the bucket."""
    folder = tmp_path_factory.mktemp("zero")
    for number in range(SONGS):
        song(folder / "music" / f"genre{number % 2}" / f"{number:02}.wav", hertz=200 + 20 * number, seconds=2.5)
    (folder / "music/genre0/bad.mp3").write_bytes(b"no music")
    save_model(folder / "model")
    (folder / "run.yaml").write_text(to_yaml(config_of(folder / "music", "s3://bucket/blocks", tracks_per_block=2)))
    return folder


@pytest.fixture(scope="module")
def cluster(home: Path) -> Iterator[Autoscaled]:
    """Start a cluster of at most three machines, one CPU each."""
    with autoscaled({"cpu": {"resources": {"CPU": 1}, "max_workers": 3}}, boot_seconds=6) as cluster:
        yield cluster


def start(cluster: Autoscaled, *arguments: str) -> subprocess.Popen[str]:
    """Start Python on the cluster, after its idle machines have ended."""
    cluster.wait(lambda cluster: cluster.workers() == [])
    return subprocess.Popen(
        [sys.executable, *arguments], cwd=REPOSITORY, env=cluster.environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def finish(running: subprocess.Popen[str], cluster: Autoscaled) -> list[str]:
    """Wait for the end of a process that succeeds, and return the most machines that were up at a time."""
    most: list[str] = []
    deadline = time.monotonic() + 240
    try:
        while running.poll() is None and time.monotonic() < deadline:
            most = max(most, cluster.workers(), key=len)
            time.sleep(0.2)
    finally:
        running.kill()
    output = running.communicate()[0]
    assert running.returncode == 0, output + cluster.log()[-3000:]
    return most


def reserved(cluster: Autoscaled) -> list[object]:
    """Return what the cluster keeps machines for although no task needs them."""
    demands = get_cluster_status(cluster.address).resource_demands
    return [*demands.cluster_constraint_demand, *demands.placement_group_demand, *demands.ray_task_actor_demand]


def decisions(log: str) -> list[int]:
    """Return how many machines each decision of the autoscaler adds."""
    return [int(number) for number in re.findall(r"Adding (\d+) node\(s\) of type cpu", log)]


@pytest.mark.parametrize("name", ["prepare", "tag"])
def test_all_machines_start_at_once_and_none_is_reserved(name: str, home: Path, cluster: Autoscaled) -> None:
    settings = {
        "prepare": ["--config", str(home / "run.yaml")],
        "tag": [str(home / "music"), f"model={home / 'model'}", "output=s3://bucket/blocks", "tag.batch_files=2"],
    }
    before = len(cluster.log())
    running = start(cluster, "-m", f"ray_jobs.{name}", *settings[name])
    finish(running, cluster)
    asked = decisions(cluster.log()[before:])
    assert sum(asked[:2]) == 3, asked  # the second is a tick of a second later; a boot takes six
    assert not reserved(cluster)
    output = Location.of("s3://bucket/blocks")
    if name == "prepare":
        assert len((output / "features/tracks.parquet").read_table()) == SONGS
    else:
        assert len((output / "tags/tags.parquet").read_table()) == SONGS


def test_an_interrupt_while_machines_boot_leaves_none_reserved(home: Path, cluster: Autoscaled) -> None:
    before = len(cluster.log())
    running = start(cluster, "-m", "ray_jobs.prepare", "--config", str(home / "run.yaml"), "output=s3://bucket/other")
    cluster.wait(lambda cluster: bool(decisions(cluster.log()[before:])))
    running.send_signal(signal.SIGTERM)
    output = running.communicate(timeout=60)[0]
    assert running.returncode == 1, output
    assert "run the same command again to resume" in output
    cluster.wait(lambda cluster: not reserved(cluster))


def test_a_job_says_which_machines_cannot_be_launched(home: Path) -> None:
    refused = {"resources": {"CPU": 1}, "max_workers": 1, "node_config": {"refused": "VcpuLimitExceeded"}}
    with autoscaled({"cpu": refused}) as cluster:
        job = start(cluster, "-m", "ray_jobs.prepare", f"--config={home / 'run.yaml'}", "output=s3://bucket/refused")
        assert job.stdout is not None
        watchdog = threading.Timer(300, job.kill)
        watchdog.start()
        try:
            line = next((line for line in job.stdout if "could not be launched" in line), "nothing was said")
            job.send_signal(signal.SIGINT)
            job.communicate()
        finally:
            watchdog.cancel()
            job.kill()
        assert "VcpuLimitExceeded" in cluster.log()
    assert line == (
        "waiting for a machine with room for 1 x (1 CPU); "
        "cpu could not be launched, see monitor.log in Ray's logs on the head\n"
    )


def test_a_machine_without_a_gpu_decodes_for_one_that_has_it(home: Path, tmp_path: Path) -> None:
    """The GPU exists on paper only, so that the models compute on the CPU of its machine.

    A second GPU is asked for, which the cluster cannot start.
    """
    music, model = str(home / "music"), str(home / "model")
    with autoscaled(BOTH_KINDS, boot_seconds=1, idle_minutes=2) as cluster:
        running = start(cluster, "-c", ON_BOTH, model, music, str(tmp_path / "rows.parquet"))
        assert set(finish(running, cluster)) == {"cpu", "gpu"}
        cluster.wait(lambda cluster: not reserved(cluster))
    rows = pq.read_table(tmp_path / "rows.parquet")
    expected = tag_rows.tag_files(Tagger.load(model, threads=1), audio_files.list_files(music), KnownContents.none())
    assert tag_row_difference(expected, rows) == ""
