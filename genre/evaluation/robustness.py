"""Robustness: the scores of models on changed test tracks (`changes.py`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from genre.audio import recordings
from genre.evaluation import changes, ensemble, metrics
from genre.evaluation.changes import CHANGES, Change, Sound
from genre.features import Clips, Float32
from genre.features.preparation import ClipEncoder
from genre.features.recipe import Recipe

PredictClips = Callable[[Clips], Float32]  # returns probabilities (tracks, classes)

ENSEMBLE = "ensemble"  # name of the row of all networks together


def predict_changed(
    paths: Sequence[str],
    recipe: Recipe,
    models: Sequence[PredictClips],
    changes_by_name: Mapping[str, Change] = CHANGES,
) -> dict[str, Float32]:
    """Return the probabilities of each model for each changed track, (models, tracks, classes) by change.

    The features of `paths` are in memory for one change at a time (0.2 MB for 30 s of 128 bands): call it with a block
    of tracks and concatenate along axis 1. Raises `AudioError` when a track cannot be read any more.
    """
    sounds = [changes.read(path) for path in paths]
    predictions = {}
    for name, change in changes_by_name.items():
        clips = changed_clips(sounds, recipe, change)
        predictions[name] = np.stack([predict(clips) for predict in models])
    return predictions


def macro_f1(truth: metrics.IntArray, probabilities: Float32) -> float:
    """Return the macro F1 of probabilities (runs, tracks, classes), averaged over the runs."""
    return metrics.mean_scores(truth, metrics.decisions(probabilities), probabilities.shape[-1])["f1"]


def scores_by_row(
    truth: metrics.IntArray, seeds: Mapping[str, Sequence[int]], predictions: Mapping[str, Float32], baseline: str = ""
) -> dict[str, dict[str, float]]:
    """Return the macro F1 of each row of a leaderboard on each change.

    `predictions` are probabilities (models, tracks, classes) by change. The models are the runs of each network in
    turn, as many as `seeds` lists, and at the end the `baseline` where it has a name. The row of the ensemble
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


def changed_clips(sounds: Sequence[Sound], recipe: Recipe, change: Change) -> Clips:
    """Return the features of changed tracks, in their order and without labels.

    Raises `AudioError` when nothing audible is left of a track.
    """
    encoder, tracks = ClipEncoder(recipe), []
    for sound in sounds:
        changed = change(sound)
        tracks.append(encoder(recordings.of_samples(changed.samples, changed.sample_rate, recipe.audio)))
    return Clips.unlabelled(tracks, recipe.shape())
