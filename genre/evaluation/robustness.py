"""Robustness: the scores of models on changed test tracks (`changes.py`), next to those on the same tracks unchanged.

A sample of the test tracks is enough: each change of a track is computed, encoded and predicted by every model, which
costs many times what scoring an unchanged track does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from genre.arrays import Float32, Ints
from genre.audio import recordings
from genre.evaluation import changes, ensemble, metrics
from genre.evaluation.changes import CHANGES, Change
from genre.features import Clips, Shape
from genre.features.clips import StoredClip
from genre.features.preparing.tracks import ClipEncoder
from genre.features.recipe import Recipe

PredictClips = Callable[[Clips], Float32]  # returns probabilities (tracks, classes)
Changed = Mapping[str, Sequence[StoredClip]]  # the clips of one track by change

ENSEMBLE = "ensemble"  # name of the row of all networks together
UNCHANGED = "unchanged"  # key of the score on unchanged tracks among those of the changes


class ChangedTrackPreparer:
    """Decodes the file at an address, and encodes each change of it. Runs in the isolated child process."""

    def __init__(self, recipe: Recipe, changes_by_name: Mapping[str, Change] = CHANGES) -> None:
        self._recipe, self._changes = recipe, changes_by_name
        self._encoder = ClipEncoder(recipe)

    def __call__(self, address: str) -> dict[str, list[StoredClip]]:
        """Return the clips of each change. Raises `AudioError`, also when nothing audible is left of the track."""
        sound = changes.read(address, self._recipe.decoding)
        return {name: self._encode(change(sound)) for name, change in self._changes.items()}

    def _encode(self, sound: changes.Sound) -> list[StoredClip]:
        return self._encoder(recordings.of_samples(sound.samples, sound.sample_rate, self._recipe.audio))


def sample(labels: Ints, count: int, seed: int) -> Ints:
    """Return the rows of about `count` tracks with these `labels`, in ascending order; all of them for 0.

    Each genre has its share of the sample, so that scores are comparable with those of all tracks, and at least one
    track. The same tracks and seed give the same sample.
    """
    if not 0 < count < len(labels):
        return np.arange(len(labels))
    sizes = np.bincount(labels)
    exact = sizes * (count / len(labels))
    taken = np.minimum(sizes, np.maximum(np.floor(exact), 1)).astype(np.int64)
    missing = max(0, count - int(taken.sum()))
    taken[np.argsort(taken - exact, kind="stable")[:missing]] += 1
    order = np.random.default_rng(seed).permutation(len(labels))
    rows = [order[labels[order] == genre][:number] for genre, number in enumerate(taken)]
    return np.sort(np.concatenate(rows))


def predict_changed(track: Changed, shape: Shape, models: Sequence[PredictClips]) -> Float32:
    """Return the probabilities of each model for each change of one track: (models, changes, classes)."""
    clips = Clips.unlabelled(list(track.values()), shape)
    return np.stack([predict(clips) for predict in models])


def macro_f1(truth: Ints, probabilities: Float32) -> float:
    """Return the macro F1 of probabilities (runs, tracks, classes), averaged over the runs."""
    return metrics.mean_scores(truth, metrics.decisions(probabilities), probabilities.shape[-1])["f1"]


def scores_by_row(
    truth: Ints, seeds: Mapping[str, Sequence[int]], predictions: Mapping[str, Float32], baseline: str = ""
) -> dict[str, dict[str, float]]:
    """Return the macro F1 of each row of a leaderboard on each change.

    `predictions` are probabilities (models, tracks, classes) by change. The models are the runs of each network in
    turn, as many as `seeds` lists, and last the `baseline` unless its name is empty. The row of the ensemble
    averages the networks by seed (`ensemble.mean_by_seed`) and then the scores over the seeds.
    """
    ends = np.cumsum([len(each) for each in seeds.values()])
    scores: dict[str, dict[str, float]] = {}
    for change, probabilities in predictions.items():
        runs = dict(zip(seeds, np.split(probabilities[: ends[-1]], ends[:-1]), strict=True))
        means = ensemble.mean_by_seed({row: list(zip(seeds[row], run, strict=True)) for row, run in runs.items()})
        runs[ENSEMBLE] = np.stack([mean for _, mean in means])
        if baseline:
            runs[baseline] = probabilities[-1:]
        for row, run in runs.items():
            scores.setdefault(row, {})[change] = macro_f1(truth, run)
    return scores
