"""Compare trainings of two workers that both hold all clips with ones where each holds a share of them.

    python benchmarks/shares.py FEATURES [--seeds 5] [--epochs 20] [--architecture cnn] [key=value ...]

FEATURES is a finished features folder. Each training is two processes of one thread that average their gradients, as on
two machines: both with a copy of all clips, or, where `cache.max_gb` is too small for that, with a share each. The
table has the best macro F1 on the validation split of each seed; the last line is the mean of the differences and its
standard error.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from genre import config
from genre.features import Features
from genre.features.cache import ClipCache
from genre.features.windows import Worker
from genre.settings import CacheSettings
from genre.storage import Location
from genre.training import experiment, sharing
from genre.training.experiment import Data, Experiment

WORKERS = 2


def train(rank: int, planned: Experiment, features: Features, folder: str, shares: bool, port: int) -> None:
    """Train one of two workers; the first writes the best F1 to FOLDER/f1."""
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=WORKERS)
    size = sum(features.clip_count(split) for split in ("train", "valid")) * features.shape.bytes
    settings = CacheSettings(folder=f"{folder}/{rank}", max_gb=0.9 * size / 1e9 if shares else 0)
    copy, worker = sharing.open_data(ClipCache.of(features, settings), Worker(rank, WORKERS), str(rank))
    assert (worker.peers is not None) == shares
    _, trainer = experiment.trainer_for(
        planned,
        Data.of(copy.clips, copy.statistics, features.manifest),
        torch.device("cpu"),
        worker,
        lambda network: DistributedDataParallel(network, broadcast_buffers=False),
    )
    best = [epoch.best_f1 for epoch in trainer.run()][-1]
    if not rank:
        Path(folder, "f1").write_text(str(best))
    distributed.destroy_process_group()


def best_f1(planned: Experiment, features: Features, shares: bool, port: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        context = multiprocessing.get_context("spawn")
        workers = [
            context.Process(target=train, args=(rank, planned, features, folder, shares, port))
            for rank in range(WORKERS)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return float(Path(folder, "f1").read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--architecture", default="cnn")
    parser.add_argument("--port", type=int, default=29517)
    parser.add_argument("settings", nargs="*")
    options = parser.parse_intermixed_args()
    features = Features.open(Location.of(options.features))
    differences = []
    print("| seed | all clips | shares |\n|---:|---:|---:|", flush=True)
    for seed in range(options.seeds):
        settings = [f"architecture={options.architecture}", f"train.epochs={options.epochs}", f"seed={seed}"]
        planned = Experiment.of(config.load(None, [*settings, *options.settings]))
        scores = [best_f1(planned, features, shares, options.port) for shares in (False, True)]
        differences.append(scores[1] - scores[0])
        print(f"| {seed} | {scores[0]:.3f} | {scores[1]:.3f} |", flush=True)
    error = np.std(differences, ddof=1) / np.sqrt(len(differences))
    print(f"shares - all clips: {np.mean(differences):+.3f} +- {error:.3f}")


if __name__ == "__main__":
    main()
