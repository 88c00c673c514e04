"""Compare clips with the frames first, as they are stored, with clips with the bins first.

    python benchmarks/clip_layout.py [--clips 2000] [--rounds 31] [--folder FOLDER]

One thread, clips of 128 x 1292 bytes, windows of 128 frames; both layouts take turns in every round, and each figure is
the median over the rounds. In CPU time: `cut` copies random windows out of an array in memory; `normalise` makes them
float32 with the bins first, on the CPU; `encode` turns the log-mel of a clip into bytes. In wall time: `cold` cuts 256
windows out of a file in FOLDER that is mapped into memory and not in the page cache: with the kernel's read-ahead;
without (MADV_RANDOM); and without, each window announced before the first is cut (MADV_WILLNEED), so that the disk
serves many at a time. Bytes are those that the kernel read, by /proc/self/io. A disk of a virtual machine may have a
cache of its own. Linux only.
"""

from __future__ import annotations

import argparse
import mmap
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from genre.arrays import Bytes, Float32, Ints
from genre.audio.spectrogram import LogMel
from genre.features import Clips, Shape, encode, windows
from genre.model.classifier import Classifier
from genre.settings import SpectrogramSettings

BINS, CLIP_FRAMES, FRAMES, RATE = 128, 1292, 128, 22050
BATCHES = (32, 64, 128, 256)  # windows
COLD_WINDOWS = 256

Step = Callable[[Ints, Ints], Any]  # what is done with the windows that begin in these clips at these frames


def clips_of(spectrograms: Bytes) -> Clips:
    """Return clips (clips, frames, bins) with one track each."""
    rows = np.arange(len(spectrograms))
    names = rows.astype(np.str_)
    shape = Shape(BINS, CLIP_FRAMES, 80.0, 512 / RATE)
    return Clips(spectrograms, np.zeros(len(rows), np.float32), rows, names, rows, names, shape)


def cut_bins_first(spectrograms: Bytes, rows: Ints, starts: Ints) -> Bytes:
    """Return windows (batch, bins, frames) of clips (clips, bins, frames)."""
    view = np.lib.stride_tricks.sliding_window_view(spectrograms, FRAMES, axis=2)
    return np.asarray(view[rows, :, starts])


def cut_frames_first(clips: Clips, rows: Ints, starts: Ints) -> Bytes:
    return windows.cut(clips, rows, starts, FRAMES).spectrograms


def turns(steps: dict[str, Step], batch: int, clips: int, rounds: int) -> dict[str, float]:
    """Return the median microseconds of CPU time for one window of each step, all with windows of their own."""
    rng = np.random.default_rng(0)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            rows, starts = rng.integers(0, clips, batch), rng.integers(0, CLIP_FRAMES - FRAMES + 1, batch)
            begin = time.process_time()
            step(rows, starts)
            seconds[name].append(time.process_time() - begin)
    return {name: 1e6 * statistics.median(times) / batch for name, times in seconds.items()}


def in_memory(old: Bytes, new: Bytes, rounds: int) -> None:
    clips = clips_of(new)
    classifier = Classifier(nn.Identity(), np.full(BINS, -40, np.float32), np.full(BINS, 15, np.float32), 80.0)
    for batch in BATCHES:
        cuts = {
            "frames first": lambda rows, starts: cut_frames_first(clips, rows, starts),
            "bins first": lambda rows, starts: cut_bins_first(old, rows, starts),
        }
        report(f"cut, {batch} windows", turns(cuts, batch, len(new), rounds))
        stored = torch.from_numpy(cut_frames_first(clips, np.arange(batch), np.arange(batch)))
        by_bins, peaks = stored.transpose(1, 2).contiguous(), torch.zeros(batch)
        scale, offset = 80 / 255 / classifier.std, (-80 - classifier.mean) / classifier.std
        steps: dict[str, Step] = {
            "frames first": lambda *_: classifier.normalised(stored, peaks),  # noqa: B023 - called in this turn
            "bins first": lambda *_: by_bins.float().mul_(scale).add_(offset),  # noqa: B023
        }
        report(f"normalise, {batch} windows", turns(steps, batch, len(new), rounds))


def encoding(rounds: int) -> None:
    rng = np.random.default_rng(0)
    wave = (0.1 * rng.standard_normal(30 * RATE)).astype(np.float32)
    log_mel = LogMel(SpectrogramSettings(), RATE)
    levels = log_mel(wave)

    def bins_first(levels: Float32) -> bytes:
        return encode(levels, 80.0)[0].T.tobytes()

    def frames_first(levels: Float32) -> bytes:
        return encode(levels, 80.0)[0].tobytes()

    steps = {"frames first": lambda *_: frames_first(levels), "bins first": lambda *_: bins_first(levels)}
    report("encode a clip", turns(steps, 1, 1, 10 * rounds))
    steps = {
        "frames first": lambda *_: frames_first(log_mel(wave)),
        "bins first": lambda *_: bins_first(log_mel(wave)),
    }
    report("log-mel and encode a clip", turns(steps, 1, 1, 10 * rounds))


def from_disk(old: Bytes, new: Bytes, folder: str, rounds: int) -> None:
    """Cut windows out of cold files; each turn first drops the file from the page cache."""
    with tempfile.TemporaryDirectory(dir=folder) as home:
        files = {"frames first": MappedFile(Path(home) / "new", new), "bins first": MappedFile(Path(home) / "old", old)}
        for title in ("read-ahead", "random", "announced"):
            seconds: dict[str, list[float]] = {name: [] for name in files}
            read: dict[str, list[float]] = {name: [] for name in files}
            rng = np.random.default_rng(0)
            for _ in range(rounds):
                for name, file in files.items():
                    rows = rng.integers(0, len(new), COLD_WINDOWS)
                    starts = rng.integers(0, CLIP_FRAMES - FRAMES + 1, COLD_WINDOWS)
                    file.drop()
                    before, begin = read_bytes(), time.perf_counter()
                    spectrograms = file.open(title, rows, starts)
                    if name == "frames first":
                        cut_frames_first(clips_of(spectrograms), rows, starts)
                    else:
                        cut_bins_first(spectrograms, rows, starts)
                    seconds[name].append(1e6 * (time.perf_counter() - begin) / COLD_WINDOWS)
                    read[name].append((read_bytes() - before) / COLD_WINDOWS / 1000)
            report(f"cold, {title}", {name: statistics.median(times) for name, times in seconds.items()})
            report(f"cold, {title}: read", {name: statistics.median(amounts) for name, amounts in read.items()}, "kB")


class MappedFile:
    """A file that holds clips of either layout."""

    def __init__(self, path: Path, spectrograms: Bytes) -> None:
        self._path, self._shape = path, spectrograms.shape
        spectrograms.tofile(path)
        os.sync()  # pages that are not on the disk yet cannot be dropped

    def drop(self) -> None:
        """Drop the file from the page cache."""
        with self._path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def open(self, access: str, rows: Ints, starts: Ints) -> Bytes:
        """Return the content, mapped into memory, for windows that begin in the clips `rows` at the frames `starts`."""
        with self._path.open("rb") as file:
            content = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        content.madvise(mmap.MADV_NORMAL if access == "read-ahead" else mmap.MADV_RANDOM)
        if access == "announced":
            is_run = self._shape[1] == CLIP_FRAMES
            begins = rows * BINS * CLIP_FRAMES + (starts * BINS if is_run else 0)
            length = BINS * (FRAMES if is_run else CLIP_FRAMES)
            for begin in begins.tolist():
                page = begin // mmap.PAGESIZE * mmap.PAGESIZE
                content.madvise(mmap.MADV_WILLNEED, page, begin + length - page)
        return np.frombuffer(content, np.uint8).reshape(self._shape)


def read_bytes() -> int:
    """Return the bytes that this process has had read from disks."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("read_bytes")))


def report(title: str, figures: dict[str, float], unit: str = "us") -> None:
    new, old = figures["frames first"], figures["bins first"]
    print(f"{title:<28}{new:>12.2f} {unit}{old:>12.2f} {unit}{old / max(new, 1e-9):>9.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--folder", help="on the disk to measure; default: that for temporary files")
    options = parser.parse_args()
    torch.set_num_threads(1)
    old = np.random.default_rng(0).integers(0, 256, (options.clips, BINS, CLIP_FRAMES), dtype=np.uint8)
    new = np.ascontiguousarray(old.transpose(0, 2, 1))
    print(f"{'for a window or a clip':<28}{'frames first':>15}{'bins first':>15}{'times':>9}")
    in_memory(old, new, options.rounds)
    encoding(options.rounds)
    from_disk(old, new, options.folder or tempfile.gettempdir(), options.rounds)


if __name__ == "__main__":
    main()
