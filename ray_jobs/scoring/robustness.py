"""Score saved models on changed audio of a sample of the test tracks, in Ray tasks.

Tracks that cannot be scored are noted in the report and do not raise errors, after a search that may have taken hours.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import torch

from genre.arrays import Float32, Ints
from genre.audio.isolation import IsolatedFunction
from genre.errors import AudioError, StorageError, last_line
from genre.evaluation import robustness, track_statistics
from genre.evaluation.baseline import Baseline
from genre.evaluation.changes import CHANGES
from genre.evaluation.robustness import UNCHANGED, ChangedTrackPreparer
from genre.features.recipe import Recipe
from genre.model import checkpoint
from genre.storage import Location
from genre.wording import plural
from ray_jobs.engine import tasks
from ray_jobs.engine.capacity import Capacity
from ray_jobs.engine.progress import JobProgress

BASELINE = "baseline"  # the row of the baseline in `Scores`
_MAX_TRACKS_PER_TASK = 16
_TRACKS_PER_CPU = 4  # at least, since a task also has to load the models

Scores = dict[str, dict[str, float]]  # macro F1 by row and change


@dataclass(frozen=True)
class ChangedAudio:
    """A sample of the test tracks, and the recipe of their features."""

    rows: Ints  # (sampled,) their rows among all `total` test tracks, ascending
    paths: list[str]
    total: int
    recipe: Recipe

    @classmethod
    def sample(cls, tracks: pa.Table, count: int, seed: int, recipe: Recipe) -> ChangedAudio:
        """Draw about `count` of the test `tracks` (columns path, genre), each genre in proportion; 0: take all."""
        labels = pc.rank(tracks["genre"], tiebreaker="dense").to_numpy().astype(np.int64) - 1
        rows = robustness.sample(labels, count, seed)
        return cls(rows, tracks["path"].take(rows).to_pylist(), len(tracks), recipe)


@dataclass(frozen=True)
class TaskResult:
    """The result of a task: predictions (models, changes, tracks, classes) for `rows`, and why others have none."""

    rows: list[int] = field(default_factory=list)
    predictions: Float32 | None = None  # None where no track could be decoded
    failures: list[str] = field(default_factory=list)  # one for each track


@dataclass(frozen=True)
class Measurement:
    """The tasks that score all models on changed audio, and the tracks of each."""

    audio: ChangedAudio
    tasks: list[ray.ObjectRef[TaskResult]]
    blocks: list[list[int]]  # the positions of each task's tracks in the sample

    @classmethod
    def start(
        cls, audio: ChangedAudio, folders: list[Location], fitted: ray.ObjectRef[Baseline] | None, capacity: Capacity
    ) -> Measurement:
        """Start the tasks for the models in `folders` and, as the last of the models, the baseline."""
        blocks = even_blocks(list(range(len(audio.paths))), capacity.workers(-(-len(audio.paths) // _TRACKS_PER_CPU)))
        started = [
            _predict_changed.remote(
                audio.rows[block].tolist(), [audio.paths[i] for i in block], audio.recipe, folders, fitted
            )
            for block in blocks
        ]
        return cls(audio, started, blocks)

    def finish(
        self,
        truth: Ints,
        seeds: Mapping[str, Sequence[int]],
        unchanged: Sequence[Float32],
        baseline: str,
        progress: JobProgress,
    ) -> tuple[Scores, list[str], bool]:
        """Wait for the tasks. Return macro F1 by row and change, notes on the tracks, and whether any was not scored.

        `truth` are the labels (tracks,) and `unchanged` the predictions (tracks, classes) of each model for all test
        tracks. The models are in the order of `robustness.scores_by_row`.
        """
        for _ in tasks.finished(self.tasks, progress, "scoring changed audio"):
            pass
        parts = [self._result(task, block) for task, block in zip(self.tasks, self.blocks, strict=True)]
        measured = [part for part in parts if part.predictions is not None]
        failures = [failure for part in parts for failure in part.failures]
        if not measured:
            return {}, [f"Robustness was not measured: {failures[0]}."] if failures else [], bool(failures)
        rows = np.concatenate([part.rows for part in measured])
        changed = np.concatenate([part.predictions for part in measured], axis=2)
        predictions = {UNCHANGED: np.stack([each[rows] for each in unchanged])}
        predictions |= {change: changed[:, number] for number, change in enumerate(CHANGES)}
        scores = robustness.scores_by_row(truth[rows], seeds, predictions, baseline)
        return scores, self._notes(len(rows), failures), bool(failures)

    def _result(self, task: ray.ObjectRef[TaskResult], block: list[int]) -> TaskResult:
        """Return the result of a task; the tracks of one that failed are failures."""
        try:
            result: TaskResult = ray.get(task)
            return result
        except ray.exceptions.RayError as error:
            # for example, the worker was killed for its memory, or a decoding process did not start
            return TaskResult(failures=[f"{self.audio.paths[position]}: {last_line(error)}" for position in block])

    def _notes(self, measured: int, failures: list[str]) -> list[str]:
        total = plural(self.audio.total, "test track")
        notes = []
        if measured < self.audio.total:
            notes.append(f"Robustness was measured on {measured} of {total}, each genre in proportion.")
        if failures:
            notes.append(
                f"Robustness leaves out {plural(len(failures), 'track')} that could not be decoded again, the first "
                f"is {failures[0]}."
            )
        return notes


def even_blocks(items: list[int], cpus: int) -> list[list[int]]:
    """Split `items` into blocks of about equal size, whose number is a multiple of `cpus` where there are enough."""
    rounds = math.ceil(len(items) / (cpus * _MAX_TRACKS_PER_TASK))
    count = min(len(items), rounds * cpus)
    bounds = [len(items) * number // max(1, count) for number in range(count + 1)]
    return [items[begin:end] for begin, end in itertools.pairwise(bounds)]


@ray.remote(num_cpus=1)
def _predict_changed(
    rows: list[int], paths: list[str], recipe: Recipe, folders: list[Location], fitted: Baseline | None
) -> TaskResult:
    """Return the predictions of all models, the baseline last, for the tracks that can be decoded."""
    torch.set_num_threads(1)
    models: list[robustness.PredictClips] = [_load_predict(str(folder)) for folder in folders]
    if fitted is not None:
        models.append(lambda clips: fitted.predict(track_statistics.of_clips(clips)))
    limits = recipe.decoding
    preparer = IsolatedFunction.shared(ChangedTrackPreparer, recipe, memory_mb=limits.max_file_memory_mb)
    measured, predictions, failures = [], [], []
    for row, path in zip(rows, paths, strict=True):
        try:
            track = preparer(path, limits.file_timeout_s)
        except AudioError as error:
            failures.append(f"{path}: {error.line}")
            continue
        except StorageError as error:  # the file may have been removed since `prepare`
            failures.append(str(error))
            continue
        measured.append(row)
        predictions.append(robustness.predict_changed(track, recipe.shape(), models))
    return TaskResult(measured, np.stack(predictions, axis=2) if predictions else None, failures)


@lru_cache(maxsize=64)
def _load_predict(address: str) -> robustness.PredictClips:
    """Return the prediction function of the model at `address`; each process loads it once."""
    return checkpoint.load(Location.of(address)).predict
