"""Score saved models in Ray tasks: their predictions, their robustness to changed audio (`robustness`), their cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import torch

from genre.evaluation import baseline, inference
from genre.evaluation.baseline import Baseline
from genre.evaluation.inference import InferenceCost
from genre.features import Clips, Float32
from genre.features.cache import ClipCache
from genre.model.card import ModelCard
from genre.report.entries import SavedRuns
from genre.storage import Location
from genre.training.experiment import Data
from ray_jobs.engine.progress import JobProgress
from ray_jobs.engine.robustness import BASELINE, ChangedAudio, Measurement, Scores
from ray_jobs.engine.tasks import POLL_SECONDS, collect


@dataclass(frozen=True)
class Scored:
    """What was measured of saved models; the keys are the labels of their rows."""

    predictions: dict[str, list[tuple[ModelCard, Float32]]]  # one for each seed
    costs: dict[str, InferenceCost]
    baseline: Baseline | None
    robustness: dict[str, dict[str, float]]  # macro F1 by change
    notes: list[str]


@ray.remote(num_cpus=1)
def fit_baseline(cache: ClipCache, class_weights: bool) -> Baseline:
    """Fit the classical baseline."""
    data = Data.open(cache)
    return baseline.fit(data.train, data.valid, len(data.classes), class_weights)


def score(
    clips: Clips, saved: Sequence[SavedRuns], fitted: ray.ObjectRef[Baseline] | None, changed: ChangedAudio | None
) -> Scored:
    """Score all models on all machines; then measure their costs, while nothing else runs."""
    shared, folders = ray.put(clips), [folder for runs in saved for folder in runs.folders]
    tasks = [_predict.remote(folder, shared) for folder in folders]
    measurement = Measurement.start(changed, folders, fitted) if changed else None
    parts = len(measurement.tasks) if measurement else 0
    with JobProgress("judging", len(tasks) + parts + (fitted is not None) + len(saved)) as progress:
        results = iter(collect(tasks, progress, "models scored"))
        predictions = {runs.label: [next(results) for _ in runs.folders] for runs in saved}
        baselines = collect([] if fitted is None else [fitted], progress, "baseline fitted")
        seeds = {label: [card.facts["seed"] for card, _ in runs] for label, runs in predictions.items()}
        f1: Scores = {}
        notes: list[str] = []
        if measurement:
            answers = [probabilities for runs in predictions.values() for _, probabilities in runs]
            unchanged = np.stack([*answers, *(fitted.predict(clips) for fitted in baselines)])
            name = BASELINE if baselines else ""
            f1, notes = measurement.finish(clips.labels, seeds, unchanged, name, progress)
        sample = ray.put(inference.first_clips(clips, inference.MAX_CLIPS))
        costs = _stream(_measure_costs.remote([runs.folders[0] for runs in saved], sample), progress)
        costs_by_row = {runs.label: cost for runs, cost in zip(saved, costs, strict=True)}
    return Scored(predictions, costs_by_row, baselines[0] if baselines else None, f1, notes)


@ray.remote(num_cpus=1)
def _predict(folder: Location, clips: Clips) -> tuple[ModelCard, Float32]:
    """Return the card and the predictions of one saved model."""
    torch.set_num_threads(1)
    return inference.predict_saved(folder, clips)


@ray.remote(num_cpus=1, num_returns="streaming")
def _measure_costs(folders: list[Location], clips: Clips) -> Iterator[InferenceCost]:
    """Yield the costs of models, one after another in one process with one thread, so that they are comparable."""
    torch.set_num_threads(1)
    for folder in folders:
        yield inference.cost(folder, clips)


def _stream(generator: Any, progress: JobProgress) -> Iterator[Any]:
    """Yield the results of a streaming task as they arrive."""
    while True:
        progress.step(detail="measuring speed, one model at a time")
        ready, _ = ray.wait([generator], timeout=POLL_SECONDS)
        if not ready:
            continue
        try:
            yield ray.get(next(generator))
        except StopIteration:
            return
        progress.step(1)
