"""Compare ways to read random training windows from features: the mapped copy, Ray Data, datasets, and litdata.

    python benchmarks/loaders.py FOLDER [--rounds 3]

FOLDER holds features written by `larger_than_memory.py write`. Each loader yields batches of 64 windows of 129 frames
of the training clips in random order, as an epoch of `train` does; it runs in this process, and Ray Data on one CPU
next to it. Figures are windows per second of an epoch in the best round, after one that is not counted; seconds to
make what the loader reads; and its bytes on disk. `datasets` and `litdata` are no dependencies: without them, their
rows are left out.

It is unfair to the others where they could do other things at the same time: they decompress, decode, stream from
object stores and shuffle what does not fit on a disk, and use more processes. Our copy does only what training needs.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported
REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

import numpy as np

from genre.arrays import Bytes
from genre.features import Features, windows
from genre.features.cache import ClipCache
from genre.settings import CacheSettings
from genre.storage import Location

FRAMES, BATCH = 129, 64
Epoch = Callable[[int], Iterator[int]]  # number of the epoch -> windows of each batch


def cropped(content: bytes, shape: tuple[int, int], rng: np.random.Generator) -> Bytes:
    start = rng.integers(0, shape[0] - FRAMES + 1)
    return np.frombuffer(content, np.uint8).reshape(shape)[start : start + FRAMES]


def mapped(features: Features, folder: Path) -> Epoch:
    """The copy that `train` maps."""
    clips = ClipCache.of(features, CacheSettings(folder=str(folder)), ("train",)).open().clips["train"]

    def epoch(number: int) -> Iterator[int]:
        for batch in windows.training_windows(clips, FRAMES, 1, BATCH, (0, number)):
            yield len(batch.labels)

    return epoch


def ray_data(features: Features, folder: Path) -> Epoch:
    """Read Parquet in Ray Data, crop in its workers, and shuffle in a buffer of 1,000 windows."""
    import pyarrow as pa
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level="error", log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    names = pa.array(features.tracks("train")["track_id"].to_pylist())
    shape = (features.shape.frames, features.shape.bins)

    def crop(table: pa.Table) -> pa.Table:
        import pyarrow.compute as pc

        rng = np.random.default_rng()
        chosen = table.filter(pc.is_in(table["track_id"], names))
        cut = [cropped(row.as_py(), shape, rng).tobytes() for row in chosen["spectrogram"]]
        values = np.frombuffer(b"".join(cut), np.uint8).reshape(len(cut), FRAMES, shape[1])
        return pa.table({"window": ray.data.extensions.ArrowTensorArray.from_numpy(values)})

    dataset = ray.data.read_parquet(f"{features.folder}/clips", columns=["track_id", "spectrogram"])
    cut = dataset.map_batches(crop, batch_format="pyarrow", batch_size=None)
    shard = cut.streaming_split(1, equal=False)[0]

    def epoch(number: int) -> Iterator[int]:
        for batch in shard.iter_torch_batches(
            batch_size=BATCH, drop_last=True, local_shuffle_buffer_size=1000, local_shuffle_seed=number
        ):
            yield len(batch["window"])

    return epoch


def datasets(features: Features, folder: Path) -> Epoch:
    """Memory-mapped Arrow of Hugging Face's datasets, read at random."""
    import datasets as library  # type: ignore[import-not-found]

    library.disable_progress_bars()
    files = [str(path) for path in sorted(Path(str(features.folder), "clips").glob("*.parquet"))]
    table = library.Dataset.from_parquet(files, cache_dir=str(folder), columns=["track_id", "spectrogram"])
    names = set(features.tracks("train")["track_id"].to_pylist())
    rows = np.flatnonzero([name in names for name in table["track_id"]])
    shape = (features.shape.frames, features.shape.bins)
    arrow = table.select_columns(["spectrogram"]).with_format("arrow")

    def epoch(number: int) -> Iterator[int]:
        rng = np.random.default_rng(number)
        order = rng.permutation(rows)
        for begin in range(0, len(order) - BATCH + 1, BATCH):
            batch = arrow[order[begin : begin + BATCH].tolist()]["spectrogram"]
            yield len(np.stack([cropped(clip.as_buffer(), shape, rng) for clip in batch]))

    return epoch


def litdata(features: Features, folder: Path) -> Epoch:
    """Chunks of litdata, which it shuffles and reads."""
    import litdata as library  # type: ignore[import-not-found]

    names = set(features.tracks("train")["track_id"].to_pylist())
    shape = (features.shape.frames, features.shape.bins)
    writer = library.streaming.Cache(str(folder / "chunks"), chunk_bytes="64MB")
    number = 0
    for _, rows in features.iter_clips(features.tracks("train")):
        for name, clip in zip(rows["track_id"].to_pylist(), rows["spectrogram"], strict=True):
            if name in names:
                writer[number] = clip.as_py()
                number += 1
    writer.done()
    writer.merge()

    def epoch(number: int) -> Iterator[int]:
        rng = np.random.default_rng(number)
        source = library.StreamingDataset(str(folder / "chunks"), shuffle=True, seed=number)
        waiting = []
        for clip in source:
            waiting.append(cropped(clip, shape, rng))
            if len(waiting) == BATCH:
                yield len(np.stack(waiting))
                waiting = []

    return epoch


LOADERS: dict[str, Callable[[Features, Path], Epoch]] = {
    "mapped copy": mapped,
    "datasets": datasets,
    "litdata": litdata,
    "ray.data": ray_data,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    features = Features.open(Location.of(options.folder) / "features")
    epochs: dict[str, Epoch] = {}
    best: dict[str, float] = {}
    made: dict[str, str] = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        for name, load in LOADERS.items():
            if name in ("datasets", "litdata") and importlib.util.find_spec(name) is None:
                print(f"{name} is not installed", file=sys.stderr)
                continue
            folder = Path(temporary, name)
            folder.mkdir()
            started = time.perf_counter()
            epochs[name] = load(features, folder)
            seconds = time.perf_counter() - started
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            made[name] = f"{seconds:.1f} s | {size / 1e6:.0f} MB"
        for number in range(options.rounds + 1):
            for name, epoch in epochs.items():
                started = time.perf_counter()
                cut = sum(epoch(number))
                if number:
                    best[name] = max(best.get(name, 0.0), cut / (time.perf_counter() - started))
    print("| loader | windows/s | of the copy | made in | on disk |\n|---|---:|---:|---:|---:|")
    for name, speed in best.items():
        print(f"| {name} | {speed:.0f} | {speed / best['mapped copy']:.3f} | {made[name]} |")


if __name__ == "__main__":
    main()
