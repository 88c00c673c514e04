"""Helpers to write small folders of music and to prepare them without Ray."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import soundfile

from genre.settings import ClusterSettings, Config, DecodingSettings
from genre.storage import Location
from ray_jobs.engine.blocks import Work, Workers, block_size

RATE = 8000
SETTINGS: dict[str, dict[str, object]] = {
    "audio": {"sample_rate": RATE, "clip_seconds": 1.0, "min_seconds": 0.2},
    "spectrogram": {"n_fft": 512, "hop_length": 256, "n_mels": 16},
    "prepare": {"max_reject_fraction": 1.0, "tracks_per_block": 4},
    "train": {"window_seconds": 0.5},
    "cluster": {"cpus": 2, "object_store_mb": 100},
}


def write_song(path: Path, seed: int, seconds: float = 1.0) -> Path:
    """Write a chord in noise, different for each seed."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * RATE)) / RATE
    chord = sum(np.sin(2 * np.pi * hz * time) for hz in rng.uniform(80, 3000, 4))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * chord + rng.normal(0, 0.02, len(time)), RATE, subtype="PCM_16")
    return path


def write_music(root: Path, genres: int = 3, per_genre: int = 6) -> list[Path]:
    """Write `root/<genre>/<track>.wav`: songs of 0.6 to 2.6 seconds, which have one to three clips."""
    return [
        write_song(root / f"genre{genre}" / f"song{number:02d}.wav", 100 * genre + number, 0.6 + number % 5 / 2)
        for genre in range(genres)
        for number in range(per_genre)
    ]


def config_of(music: Path | str, output: Path | str, **settings: object) -> Config:
    """Return settings that prepare a folder of songs quickly; `settings` are of the sections prepare and decoding."""
    decoding = {key: value for key, value in settings.items() if key in DecodingSettings.model_fields}
    prepare = {key: value for key, value in settings.items() if key not in decoding}
    sections = SETTINGS | {"prepare": SETTINGS["prepare"] | prepare, "decoding": decoding}
    return Config.model_validate(sections | {"corpus": {"kind": "folder", "root": str(music)}, "output": str(output)})


class InTurn(Workers):
    """Runs one block after the other in this process, and counts the tracks."""

    def __init__(self) -> None:
        super().__init__(ClusterSettings(), "")
        self.tracks = 0

    def map(self, work: Work, tracks: pa.Table, limit: int, columns: object = None) -> Iterator[pa.Table]:
        self.tracks += len(tracks)
        size = block_size(len(tracks), limit)
        for begin in range(0, len(tracks), size):
            yield work(tracks.slice(begin, size))


def clip_rows(output: Path | str) -> pa.Table:
    """Return all clip rows of a prepared folder, in a fixed order."""
    table = (Location.of(output) / "features" / "clips").read_table()
    return table.sort_by([("track_id", "ascending"), ("clip", "ascending")])


def tables(output: Path | str) -> dict[str, pa.Table]:
    """Return all tables of a prepared folder, without names and sizes of part files, which depend on the runs."""
    folder = Location.of(output) / "features"
    final = {name: (folder / f"{name}.parquet").read_table() for name in ("tracks", "rejects", "duplicates")}
    parts = {"part", "part_bytes", "part_rows"}
    return {name: t.select([c for c in t.column_names if c not in parts]) for name, t in final.items()} | {
        "clips": clip_rows(output)
    }
