"""How the process of a trial died. Ray's error says that it is gone, and not which signal ended it."""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import signal
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from ray import tune
from ray.exceptions import RayActorError

from genre.settings import Config
from genre.storage import Location

TRIES = 2  # of a trial whose process dies or raises; a lost loss is not tried again

# what Python's faulthandler writes first (CPython's Modules/faulthandler.c); the hyphen came with 3.13
_FAULTS = {
    "Fatal Python error: Aborted": signal.SIGABRT,
    "Fatal Python error: Bus error": signal.SIGBUS,
    "Fatal Python error: Floating point exception": signal.SIGFPE,
    "Fatal Python error: Floating-point exception": signal.SIGFPE,
    "Fatal Python error: Illegal instruction": signal.SIGILL,
    "Fatal Python error: Segmentation fault": signal.SIGSEGV,
}

Train = Callable[[dict[str, Any], Config, Any], None]


def recorded(train: Train) -> Train:
    """Make `train` keep a record in OUTPUT/tune/exits while it runs: empty until a signal kills its process.

    Not where OUTPUT is an object store: a process that dies cannot upload.
    """

    @functools.wraps(train)
    def run(trial: dict[str, Any], base: Config, shared: Any) -> None:
        record = _record(Location.of(base.output), tune.get_context().get_trial_dir())
        with _faults(record) if record else contextlib.nullcontext():
            train(trial, base, shared)

    return run


def reason(output: Location, result: tune.Result) -> str:
    """Why a trial that ended with an error did, in a line, and how often it was tried."""
    error, record = result.error, _record(output, result.path)
    why = last_line(error)
    if isinstance(error, RayActorError):
        why = "its process died"
        if record and record.exists():
            fault = next(iter(record.read_text("utf-8", errors="replace").splitlines()), "")
            number = _FAULTS.get(fault)
            # no process can record a SIGKILL, which is what the kernel sends where memory runs out
            why = (
                f"killed by signal {number} ({number.name})"
                if number
                else "killed without a trace, as by signal 9 (SIGKILL)"
            )
    return f"{why}, tried {TRIES} times"


def last_line(error: BaseException) -> str:
    """The last line of a trial's error, which names it, without the stack above."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _record(output: Location, trial: str) -> Path | None:
    """The record of the trial whose folder is called like the end of the path `trial`."""
    return Path(output.path, "tune", "exits", f"{PurePosixPath(trial).name}.txt") if output.is_local else None


@contextlib.contextmanager
def _faults(record: Path) -> Iterator[None]:
    record.parent.mkdir(parents=True, exist_ok=True)
    with record.open("w") as file:
        faulthandler.enable(file, all_threads=False)
        try:
            yield
        finally:
            faulthandler.enable(all_threads=False)  # as Ray has it, to the worker's log
            record.unlink(missing_ok=True)
