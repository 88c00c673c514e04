"""Measure the cost of reading spectrograms, for several ways to store them.

    python benchmarks/read_speed.py [--music FOLDER] [--clips 1000]

CPU time of one core, warm cache, 30 s clips of 128 x 1292, into torch tensors of the stored type. `error` is the
largest difference from the float32 log-mel within 80 dB of a clip's peak. The music is composed unless a folder is
named; composed music is cleaner than real music and compresses better. The last line is `Features.clips` itself.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "ARROW_IO_THREADS"):
    os.environ[_name] = "1"

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from genre.audio import recordings
from genre.audio.spectrogram import LogMel
from genre.corpora import scan
from genre.features import Features, Shape, decode, encode
from genre.features.cache import ClipCache
from genre.features.manifest import SCHEMA_VERSION
from genre.features.recipe import Recipe
from genre.features.schema import ROW_GROUP, WRITE_OPTIONS
from genre.settings import CacheSettings, Config, CorpusSettings
from genre.storage import Location

DISTINCT = 60
REPEATS = 5
Arrays = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Format:
    """A way to store spectrograms: a type of number, a type of column and a compression."""

    name: str
    numbers: Callable[[Arrays], Arrays]  # from float32 dB, (clips, bins, frames)
    options: dict[str, Any]
    tensor_column: bool = False


def as_bytes(levels: Arrays) -> Arrays:
    return np.stack([encode(clip, 80.0)[0] for clip in levels])


def as_float16(levels: Arrays) -> Arrays:
    return levels.astype(np.float16)


FORMATS = [
    Format("uint8", as_bytes, {"compression": "none"}),
    Format("uint8, snappy", as_bytes, {"compression": "snappy"}),
    Format("uint8, lz4", as_bytes, {"compression": "lz4"}),
    Format("uint8, zstd 1", as_bytes, {"compression": "zstd", "compression_level": 1}),
    Format("uint8, zstd 9", as_bytes, {"compression": "zstd", "compression_level": 9}),
    Format("float16", as_float16, {"compression": "none"}),
    Format("float16, snappy", as_float16, {"compression": "snappy"}),
    Format("float16, zstd 1", as_float16, {"compression": "zstd", "compression_level": 1}),
    Format("float32", lambda levels: levels, {"compression": "none"}),
    Format("uint8 tensor column, zstd 1", as_bytes, {"compression": "zstd", "compression_level": 1}, True),
]


def log_mels(music: str | None) -> Arrays:
    """Return the log-mel spectrograms of DISTINCT clips, (DISTINCT, bins, frames) float32 dB."""
    kind = {"kind": "folder", "root": music} if music else {"kind": "synthetic", "params": COMPOSED}
    recipe = Recipe.of(Config())
    log_mel = LogMel(recipe.spectrogram, recipe.audio.sample_rate)
    return np.stack([log_mel(wave) for wave in waves(kind, recipe)])


COMPOSED = {"tracks_per_genre": DISTINCT // 10, "artists_per_genre": DISTINCT // 10, "seconds": 26.0, "damaged": 0}


def waves(kind: dict[str, Any], recipe: Recipe) -> Iterator[Arrays]:
    count = 0
    for track in scan(CorpusSettings.model_validate(kind)):
        recording = recordings.load(Location.of(track.path).read_bytes(), recipe.audio, recipe.decoding)
        for clip in recordings.cut(recording, recipe.audio):
            count += 1
            yield clip.samples
            if count == DISTINCT:
                return


def column(form: Format, numbers: Arrays, clips: int) -> pa.Array:
    rows = np.arange(clips) % len(numbers)
    if form.tensor_column:
        return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(numbers[rows]))
    return pa.array([numbers[row].tobytes() for row in rows], pa.binary(numbers[0].nbytes))


def read(path: str, like: Arrays, clips: int, tensor_column: bool) -> torch.Tensor:
    """Return all spectrograms of a file in one tensor."""
    out = np.empty((clips, *like.shape[1:]), like.dtype)
    filled = 0
    with pq.ParquetFile(path, memory_map=True) as file:
        for batch in file.iter_batches(ROW_GROUP):
            values = batch["spectrogram"]
            if tensor_column:
                rows = values.to_numpy_ndarray()
            else:
                width = like[0].nbytes
                raw = np.frombuffer(values.buffers()[1], np.uint8)[values.offset * width :][: len(values) * width]
                rows = raw.view(like.dtype).reshape(-1, *like.shape[1:])
            out[filled : filled + len(rows)] = rows
            filled += len(rows)
    return torch.from_numpy(out)


def best(function: Callable[[], object]) -> float:
    """Return the CPU seconds of the fastest of several calls; waits for other programs are not counted."""
    times = []
    for _ in range(REPEATS):
        started = time.process_time()
        function()
        times.append(time.process_time() - started)
    return min(times)


def error_of(numbers: Arrays, levels: Arrays) -> float:
    peaks = levels.max(axis=(1, 2))
    decoded = decode(numbers, peaks, 80.0) if numbers.dtype == np.uint8 else numbers.astype(np.float32)
    audible = levels >= peaks[:, None, None] - 80
    return float(np.abs(decoded - levels)[audible].max())


def measure(form: Format, levels: Arrays, clips: int, folder: Path) -> str:
    numbers = form.numbers(levels)
    ids = pa.array([f"track{i}" for i in range(clips)])
    table = pa.table({"track_id": ids, "spectrogram": column(form, numbers, clips)})
    path = str(folder / "clips.parquet")
    options = {"row_group_size": ROW_GROUP, "use_dictionary": ["track_id"], "write_statistics": ["track_id"]}
    write = best(lambda: pq.write_table(table, path, **options, **form.options))
    seconds = best(lambda: read(path, numbers, clips, form.tensor_column))
    assert np.array_equal(read(path, numbers, clips, form.tensor_column)[: len(numbers)].numpy(), numbers)
    size = os.path.getsize(path) / clips
    return (
        f"{form.name:<28}{clips / write:>10.0f}{clips / seconds:>10.0f}{size:>10.0f}{error_of(numbers, levels):>9.3f}"
    )


def measure_load(levels: Arrays, clips: int, folder: Path) -> str:
    """Measure `Features.clips` on a features folder in files of 64 tracks."""
    numbers = as_bytes(levels)
    shape = Shape(levels.shape[1], levels.shape[2], 80.0, 512 / 22050)
    ids = [f"track{i:06d}" for i in range(clips)]
    tracks = pa.table({"track_id": ids, "genre": ["any"] * clips, "split": ["train"] * clips, "clips": [1] * clips})
    target = Location.of(folder)
    (target / "tracks.parquet").write_table(tracks)
    manifest = {
        "stage": "features",
        "schema_version": SCHEMA_VERSION,
        "shape": vars(shape),
        "classes": ["any"],
    }
    (target / "manifest.json").write_json(manifest)
    for begin in range(0, clips, 64):
        rows = [
            {
                "track_id": ids[i],
                "clip": 0,
                "start_seconds": 0.0,
                "peak_db": 0.0,
                "spectrogram": numbers[i % DISTINCT].tobytes(),
            }
            for i in range(begin, min(begin + 64, clips))
        ]
        table = pa.Table.from_pylist(rows, shape.clip_schema())
        (target / "clips" / f"{begin:06d}.parquet").write_table(table, **WRITE_OPTIONS)
    settings = CacheSettings(folder=str(Path(target.path) / "cache"))

    def copy() -> None:
        shutil.rmtree(settings.folder, ignore_errors=True)
        ClipCache.of(Features.open(target), settings, ("train",)).open()

    return f"{'ClipCache':<28}{'':>10}{clips / best(copy):>10.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--music", help="folder of real music with a subfolder for each genre")
    parser.add_argument("--clips", type=int, default=1000)
    options = parser.parse_args()
    pa.set_cpu_count(1)
    torch.set_num_threads(1)
    levels = log_mels(options.music)
    print(f"{'stored as':<28}{'write/s':>10}{'read/s':>10}{'bytes':>10}{'error dB':>9}")
    with tempfile.TemporaryDirectory() as folder:
        for form in FORMATS:
            print(measure(form, levels, options.clips, Path(folder)), flush=True)
        print(measure_load(levels, options.clips, Path(folder) / "features"))


if __name__ == "__main__":
    main()
