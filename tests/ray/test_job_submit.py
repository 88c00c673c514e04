"""Jobs through the Jobs API of a real cluster: `ray start --head`, with a token, on this machine's loopback."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from conftest import REPOSITORY

from ray_jobs import cli

pytestmark = [pytest.mark.ray, pytest.mark.slow]

RAY = str(Path(sys.executable).parent / "ray")
SUBMIT = [RAY, "job", "submit", "--working-dir", ".", "--runtime-env", "configs/runtime_env.yaml"]
SETTINGS = {
    "corpus": {
        "kind": "synthetic",
        "params": {"tracks_per_genre": 3, "artists_per_genre": 3, "seconds": 2.0, "damaged": 2},
    },
    "audio": {"clip_seconds": 2.0},
    "spectrogram": {"n_mels": 16, "n_fft": 1024, "hop_length": 512},
    "train": {"epochs": 2000, "window_seconds": 1.0, "eval_windows": 2, "batch_size": 16},
    "models": {"cnn": {"width": 4, "depth": 3}},
}


class Head:
    """A running cluster of one machine, and the command line of a person who uses it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.checkout = folder, _copy(REPOSITORY, folder / "checkout")
        dashboard, agent, client, self.metrics = _free_ports(4)
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")} | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        command = [RAY, "start", "--head", "--block", "--port=0", "--node-ip-address=127.0.0.1"]
        command += ["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", f"--temp-dir={folder / 'ray'}"]
        command += [f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={client}"]
        command += [f"--metrics-export-port={self.metrics}", "--num-cpus=2", "--object-store-memory=100000000"]
        with open(folder / "head.log", "wb") as log:
            self.process = subprocess.Popen(
                command, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )

    def ray(self, *arguments: str, code: int | None = 0) -> str:
        """Run a `ray` command; it must end with `code`."""
        done = subprocess.run(
            [RAY, *arguments], env=self.environment, capture_output=True, text=True, cwd=self.checkout, check=False
        )
        assert code is None or done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def submit(self, job: str, *settings: str, options: tuple[str, ...] = (), code: int = 0) -> str:
        command = ["python", "-m", f"ray_jobs.{job}", "--config", str(self.folder / "run.yaml"), *settings]
        return self.ray(*SUBMIT[1:], *options, "--", *command, code=code)

    def numbers(self) -> Counter[str]:
        """Our own numbers at the endpoint that Prometheus reads, over all workers."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics}/metrics", timeout=30) as answer:
            lines = [line for line in answer.read().decode().splitlines() if line.startswith("ray_genre_")]
        found: Counter[str] = Counter()
        for line in lines:
            found[line.partition("{")[0]] += float(line.rpartition("} ")[2])
        return found

    def stop(self) -> None:
        """End every process that Ray started, and no others: they are this one's descendants."""
        for process in (self.process.pid, *self.family()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.process.wait()

    def family(self) -> dict[int, str]:
        """Title of each process that descends from `ray start`, by its number."""
        parents, titles = {}, {}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                titles[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
        found = {self.process.pid}
        while grown := {child for child, parent in parents.items() if parent in found} - found:
            found |= grown
        return {process: titles.get(process, "") for process in found - {self.process.pid}}


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    folder = tmp_path_factory.mktemp("head")
    corpus = SETTINGS["corpus"] | {"root": str(folder / "music")}
    (folder / "run.yaml").write_text(yaml.safe_dump(SETTINGS | {"output": str(folder / "out"), "corpus": corpus}))
    head = Head(folder)
    try:
        deadline = time.monotonic() + 60
        while "No cluster" in (told := head.ray("job", "list", code=None)) or "Failed to connect" in told:
            assert time.monotonic() < deadline, (folder / "head.log").read_text()
            time.sleep(0.5)
        yield head
    finally:
        head.stop()


def documented() -> list[str]:
    """Every line of the documentation that submits a job, continued lines joined."""
    pages = [REPOSITORY / "README.md", REPOSITORY / "docs/CLUSTER.md"]
    text = "\n".join(page.read_text() for page in pages if page.exists()).replace("\\\n", " ")
    return sorted(set(re.findall(r"^ *(ray job submit .*)$", text, re.MULTILINE)))


@pytest.mark.parametrize("line", documented())
def test_every_documented_line_is_right(line):
    """It submits as the tests below do, and its job accepts its settings."""
    submit, _, entrypoint = line.partition(" -- ")
    assert shlex.split(submit)[1:] == SUBMIT[1:]
    python, module, job, *arguments = shlex.split(entrypoint)
    assert (python, module) == ("python", "-m")
    assert cli.main(job.removeprefix("ray_jobs."), [*arguments, "--dry-run"]) == cli.OK


def test_every_job_is_documented():
    jobs = {re.search(r"ray_jobs\.(\w+)", line).group(1) for line in documented()}
    assert jobs == {"prepare", "train", "tune", "evaluate", "tag"}


def test_prepare_its_package_and_its_logs(head):
    head.submit("prepare", options=("--submission-id", "prepare-1"))
    assert len(pq.read_table(head.folder / "out/features/tracks.parquet")) == 30

    (package,) = (head.folder / "ray").glob("session_2*/runtime_resources/working_dir_files/_ray_pkg_*/")
    assert sum(file.stat().st_size for file in package.rglob("*")) < 5_000_000
    assert {path.name for path in package.iterdir()} >= {"genre", "ray_jobs", "configs"}
    assert not {".git", ".venv", "tests", "docs", "outputs"} & {path.name for path in package.iterdir()}

    logs = head.ray("job", "logs", "prepare-1")
    told = [line for line in logs.splitlines() if not re.match(r"\S+ \S+\t|Running entrypoint|-+$|Job '|$", line)]
    assert told[0].startswith("prepare: scanning corpus")
    assert all(line.startswith(("prepare:", "  ")) for line in told), logs
    assert "\x1b[" not in "".join(told)


def test_prometheus_reads_what_prepare_counted(head):
    before, output = head.numbers(), head.folder / "counted"
    head.submit("prepare", f"output={output}")
    counts = json.loads((output / "features/manifest.json").read_text())["counts"]
    expected = {
        "ray_genre_prepared_clips_total": counts["clips"],
        "ray_genre_rejected_tracks_total": 2,
        "ray_genre_finished_tracks_total": 32,
    }
    deadline = time.monotonic() + 60  # workers report every ten seconds
    while (found := head.numbers() - before) != expected:
        assert time.monotonic() < deadline, found
        time.sleep(1)


def test_an_error_and_its_exit_code_reach_the_submitter(head):
    told = head.submit("prepare", "output=outputs/x", code=1)
    assert "error: output=outputs/x is in the submitted copy of the code, which Ray deletes" in told
    assert "exit code 2" in told


def test_training_reports_its_speed_and_stop_ends_all_it_started(head):
    head.submit("train", "model=cnn", options=("--no-wait", "--submission-id", "train-1"))
    deadline = time.monotonic() + 150
    while "epoch   2/" not in head.ray("job", "logs", "train-1", code=None):
        assert time.monotonic() < deadline, head.ray("job", "logs", "train-1")
        time.sleep(1)
    while not (found := head.numbers())["ray_genre_train_windows_per_second"]:
        assert time.monotonic() < deadline, found
        time.sleep(1)
    assert "ray_genre_train_data_wait_seconds" in found
    head.ray("job", "stop", "train-1")
    assert "was stopped" in head.ray("job", "status", "train-1")
    while left := [title for title in head.family().values() if "RayTrainWorker" in title or "ray_jobs" in title]:
        assert time.monotonic() < deadline, left
        time.sleep(0.5)


def test_nothing_works_without_the_token(head):
    stranger = head.environment | {"RAY_AUTH_TOKEN": "0" * 64}
    done = subprocess.run([RAY, "job", "list"], env=stranger, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "auth" in (done.stdout + done.stderr).lower()


def _copy(repository: Path, to: Path) -> Path:
    """What is worked on may change while it is submitted. Folders that must not travel hold more than may."""
    heavy = (".venv", "outputs")
    shutil.copytree(repository, to, ignore=shutil.ignore_patterns(".git", "*_cache", "__pycache__", *heavy))
    for name in heavy:
        (to / name).mkdir()
        (to / name / "large").write_bytes(bytes(6_000_000))
    return to


def _free_ports(number: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
