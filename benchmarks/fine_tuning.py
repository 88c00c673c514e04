"""Starting from a saved model on other genres, against starting from nothing, on a small corpus of real music.

    python benchmarks/fine_tuning.py GTZAN [--epochs 15] [--seeds 3]

GTZAN is a folder with GTZAN's ten genres, of which excerpts will do. A model learns five of them; then another learns
the other five from 5 or 10 of their training tracks a genre: with fresh weights, with that model's body frozen
(`train.freeze`), or with all layers going on from it (`train.init_from`). All on the fault-filtered split; accuracy on
the test tracks of the five new genres, mean over the seeds, which also draw the tracks. One clip of 3 s a track.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from genre.config import load
from genre.corpora import Track, gtzan, scan
from genre.features import Clips, Manifest
from genre.features.clips import StoredClip
from genre.features.preparation import TrackKernel
from genre.features.recipe import Recipe
from genre.model.classifier import Classifier, predict
from genre.model.classifier import statistics as of_bins
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
WAYS = {
    "fresh weights": ("train.learning_rate=0.003",),
    "body frozen": ("train.learning_rate=0.01", "train.freeze=true", "train.init_from={}"),
    "all layers": ("train.learning_rate=0.002", "train.init_from={}"),
}

Heard = dict[str, StoredClip]  # the first clip of each track


def clips_of(tracks: Sequence[Track], heard: Heard, genres: Sequence[str], recipe: Recipe) -> Clips:
    ids = np.array([track.track_id for track in tracks])
    shape = recipe.shape()
    content = b"".join(heard[name].spectrogram for name in ids)
    return Clips(
        spectrograms=np.frombuffer(content, np.uint8).reshape(len(ids), shape.bins, shape.frames),
        peak_db=np.array([heard[name].peak_db for name in ids], np.float32),
        track=np.arange(len(ids)),
        track_ids=ids,
        labels=np.array([genres.index(track.genre) for track in tracks]),
        groups=ids,
        shape=shape,
    )


def data_of(tracks: Sequence[Track], heard: Heard, genres: Sequence[str], recipe: Recipe) -> Data:
    """Training and validation clips of `genres`."""
    train, valid = (
        clips_of([t for t in tracks if t.split == split and t.genre in genres], heard, genres, recipe)
        for split in ("train", "valid")
    )
    manifest = Manifest(
        fingerprint=recipe.fingerprint(), settings=recipe.settings(), shape=recipe.shape(), classes=list(genres)
    )
    return Data(train, valid, *of_bins(train), manifest)


def trained(config: Config, data: Data, place: Location) -> Classifier:
    """The best epoch's classifier, saved in `place`."""
    card, trainer = experiment.trainer_for(Experiment.of(config), data, torch.device("cpu"))
    for _ in trainer.run():
        pass
    experiment.save_best(place, card, trainer)
    return trainer.use_best()


def some_of(tracks: Sequence[Track], each: int, rng: np.random.Generator) -> list[Track]:
    """`each` random training tracks of every genre, and all that do not train."""
    kept = [track for track in tracks if track.split != "train"]
    for genre in NEW:
        mine = [track for track in tracks if track.split == "train" and track.genre == genre]
        kept += [mine[index] for index in sorted(rng.permutation(len(mine))[:each])]
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
    kernel = TrackKernel(recipe)
    heard = {track.track_id: kernel(track.path).clips[0] for track in tracks}
    test = clips_of([t for t in tracks if t.split == "test" and t.genre in NEW], heard, NEW, recipe)
    with tempfile.TemporaryDirectory() as folder:
        source = Location.of(folder) / "old"
        old = data_of(tracks, heard, OLD, recipe)
        trained(load(None, (*common, *WAYS["fresh weights"])), old, source)
        print(
            f"learned before: {', '.join(OLD)}, {len(old.train)} tracks; now: {', '.join(NEW)}, {len(test)} test tracks"
        )
        for each in (5, 10):
            scores: dict[str, list[float]] = {way: [] for way in WAYS}
            for seed in range(options.seeds):
                data = data_of(some_of(tracks, each, np.random.default_rng(seed)), heard, NEW, recipe)
                for way, settings in WAYS.items():
                    told = [text.format(source) for text in settings]
                    new = load(None, (*common, *told, f"seed={seed}"))
                    classifier = trained(new, data, Location.of(folder) / "new")
                    answers = predict(classifier, test, test.shape.frames, 1).argmax(axis=1)
                    scores[way].append(float((answers == test.labels).mean()))
            line = ", ".join(f"{way} {statistics.mean(found):.3f}" for way, found in scores.items())
            print(f"{each} tracks a genre: {line}", flush=True)


if __name__ == "__main__":
    main()
