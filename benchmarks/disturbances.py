"""A cluster that starts from no machine and storage, both of which fail at random. `chaos.py` runs the jobs on them."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import faulty_storage
import processes
from autoscaling import Autoscaled, autoscaled

REPOSITORY = Path(__file__).resolve().parent.parent
TYPES = {"cpu": {"resources": {"CPU": 1}, "max_workers": 2}}
LONGEST_RUN = 400  # seconds, after which a job counts as hanging
_FAULTS = ("busy", "stalling", "cutting", "losing")
_IDLE = ("ray::IDLE", "ray::Dash", "ray::Run")


class Weather:
    """What the storage does: nothing wrong for some seconds, then one kind of fault for some seconds, and so on."""

    def __init__(self, dice: random.Random) -> None:
        self.is_calm = True
        self.faults: Counter[str] = Counter()
        self._dice, self._lock = dice, threading.Lock()
        self._kind, self._until = "healthy", 0.0

    def __call__(self, request: faulty_storage.Handler, number: int) -> bool:
        """Answer a request where it falls under the present fault."""
        with self._lock:
            if time.monotonic() > self._until:
                self._kind = self._dice.choice(_FAULTS) if self._kind == "healthy" else "healthy"
                self._until = time.monotonic() + self._dice.uniform(2, 6)
            kind = "healthy" if self.is_calm else self._kind
        fault: faulty_storage.Fault = getattr(faulty_storage, kind)
        answered = fault(request, number)
        if answered:
            self.faults[kind] += 1
        return answered


class Machines:
    """A cluster with no machine but its head at first. A head that is lost is replaced by a new cluster."""

    def __init__(self, variables: dict[str, str]) -> None:
        self._variables = variables
        self._clusters = contextlib.ExitStack()
        self.cluster = self._start()

    def _start(self) -> Autoscaled:
        return self._clusters.enter_context(
            autoscaled(TYPES, boot_seconds=1, idle_minutes=0.1, variables=self._variables)
        )

    def close(self) -> None:
        """End all processes of all clusters."""
        self._clusters.close()

    def wait_until_empty(self) -> str:
        """Wait until all machines have ended. Ray Train's requests for some outlive a killed driver by 180 s.

        Where one stays for 300 s, start a new cluster and return the log of the autoscaler; else "".
        """
        try:
            self.cluster.wait(lambda cluster: cluster.workers() == [], seconds=300)
        except TimeoutError:
            log = self.cluster.log()
            self.cluster = self._start()
            return log
        return ""

    def kill_worker(self, dice: random.Random) -> str:
        """Kill one of the processes that run a task or an actor; return its name, "" where there is none."""
        titles = {pid: processes.command(pid) for raylet in self._raylets() for pid in processes.children(raylet)}
        busy = sorted(pid for pid, title in titles.items() if title.startswith("ray::") and not title.startswith(_IDLE))
        if not busy:
            return ""
        pid = dice.choice(busy)
        os.kill(pid, signal.SIGKILL)
        return titles[pid].removeprefix("ray::").split(" ")[0].split("(")[0]

    def kill_machine(self, dice: random.Random) -> str:
        """Kill all processes of a machine at once; return "" where there is none."""
        raylets = self._raylets()
        if not raylets:
            return ""
        raylet = dice.choice(raylets)
        for pid in [raylet, *processes.descendants(raylet)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return "cpu"

    def kill_head(self) -> str:
        """Kill the head's server, and start a new cluster. The machines of the old one end when they notice."""
        (server,) = (pid for pid in self.cluster.processes() if "/gcs_server " in processes.command(pid))
        os.kill(server, signal.SIGKILL)
        self.cluster = self._start()
        return "gcs_server"

    def _raylets(self) -> list[int]:
        """Return the raylets of the machines that are up, without that of the head, in a fixed order."""
        return sorted(
            pid
            for pid in self.cluster.processes()
            if "/raylet/raylet " in (command := processes.command(pid)) and " --head" not in command
        )


@dataclass
class Run:
    """A job that is started again with the same command until it succeeds."""

    words: list[str]  # the name of the job and its settings
    machines: Machines
    log: Path
    starts: int = 0
    failures: list[str] = field(default_factory=list)  # last lines of runs that were not killed

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        self.starts += 1
        variables = self.machines.cluster.environment | {"PYTHONPATH": str(REPOSITORY)}
        command = [sys.executable, "-m", f"ray_jobs.{self.words[0]}", *self.words[1:]]
        with open(self.log, "ab") as log:
            self.driver = subprocess.Popen(
                command, cwd=REPOSITORY, env=variables, stdout=log, stderr=log, start_new_session=True
            )

    def kill(self) -> str:
        os.killpg(self.driver.pid, signal.SIGKILL)
        self.driver.wait()
        return self.words[0]

    def last_line(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()
        return lines[-1].strip()[:160] if lines else ""

    def succeeded(self) -> bool:
        """Return whether the job has ended well; start it again where it has ended otherwise."""
        code = self.driver.poll()
        if code is None:
            return False
        if code > 0:
            self.failures.append(f"{code}: {self.last_line()}")
        if code:
            self.start()
        return code == 0


@dataclass(frozen=True)
class Kill:
    """What was killed, how many seconds after the first start of the job, and what the job had printed last."""

    kind: str
    name: str
    at: float
    line: str


def kill(kind: str, run: Run, dice: random.Random) -> str:
    """Kill a process of this kind, and return its name; "" where there is none now."""
    if kind == "driver":
        return run.kill()
    if kind == "head":
        return run.machines.kill_head()
    return run.machines.kill_worker(dice) if kind == "worker" else run.machines.kill_machine(dice)


def disturb(run: Run, most: int, dice: random.Random) -> list[Kill]:
    """Run a job until it succeeds, with up to `most` kills some seconds apart. Raises `TimeoutError` when it hangs."""
    plan = dice.sample(["worker", "worker", "machine", "machine", "driver", "driver", "head"], most)
    kills: list[Kill] = []
    began = time.monotonic()
    following = began + dice.uniform(2, 15)
    while not run.succeeded():
        now = time.monotonic()
        if now - began > LONGEST_RUN:
            run.kill()
            raise TimeoutError(f"hangs: {run.last_line()}")
        if plan and now >= following:
            line = run.last_line()
            if name := kill(plan[-1], run, dice):
                kills.append(Kill(plan.pop(), name, round(now - began, 1), line))
                following = now + dice.uniform(2, 15)
            else:  # not the first moment of a process, which would be killed each time
                following = now + dice.uniform(0, 5)
        time.sleep(0.1)
    return kills
