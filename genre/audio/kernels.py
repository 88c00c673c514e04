"""The loops before and after the spectrogram's FFT, compiled by numba. Each passes once over memory, numpy often.

Compiling takes two seconds of CPU time, loading the compiled code a third of a second. The first process on a machine
compiles, processes that start meanwhile wait for it, and later processes load. The cache holds machine code, so its
folder belongs to the user and is named after everything that the code depends on: code of another user, another version
or another processor is never loaded.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import pickle
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from genre.arrays import Bools, Float32, Float64, Ints

Floats = Float32 | Float64

FRAMES = 4  # processed together by `weigh`, so that each weight is loaded once for all of them
LANES = 8  # spectrum values multiplied in one step of `weigh`


def emphasised(
    padded: Float32, first: int, hop: int, ahead: Float32, here: Float32, frames: Float32, energy: Float32
) -> None:
    """Write `frames` (n, n_fft) from frame `first` on, windowed and emphasised, and the energy of each (n,).

    Sample j of a frame is `ahead[j] * x[j + 1] - here[j] * x[j]`.
    """
    length = len(ahead)
    for i in range(len(frames)):
        begin = (first + i) * hop
        samples = padded[begin : begin + length]
        following = padded[begin + 1 : begin + 1 + length]
        frame = frames[i]
        total = np.float32(0)
        for j in range(length):
            value = ahead[j] * following[j] - here[j] * samples[j]
            frame[j] = value
            total += value * value
        energy[i] = total


def windowed(padded: Float32, rows: Ints, hop: int, window: Float64, frames: Float64) -> None:
    """Write the frames with the numbers `rows` (n,), windowed, to `frames` (n, n_fft)."""
    for i in range(len(frames)):
        samples = padded[rows[i] * hop : rows[i] * hop + len(window)]
        frame = frames[i]
        for j in range(len(window)):
            frame[j] = window[j] * samples[j]


def weigh(spectra: Floats, lows: Ints, starts: Ints, weights: Float32, squares: Float32, power: Float32) -> None:
    """Write the mel `power` (n, n_mels) of OpenCV's packed spectra (n, n_fft).

    Band b weights the bins from `1 + lows[b]` on by `weights[starts[b]:starts[b + 1]]`. No band includes bin 0.
    `squares` (FRAMES, bins) is scratch memory: values beyond the last bin must be 0.
    """
    count, length = spectra.shape
    last = count - 1  # repeated where the last group has fewer frames
    for i in range(0, count, FRAMES):
        for f in range(FRAMES):
            spectrum = spectra[min(i + f, last)]
            row = squares[f]
            # unsigned: numba would check signed indices for negative values
            for k in range(np.uint64((length - 1) // 2)):
                real = np.float32(spectrum[np.uint64(2) * k + np.uint64(1)])
                imaginary = np.float32(spectrum[np.uint64(2) * k + np.uint64(2)])
                row[k] = real * real + imaginary * imaginary
            if length % 2 == 0:
                real = np.float32(spectrum[length - 1])
                row[length // 2 - 1] = real * real
        for band in range(len(lows)):
            low, start, end = lows[band], starts[band], starts[band + 1]
            share = weights[start:end]
            a, b, c, d = squares[0, low:], squares[1, low:], squares[2, low:], squares[3, low:]
            sum_a = sum_b = sum_c = sum_d = np.float32(0)
            for k in range(np.uint64(end - start)):
                weight = share[k]
                sum_a += weight * a[k]
                sum_b += weight * b[k]
                sum_c += weight * c[k]
                sum_d += weight * d[k]
            power[i, band] = sum_a
            power[min(i + 1, last), band] = sum_b
            power[min(i + 2, last), band] = sum_c
            power[min(i + 3, last), band] = sum_d


def suspects(power: Float32, energy: Float32, least: Float32, lowest: float, suspect: Bools) -> None:
    """Mark in `suspect` (n,) the frames with a band above `lowest` that is below the share `least` of their energy."""
    floor = np.float32(lowest)
    for i in range(len(power)):
        bands = power[i]
        total = energy[i]
        count = 0
        for b in range(len(least)):
            count += (bands[b] < total * least[b]) & (bands[b] > floor)
        suspect[i] = count > 0


@dataclass(frozen=True)
class Kernels:
    """The functions of this module as machine code."""

    emphasised: Callable[..., None]
    windowed: Callable[..., None]
    weigh: Callable[..., None]
    suspects: Callable[..., None]


_SIGNATURES: dict[Callable[..., None], list[str]] = {
    emphasised: ["void(float32[::1], int64, int64, float32[::1], float32[::1], float32[:, ::1], float32[::1])"],
    windowed: ["void(float32[::1], int64[::1], int64, float64[::1], float64[:, ::1])"],
    weigh: [
        f"void({kind}[:, ::1], int64[::1], int64[::1], float32[::1], float32[:, ::1], float32[:, ::1])"
        for kind in ("float32", "float64")
    ],
    suspects: ["void(float32[:, ::1], float32[::1], float32[::1], float64, boolean[::1])"],
}
# Sums in any order, so that the processor can add several values at once.
_OPTIONS: dict[str, Any] = {"fastmath": {"contract", "reassoc", "nsz"}, "nogil": True, "error_model": "numpy"}


@cache
def compiled() -> Kernels:
    """Return the kernels for this processor, loaded or, the first time on a machine, compiled."""
    folder = _folder()
    if folder is None:
        return _compile(None)
    ready = folder / "ready"
    try:
        with contextlib.nullcontext() if ready.exists() else _lock(folder):
            kernels = _compile(folder)
            ready.touch()
    except (OSError, EOFError, pickle.UnpicklingError):  # no space, or a file truncated by a power failure
        shutil.rmtree(folder, ignore_errors=True)
        return _compile(None)
    return kernels


def _compile(folder: Path | None) -> Kernels:
    """Compile every kernel for all its signatures, or load it from the folder if it is there."""
    import numba  # takes 0.4 s, and only decoding processes need it

    config: Any = numba.config
    before = config.CACHE_DIR
    config.CACHE_DIR = str(folder or "")  # read when a function is decorated
    try:
        dispatchers = {
            function.__name__: numba.njit(signatures, cache=folder is not None, **_OPTIONS)(function)
            for function, signatures in _SIGNATURES.items()
        }
    finally:
        config.CACHE_DIR = before
    return Kernels(**dispatchers)


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`, so that one process at a time compiles into it."""
    with (folder / "lock").open("w") as file:
        # a network file system may have no locks: then several processes compile, without harm
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _folder() -> Path | None:
    """Return the folder for these kernels on this processor, in the first parent that only this user can write to.

    numba numbers its files in an index that it rewrites. Two versions or two processors that share a folder, such as a
    home on a network, could load each other's code, so each has its own folder.
    """
    import numba

    facts = (Path(__file__).read_bytes(), sys.version, numba.__version__, *_processor())
    name = hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
    for parent in _parents():
        folder = parent / name
        with contextlib.suppress(OSError):
            parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.mkdir(mode=0o700, exist_ok=True)
            if _is_private(parent) and _is_private(folder):
                return folder
    return None


def _processor() -> tuple[str, str]:
    """Return the name and the instruction sets of the processor that numba compiles for."""
    import llvmlite.binding as llvm
    import numba

    config: Any = numba.config
    name = config.CPU_NAME or llvm.get_host_cpu_name()
    chosen = config.CPU_FEATURES
    return name, llvm.get_host_cpu_features().flatten() if chosen is None else chosen


def _parents() -> Iterator[Path]:
    """Yield the folders that may hold the cache, best first."""
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    if chosen:
        yield Path(chosen).absolute() / "genre"
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if os.path.isabs(home):
        yield Path(home) / "genre" / "kernels"
    yield Path(tempfile.gettempdir()) / f"genre-kernels-{os.getuid()}"


def _is_private(folder: Path) -> bool:
    """Return whether this user owns the folder, nobody else may write to it, and this process can."""
    facts = folder.lstat()
    is_private = facts.st_uid == os.getuid() and stat.S_ISDIR(facts.st_mode) and not facts.st_mode & 0o022
    return is_private and os.access(folder, os.W_OK | os.X_OK)
