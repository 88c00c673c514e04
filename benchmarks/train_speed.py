"""Compare the training loop with a bare PyTorch loop of the same network, in turns within one run.

    python benchmarks/train_speed.py [--networks cnn vgg19 tiny] [--device cpu] [--threads 1] [--rounds 40]
    python benchmarks/train_speed.py --formats --networks cnn crnn crnn_attention vgg16 vgg19 resnet

The networks are the smallest and the largest of the six with default settings, and `tiny`: a cnn with a twentieth of
the weights on half of the bins, whose steps are so short that the overhead is visible.

`bare` is forward, cross entropy, backward and a fused AdamW step, on normalised tensors in memory: no data loading, no
augmentation, no schedule, no clipping. `plain` is `Trainer` without augmentation and clipping, and `full` is `Trainer`
with the default settings; both cut random windows from stored bytes and convert them to decibels. Network, batch,
precision, memory format, optimiser and allocator are the same for all three. `default malloc` is the bare loop before
`Trainer` has configured the C library to keep freed memory. `wait` is the share of a step of `full` in which the loop
waits for data: cutting windows and copying them to the device.

With --formats only bare loops are compared: in float32, with channels last in memory, and in bf16 as well.

Figures are windows per second in the best round, to exclude the effect of other programs. For the same reason the time
is CPU time on one CPU thread; otherwise it is wall time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

if "--threads" not in sys.argv:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from genre import architectures, memory
from genre.features import Clips, Shape
from genre.model.classifier import Classifier
from genre.settings import TrainSettings
from genre.training.autocast import autocast_type
from genre.training.trainer import Trainer

CLASSES = 10
FRAMES = 129  # three seconds
NETWORKS: dict[str, tuple[str, dict[str, Any], int]] = {  # name: architecture, settings, bins
    "tiny": ("cnn", {"width": 16, "depth": 5}, 64),
} | {name: (name, {}, 128) for name in architectures.names()}
NO_AUGMENTATION: dict[str, Any] = {
    "gain_db": 0,
    "equaliser_db": 0,
    "mixstyle": 0,
    "mixup": 0,
    "time_mask": 0,
    "mel_mask": 0,
    "clip_norm": 0,
}

Loop = Callable[[], float]  # trains `steps` steps and returns the share of the time in which it waited for data


def noise_clips(count: int, bins: int) -> Clips:
    """Return clips of noise; only their size matters."""
    rng = np.random.default_rng(0)
    ids = np.array([f"{row:06d}" for row in range(count)])
    return Clips(
        stored=rng.integers(0, 256, (count, 2 * FRAMES, bins), dtype=np.uint8),
        peak_db=np.zeros(count, np.float32),
        track=np.arange(count),
        track_ids=ids,
        labels=np.arange(count) % CLASSES,
        groups=ids,
        shape=Shape(bins, 2 * FRAMES, 80.0, 3.0 / FRAMES),
    )


def network_of(name: str, device: torch.device) -> tuple[nn.Module, int]:
    architecture, params, bins = NETWORKS[name]
    torch.manual_seed(0)
    return architectures.build(architecture, params, bins, CLASSES).to(device), bins


def bare_loop(
    name: str,
    steps: int,
    batch: int,
    device: torch.device,
    precision: str,
    layout: torch.memory_format = torch.channels_last,
) -> Loop:
    network, bins = network_of(name, device)
    network.to(memory_format=layout)  # type: ignore[call-overload]
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    inputs = [torch.randn(batch, 1, bins, FRAMES, device=device) for _ in range(steps)]
    labels = torch.arange(batch, device=device) % CLASSES
    reduced = autocast_type(precision, device, network)

    def run() -> float:
        for x in inputs:
            with torch.autocast(device.type, reduced or torch.bfloat16, enabled=reduced is not None):
                logits = network(x)
            loss = nn.functional.cross_entropy(logits.float(), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return 0.0

    return run


def trainer_loop(name: str, steps: int, batch: int, device: torch.device, precision: str, **recipe: Any) -> Loop:
    network, bins = network_of(name, device)
    clips = noise_clips(steps * batch, bins)
    normaliser = (np.full(bins, -40, np.float32), np.full(bins, 23, np.float32))
    classifier = Classifier(network, *normaliser, clips.shape.range_db).to(device)
    settings = TrainSettings(
        epochs=10_000, batch_size=batch, window_seconds=3.0, windows_per_clip=1, dtype=precision, **recipe
    )
    trainer = Trainer(classifier, clips, clips, CLASSES, settings)
    epochs = iter(range(1, settings.epochs))

    def run() -> float:
        started = time.perf_counter()
        wait = trainer.train_epoch(next(epochs)).data_wait_seconds
        return wait / (time.perf_counter() - started)

    return run


def measure(loop: Loop, clock: Callable[[], float]) -> tuple[float, float]:
    """Return the seconds of one call, and the share of them in which it waited for data."""
    started = clock()
    share = loop()
    return clock() - started, share


def in_turns(loops: dict[str, Loop], rounds: int, clock: Callable[[], float]) -> dict[str, list[tuple[float, float]]]:
    """Return the measurements of each loop in each round."""
    for loop in loops.values():
        loop()  # warms up the allocator and the libraries
    measurements: dict[str, list[tuple[float, float]]] = {kind: [] for kind in loops}
    for _ in range(rounds):
        for kind, loop in loops.items():
            measurements[kind].append(measure(loop, clock))
    return measurements


def clock_of(device: torch.device) -> Callable[[], float]:
    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.process_time() if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter()

    return clock


def size_of(name: str, options: argparse.Namespace, device: torch.device) -> tuple[int, int]:
    """Return the steps of a round, and the windows of a step."""
    large = device.type == "cpu" and name != "tiny"
    return options.steps or (2 if large else 16), options.batch or (8 if large else 32)


def compare_formats(name: str, options: argparse.Namespace, device: torch.device) -> str:
    """Return a row of the table of formats."""
    memory.keep_freed()
    common = (name, *size_of(name, options, device), device)
    loops = {
        "float32": bare_loop(*common, "fp32", torch.contiguous_format),
        "channels last": bare_loop(*common, "fp32"),
        "bf16": bare_loop(*common, "bf16"),
    }
    measured = in_turns(loops, options.rounds, clock_of(device))
    rate = {kind: common[1] * common[2] / min(rounds)[0] for kind, rounds in measured.items()}
    gains = [rate[kind] / rate["float32"] for kind in ("channels last", "bf16")]
    columns = [f"{name:<14}", f"{rate['float32']:>7.1f}", f"{gains[0]:>13.2f}", f"{gains[1]:>19.2f}"]
    return f"| {' | '.join(columns)} |"


def compare(name: str, options: argparse.Namespace, device: torch.device) -> str:
    """Return a row of the table."""
    clock, (steps, batch) = clock_of(device), size_of(name, options, device)
    common = (name, steps, batch, device, options.precision)
    bare = bare_loop(*common)
    bare()
    default_malloc = min(measure(bare, clock) for _ in range(2))[0]
    memory.keep_freed()
    loops = {"bare": bare, "plain": trainer_loop(*common, **NO_AUGMENTATION), "full": trainer_loop(*common)}
    measured = in_turns(loops, options.rounds, clock)
    rate = {kind: steps * batch / min(rounds)[0] for kind, rounds in measured.items()}
    ratio = {kind: rate[kind] / rate["bare"] for kind in loops}
    columns = [f"{name:<14}", f"{batch:>5}", f"{steps * batch / default_malloc:>14.1f}", f"{rate['bare']:>7.1f}"]
    columns += [f"{figure:>7.{1 if figure > 2 else 3}f}" for k in ("plain", "full") for figure in (rate[k], ratio[k])]
    return f"| {' | '.join(columns)} | {statistics.median(share for _, share in measured['full']):>6.2%} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=["cnn", "vgg19", "tiny"])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--batch", type=int, default=0, help="0: 32; 8 for the larger networks on a CPU")
    parser.add_argument("--steps", type=int, default=0, help="in a round; 0: 16; 2 for the larger networks on a CPU")
    parser.add_argument(
        "--formats", action="store_true", help="compare float32, channels last and bf16 instead of the loops"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    if options.formats:
        print(f"{device}, {options.threads} threads, torch {torch.__version__}; windows per second, and ratios")
        print("| network        | float32 | channels last | channels last, bf16 |")
        print("|----------------|--------:|--------------:|--------------------:|")
        for name in options.networks:
            print(compare_formats(name, options, device), flush=True)
        return
    setup = f"{device}, {options.threads} threads, precision {options.precision}, channels last"
    print(f"{setup}, torch {torch.__version__}; windows per second")
    print("| network        | batch | default malloc |    bare |   plain |   ratio |    full |   ratio |   wait |")
    print("|----------------|------:|---------------:|--------:|--------:|--------:|--------:|--------:|-------:|")
    for name in options.networks:
        print(compare(name, options, device), flush=True)


if __name__ == "__main__":
    main()
