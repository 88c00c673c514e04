"""What a job checks before it starts: its output is writable, permanent and shared by all machines."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from conftest import REPOSITORY
from running import ENVIRONMENT

from genre.errors import ConfigError
from genre.settings import ClusterSettings
from ray_jobs.engine import capacity, cluster, machines, reach
from ray_jobs.engine.capacity import Capacity


@pytest.fixture
def one_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend to be connected to a cluster of one machine."""
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    monkeypatch.setattr(capacity, "has_no_worker_yet", lambda: False)
    monkeypatch.setattr(reach, "_ask_others", lambda address, write: iter(()))


def check(output: Path | str) -> None:
    """Check an output folder as a job does."""
    reach.check_output(str(output))


@pytest.mark.usefixtures("one_machine")
def test_checking_an_output_changes_nothing(tmp_path: Path) -> None:
    check(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("one_machine")
def test_an_output_that_is_not_writable_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"output=.*/file/run cannot be written \(.+\); choose another"):
        check(tmp_path / "file/run")


@pytest.mark.usefixtures("one_machine")
def test_an_output_in_the_submitted_copy_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="output=outputs/run is in the submitted copy of the code"):
        check("outputs/run")


@pytest.mark.usefixtures("one_machine")
def test_a_folder_of_a_head_without_workers_yet_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "has_no_worker_yet", lambda: True)
    with pytest.raises(ConfigError, match="is a folder of the head, where no tasks run; use an address"):
        check(tmp_path)


@pytest.mark.usefixtures("one_machine")
def test_an_output_that_a_machine_cannot_reach_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "_ask_others", lambda address, write: iter([("worker-1", "no such folder")]))
    with pytest.raises(ConfigError, match=r"is not shared with worker-1 \(no such folder\); use an address"):
        check(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("one_machine")
def test_music_that_a_machine_cannot_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reach.check_readable(str(tmp_path), "corpus.root")
    monkeypatch.setattr(reach, "_ask_others", lambda address, write: iter([("worker-1", "it is not there")]))
    with pytest.raises(ConfigError, match=r"corpus.root: worker-1 cannot read .* \(it is not there\)"):
        reach.check_readable(str(tmp_path), "corpus.root")


def test_a_missing_cluster_is_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(ConfigError, match=r"RAY_ADDRESS=127\.0\.0\.1:1: no cluster answers there; start one"):
        cluster._join()


@pytest.mark.parametrize(("path", "shared"), [("/net/music/a", True), ("/home/me/run", False), ("/efs", True)])
def test_network_mounts_are_recognised(
    path: str, shared: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text("disk / ext4 rw 0 0\nserver:/music /net/music nfs4 rw 0 0\nfs:/ /efs nfs4 rw 0 0\n")
    monkeypatch.setattr(reach, "_MOUNTS", str(mounts))
    assert reach._on_network(path) is shared


def test_a_local_ray_requires_a_token() -> None:
    """Each process draws its own, and none is written to HOME."""
    code = "import ray_jobs.engine.cluster, os; print(os.environ['RAY_AUTH_MODE'], os.environ['RAY_AUTH_TOKEN'])"
    tokens = {
        subprocess.run(
            [sys.executable, "-c", code], env=ENVIRONMENT, cwd=REPOSITORY, capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    }
    assert len(tokens) == 2
    assert all(re.fullmatch(r"token [0-9a-f]{64}\n", token) for token in tokens)


def test_a_cluster_may_grow_to_any_size_or_to_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing asks for its present size: that would need a connection, and there is none."""
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    unlimited = Capacity.of(ClusterSettings())
    assert (unlimited.workers(1000), unlimited.gpus) == (1000, math.inf)
    limited = Capacity.of(ClusterSettings(max_cpus=8, max_gpus=0))
    assert limited.workers(1000) == 8
    assert limited.workers(3) == 3
    assert not limited.gives_gpu("auto")
    assert not limited.gives_gpu("cuda")
    with pytest.raises(ConfigError, match="device=cuda, but the job may use no GPU"):
        limited.check_device("cuda")
    assert unlimited.gives_gpu("cuda")
    assert not unlimited.gives_gpu("cpu")


def test_a_listed_file_that_was_deleted_since_refuses_no_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table may state sizes of files that nobody has."""
    asked: list[str] = []
    monkeypatch.setattr(machines, "others", lambda: [("id", "worker")])
    monkeypatch.setattr(reach, "check_readable", lambda address, setting: asked.append(address))
    (tmp_path / "there.mp3").write_bytes(b"")
    files = pa.table({"path": [str(tmp_path / "gone.mp3"), str(tmp_path / "there.mp3")], "size": [5, 5]})
    reach.check_seen(files, "corpus.root")
    reach.check_seen(files.slice(0, 1), "corpus.root")
    assert asked == [str(tmp_path / "there.mp3")]
