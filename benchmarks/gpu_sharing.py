"""Train several networks on one GPU at a time, as the trials of a search do, and compare their sum with one alone.

    python benchmarks/gpu_sharing.py [--networks cnn crnn ...] [--at-a-time 1 2 4 8] [--seconds 5] [--batch 32]

Each process trains its own network with `Trainer`, default settings and noise of three seconds; all begin together.
Figures are windows per second of all processes together, and the GPU's memory that torch reserved in one of them; the
CUDA context of each takes some hundred MiB more. `tune.gpus_per_trial` divides a GPU between trials in this way.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from threading import Barrier

sys.path.insert(0, str(Path(__file__).resolve().parent))
import torch
from train_speed import NETWORKS, trainer_loop

STEPS = 32  # of an epoch


def rate(name: str, batch: int, seconds: float, start: Barrier) -> tuple[float, float]:
    """Return the windows per second of one process, which trains for `seconds` after all are ready, and its MiB."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    epoch = trainer_loop(name, STEPS, batch, torch.device("cuda"), "auto")
    epoch()
    start.wait()
    started, epochs = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        epoch()
        epochs += 1
    elapsed = time.perf_counter() - started
    return epochs * STEPS * batch / elapsed, torch.cuda.max_memory_reserved() / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--at-a-time", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--batch", type=int, default=32)
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, batches of {options.batch}")
    columns: dict[str, list[str]] = {name: [] for name in options.networks}
    with context.Manager() as manager:
        for count in options.at_a_time:
            start = manager.Barrier(count)
            with ProcessPoolExecutor(count, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                for name, row in columns.items():
                    every = [pool.submit(rate, name, options.batch, options.seconds, start) for _ in range(count)]
                    rates, memory = zip(*[each.result() for each in every], strict=True)
                    row.append(f"{sum(rates):.0f}")
                    print(f"{name}, {count} at a time: {sum(rates):.0f}", file=sys.stderr, flush=True)
                    if count == options.at_a_time[-1]:
                        row.append(f"{max(memory):.0f}")
    print("| network | " + " | ".join(f"{count} at a time" for count in options.at_a_time) + " | MiB of one |")
    print("|---|" + "---:|" * (len(options.at_a_time) + 1))
    for name, row in columns.items():
        print(f"| {name} | " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
