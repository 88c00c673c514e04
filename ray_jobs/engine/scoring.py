"""Score saved models in Ray tasks: their predictions, their robustness to changed audio, their cost."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import ray
import torch

from genre.errors import AudioError
from genre.evaluation import baseline, inference, robustness
from genre.evaluation.baseline import Baseline
from genre.evaluation.inference import InferenceCost
from genre.features import Clips, Float32
from genre.features.recipe import Recipe
from genre.model import checkpoint
from genre.model.card import ModelCard
from genre.model.classifier import predict
from genre.report.entries import SavedRuns
from genre.storage import Location
from genre.training.experiment import Data
from ray_jobs.engine import capacity
from ray_jobs.engine.progress import JobProgress

BASELINE = "baseline"  # its name among the rows of the robustness
_MAX_TRACKS_PER_TASK = 16  # of changed audio
_POLL_SECONDS = 1.0


@dataclass(frozen=True)
class ChangedAudio:
    """The test tracks whose audio is changed, and how their features are made."""

    paths: list[str]
    recipe: Recipe


@dataclass(frozen=True)
class Scored:
    """What was measured of saved models; the keys are the labels of their rows."""

    predictions: dict[str, list[tuple[ModelCard, Float32]]]  # one for each seed
    costs: dict[str, InferenceCost]
    baseline: Baseline | None
    robustness: dict[str, dict[str, float]]  # macro F1 by change
    notes: list[str]


@ray.remote(num_cpus=1)
def fit_baseline(data: Data, class_weights: bool) -> Baseline:
    """Fit the classical baseline."""
    return baseline.fit(data.train, data.valid, len(data.classes), class_weights)


def score(
    clips: Clips, saved: Sequence[SavedRuns], fitted: ray.ObjectRef[Baseline] | None, changed: ChangedAudio | None
) -> Scored:
    """Score all models on all machines; then measure their costs, while nothing else runs."""
    shared, folders = ray.put(clips), [folder for runs in saved for folder in runs.folders]
    blocks = even_blocks(changed.paths, capacity.cpus()) if changed else []
    with JobProgress("judging", len(folders) + len(blocks) + (fitted is not None) + len(saved)) as progress:
        tasks = [_predict.remote(folder, shared) for folder in folders]
        changed_tasks = [_predict_changed.remote(block, changed.recipe, folders, fitted) for block in blocks if changed]
        results = iter(_collect(tasks, progress, "models scored"))
        predictions = {runs.label: [next(results) for _ in runs.folders] for runs in saved}
        baselines = _collect([] if fitted is None else [fitted], progress, "baseline fitted")
        seeds = {label: [card.facts["seed"] for card, _ in runs] for label, runs in predictions.items()}
        f1, notes = _robustness(clips, seeds, changed_tasks, BASELINE if baselines else "", progress)
        sample = ray.put(inference.first_clips(clips, inference.MAX_CLIPS))
        costs = _stream(_measure_costs.remote([runs.folders[0] for runs in saved], sample), progress)
        costs_by_row = {runs.label: cost for runs, cost in zip(saved, costs, strict=True)}
    return Scored(predictions, costs_by_row, baselines[0] if baselines else None, f1, notes)


def even_blocks(paths: list[str], cpus: int) -> list[list[str]]:
    """Split `paths` into blocks of equal size that keep all CPUs busy to the end and fit into memory."""
    rounds = math.ceil(len(paths) / (cpus * _MAX_TRACKS_PER_TASK))
    count = min(len(paths), rounds * cpus)
    bounds = [len(paths) * number // max(1, count) for number in range(count + 1)]
    return [paths[begin:end] for begin, end in itertools.pairwise(bounds)]


@ray.remote(num_cpus=1)
def _predict(folder: Location, clips: Clips) -> tuple[ModelCard, Float32]:
    """Return the card and the predictions of one saved model."""
    torch.set_num_threads(1)
    return inference.predict_saved(folder, clips)


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


@ray.remote(num_cpus=1, num_returns="streaming")
def _measure_costs(folders: list[Location], clips: Clips) -> Iterator[InferenceCost]:
    """Yield the costs of models, one after another in one process with one thread, so that they are comparable."""
    torch.set_num_threads(1)
    for folder in folders:
        yield inference.cost(folder, clips)


@lru_cache(maxsize=64)
def _load_predict(address: str) -> robustness.PredictClips:
    """Return the prediction function of the model at `address`, which each process reads once."""
    card, classifier = checkpoint.load(Location.of(address))
    return lambda clips: predict(classifier, clips, card.frames(), card.eval_windows)


def _robustness(
    clips: Clips,
    seeds: dict[str, list[int]],
    tasks: list[ray.ObjectRef[dict[str, Float32]]],
    baseline_name: str,
    progress: JobProgress,
) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Return macro F1 by row and change from the tasks of all blocks, or a note why there is none."""
    try:
        parts = _collect(tasks, progress, "blocks of changed audio scored")
    except AudioError as error:
        for task in tasks:
            ray.cancel(task)
        return {}, [f"Robustness was not measured: a test track cannot be read any more ({error})."]
    if not parts:
        return {}, []
    predictions = {change: np.concatenate([part[change] for part in parts], axis=1) for change in parts[0]}
    return robustness.scores_by_row(clips.labels, seeds, predictions, baseline_name), []


def _collect(tasks: Sequence[Any], progress: JobProgress, label: str) -> list[Any]:
    """Return the results of all tasks, in their order. Raises the error of the first task that failed."""
    waiting, done = list(tasks), 0
    while waiting:
        ready, waiting = ray.wait(waiting, timeout=_POLL_SECONDS)
        done += len(ready)
        ray.get(ready)
        progress.step(len(ready), f"{done} of {len(tasks)} {label}")
    return list(ray.get(list(tasks)))


def _stream(generator: Any, progress: JobProgress) -> Iterator[Any]:
    """Yield the results of a streaming task as they arrive."""
    while True:
        progress.step(detail="measuring speed, one model at a time")
        ready, _ = ray.wait([generator], timeout=_POLL_SECONDS)
        if not ready:
            continue
        try:
            yield ray.get(next(generator))
        except StopIteration:
            return
        progress.step(1)
