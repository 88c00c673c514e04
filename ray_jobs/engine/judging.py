"""From saved models to a leaderboard: each is scored once on a split, beside the rows that give a score its meaning."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import numpy as np
import ray
import torch

from genre import report
from genre.errors import AudioError
from genre.evaluation import baseline, inference, robustness
from genre.evaluation.baseline import Baseline
from genre.evaluation.inference import InferenceCost
from genre.features import Clips, Features, Float32
from genre.features.manifest import versions
from genre.features.recipe import Recipe
from genre.model import checkpoint
from genre.model.card import ModelCard
from genre.model.classifier import predict
from genre.model.saved_model import SavedEnsemble
from genre.report import PARTS, Board, Entry, Part, Search, entries, model_card
from genre.report.entries import SavedRuns
from genre.settings import Config
from genre.storage import Location
from genre.training.experiment import Data
from ray_jobs.engine import cli, cluster
from ray_jobs.engine.progress import JobProgress

_TRACKS_PER_TASK = 16  # of changed audio, at most
_BASELINE = "baseline"
_POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Answered:
    """What the models answered, what that cost, and macro F1 on changed tracks by row and change."""

    results: dict[str, list[tuple[ModelCard, Float32]]]  # of each seed, by row
    costs: list[tuple[SavedRuns, InferenceCost]]
    baseline: Baseline | None
    robustness: dict[str, dict[str, float]]
    notes: list[str]


@ray.remote(num_cpus=1)
def fit_baseline(data: Data, class_weights: bool) -> Baseline:
    """Fit the classical baseline as a task beside the search."""
    return baseline.fit(data.train, data.valid, len(data.classes), class_weights)


@ray.remote(num_cpus=1)
def answer(folder: Location, clips: Clips) -> tuple[ModelCard, Float32]:
    """The answers of one saved model."""
    torch.set_num_threads(1)
    return inference.predict_saved(folder, clips)


@ray.remote(num_cpus=1)
def answer_changed(
    paths: list[str], recipe: Recipe, folders: list[Location], fitted: Baseline | None
) -> dict[str, Float32]:
    """What all models, and the baseline last, say of changed tracks: (models, tracks, classes) for each change."""
    torch.set_num_threads(1)
    predictors: list[robustness.PredictClips] = [_predictor(str(folder)) for folder in folders]
    if fitted is not None:
        predictors.append(fitted.predict)
    return robustness.predict_changed(paths, recipe, predictors)


@ray.remote(num_cpus=1, num_returns="streaming")
def measure(folders: list[Location], clips: Clips) -> Iterator[InferenceCost]:
    """The costs of models, one after another in one process with one thread, so that they compare."""
    torch.set_num_threads(1)
    for folder in folders:
        yield inference.cost(folder, clips)


def judge(
    config: Config,
    features: Features,
    split: Part,
    saved: list[SavedRuns],
    fitted: ray.ObjectRef[Baseline] | None,
    search: Search | None = None,
    changed: bool = False,
) -> Board:
    """Score every saved model once on `split` of the features; with `changed`, on worse audio as well."""
    clips = features.clips(split)
    recipe = Recipe.from_settings(features.manifest.settings, config.decoding) if changed else None
    paths = features.tracks(split)["path"].to_pylist() if recipe else []
    blocks = even_blocks(paths, cluster.cpus())
    answered = _answers(clips, saved, fitted, recipe, blocks)
    f1 = answered.robustness
    rows = [
        entries.network(one, answered.results[one.label], cost, f1.get(one.label, {})) for one, cost in answered.costs
    ]
    if len(rows) > 1:
        rows.append(entries.ensemble(rows, f1.get(robustness.ENSEMBLE, {})))
    if answered.baseline is not None:
        rows.append(entries.classical(answered.baseline, clips, f1.get(_BASELINE, {})))
    rows.append(entries.majority(features, clips))
    notes = list(answered.notes)
    if changed and recipe is None:
        notes.append("Robustness was not measured: the spectrograms are precomputed, and there is no audio to change.")
    if split != "test":
        notes.append(f"These are scores on the {PARTS[split]} tracks, which took part in making the models.")
    return _board(config, features, clips, split, rows, notes, search)


def publish(board: Board, folder: Location, saved: list[SavedRuns]) -> None:
    """Write the report's files and a card beside each model, and show the table."""
    table = report.write(board, folder)
    for one in saved:
        row = next(row for row in table.rows if row.entry.name == one.label)
        for place in one.folders:
            _write_card(place, board, row)
    print(report.text_table(table))
    cli.console().print(f"report: {folder / 'leaderboard.html'}")


def _board(
    config: Config,
    features: Features,
    clips: Clips,
    part: Part,
    rows: list[Entry],
    notes: list[str],
    search: Search | None,
) -> Board:
    grouped = len(np.unique(clips.groups)) < len(clips.track_ids)
    corpus = entries.corpus_facts(features)
    return Board(
        title=f"Music genres: {corpus.name}",
        classes=features.classes,
        track_ids=clips.track_ids.tolist(),
        truth=clips.labels,
        groups=clips.groups.tolist() if grouped else None,
        entries=rows,
        corpus=corpus,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        part=part,
        seed=config.seed,
        hardware=report.describe_hardware(rows),
        commands=[cli.command_line()],
        versions=versions(),
        commit=entries.commit(),
        notes=notes,
        search=search,
    )


def _answers(
    clips: Clips,
    saved: list[SavedRuns],
    fitted: ray.ObjectRef[Baseline] | None,
    recipe: Recipe | None,
    blocks: list[list[str]],
) -> Answered:
    """Ask all models on all machines, and measure their costs when that is done and nothing else runs."""
    shared, places = ray.put(clips), [place for one in saved for place in one.folders]
    with JobProgress("judging", len(places) + len(blocks) + (fitted is not None) + len(saved)) as progress:
        scored = [answer.remote(place, shared) for place in places]
        worse = [answer_changed.remote(block, recipe, places, fitted) for block in blocks]
        cards = iter(_collect(scored, progress, "models scored"))
        results = {one.label: [next(cards) for _ in one.folders] for one in saved}
        baselines = _collect([] if fitted is None else [fitted], progress, "baseline fitted")
        seeds = {label: [card.facts["seed"] for card, _ in runs] for label, runs in results.items()}
        f1, notes = _robustness(clips, seeds, worse, _BASELINE if baselines else "", progress)
        few = ray.put(inference.first_clips(clips, inference.MAX_CLIPS))
        costs = list(_stream(measure.remote([one.folders[0] for one in saved], few), progress))
    return Answered(results, list(zip(saved, costs, strict=True)), baselines[0] if baselines else None, f1, notes)


def _robustness(
    clips: Clips,
    seeds: dict[str, list[int]],
    worse: list[ray.ObjectRef[dict[str, Float32]]],
    fitted: str,
    progress: JobProgress,
) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Macro F1 by row and change from the tasks of all blocks of tracks; or a note that says why there is none."""
    try:
        parts = _collect(worse, progress, "blocks of worse audio answered")
    except AudioError as error:
        for task in worse:
            ray.cancel(task)
        return {}, [f"Robustness was not measured: a test track cannot be read any more ({error})."]
    if not parts:
        return {}, []
    answers = {change: np.concatenate([part[change] for part in parts], axis=1) for change in parts[0]}
    return robustness.scores_by_row(clips.labels, seeds, answers, fitted), []


def even_blocks(paths: list[str], cpus: int) -> list[list[str]]:
    """`paths` in blocks of equal size, as many as keep all CPUs busy to the end, and none too large for memory."""
    rounds = math.ceil(len(paths) / (cpus * _TRACKS_PER_TASK))
    count = min(len(paths), rounds * cpus)
    bounds = [len(paths) * number // max(1, count) for number in range(count + 1)]
    return [paths[begin:end] for begin, end in itertools.pairwise(bounds)]


def _collect(tasks: Sequence[Any], progress: JobProgress, what: str) -> list[Any]:
    """The results of all tasks, in their order. Raises what the first failed task raised."""
    waiting, done = list(tasks), 0
    while waiting:
        ready, waiting = ray.wait(waiting, timeout=_POLL_SECONDS)
        done += len(ready)
        ray.get(ready)
        progress.step(len(ready), f"{done} of {len(tasks)} {what}")
    return list(ray.get(list(tasks)))


def _stream(generator: Any, progress: JobProgress) -> Iterator[Any]:
    """What a task yields, as it comes."""
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


@lru_cache(maxsize=64)
def _predictor(address: str) -> robustness.PredictClips:
    """The model saved at `address`, read once by each process."""
    card, classifier = checkpoint.load(Location.of(address))
    return lambda clips: predict(classifier, clips, card.frames(), card.eval_windows)


def _write_card(place: Location, board: Board, row: report.Row) -> None:
    saved = SavedEnsemble.read([place], precision=0.0)
    card = saved.models[0].card
    judged = row if board.part == "test" else None  # the card speaks of tracks that decided nothing
    text = model_card.markdown(card, board.corpus, judged, saved.calibration, board.versions, board.commit)
    model_card.write(place, text)
