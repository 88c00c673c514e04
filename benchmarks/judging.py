"""Measure how clips reach the workers that judge models, and what a report of many test tracks takes.

    python benchmarks/judging.py read [--clips 2000] [--models 2] [--width 8] [--rounds 3]
    python benchmarks/judging.py report [--tracks 100000]
    python benchmarks/judging.py networks [--rounds 3]

`read` writes clips of 128 x 1292 in files of 64 tracks, all of the test split, and scores them with untrained networks
on all CPUs: from extents that each worker reads itself, as `evaluate` does; from `ray.data.read_parquet`; and, with one
thread, from an array in memory. They take turns, those through Ray in one Ray. `s` is the time from the first answer to
the last, without the start of the workers, `all s` that with it, `driver MB` the growth of this process.

`report` writes the report of six networks with three seeds, their ensemble and the references on made-up predictions
for 16 genres, and prints its time, the peak of memory and the sizes of its files.

`networks` scores clips of 30 s by each of the six networks at its published width, with one thread, and prints the
milliseconds of CPU time for a clip in the best round: what one core needs for a test clip, or a clip to tag.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent.parent / "tests")]
import boards
import numpy as np
import pyarrow as pa
import torch

from genre import architectures, report
from genre.config import load
from genre.features import Clips, Features, Shape, streaming
from genre.features.clips import spectrograms_of
from genre.features.manifest import SCHEMA_VERSION
from genre.features.schema import ROW_GROUP, WRITE_OPTIONS
from genre.model import checkpoint
from genre.model.card import ModelCard
from genre.settings import ClusterSettings
from genre.storage import Location
from genre.training.experiment import Experiment
from ray_jobs.engine import blocks, cluster  # before ray, whose environment it sets
from ray_jobs.engine.capacity import Capacity
from ray_jobs.scoring.predictions import Stream

CLASSES = [f"genre{number}" for number in range(10)]
SHAPE = Shape(bins=128, frames=1292, range_db=80.0, frame_seconds=512 / 22050)
TRACKS_PER_FILE = 64
IN_MEMORY = 500  # clips


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=["read", "report", "networks"])
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--models", type=int, default=2)
    parser.add_argument("--width", type=int, default=8, help="of the networks; 64 is the published one")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tracks", type=int, default=100_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="judging-") as home:
        if options.task == "report":
            measure_report(Path(home), options.tracks)
        elif options.task == "networks":
            measure_networks(Path(home), options.rounds)
        else:
            measure_reading(Path(home), options)


def measure_report(home: Path, tracks: int) -> None:
    board = boards.large(tracks)
    print(f"board of {tracks} tracks in memory: {peak_mb():.0f} MB")
    started = time.perf_counter()
    folder = Location.of(home / "leaderboard")
    report.write(board, folder)
    print(f"written in {time.perf_counter() - started:.1f} s, peak {peak_mb():.0f} MB")
    started = time.perf_counter()
    report.read_board(folder)
    print(f"read in {time.perf_counter() - started:.1f} s")
    for file in folder.children():
        print(f"{file.base_name:20} {file.size or 0:12,} bytes")
    files = (folder / "predictions").children()
    print(f"predictions: {len(files)} files, {sum(file.size for file in files):,} bytes")


def measure_networks(home: Path, rounds: int) -> None:
    torch.set_num_threads(1)
    clips = streaming.first_clips(features := write_features(home / "features", 2), features.tracks("test"), 2)
    print("CPU time for a clip, ms")
    for name in architectures.names():
        model = checkpoint.load(save_model(home / name, f"architecture={name}"))
        model.predict(clips)
        seconds = []
        for _ in range(rounds):
            started = time.process_time()
            model.predict(clips)
            seconds.append(time.process_time() - started)
        print(f"{name:16} {1000 * min(seconds) / len(clips):6.0f}", flush=True)


def measure_reading(home: Path, options: argparse.Namespace) -> None:
    features = write_features(home / "features", options.clips)
    width = f"architectures.cnn.width={options.width}"
    models = [
        save_model(home / f"model-{seed}", "architecture=cnn", width, seed=seed) for seed in range(options.models)
    ]
    some = streaming.first_clips(features, features.tracks("test"), min(options.clips, IN_MEMORY))
    print(f"{options.clips} clips, {len(models)} models")
    print(f"{'':12} {'s':>6} {'clips/s':>8} {'all s':>6} {'driver MB':>10}")
    ways: dict[str, Callable[[], Iterator[int]]] = {
        "one thread": lambda: in_memory(some, models),
        "extents": lambda: extents_stream(features, models),
        "read_parquet": lambda: parquet_stream(features, models),
    }
    with cluster.connected(ClusterSettings(), str(home)):
        for name, way in list(ways.items()) * options.rounds:
            print(f"{name:12} {time_stream(way())}", flush=True)


def write_features(folder: Path, clips: int) -> Features:
    """Write noise as clips, one a track."""
    rng = np.random.default_rng(0)
    location = Location.of(folder)
    names = [f"{number:07d}" for number in range(clips)]
    for first in range(0, clips, TRACKS_PER_FILE):
        ids = names[first : first + TRACKS_PER_FILE]
        columns = [
            pa.array(ids),
            pa.array(np.zeros(len(ids), np.int32)),
            pa.array(np.zeros(len(ids), np.float32)),
            pa.array(np.zeros(len(ids), np.float32)),
            pa.array([rng.bytes(SHAPE.bytes) for _ in ids], pa.binary(SHAPE.bytes)),
        ]
        table = pa.Table.from_arrays(columns, schema=SHAPE.clip_schema())
        (location / "clips" / part_of(first)).write_table(table, row_group_size=ROW_GROUP, **WRITE_OPTIONS)
    tracks = {
        "track_id": names,
        "genre": [CLASSES[number % len(CLASSES)] for number in range(clips)],
        "split": ["test"] * clips,
        "clips": pa.array(np.ones(clips, np.int32)),
        "part": [part_of(number) for number in range(clips)],
    }
    (location / "tracks.parquet").write_table(pa.table(tracks))
    manifest = {"stage": "features", "schema_version": SCHEMA_VERSION, "shape": vars(SHAPE), "classes": CLASSES}
    (location / "manifest.json").write_json(manifest)
    return Features.open(location)


def part_of(track: int) -> str:
    return f"{track // TRACKS_PER_FILE:05d}.parquet"


def save_model(folder: Path, *settings: str, seed: int = 0) -> Location:
    experiment = Experiment.of(load(None, settings))
    card = ModelCard(
        architecture=experiment.architecture,
        params=experiment.params,
        classes=CLASSES,
        features={},
        fingerprint="",
        shape=SHAPE,
        window_seconds=experiment.train.window_seconds,
        eval_windows=experiment.train.eval_windows,
        window_norm=experiment.train.window_norm,
    )
    torch.manual_seed(seed)
    location = Location.of(folder)
    blank = np.zeros(SHAPE.bins, np.float32)
    checkpoint.save(location, card, checkpoint.build(card, blank, blank + 1))
    return location


def in_memory(clips: Clips, models: list[Location]) -> Iterator[int]:
    """Yield the clips that were scored, a quarter at a time, by this process."""
    torch.set_num_threads(1)
    measures = [checkpoint.load(model).predict for model in models]
    for rows in np.array_split(np.arange(len(clips)), 4):
        part = Clips(
            clips.spectrograms[rows],
            clips.peak_db[rows],
            np.arange(len(rows)),
            clips.track_ids.take(pa.array(rows)),
            clips.labels[rows],
            clips.groups.take(pa.array(rows)),
            clips.shape,
        )
        for measure in measures:
            measure(part)
        yield len(rows)


def extents_stream(features: Features, models: list[Location]) -> Iterator[int]:
    """Yield the clips of each answer."""
    for chunk in Stream(features, "test", models, [], "auto", Capacity.of(load().cluster)).chunks():
        yield len(chunk.track)


class BatchScorer:
    """Scores the batches that Ray Data has read."""

    def __init__(self, features: Features, models: list[Location]) -> None:
        torch.set_num_threads(1)
        self._shape = features.shape
        self._measures = [checkpoint.load(model).predict for model in models]

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        for rows in table.combine_chunks().to_batches():
            names = rows["track_id"]
            clips = Clips(
                stored=spectrograms_of(rows, self._shape),
                peak_db=rows["peak_db"].to_numpy(),
                track=np.arange(len(rows)),
                track_ids=names,
                labels=np.zeros(len(rows), np.int64),
                groups=names,
                shape=self._shape,
            )
            yield blocks.object_row([len(clips), [measure(clips) for measure in self._measures]])


def parquet_stream(features: Features, models: list[Location]) -> Iterator[int]:
    """Yield the clips of each answer, read by Ray Data."""
    data = cluster.data()
    folder = features.folder / "clips"
    files = [file.path for file in folder.files(".parquet")]
    dataset = (
        data.read_parquet(files, filesystem=folder.filesystem)
        .select_columns(["track_id", "clip", "peak_db", "spectrogram"])
        .map_batches(
            BatchScorer,
            fn_constructor_args=(features, models),
            batch_size=None,
            batch_format="pyarrow",
            compute=data.ActorPoolStrategy(min_size=1, max_size=int(Capacity.of(load().cluster).cpus)),
            num_cpus=1,
        )
    )
    for clips, _ in blocks.answers(dataset):
        yield clips


def time_stream(answers: Iterator[int]) -> str:
    before, started = peak_mb(), time.perf_counter()
    first, later = 0.0, 0
    for number in answers:
        now = time.perf_counter()
        first, later = first or now, later + (number if first else 0)
    seconds, total = now - first, time.perf_counter() - started
    rate = later / seconds if later else float("nan")  # all clips came with the first answer
    return f"{seconds:6.1f} {rate:8.1f} {total:6.1f} {peak_mb() - before:10.0f}"


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
