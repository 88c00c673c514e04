"""Score saved models in Ray tasks: their predictions, their robustness to changed audio (`robustness`), their cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import ray
import torch

from genre.arrays import Float32
from genre.evaluation import inference, track_statistics
from genre.evaluation.baseline import Baseline
from genre.evaluation.inference import InferenceCost
from genre.features import Features, streaming
from genre.report import Judged
from genre.report.entries import NearestTracks, SavedRuns
from genre.storage import Location
from ray_jobs.engine.capacity import Capacity
from ray_jobs.engine.progress import JobProgress
from ray_jobs.engine.tasks import POLL_SECONDS, finished
from ray_jobs.scoring import predictions
from ray_jobs.scoring.neighbours import Embedder
from ray_jobs.scoring.robustness import BASELINE, ChangedAudio, Measurement, Scores


@dataclass(frozen=True)
class JudgedSplit:
    """The tracks that models are scored on, and what the job may use for it."""

    features: Features
    split: Judged
    seed: int  # of the configuration
    capacity: Capacity
    device: str = "auto"


@dataclass(frozen=True)
class Scored:
    """What was measured of saved models; the keys are the names of their rows."""

    predictions: dict[str, list[Float32]]  # one for each seed
    costs: dict[str, InferenceCost]
    baseline: tuple[Baseline, Float32] | None  # with its predictions
    nearest: NearestTracks | None  # the votes of the nearest training tracks
    robustness: dict[str, dict[str, float]]  # macro F1 by change
    notes: list[str]
    is_complete: bool  # everything that was asked for was measured


def score(
    on: JudgedSplit, saved: Sequence[SavedRuns], fitted: ray.ObjectRef[Baseline] | None, changed: ChangedAudio | None
) -> Scored:
    """Score all models and the baseline on a split. Also score the candidates on `changed` audio of it.

    On the test split alone the nearest training tracks are looked up as well, since the other splits took part in
    making the networks. At the end the costs are measured, while nothing else runs.
    """
    candidates = [runs for runs in saved if not runs.default_of]  # before the others
    measures = [] if fitted is None else [track_statistics.of_clips]
    embedder = Embedder.best(candidates) if on.split == "test" else None
    embedded = embedder.model.location if embedder else None
    streamed = predictions.Stream(
        on.features, on.split, _folders(saved), measures, on.device, on.capacity, embedded
    ).run()
    answers = _by_name(saved, streamed.probabilities)
    nearest, notes = None, list[str]()
    if embedder and streamed.embeddings is not None:
        nearest, notes = embedder.nearest(on.features, streamed.embeddings, on.seed, on.device, on.capacity)
    is_complete = not notes
    streamed = replace(streamed, embeddings=None)  # which may be some GB
    measurement = Measurement.start(changed, _folders(candidates), fitted, on.capacity) if changed else None
    parts = len(measurement.tasks) if measurement else 0
    with JobProgress("judging", parts + (fitted is not None) + len(saved)) as progress:
        baseline = None
        for task in finished([] if fitted is None else [fitted], progress, "fitting the baseline"):
            model: Baseline = ray.get(task)
            baseline = model, model.predict(streamed.measures[0])
        f1: Scores = {}
        if measurement:
            f1, left_out, failed = _changed_scores(measurement, on, candidates, answers, baseline, progress)
            notes, is_complete = notes + left_out, is_complete and not failed
        costs = measure_costs(saved, on.features, on.split, progress)
    return Scored(answers, costs, baseline, nearest, f1, notes, is_complete)


def _changed_scores(
    measurement: Measurement,
    on: JudgedSplit,
    candidates: Sequence[SavedRuns],
    answers: dict[str, list[Float32]],
    baseline: tuple[Baseline, Float32] | None,
    progress: JobProgress,
) -> tuple[Scores, list[str], bool]:
    """Return the results of `Measurement.finish` for the candidates, by their `answers`, and the baseline."""
    seeds = {runs.name: [model.card.facts["seed"] for model in runs.models] for runs in candidates}
    unchanged = [probabilities for runs in candidates for probabilities in answers[runs.name]]
    if baseline:
        unchanged.append(baseline[1])
    truth = on.features.labels(on.features.tracks(on.split)).to_numpy()
    return measurement.finish(truth, seeds, unchanged, BASELINE if baseline else "", progress)


def _folders(saved: Sequence[SavedRuns]) -> list[Location]:
    return [model.location for runs in saved for model in runs.models]


def _by_name(saved: Sequence[SavedRuns], probabilities: list[Float32]) -> dict[str, list[Float32]]:
    """Return the probabilities of each model by the name of its row; both arguments have one order."""
    remaining = iter(probabilities)
    return {runs.name: list(islice(remaining, len(runs.models))) for runs in saved}


def measure_costs(
    saved: Sequence[SavedRuns], features: Features, split: str, progress: JobProgress
) -> dict[str, InferenceCost]:
    """Return the cost of each row, that of the first of its models, measured on clips of `split`."""
    task = _measure_costs.remote([runs.models[0].location for runs in saved], features, split)
    with features.unchanged():
        costs = list(_stream(task, progress))
    return {runs.name: cost for runs, cost in zip(saved, costs, strict=True)}


@ray.remote(num_cpus=1, num_returns="streaming")
def _measure_costs(folders: list[Location], features: Features, split: str) -> Iterator[InferenceCost]:
    """Yield the costs of models, one after another in one process with one thread, so that they are comparable."""
    torch.set_num_threads(1)
    clips = streaming.first_clips(features, features.tracks(split), inference.MAX_CLIPS)
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
