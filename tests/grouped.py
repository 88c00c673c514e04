"""A features folder whose tracks belong to groups, for tests of cross-validation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from making import SMALL_MODELS, make_clips

from genre import architectures
from genre.features import SPLITS, Features
from genre.features.manifest import SCHEMA_VERSION
from genre.settings import TrainSettings
from genre.storage import Location
from genre.training import experiment
from genre.training.experiment import Data, Experiment
from genre.training.trainer import Trainer

CLASSES = ["a", "b", "c"]
TRAIN = TrainSettings(
    epochs=3, batch_size=8, window_seconds=0.5, eval_windows=2, windows_per_clip=4, dtype="fp32", ema=0.5
)


def write_grouped(
    folder: Path, tracks: int = 36, group_size: int = 2, splits: Sequence[str] = tuple(SPLITS), prefix: str = ""
) -> Features:
    """Write `tracks` tracks of three genres with two clips each, in groups of one genre and split, and an unused one.

    Groups take turns with `splits`, and names of tracks start with `prefix`. The first two tracks, of different groups,
    sound the same.
    """
    clips = make_clips(tracks=tracks, classes=len(CLASSES), per_track=2)
    ids = [f"{prefix}{name}" for name in clips.track_ids.to_pylist()]
    groups = [f"{CLASSES[n % 3]} {n // (3 * group_size)}" for n in range(tracks)]
    rows = {
        "track_id": [ids[n] for n in clips.track],
        "clip": pa.array([0, 1] * tracks, pa.int32()),
        "start_seconds": pa.array([0.0, 1.0] * tracks, pa.float32()),
        "peak_db": clips.peak_db,
        "spectrogram": pa.array([each.tobytes() for each in clips.spectrograms], pa.binary(clips.shape.bytes)),
    }
    (folder / "clips").mkdir(parents=True)
    pq.write_table(pa.table(rows, schema=clips.shape.clip_schema()), folder / "clips/0.parquet")
    columns = {
        "track_id": ids,
        "genre": [CLASSES[n] for n in clips.labels],
        "group": groups,
        "split": [splits[n // (3 * group_size) % len(splits)] for n in range(tracks - 1)] + ["excluded"],
        "sound": ["same" if n in (0, 3 * group_size) else f"sound {n}" for n in range(tracks)],
        "path": [f"music/{track}.flac" for track in ids],
    }
    pq.write_table(pa.table(columns), folder / "tracks.parquet")
    Location.of(folder / "manifest.json").write_json(
        {"stage": "features", "schema_version": SCHEMA_VERSION, "shape": vars(clips.shape), "classes": CLASSES}
    )
    return Features.open(Location.of(folder))


def save_trained(folder: Location, data: Data, seed: int = 0) -> Trainer:
    """Train a small network, save it in `folder` and return its trainer."""
    params = architectures.params("cnn", SMALL_MODELS["cnn"]).model_dump(mode="json")
    card, trainer = experiment.trainer_for(Experiment("cnn", params, TRAIN, seed), data, torch.device("cpu"))
    for _ in trainer.run():
        pass
    experiment.save_best(folder, card, trainer)
    return trainer
