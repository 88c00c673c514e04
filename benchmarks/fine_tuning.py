"""Compare training from a saved model of other genres with training from random weights, on little real music.

    python benchmarks/fine_tuning.py GTZAN [--epochs 15] [--seeds 3]

GTZAN is a folder with GTZAN's ten genres; excerpts suffice. A model is trained on five of them. Then others are trained
on the other five with 5 or 10 training tracks per genre: from random weights, from that model with its body frozen
(`train.freeze`), and from that model with all layers learning (`train.init_from`). The split is the fault-filtered one.
Printed is the accuracy on the test tracks of the five new genres, averaged over the seeds, which also draw the tracks.
Each track has one clip of 3 s.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from genre.config import load
from genre.corpora import Track, gtzan, scan
from genre.features import Clips, Manifest
from genre.features.clips import StoredClip
from genre.features.preparing.tracks import TrackPreparer
from genre.features.recipe import Recipe
from genre.features.statistics import LevelStatistics, clip_levels
from genre.model.classifier import Classifier, predict
from genre.settings import Config
from genre.storage import Location
from genre.training import experiment
from genre.training.experiment import Data, Experiment

OLD, NEW = gtzan.GENRES[0::2], gtzan.GENRES[1::2]
SETTINGS = (
    "corpus.kind=gtzan",
    "audio.clip_seconds=3",
    "spectrogram.n_mels=64",
    "train.window_seconds=2.9",
    "train.eval_windows=1",
    "train.batch_size=16",
    "train.windows_per_clip=4",
    "architectures.cnn.width=16",
    "architectures.cnn.depth=5",
)
STARTS = {
    "random weights": ("train.learning_rate=0.003",),
    "body frozen": ("train.learning_rate=0.01", "train.freeze=true", "train.init_from={}"),
    "all layers": ("train.learning_rate=0.002", "train.init_from={}"),
}

FirstClips = dict[str, StoredClip]  # by track id


def clips_of(tracks: Sequence[Track], first: FirstClips, genres: Sequence[str], recipe: Recipe) -> Clips:
    ids = [track.track_id for track in tracks]
    shape = recipe.shape()
    content = b"".join(first[name].spectrogram for name in ids)
    return Clips(
        stored=np.frombuffer(content, np.uint8).reshape(len(ids), shape.frames, shape.bins),
        peak_db=np.array([first[name].peak_db for name in ids], np.float32),
        track=np.arange(len(ids)),
        track_ids=pa.array(ids, pa.string()),
        labels=np.array([genres.index(track.genre) for track in tracks]),
        groups=pa.array(ids, pa.string()),
        shape=shape,
    )


def data_of(tracks: Sequence[Track], first: FirstClips, genres: Sequence[str], recipe: Recipe) -> Data:
    """Return the training and validation clips of `genres`."""
    train, valid = (
        clips_of([t for t in tracks if t.split == split and t.genre in genres], first, genres, recipe)
        for split in ("train", "valid")
    )
    manifest = Manifest(
        fingerprint=recipe.fingerprint(), settings=recipe.settings(), shape=recipe.shape(), classes=list(genres)
    )
    statistics = LevelStatistics(train.shape)
    for spectrogram, peak in zip(train.spectrograms, train.peak_db, strict=True):
        statistics.add_levels(clip_levels(spectrogram, float(peak), train.shape)[None])
    return Data(train, valid, *statistics.mean_and_std(), manifest)


def train(config: Config, data: Data, folder: Location) -> Classifier:
    """Train, save the model in `folder` and return the classifier of the best epoch."""
    card, trainer = experiment.trainer_for(Experiment.of(config), data, torch.device("cpu"))
    for _ in trainer.run():
        pass
    experiment.save_best(folder, card, trainer)
    return trainer.use_best()


def few_tracks(tracks: Sequence[Track], per_genre: int, rng: np.random.Generator) -> list[Track]:
    """Return `per_genre` random training tracks of each new genre, and all tracks of the other splits."""
    kept = [track for track in tracks if track.split != "train"]
    for genre in NEW:
        genre_tracks = [track for track in tracks if track.split == "train" and track.genre == genre]
        kept += [genre_tracks[index] for index in sorted(rng.permutation(len(genre_tracks))[:per_genre])]
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("music")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    common = (*SETTINGS, f"corpus.root={options.music}", f"train.epochs={options.epochs}")
    config = load(None, common)
    recipe = Recipe.of(config)
    tracks = [track for track in scan(config.corpus) if track.split != "excluded"]
    preparer = TrackPreparer(recipe)
    first = {track.track_id: preparer(track.path).clips[0] for track in tracks}
    test = clips_of([t for t in tracks if t.split == "test" and t.genre in NEW], first, NEW, recipe)
    with tempfile.TemporaryDirectory() as folder:
        source = Location.of(folder) / "old"
        old = data_of(tracks, first, OLD, recipe)
        train(load(None, (*common, *STARTS["random weights"])), old, source)
        print(f"first training: {', '.join(OLD)}, {len(old.train)} tracks")
        print(f"second training: {', '.join(NEW)}, {len(test)} test tracks")
        for per_genre in (5, 10):
            scores: dict[str, list[float]] = {start: [] for start in STARTS}
            for seed in range(options.seeds):
                data = data_of(few_tracks(tracks, per_genre, np.random.default_rng(seed)), first, NEW, recipe)
                for start, settings in STARTS.items():
                    overrides = [text.format(source) for text in settings]
                    new = load(None, (*common, *overrides, f"seed={seed}"))
                    classifier = train(new, data, Location.of(folder) / "new")
                    predicted = predict(classifier, test, test.shape.frames, 1).argmax(axis=1)
                    scores[start].append(float((predicted == test.labels).mean()))
            line = ", ".join(f"{start} {statistics.mean(values):.3f}" for start, values in scores.items())
            print(f"{per_genre} tracks per genre: {line}", flush=True)


if __name__ == "__main__":
    main()
