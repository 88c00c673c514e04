"""Train on features that memory does not hold: speed of the copy on disk, and memory of complete jobs.

    python benchmarks/larger_than_memory.py write FOLDER --clips 100000 [--small]
    python benchmarks/larger_than_memory.py speed FOLDER [--memory 2]
    python benchmarks/larger_than_memory.py jobs FOLDER --memory 4

`write` writes FOLDER/features with clips of 128 x 1292 bytes: 64 distinct ones of ten genres, repeated, so that a
network can learn them, in parts of 64 tracks as `prepare` writes them. With --small the clips are of 16 x 160 bytes, in
parts of 4,096 tracks, for the memory that a long table of tracks takes.

`speed` compares, in turns within one run:
- an epoch of `Trainer` on the mapped copy with one on the same clips in arrays, for the smallest and the largest of the
  six networks and for `tiny`, a cnn with a twentieth of the weights: windows per second, by CPU time on the CPU and by
  the clock with --device cuda, and their ratio, the median over the rounds with its quartiles;
- making the copy with writing as many bytes to the same disk in order, both up to the end of fsync;
- opening the copy, and its first batch;
- cutting windows of a fold, which selects rows of the copy, with those of the training split;
- with --memory GB (root): cutting windows from a copy of twice that size in a memory cgroup, with reading as many
  blocks of the same size at random positions of the same file with as many requests at a time.

`jobs` runs train, pretrain, tune, evaluate and evaluate with two folds on FOLDER, in a memory cgroup with --memory GB
(root). It prints for each the wall time and the largest sum over all of its processes of anonymous and shared memory,
each shared page counted once.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported
REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

import numpy as np
import processes
import pyarrow as pa
import torch

from genre.features import Features, Shape, windows
from genre.features.cache import ClipCache
from genre.features.manifest import SCHEMA_VERSION
from genre.features.schema import WRITE_OPTIONS
from genre.features.splitting.folds import NOT_TEST, Fold
from genre.settings import CacheSettings, TrainSettings
from genre.storage import Location
from genre.training import experiment
from genre.training.experiment import Data, Experiment
from genre.training.trainer import Trainer

SHAPE = Shape(128, 1292, 80.0, 512 / 22050)
SMALL = Shape(16, 160, 80.0, 512 / 22050)
GENRES = [f"genre{number}" for number in range(10)]
SPLITS = ["train"] * 13 + ["valid"] * 3 + ["test"] * 4  # 65, 15 and 20 per cent
PART = 64
SMALL_PART = 4096
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "tiny": ("cnn", {"width": 8, "depth": 4}),
    "cnn": ("cnn", {}),
    "vgg19": ("vgg19", {}),
}
SHORT = ["train.windows_per_clip=1", "train.eval_windows=1", "train.window_seconds=3", "train.batch_size=64"]
CNN = ["architecture=cnn", "architectures.cnn.width=4", "architectures.cnn.depth=3"]
JOBS = {  # the name of the job and its settings
    "train": ["train", *SHORT, *CNN, "train.epochs=2"],
    "pretrain": ["pretrain", *SHORT, *CNN, "pretrain.epochs=1"],
    "tune": [
        "tune",
        *SHORT,
        "tune.architectures=[cnn, crnn]",
        "tune.trials=1",
        "tune.seeds=1",
        "tune.robustness=false",
        "train.epochs=1",
        "architectures.cnn.width=4",
        "architectures.crnn.width=4",
    ],
    "evaluate": ["evaluate"],
    "folds": ["evaluate", "evaluate.folds=2"],
}


def write(folder: Path, clips: int, shape: Shape, part: int) -> None:
    """Write the features; track, genre and split of a clip follow from its number."""
    rng = np.random.default_rng(0)
    (folder / "features/clips").mkdir(parents=True)
    noise = rng.integers(0, 100, (part, shape.frames, shape.bins), dtype=np.uint8)
    ids = [f"{GENRES[number % 10]}/artist {number // 50:05d}/{number:07d}.mp3" for number in range(clips)]
    order = sorted(range(clips), key=lambda number: ids[number])
    parts, band = [], shape.bins // 10
    for begin in range(0, clips, part):
        numbers = order[begin : begin + part]
        bright = noise[: len(numbers)].copy()
        for row, number in enumerate(numbers):
            bright[row, :, band * (number % 10) : band * (number % 10) + band] += 100
        table = pa.table(
            {
                "track_id": [ids[number] for number in numbers],
                "clip": pa.array([0] * len(numbers), pa.int32()),
                "start_seconds": pa.array([0.0] * len(numbers), pa.float32()),
                "peak_db": pa.array(rng.uniform(-10, 10, len(numbers)), pa.float32()),
                "spectrogram": pa.array([clip.tobytes() for clip in bright], pa.binary(shape.bytes)),
            },
            schema=shape.clip_schema(),
        )
        (Location.of(folder) / "features" / "clips" / f"{begin:07d}.parquet").write_table(table, **WRITE_OPTIONS)
        parts += [f"{begin:07d}.parquet"] * len(numbers)
    tracks = {
        "track_id": [ids[number] for number in order],
        "path": [f"/music/{ids[number]}" for number in order],
        "group": [f"artist {number // 10:06d}" for number in order],
        "sound": [f"{number:032x}" for number in order],
        "genre": [GENRES[number % 10] for number in order],
        "split": [SPLITS[number // 10 % len(SPLITS)] for number in order],
        "clips": pa.array([1] * clips, pa.int32()),
        "part": parts,
    }
    (Location.of(folder) / "features" / "tracks.parquet").write_table(pa.table(tracks))
    manifest = {"stage": "features", "schema_version": SCHEMA_VERSION, "shape": vars(shape), "classes": GENRES}
    (Location.of(folder) / "features" / "manifest.json").write_json(manifest)


def speed(folder: Path, memory_gb: float, rounds: int, device: torch.device) -> None:
    features = Features.open(Location.of(folder) / "features")
    with tempfile.TemporaryDirectory(dir=folder) as cache_folder:
        cache = ClipCache.of(features, CacheSettings(folder=cache_folder))
        making(cache, Path(cache_folder))
        started = time.perf_counter()
        data = Data.open(cache)
        next(windows.training_windows(data.train, 129, 10, 64, (0,)))
        print(f"open a warm copy and cut the first batch: {time.perf_counter() - started:.2f} s")
        print("| network | arrays, windows/s | copy, windows/s | ratio [quartiles] |\n|---|---:|---:|---:|")
        for name in NETWORKS:
            training(name, data, rounds, device)
        del data
        of_fold(cache, rounds)
        if memory_gb:
            random_windows(cache, Path(cache_folder), memory_gb)


def making(cache: ClipCache, folder: Path) -> None:
    """Time the making of the copy, and the writing of as many bytes."""
    size = sum(map(cache.features.clip_count, cache.splits)) * SHAPE.bytes
    started = time.perf_counter()
    cache.open()
    made = time.perf_counter() - started
    block = memoryview(bytes(PART * SHAPE.bytes))
    started = time.perf_counter()
    with (folder / "plain").open("wb", buffering=0) as file:
        for _ in range(0, size, len(block)):
            file.write(block)
        os.fsync(file.fileno())
    plain = time.perf_counter() - started
    (folder / "plain").unlink()
    print(f"make the copy: {size / made / 1e6:.0f} MB/s; write: {size / plain / 1e6:.0f} MB/s; {plain / made:.2f}")


def training(name: str, data: Data, rounds: int, device: torch.device) -> None:
    """Compare epochs on the copy with epochs on arrays."""
    architecture, params = NETWORKS[name]
    clips = 4000 if name == "tiny" or device.type == "cuda" else 64
    small = replace(
        data.train,
        stored=data.train.spectrograms[:clips],
        peak_db=data.train.peak_db[:clips],
        track=data.train.track[:clips],
    )
    arrays = replace(small, stored=small.spectrograms.copy(), source=None)
    settings = TrainSettings(window_seconds=3.0, windows_per_clip=1, batch_size=32, epochs=2 * rounds)
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    speeds: dict[str, list[float]] = {"arrays": [], "copy": []}
    trainers = {}
    for kind, train in {"arrays": arrays, "copy": small}.items():
        planned = Experiment(architecture, params, settings)
        trainers[kind] = experiment.trainer_for(planned, replace(data, train=train), device)[1]
    for number in range(rounds):
        for kind in trainers if number % 2 else reversed(trainers):
            seconds, cut = timed(trainers[kind], number + 1, clock)
            speeds[kind].append(cut / seconds)
    # of paired rounds: the best of each differ by 6 % between two equal arrays
    low, ratio, high = np.percentile(np.divide(speeds["copy"], speeds["arrays"]), [25, 50, 75])
    medians = " | ".join(f"{np.median(each):.1f}" for each in speeds.values())
    print(f"| {name} | {medians} | {ratio:.3f} [{low:.3f} {high:.3f}] |", flush=True)


def of_fold(cache: ClipCache, rounds: int) -> None:
    """Compare the cutting of windows of a fold, which selects rows of the copy, with that of the training split."""
    fold = ClipCache.of(cache.features.of_fold(Fold(1, 5, 0, NOT_TEST)), cache.settings)
    best: dict[str, float] = {}
    clips = {"split": cache.open().clips["train"], "fold": fold.open().clips["train"]}
    for number in range(2 * rounds):
        for kind in clips if number % 2 else reversed(clips):
            started = time.process_time()
            cut = sum(len(batch.labels) for batch in windows.training_windows(clips[kind], 129, 4, 64, (number,)))
            best[kind] = max(best.get(kind, 0.0), cut / (time.process_time() - started))
    print(f"cut windows: split {best['split']:.0f}/s, fold {best['fold']:.0f}/s, {best['fold'] / best['split']:.3f}")


def timed(trainer: Trainer, epoch: int, clock: Callable[[], float]) -> tuple[float, int]:
    """Return the seconds of an epoch by `clock`, and its windows."""
    started = clock()
    result = trainer.train_epoch(epoch)  # ends when the device has finished
    return clock() - started, result.windows


def random_windows(cache: ClipCache, folder: Path, memory_gb: float) -> None:
    """Compare windows of an epoch with reads of as many blocks, where memory holds a part of the copy."""
    (file,) = folder.glob("features-*/clips")
    length = 129 * SHAPE.bins
    count = 20_000
    offsets = np.random.default_rng(1).integers(0, (file.stat().st_size - length) // SHAPE.bins, count) * SHAPE.bins

    def epoch() -> None:
        cut = 0
        for batch in windows.training_windows(cache.open().clips["train"], 129, 1, 64, (0, int(time.time()))):
            cut += len(batch.labels)
            if cut >= count:
                return

    def reads() -> None:
        with file.open("rb", buffering=0) as stream, ThreadPoolExecutor(64) as pool:
            list(pool.map(lambda offset: os.pread(stream.fileno(), length, offset), offsets.tolist()))

    size = f"{file.stat().st_size / 1e9:.1f} GB in {memory_gb:g} GiB"
    with processes.memory_limit(memory_gb):
        for name, work in {"windows of the copy": epoch, "reads by 64 threads": reads}.items():
            with file.open("rb") as stream:  # pages that were read before the limit do not count towards it
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            print(f"{name}: {count / wall_seconds(work):.0f} a second of {size}", flush=True)


def wall_seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def jobs(folder: Path, memory_gb: float, names: list[str]) -> None:
    """Run jobs one after another, each in its own cgroup, and print their times and memory."""
    clips = Features.open(Location.of(folder) / "features").manifest.counts.tracks
    print("| job | clips | seconds | anonymous and shared, MiB | of the driver |\n|---|---:|---:|---:|---:|")
    shutil.rmtree(folder / "cache", ignore_errors=True)
    for name in names:
        job_name, *own = JOBS[name]
        command = [sys.executable, "-m", f"ray_jobs.{job_name}", f"output={folder}", f"cache.folder={folder / 'cache'}"]
        settings = [*own, "cluster.cpus=2", "cluster.object_store_mb=500"]
        started = time.perf_counter()
        with processes.memory_limit(memory_gb):
            job = subprocess.Popen([*command, *settings], cwd=REPOSITORY)
        peak, driver = processes.watch_memory(job)
        if job.returncode:
            sys.exit(f"{name} failed with {job.returncode}")
        print(f"| {name} | {clips} | {time.perf_counter() - started:.0f} | {peak:.0f} | {driver:.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["write", "speed", "jobs"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", type=int, default=100_000)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--memory", type=float, default=0.0, help="limit in GiB")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="of `speed`")
    parser.add_argument("--jobs", nargs="+", default=list(JOBS), choices=list(JOBS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.part == "write":
        layout = (SMALL, SMALL_PART) if options.small else (SHAPE, PART)
        write(options.folder, options.clips, *layout)
    elif options.part == "speed":
        speed(options.folder, options.memory, options.rounds, torch.device(options.device))
    else:
        jobs(options.folder, options.memory, options.jobs)


if __name__ == "__main__":
    main()
