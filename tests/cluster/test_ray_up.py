"""Run `ray up` over ssh on hosts made of namespaces, submit every job to them, and run `ray down`.

Only the machines are simulated: see hosts.py. `make cluster-smoke` runs these tests.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from hosts import LAPTOP, REPOSITORY, SHARED, Hosts, missing

pytestmark = [pytest.mark.cluster, pytest.mark.skipif(bool(missing()), reason=missing())]

WORKERS = ["worker-1", "worker-2"]
SETTINGS = {
    "output": f"{SHARED}/run",
    "corpus": {
        "kind": "synthetic",
        "root": f"{SHARED}/music",
        "params": {"tracks_per_genre": 6, "artists_per_genre": 3, "seconds": 2.0, "damaged": 8},
    },
    "audio": {"clip_seconds": 2.0},
    "spectrogram": {"n_mels": 32, "n_fft": 1024, "hop_length": 512},
    "train": {"epochs": 2, "window_seconds": 1.0, "eval_windows": 2, "batch_size": 16},
    "architectures": {"cnn": {"width": 4, "depth": 3}, "resnet": {"width": 4}},
    "tune": {"trials": 1, "seeds": 1, "grace_epochs": 1, "architectures": ["cnn", "resnet"]},
}
# the start of each command on the laptop
LOGIN = (
    f"cd {REPOSITORY} && export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 "
    "RAY_API_SERVER_ADDRESS=http://127.0.0.1:8265"
)


class Cluster:
    """The hosts after `ray up`, and the commands of the user at the laptop."""

    def __init__(self, hosts: Hosts, file: str) -> None:
        self.hosts, self.file = hosts, file
        self.output = hosts.base / "shared/run"

    def laptop(self, command: str, code: int = 0) -> str:
        """Run a command on the laptop, check its exit code and return its output."""
        done = self.hosts.run(LAPTOP, f"{LOGIN} && {command}", timeout=400)
        assert done.returncode == code, done.stdout[-4000:]
        return done.stdout

    def submit(self, job: str, *settings: str, code: int = 0) -> str:
        """Submit a job with the command of README.md and return its output."""
        line = "ray job submit --working-dir . --runtime-env configs/runtime_env.yaml -- python -m ray_jobs"
        return self.laptop(f"{line}.{job} --config {SHARED}/run.yaml {' '.join(settings)}", code)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Start a head and two workers over ssh from the laptop, with a tunnel to the dashboard."""
    base = tmp_path_factory.mktemp("hosts")
    with Hosts(base, ["head", *WORKERS]) as hosts:
        (base / "shared/run.yaml").write_text(yaml.safe_dump(SETTINGS))
        cluster = Cluster(hosts, hosts.cluster_file("head", WORKERS))
        cluster.laptop("ray get-auth-token --generate > /dev/null && chmod 600 ~/.ray/auth_token")
        cluster.laptop(f"ray up --yes {cluster.file}")
        wait_for(cluster, "head", "ray status 2>/dev/null | grep -q /2.0.CPU", "both workers")
        hosts.start(LAPTOP, f"{LOGIN} && exec ray dashboard {cluster.file}", base / "tunnel.log")
        wait_for(cluster, LAPTOP, "ss -tlnH sport = :8265 | grep -q 127.0.0.1", "the tunnel")
        yield cluster


def wait_for(cluster: Cluster, host: str, command: str, what: str) -> None:
    for _ in range(90):
        if cluster.hosts.run(host, f"RAY_AUTH_MODE=token; export RAY_AUTH_MODE; {command}").returncode == 0:
            return
        time.sleep(1)
    pytest.fail(f"{what} did not start")


def test_commands_reach_the_head(cluster: Cluster) -> None:
    assert "/2.0 CPU" in cluster.laptop(f"ray exec {cluster.file} 'ray status'")
    assert "on the head: head" in cluster.laptop(
        f"echo 'echo on the head: $(hostname); exit' | ray attach {cluster.file}"
    )


def test_the_dashboard_listens_only_on_loopback(cluster: Cluster) -> None:
    listening = cluster.hosts.run("head", "ss -tlnH sport = :8265").stdout.split()
    assert "127.0.0.1:8265" in listening
    assert not any(address.startswith(("0.0.0.0:8265", "*:8265", "10.")) for address in listening)


def test_a_wrong_token_is_refused(cluster: Cluster) -> None:
    stranger = "export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=0123456789abcdef"
    answer = cluster.hosts.run("worker-1", f"{stranger}; ray status --address {cluster.hosts.addresses['head']}:6379")
    assert answer.returncode != 0
    assert "auth" in answer.stdout.lower()
    refused = cluster.hosts.run(LAPTOP, f"{LOGIN}; {stranger}; ray job list")
    assert refused.returncode != 0
    assert "auth" in refused.stdout.lower()


PROBE = """
import http.client, sys, urllib.request
for port in sys.argv[1:]:
    try:
        print(port, urllib.request.urlopen(f"http://head:{port}/", timeout=10).read(6).decode())
    except (OSError, http.client.HTTPException):
        print(port, "refused")
"""


def test_only_the_metrics_ports_answer_without_a_token(cluster: Cluster) -> None:
    listening = [line.split()[3] for line in cluster.hosts.run("head", "ss -tlnH").stdout.splitlines()]
    ports = sorted({address.rpartition(":")[2] for address in listening if not address.startswith("127.")})
    assert "6379" in ports
    output = cluster.hosts.run("worker-1", f"python -c '{PROBE}' {' '.join(ports)}").stdout
    answers = dict(line.split(" ", 1) for line in output.splitlines())
    assert sorted(answers) == ports, output
    assert set(answers.values()) == {"refused", "# HELP"}, output


def test_an_output_folder_that_is_not_shared_is_refused(cluster: Cluster) -> None:
    output = cluster.submit("prepare", "output=/tmp/run", code=1)
    assert "output=/tmp/run is not shared with worker-" in output
    assert "exit code 2" in output


def test_hosts_run_until_interrupted(tmp_path: Path) -> None:
    """`python tests/cluster/hosts.py`, as docs/CLUSTER.md describes it."""
    running = subprocess.Popen(
        [sys.executable, str(REPOSITORY / "tests/cluster/hosts.py"), str(tmp_path / "hosts")],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert running.stdout
    try:
        assert running.stdout.readline().startswith(f"up, in {tmp_path / 'hosts'}")
        shells = [running.stdout.readline().partition(": ")[2].strip() for _ in range(4)]
        answers = [
            subprocess.run(["bash", "-c", f"{shell} -c hostname"], capture_output=True, text=True, check=True)
            for shell in shells
        ]
        assert [done.stdout.strip() for done in answers] == [LAPTOP, "head", *WORKERS]
        running.send_signal(signal.SIGINT)
        assert running.wait(timeout=60) == 0
    finally:
        running.kill()


def test_the_chain_on_two_machines(cluster: Cluster) -> None:
    cluster.submit("prepare")
    assert len(pq.read_table(cluster.output / "features/tracks.parquet")) == 60
    assert len(pq.read_table(cluster.output / "features/rejects.parquet")) == 8

    assert "epoch   2/2" in cluster.submit("train", "architecture=cnn", "train.workers=2")
    assert json.loads((cluster.output / "models/cnn/model.json").read_text())["architecture"] == "cnn"

    assert "rank" in cluster.submit("tune")
    assert (cluster.output / "leaderboard/leaderboard.html").exists()

    cluster.submit("evaluate")
    assert (cluster.output / "evaluation/leaderboard.html").exists()

    assert "60 files tagged" in cluster.submit("tag", f"inputs={SHARED}/music")
    assert len(pq.read_table(cluster.output / "tags/tags.parquet")) == 60


def test_the_logs_do_not_contain_the_token(cluster: Cluster) -> None:
    token = (cluster.hosts.base / LAPTOP / "home/.ray/auth_token").read_text().strip()
    for host in ("head", *WORKERS):
        matches = cluster.hosts.run(host, f"grep -rl {token} /tmp/ray --include=*.log --include=*.out --include=*.err")
        assert not matches.stdout.strip()


def test_ray_down_ends_all_processes(cluster: Cluster) -> None:
    """Workers end about a minute after the head has."""
    cluster.laptop(f"ray down --yes {cluster.file}")
    cluster.hosts.run(LAPTOP, "pkill ssh")  # the tunnel keeps a shell on the head
    for host in ("head", *WORKERS):
        deadline = time.monotonic() + 120
        while left := cluster.hosts.processes(host):
            assert time.monotonic() < deadline, left
            time.sleep(1)
        assert cluster.hosts.run(host, "ls -A /dev/shm").stdout.strip() == ""
