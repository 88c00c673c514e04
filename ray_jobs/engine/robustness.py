"""Score saved models on changed audio in Ray tasks."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import ray
import torch

from genre.errors import AudioError
from genre.evaluation import robustness
from genre.evaluation.baseline import Baseline
from genre.features import Clips, Float32
from genre.features.recipe import Recipe
from genre.model import checkpoint
from genre.model.classifier import predict
from genre.storage import Location
from ray_jobs.engine import capacity
from ray_jobs.engine.progress import JobProgress
from ray_jobs.engine.tasks import collect

BASELINE = "baseline"  # its name among the rows of the robustness
_MAX_TRACKS_PER_TASK = 16


@dataclass(frozen=True)
class ChangedAudio:
    """The test tracks whose audio is changed, and how their features are made."""

    paths: list[str]
    recipe: Recipe


def start(
    changed: ChangedAudio, folders: list[Location], fitted: ray.ObjectRef[Baseline] | None
) -> list[ray.ObjectRef[dict[str, Float32]]]:
    """Start the tasks that score the models in `folders`, and the baseline, on changed audio."""
    blocks = even_blocks(changed.paths, capacity.cpus())
    return [_predict_changed.remote(block, changed.recipe, folders, fitted) for block in blocks]


def finish(
    clips: Clips,
    seeds: dict[str, list[int]],
    tasks: list[ray.ObjectRef[dict[str, Float32]]],
    baseline_name: str,
    progress: JobProgress,
) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Return macro F1 by row and change from the tasks of all blocks, or a note why there is none."""
    try:
        parts = collect(tasks, progress, "blocks of changed audio scored")
    except AudioError as error:
        for task in tasks:
            ray.cancel(task)
        return {}, [f"Robustness was not measured: a test track cannot be read any more ({error})."]
    if not parts:
        return {}, []
    predictions = {change: np.concatenate([part[change] for part in parts], axis=1) for change in parts[0]}
    return robustness.scores_by_row(clips.labels, seeds, predictions, baseline_name), []


def even_blocks(paths: list[str], cpus: int) -> list[list[str]]:
    """Split `paths` into blocks of equal size that keep all CPUs busy to the end and fit into memory."""
    rounds = math.ceil(len(paths) / (cpus * _MAX_TRACKS_PER_TASK))
    count = min(len(paths), rounds * cpus)
    bounds = [len(paths) * number // max(1, count) for number in range(count + 1)]
    return [paths[begin:end] for begin, end in itertools.pairwise(bounds)]


@ray.remote(num_cpus=1)
def _predict_changed(
    paths: list[str], recipe: Recipe, folders: list[Location], fitted: Baseline | None
) -> dict[str, Float32]:
    """Return the predictions of all models, the baseline last: (models, tracks, classes) by change."""
    torch.set_num_threads(1)
    models: list[robustness.PredictClips] = [_load_predict(str(folder)) for folder in folders]
    if fitted is not None:
        models.append(fitted.predict)
    return robustness.predict_changed(paths, recipe, models)


@lru_cache(maxsize=64)
def _load_predict(address: str) -> robustness.PredictClips:
    """Return the prediction function of the model at `address`, which each process reads once."""
    card, classifier = checkpoint.load(Location.of(address))
    return lambda clips: predict(classifier, clips, card.frames(), card.eval_windows)
