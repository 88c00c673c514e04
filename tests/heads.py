"""Start a Ray cluster of one machine, with a token, on loopback; copy the checkout."""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from conftest import REPOSITORY
from running import ENVIRONMENT

RAY = str(Path(sys.executable).parent / "ray")
SUBMIT = [RAY, "job", "submit", "--working-dir", ".", "--runtime-env", "configs/runtime_env.yaml"]


class Head:
    """A running cluster of one machine, and the commands of its user.

    `variables` are added to the environment of the cluster and its jobs.
    """

    def __init__(self, folder: Path, variables: Mapping[str, str] | None = None) -> None:
        self.folder, self.checkout = folder, copy_checkout(folder / "checkout")
        # Not below `folder`: the path of a socket may have at most 107 bytes.
        self.temporary = Path(tempfile.mkdtemp(prefix="ray-"))
        gcs, dashboard, agent, client, self.metrics_port = free_ports(5)
        self.address = f"127.0.0.1:{gcs}"
        self.environment = ENVIRONMENT | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            **(variables or {}),
        }
        command = [RAY, "start", "--head", "--block", f"--port={gcs}", "--node-ip-address=127.0.0.1"]
        command += ["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", f"--temp-dir={self.temporary}"]
        command += [f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={client}"]
        command += [f"--metrics-export-port={self.metrics_port}", "--num-cpus=2", "--object-store-memory=100000000"]
        with open(folder / "head.log", "wb") as log:
            self.process = subprocess.Popen(
                command, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )

    def __enter__(self) -> Self:
        deadline = time.monotonic() + 60
        while "No cluster" in (output := self.ray("job", "list", code=None)) or "Failed to connect" in output:
            if time.monotonic() > deadline:
                self.stop()
                raise AssertionError((self.folder / "head.log").read_text())
            time.sleep(0.5)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def ray(self, *arguments: str, code: int | None = 0) -> str:
        """Run a `ray` command and return its output. Check its exit code unless `code` is None."""
        done = subprocess.run(
            [RAY, *arguments], env=self.environment, capture_output=True, text=True, cwd=self.checkout, check=False
        )
        assert code is None or done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def submit(self, job: str, *settings: str, options: tuple[str, ...] = (), code: int = 0) -> str:
        """Submit a job through the Jobs API and return the output of `ray job submit`."""
        command = ["python", "-m", f"ray_jobs.{job}", "--config", str(self.folder / "run.yaml"), *settings]
        return self.ray(*SUBMIT[1:], *options, "--", *command, code=code)

    def metrics(self) -> dict[str, float]:
        """Return the project's metrics as Prometheus reads them, summed over all workers."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=30) as response:
            lines = [line for line in response.read().decode().splitlines() if line.startswith("ray_genre_")]
        totals: defaultdict[str, float] = defaultdict(float)
        for line in lines:
            totals[line.partition("{")[0]] += float(line.rpartition("} ")[2])
        return totals

    def stop(self) -> None:
        """Kill `ray start` and its descendants."""
        for process in (self.process.pid, *self.descendants()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.process.wait()
        shutil.rmtree(self.temporary, ignore_errors=True)

    def descendants(self) -> dict[int, str]:
        """Return the command line of each descendant of `ray start`, by its process id."""
        parents, titles = {}, {}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                titles[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
        family = {self.process.pid}
        while children := {child for child, parent in parents.items() if parent in family} - family:
            family |= children
        return {process: titles.get(process, "") for process in family - {self.process.pid}}


def copy_checkout(to: Path) -> Path:
    """Copy the checkout to `to`, since the original may change during a test, and return `to`.

    Each folder that a submitted job must not upload gets 6 MB, so that the size of an upload shows whether it did.
    """
    heavy = (".venv", "outputs")
    shutil.copytree(REPOSITORY, to, ignore=shutil.ignore_patterns(".git", "*_cache", "__pycache__", *heavy))
    for name in heavy:
        (to / name).mkdir()
        (to / name / "large").write_bytes(bytes(6_000_000))
    return to


def free_ports(number: int) -> list[int]:
    """Return free ports of loopback, which programs that take any port do not take before they are used.

    Those get a port from 32768 up, and workers of `ray start` one from 10002 to 19999.
    """
    ports: list[int] = []
    for port in random.SystemRandom().sample(range(20_000, 32_768), 1000):
        with contextlib.suppress(OSError):
            socket.create_server(("127.0.0.1", port)).close()
            ports.append(port)
        if len(ports) == number:
            return ports
    raise AssertionError(f"fewer than {number} of 1000 ports are free")
