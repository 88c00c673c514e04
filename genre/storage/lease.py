"""One writer for an output: a small file in it says which job holds it.

The holder renews its lease every few seconds. A job that finds a lease of this machine is refused at once if its
process lives, and takes it over if not. The lease of another machine is watched: if it is renewed, the job is refused;
if not, it is stale after a minute and is taken over. No clocks of two machines are compared.

A lease is created in one step, locally with O_EXCL and in S3 with a conditional request. Where that cannot be sent, a
job writes its lease, waits, and holds it if it can read it back. A job that later finds another holder in its lease
ends.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from genre.errors import ConfigError, GenreError, one_line
from genre.storage import Location, exclusive, faults, make_folder

FILE = ".lease.json"
RENEWAL_SECONDS = 5.0
STALE_SECONDS = 60.0
_SETTLE_SECONDS = 0.5  # between writing a lease that others may write as well, and reading it back
_POLL_SECONDS = 0.5
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Holder:
    """The process that holds a lease."""

    job: str
    host: str
    machine: str  # differs between machines and containers, where equal process ids are other processes
    pid: int
    started: str  # when the process started, in ticks since the machine booted, since process ids are used again
    since: str
    token: str

    @classmethod
    def this_process(cls, job: str) -> Holder:
        """Return the holder that this process is, with a token of its own."""
        since = datetime.now(UTC).isoformat(timespec="seconds")
        host, pid = socket.gethostname(), os.getpid()
        return cls(job, host, _machine(), pid, _start_of(pid) or "", since, secrets.token_hex(8))

    def has_ended(self) -> bool:
        """Return whether the process was on this machine and has ended."""
        return self.machine == _machine() and _start_of(self.pid) != self.started

    def is_running(self) -> bool:
        """Return whether the process is on this machine and runs."""
        return self.machine == _machine() and not self.has_ended()


@contextlib.contextmanager
def held(output: str, job: str, setting: str = "output") -> Iterator[None]:
    """Hold the lease of an output, the folder that `setting` names, within the block.

    Raises `GenreError` when another job holds it, or takes it over because this process was suspended for too long, and
    `ConfigError` when the output cannot be written. The error of a full disk becomes a `StorageError`.
    """
    lease = _Lease(Location.of(output) / FILE, Holder.this_process(job), setting)
    try:
        lease.take()
    except OSError as error:
        raise ConfigError(
            f"{setting}={output} cannot be written ({one_line(error)}); choose another, or check your access"
        ) from None
    over = threading.Event()
    thread = threading.Thread(target=_keep, args=(lease, over), name="lease", daemon=True)
    thread.start()
    try:
        with faults.full_disk_named(output):
            yield
    except (KeyboardInterrupt, SystemExit):  # SystemExit: while Ray starts, SIGTERM has its handler
        if lease.lost_to is not None:
            raise lease.refusal(lease.lost_to) from None
        raise
    finally:
        over.set()
        thread.join()
        lease.give_back()


def _keep(lease: _Lease, over: threading.Event) -> None:
    """Renew a lease until `over` is set. Interrupt the main thread when another job has taken it."""
    while not over.wait(RENEWAL_SECONDS):
        try:
            lease.renew()
        except OSError as error:  # it stays ours until another job has waited for a minute
            _log.info("the lease %s was not renewed: %s", lease.file, one_line(error))
        if lease.lost_to is not None:
            _interrupt_main()
            return


def _interrupt_main() -> None:
    """Send the main thread a signal that ends it: SIGTERM in a job, which in the background may ignore SIGINT."""
    number = signal.SIGTERM if callable(signal.getsignal(signal.SIGTERM)) else signal.SIGINT
    signal.pthread_kill(threading.main_thread().ident or 0, number)


class _Lease:
    def __init__(self, file: Location, holder: Holder, setting: str = "output") -> None:
        self.file = file
        self._setting = setting  # that names the folder of `file`
        self._holder = holder
        self._renewals = 0
        self.lost_to: Holder | None = None

    def take(self) -> None:
        """Create the lease, or take it over. Raises `GenreError` when it is held, or can never be created."""
        first: bytes | None = None  # the lease of another job as first read; not None: wait, then take it over
        begin = absent_since = time.monotonic()
        while not self._create(takes_over=first is not None):
            state = self._read()
            holder = _parsed(state)
            if state is None:  # it was given back meanwhile; a file that is there now is that of another job
                if time.monotonic() - absent_since > STALE_SECONDS:  # as with a link that leads nowhere
                    raise GenreError(f"{self.file} can be neither created nor read; delete it")
                time.sleep(_POLL_SECONDS)
                continue
            absent_since = time.monotonic()
            if holder and holder.has_ended():
                self.file.delete()
                first = first or state
                continue
            if first is None:
                first, begin = state, time.monotonic()
            if (holder and holder.is_running()) or state != first:
                raise self.refusal(holder)
            if time.monotonic() - begin > STALE_SECONDS:
                self.file.delete()
                continue
            time.sleep(_POLL_SECONDS)

    def refusal(self, holder: Holder | None) -> GenreError:
        """Return the error that names who writes the folder."""
        who = f"{holder.job} (process {holder.pid} on {holder.host}, since {holder.since})" if holder else "another job"
        folder = f"{self._setting}={str(self.file).removesuffix(f'/{FILE}')}"
        return GenreError(f"{folder} is being written by {who}; wait for its end, or choose another {self._setting}")

    def renew(self) -> None:
        """Show that this process lives. Sets `lost_to` when another has taken the lease."""
        state = self._read()
        holder = _parsed(state)
        if holder is not None and holder.token != self._holder.token:
            self.lost_to = holder
        elif self.file.is_local:
            if state is None:  # it was deleted; where its folder is away as well, this raises and makes none
                exclusive.create(self.file, self._content())
            else:
                os.utime(self.file.path)  # not by writing: the lease of another would be overwritten
        else:
            self._renewals += 1
            self.file.write_bytes(self._content())

    def give_back(self) -> None:
        """Delete the lease if it is still ours. One that remains because the storage is unavailable becomes stale."""
        with contextlib.suppress(OSError):
            if self._is_ours():
                self.file.delete()

    def _create(self, takes_over: bool) -> bool:
        """Write the lease unless there is one. Return whether it is ours."""
        if self.file.is_local:
            make_folder(os.path.dirname(self.file.path))
        elif self.file.exists():  # a server may not know the condition, and write nevertheless
            return False
        try:
            created = exclusive.create(self.file, self._content())
        except FileExistsError:
            return self._is_ours()  # a request whose answer was lost is sent twice
        if created and not takes_over:
            return True
        if not created:
            self.file.write_bytes(self._content())
        # another job may write as well; or take over the same stale lease, and delete this one in its place
        time.sleep(_SETTLE_SECONDS)
        return self._is_ours()

    def _is_ours(self) -> bool:
        holder = _parsed(self._read())
        return holder is not None and holder.token == self._holder.token

    def _content(self) -> bytes:
        return json.dumps(asdict(self._holder) | {"renewals": self._renewals}).encode()

    def _read(self) -> bytes | None:
        """Return the content and, of a local file, its time: each renewal changes one of them. None without a file."""
        try:
            if not self.file.is_local:
                return self.file.read_bytes()
            with open(self.file.path, "rb") as file:  # opening makes NFS ask the server
                return file.read() + f"\n{os.fstat(file.fileno()).st_mtime_ns}".encode()
        except FileNotFoundError:
            return None


def _parsed(state: bytes | None) -> Holder | None:
    """Return who wrote a lease; None without one, and while it is being written."""
    try:
        values = json.loads((state or b"").split(b"\n")[0])
        values.pop("renewals")
        return Holder(**values)
    except (ValueError, TypeError, KeyError):
        return None


def _machine() -> str:
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):  # only Linux has these
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return " ".join(parts)


def _start_of(pid: int) -> str | None:
    """Return when a process of this machine started; None when there is none, or it has ended."""
    if not os.path.isdir("/proc/self"):  # not Linux: the process id alone identifies a process
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        return ""
    try:
        # the name of the program, in parentheses, may hold spaces
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
