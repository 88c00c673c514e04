"""Find out why a trial ended with an error.

Ray reports that a process died, but not by which signal.
"""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import functools
import signal
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from ray import tune
from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError

from genre.errors import DeviceError, GenreError, MachineError, StorageError, last_line, one_line
from genre.settings import Config
from genre.storage import Location
from genre.storage.faults import is_fault

# what a process lacks or loses on its machine, whatever it reads: memory, open files, another process
_OF_THE_PROCESS = (errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EPIPE)
TRIES = 2  # how often a trial is started whose process dies or raises

# what Python's faulthandler writes first (CPython's Modules/faulthandler.c); the hyphen came with 3.13
_FAULTS = {
    "Fatal Python error: Aborted": signal.SIGABRT,
    "Fatal Python error: Bus error": signal.SIGBUS,
    "Fatal Python error: Floating point exception": signal.SIGFPE,
    "Fatal Python error: Floating-point exception": signal.SIGFPE,
    "Fatal Python error: Illegal instruction": signal.SIGILL,
    "Fatal Python error: Segmentation fault": signal.SIGSEGV,
}

Train = Callable[..., None]


def record_faults(train: Train) -> Train:
    """Wrap `train` so that faulthandler writes fatal signals to a file in OUTPUT/tune/exits while it runs.

    Without effect where OUTPUT is in an object store, since a dying process cannot upload.
    """

    @functools.wraps(train)
    def run(trial: dict[str, Any], base: Config, **arguments: Any) -> None:
        file = _file(Location.of(base.output), tune.get_context().get_trial_dir())
        with _faults_to(file) if file else contextlib.nullcontext():
            train(trial, base, **arguments)

    return run


def reason(output: Location, result: tune.Result) -> str:
    """Return in one line why a trial ended with an error, and how often it was started."""
    error, file = result.error, _file(output, result.path)
    why = last_line(error)
    if isinstance(error, RayActorError):
        why = "its process died"
        if file and file.exists():
            fault = next(iter(file.read_text("utf-8", errors="replace").splitlines()), "")
            number = _FAULTS.get(fault)
            # a process cannot record SIGKILL, which the kernel sends when memory runs out
            why = (
                f"killed by signal {number} ({number.name})"
                if number
                else "killed without a trace, as by signal 9 (SIGKILL)"
            )
    return f"{why}, tried {TRIES} times"


def fault(output: Location, result: tune.Result) -> GenreError | None:
    """Return the error that ends the job, if a storage or a machine was the reason; None if the trial was.

    Such a trial says nothing about its settings: the same command has to repeat it.
    """
    error = getattr(result.error, "cause", None)
    if isinstance(error, (StorageError, DeviceError, MachineError)):
        return error
    if isinstance(error, OSError) and error.errno not in _OF_THE_PROCESS and is_fault(error, output / "tune"):
        name = PurePosixPath(result.path).name
        return StorageError(
            f"trial {name} cannot reach its storage ({one_line(error)}); run the same command again when it answers"
        )
    return None


def cause(error: RayError) -> str:
    """Return in one line why a task failed."""
    if isinstance(error, RayTaskError):
        raised = getattr(error, "cause", None)
        return str(raised) if isinstance(raised, GenreError) else last_line(error)
    return "its process ran out of memory" if isinstance(error, OutOfMemoryError) else "its process died"


def _file(output: Location, trial: str) -> Path | None:
    """Return the fault file of the trial whose log folder is `trial`; None if `output` is in an object store."""
    return Path(output.path, "tune", "exits", f"{PurePosixPath(trial).name}.txt") if output.is_local else None


@contextlib.contextmanager
def _faults_to(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        faulthandler.enable(file, all_threads=False)
        try:
            yield
        finally:
            faulthandler.enable(all_threads=False)  # to the worker's log, as Ray had set it
            path.unlink(missing_ok=True)
