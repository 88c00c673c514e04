"""Machines made of Linux namespaces, so that `ray up` and jobs on several nodes can run on one computer.

Each host has its own address, host name, process ids, home, /tmp and /dev/shm, and an sshd. All hosts share the disk
and `/mnt/shared`, which stands for a network mount. The user's commands run on the host `laptop`.

The namespaces, their network and their mounts have no names outside. They end with the processes in them, and those
processes end with this one, however it ends.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

import yaml

REPOSITORY = Path(__file__).resolve().parent.parent.parent
LAPTOP = "laptop"
SHARED = "/mnt/shared"
_NETWORK = "10.88.0"
_TOOLS = {
    "ip": "iproute2",
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "rsync": "rsync",
    "nsenter": "util-linux",
}

# Runs as process 1 of a host: $1 its name, $2 its folder, $3 the folder of all, $4 MiB of shared memory.
_BOOT = r"""
set -eu
hostname "$1"
mount -t tmpfs tmpfs /mnt
mkdir -p /mnt/home /mnt/shared /dev/shm
mount --bind "$2/home" /mnt/home
mount --bind "$3/shared" /mnt/shared
mount --bind "$3/hosts" /etc/hosts
mount --bind "$3/passwd" /etc/passwd
mount -t tmpfs -o "size=$4m" tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mkdir /run/sshd
mount --bind "$2/tmp" /tmp
cd /mnt/home
read -r _ < /mnt/home/.sshd/power
exec /usr/sbin/sshd -D -e -f /mnt/home/.sshd/config
"""

_SSHD = """\
ListenAddress {address}
HostKey /mnt/home/.sshd/key
PidFile none
PasswordAuthentication no
AuthorizedKeysFile /mnt/home/.ssh/authorized_keys
PermitRootLogin prohibit-password
UsePAM no
# without it, Ray would size the object store by the memory of the real computer
SetEnv RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES={store}
"""


def missing() -> str:
    """Return why hosts cannot be made on this computer, or an empty string."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "needs root on Linux, to make namespaces"
    lacking = [package for tool, package in _TOOLS.items() if shutil.which(tool, path=_search_path()) is None]
    if lacking:
        return f"needs apt-get install {' '.join(lacking)}"
    for private in ("/tmp", "/mnt", "/run"):
        if REPOSITORY.is_relative_to(private):
            return f"this checkout is below {private}, which is private to each host; clone it elsewhere"
    probe = "unshare --net --mount --pid --uts --fork ip link add bridge0 type bridge"
    done = subprocess.run(probe.split(), capture_output=True, text=True, check=False)
    return f"needs network namespaces with a bridge ({done.stderr.strip()})" if done.returncode else ""


class Hosts:
    """A context with the hosts `names` and `laptop` on one network."""

    def __init__(self, base: Path, names: Sequence[str], memory_mb: int = 200) -> None:
        self.base = base
        self.addresses = {LAPTOP: f"{_NETWORK}.1"} | {
            name: f"{_NETWORK}.{number}" for number, name in enumerate(names, start=11)
        }
        self._memory_mb = memory_mb
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Hosts:
        self._prepare()
        for name in self.addresses:
            self.power_on(name)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for name in list(self._running):
            self.power_off(name)

    def power_on(self, name: str) -> None:
        """Start a host. Its home survives from before; /tmp and /dev/shm are new."""
        folder = self.base / name
        shutil.rmtree(folder / "tmp", ignore_errors=True)
        (folder / "tmp").mkdir()
        namespaces = ["--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc"]
        arguments = [name, str(folder), str(self.base), str(2 * self._memory_mb)]
        with open(folder / "sshd.log", "ab") as log:
            self._running[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "unshare", *namespaces, "bash", "-c", _BOOT, "boot", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_environment(),
            )
        self._connect(name)
        # sshd starts when the host reads this pipe, after its address is set
        (folder / "home/.sshd/power").write_text("on\n")
        _wait(lambda: self.run(name, "ss -tlnH sport = :22").stdout.strip() != "", f"sshd of {name}")

    def power_off(self, name: str) -> None:
        """Kill a host with all its processes, as a power cut would."""
        process = self._running.pop(name)
        process.kill()
        process.wait()

    def run(self, name: str, command: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Run a shell command on a host; `stdout` of the result holds its output and its errors."""
        return subprocess.run(
            [*self._enter(name), command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            env=_environment(),
            check=False,
        )

    def start(self, name: str, command: str, log: Path) -> subprocess.Popen[bytes]:
        """Start a shell command on a host in the background; it ends with the host."""
        with open(log, "wb") as file:
            return subprocess.Popen(
                [*self._enter(name), command],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=_environment(),
            )

    def cluster_file(self, head: str, workers: Sequence[str]) -> str:
        """Write configs/cluster/onprem.yaml for these hosts, one CPU each, and return its path on the laptop."""
        cluster = yaml.safe_load((REPOSITORY / "configs/cluster/onprem.yaml").read_text())
        addresses = [self.addresses[worker] for worker in workers]
        cluster["provider"] |= {"head_ip": self.addresses[head], "worker_ips": addresses}
        cluster["auth"]["ssh_user"] = "root"
        cluster |= {"min_workers": len(workers), "max_workers": len(workers)}
        stop, start = cluster["worker_start_ray_commands"]
        cluster["worker_start_ray_commands"] = [stop, start.replace("--block", "--block --num-cpus=1")]
        (self.base / LAPTOP / "home/cluster.yaml").write_text(yaml.safe_dump(cluster, sort_keys=False))
        return "/mnt/home/cluster.yaml"

    def processes(self, name: str) -> list[str]:
        """Return the command lines of a host's processes, except its sshd and this query."""
        listed = self.run(name, "ps -eo args --no-headers").stdout.splitlines()
        return [line for line in listed if not line.startswith(("sshd", "/usr/sbin/sshd", "ps ", "bash -c cd && eval"))]

    def _prepare(self) -> None:
        shared = self.base / "shared"
        shared.mkdir(parents=True)
        (self.base / "passwd").write_text(
            "root:x:0:0:root:/mnt/home:/bin/bash\nsshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n"
        )
        lines = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in self.addresses.items())]
        (self.base / "hosts").write_text("\n".join(lines) + "\n")
        laptop = self.base / LAPTOP / "home/.ssh/id_ed25519"
        for name in self.addresses:
            self._prepare_home(name)
        _keygen(laptop)
        for name in self.addresses:
            shutil.copy(laptop.with_suffix(".pub"), self.base / name / "home/.ssh/authorized_keys")

    def _prepare_home(self, name: str) -> None:
        home = self.base / name / "home"
        (home / ".ssh").mkdir(parents=True, mode=0o700)
        (home / ".sshd").mkdir(mode=0o700)
        _keygen(home / ".sshd/key")
        os.mkfifo(home / ".sshd/power")
        (home / ".sshd/config").write_text(
            _SSHD.format(address=self.addresses[name], store=self._memory_mb * 1_000_000)
        )
        # configs/cluster/onprem.yaml installs the project here
        (home / "genre").mkdir()
        (home / "genre/.venv").symlink_to(Path(sys.prefix))

    def _connect(self, name: str) -> None:
        """Give a host its address and connect it to the bridge, which is on the laptop."""
        address = f"{self.addresses[name]}/24"
        own = self._network(name)
        if name == LAPTOP:
            lines = ["link add bridge0 type bridge", f"addr add {address} dev bridge0", "link set bridge0 up"]
        else:
            port = f"v{self.addresses[name].rpartition('.')[2]}"
            bridge = self._network(LAPTOP)
            _ip(bridge, f"link add {port} type veth peer name eth0 netns {self.first_process(name)}")
            _ip(bridge, f"link set {port} master bridge0 up")
            # Ray learns its own address from the default route
            lines = [f"addr add {address} dev eth0", "link set eth0 up", f"route add default via {_NETWORK}.1"]
        for line in ["link set lo up", *lines]:
            _ip(own, line)

    def _enter(self, name: str) -> list[str]:
        """Return the command prefix that runs a shell command inside a host."""
        return ["nsenter", "--target", self.first_process(name), "--all", "bash", "-c", 'cd && eval "$0"']

    def _network(self, name: str) -> list[str]:
        return ["nsenter", "--target", self.first_process(name), "--net"]

    def first_process(self, name: str) -> str:
        """Return the id, on this computer, of a host's process 1."""
        parent = self._running[name].pid
        children = Path(f"/proc/{parent}/task/{parent}/children")
        _wait(lambda: children.read_text().strip() != "", f"the first process of {name}")
        return children.read_text().split()[0]


def _ip(inside: list[str], arguments: str) -> None:
    subprocess.run([*inside, "ip", *arguments.split()], check=True)


def _keygen(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)], check=True)


def _environment() -> dict[str, str]:
    """Return the environment of a login on a host, free of the caller's variables."""
    return {"PATH": _search_path(), "HOME": "/mnt/home", "USER": "root", "LANG": "C.UTF-8", "SHELL": "/bin/bash"}


def _search_path() -> str:
    return f"{sys.prefix}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def _wait(condition: Callable[[], bool], what: str, seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not start within {seconds:g} s")
        time.sleep(0.05)


def main(base: Path) -> None:
    """Run a head and two workers until interrupted, for trying things by hand."""
    if reason := missing():
        sys.exit(f"error: {reason}")
    with Hosts(base, ["head", "worker-1", "worker-2"]) as hosts:
        print(f"up, in {base}; on the laptop, {hosts.cluster_file('head', ['worker-1', 'worker-2'])} describes them")
        for name in hosts.addresses:
            print(f"  {name}: nsenter --target {hosts.first_process(name)} --all env HOME=/mnt/home bash")
        sys.stdout.flush()
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
