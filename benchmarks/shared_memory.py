"""Compare the memory of training processes that share the features with that of processes with a copy each.

    python benchmarks/shared_memory.py [--clips 2000] [--trials 6]

Each process is a Ray actor, like a trial of the search: it imports the modules of training, gets the features, trains
small steps on windows of all clips, and then reads its own memory from the kernel. `resident` counts a shared page in
every process that uses it, `proportional` divides it among them, `private` leaves it out. The sums are over the
processes. The shared copy is in Ray's object store. Clips are 128 x 1292 bytes.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}  # read when ray is imported
REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray

from genre.features import Clips, Features, Shape
from genre.features.manifest import SCHEMA_VERSION
from genre.storage import Location

SHAPE = Shape(128, 1292, 80.0, 512 / 22050)
SPLIT = "train"
MIB = 2**20


def write_features(folder: Path, clips: int) -> None:
    """Write a features folder of noise with two genres and one clip per track."""
    rng = np.random.default_rng(0)
    ids = [f"{number:06d}" for number in range(clips)]
    (folder / "clips").mkdir()
    with pq.ParquetWriter(folder / "clips/all.parquet", SHAPE.clip_schema(), compression="none") as writer:
        for track in ids:
            row = {"track_id": track, "clip": 0, "start_seconds": 0.0, "peak_db": 0.0}
            row["spectrogram"] = rng.bytes(SHAPE.bins * SHAPE.frames)
            writer.write_table(pa.Table.from_pylist([row], SHAPE.clip_schema()))
    tracks = {"track_id": ids, "genre": ["a", "b"] * (clips // 2) + ["a"] * (clips % 2), "split": [SPLIT] * clips}
    pq.write_table(pa.table(tracks), folder / "tracks.parquet")
    manifest = {"stage": "features", "schema_version": SCHEMA_VERSION, "shape": vars(SHAPE), "classes": ["a", "b"]}
    (Location.of(folder) / "manifest.json").write_json(manifest)


def read(folder: str) -> Clips:
    return Features.open(Location.of(folder)).clips(SPLIT)


@ray.remote(num_cpus=1)
class Trial:
    """A process that trains on clips in Ray's store, or on clips that it read itself."""

    def __init__(self, shared: Sequence[Any], folder: str) -> None:
        self._clips: Clips = ray.get(shared[0]) if shared else read(folder)

    def train(self, steps: int) -> None:
        """Train on windows of all clips."""
        import torch

        from genre import architectures
        from genre.model.classifier import Classifier
        from genre.settings import TrainSettings
        from genre.training.trainer import Trainer

        torch.set_num_threads(1)
        network = architectures.build("cnn", {"width": 4, "depth": 4}, SHAPE.bins, 2)
        normaliser = (np.full(SHAPE.bins, -40, np.float32), np.full(SHAPE.bins, 20, np.float32))
        classifier = Classifier(network, *normaliser, SHAPE.range_db)
        settings = TrainSettings(epochs=2, batch_size=max(2, len(self._clips) // steps), window_seconds=1.0)
        Trainer(classifier, self._clips, self._clips, 2, settings).train_epoch(1)
        self._clips.spectrograms.max(axis=2)  # touches every page, like a few epochs

    def memory(self) -> dict[str, float]:
        """Return the memory of this process in MiB, as the kernel counts it."""
        kib: dict[str, int] = {}
        for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]:
            name, amount, *_ = line.split()
            kib[name.rstrip(":")] = int(amount)
        private = kib["Private_Clean"] + kib["Private_Dirty"]
        return {"resident": kib["Rss"] / 1024, "proportional": kib["Pss"] / 1024, "private": private / 1024}


def measure(number: int, shared: list[Any], folder: str) -> list[dict[str, float]]:
    """Return the memory of `number` concurrent processes, after each has trained."""
    trials = [Trial.remote(shared, folder) for _ in range(number)]  # type: ignore[attr-defined]
    ray.get([trial.train.remote(20) for trial in trials])
    memory: list[dict[str, float]] = ray.get([trial.memory.remote() for trial in trials])
    for trial in trials:
        ray.kill(trial)
    return memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--trials", type=int, default=6)
    options = parser.parse_args()
    size = options.clips * SHAPE.bins * SHAPE.frames
    ray.init(
        address="local",
        num_cpus=options.trials,
        object_store_memory=size + 200 * MIB,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
        runtime_env={"env_vars": {"PYTHONPATH": str(REPOSITORY)}},
    )
    with tempfile.TemporaryDirectory() as folder:
        write_features(Path(folder), options.clips)
        shared = [ray.put(read(folder))]
        print(f"{options.clips} clips, {size / MIB:.0f} MiB of features; MiB, summed over the processes")
        print("| processes | features        | resident | proportional | private | private of each |")
        print("|----------:|-----------------|---------:|-------------:|--------:|---------------:|")
        for kind, reference in (("one copy, shared", shared), ("a copy each", [])):
            for number in (1, options.trials):
                rows = measure(number, reference, folder)
                sums = {key: sum(row[key] for row in rows) for key in rows[0]}
                print(
                    f"| {number:>9} | {kind:<15} | {sums['resident']:>8.0f} | {sums['proportional']:>12.0f} "
                    f"| {sums['private']:>7.0f} | {sums['private'] / number:>14.0f} |",
                    flush=True,
                )
    ray.shutdown()


if __name__ == "__main__":
    main()
