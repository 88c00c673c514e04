"""From saved models to a leaderboard: each is scored once on a split, beside the rows that give a score its meaning."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch

from genre import baseline, calibration, checkpoint, experiment, features, ledger, modelcard, report, robustness
from genre.baseline import Baseline
from genre.checkpoint import ModelCard
from genre.classifier import predict
from genre.config import Config
from genre.errors import AudioError
from genre.experiment import Data, Scored
from genre.features import Clips, Float32
from genre.preparation import Recipe
from genre.report import Board, Entry, Search
from genre.report.facts import PARTS, Part
from genre.storage import Location
from ray_jobs import cli, entries
from ray_jobs.entries import Saved

import ray  # isort: skip

_TRACKS_PER_TASK = 16  # of changed audio
_BASELINE = "baseline"


@ray.remote(num_cpus=1)
def fit_baseline(data: Data, class_weights: bool) -> Baseline:
    """Fit the classical baseline as a task beside the search."""
    return baseline.fit(data.train, data.valid, len(data.classes), class_weights)


@ray.remote(num_cpus=1)
def score_model(folder: Location, clips: Clips) -> tuple[ModelCard, Scored]:
    """Score one saved model with one CPU, so that costs compare."""
    torch.set_num_threads(1)
    card, _ = checkpoint.load(folder)
    return card, experiment.score(folder, clips)


@ray.remote(num_cpus=1)
def answer_changed(
    paths: list[str], recipe: Recipe, folders: list[Location], fitted: Baseline | None
) -> dict[str, Float32]:
    """What all models, and the baseline last, say of changed tracks: (models, tracks, classes) for each change."""
    torch.set_num_threads(1)
    predictors: list[robustness.Predictor] = [_predictor(folder) for folder in folders]
    if fitted is not None:
        predictors.append(fitted.predict)
    return robustness.answers(paths, recipe, predictors)


def judge(
    config: Config,
    folder: Location,
    split: Part,
    saved: list[Saved],
    fitted: Baseline | None,
    search: Search | None = None,
    changed: bool = False,
) -> Board:
    """Score every saved model once on `split` of the features in `folder`; with `changed`, on worse audio as well."""
    manifest, tracks = features.read_manifest(folder), features.read_tracks(folder)
    clips = features.load(folder, split)
    shared = ray.put(clips)
    pending = [[score_model.remote(place, shared) for place in one.folders] for one in saved]
    f1, notes = _robustness(config, folder, split, saved, fitted, clips) if changed else ({}, [])
    rows = [entries.network(one, ray.get(p), f1.get(one.label, {})) for one, p in zip(saved, pending, strict=True)]
    if len(rows) > 1:
        rows.append(entries.ensemble(rows, f1.get(robustness.ENSEMBLE, {})))
    if fitted is not None:
        rows.append(entries.classical(fitted, clips, f1.get(_BASELINE, {})))
    rows.append(entries.majority(tracks, manifest["classes"], clips))
    if split != "test":
        notes.append(f"These are scores on the {PARTS[split]} tracks, which took part in making the models.")
    return _board(config, manifest, tracks, clips, split, rows, notes, search)


def publish(board: Board, folder: Location, saved: list[Saved]) -> None:
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
    manifest: dict[str, Any],
    tracks: Any,
    clips: Clips,
    part: Part,
    rows: list[Entry],
    notes: list[str],
    search: Search | None,
) -> Board:
    grouped = len(np.unique(clips.groups)) < len(clips.track_ids)
    corpus = entries.corpus_facts(manifest, tracks)
    return Board(
        title=f"Music genres: {corpus.name}",
        classes=list(manifest["classes"]),
        track_ids=clips.track_ids.tolist(),
        truth=clips.labels,
        groups=clips.groups.tolist() if grouped else None,
        entries=rows,
        corpus=corpus,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        part=part,
        seed=config.seed,
        hardware=experiment.hardware(),
        commands=[cli.command_line()],
        versions=ledger.versions(),
        commit=entries.commit(),
        notes=notes,
        search=search,
    )


def _robustness(
    config: Config, folder: Location, split: str, saved: list[Saved], fitted: Baseline | None, clips: Clips
) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Macro F1 on changed tracks, by row and change; or a note that says why there is none."""
    recipe = robustness.recipe_of(features.read_manifest(folder), config.prepare)
    if recipe is None:
        return {}, ["Robustness was not measured: these features were brought, and there is no audio to change."]
    folders = [place for one in saved for place in one.folders]
    paths = features.read_tracks(folder, split)["path"].to_pylist()
    blocks = [paths[begin : begin + _TRACKS_PER_TASK] for begin in range(0, len(paths), _TRACKS_PER_TASK)]
    fitted_ref = ray.put(fitted)
    try:
        parts = ray.get([answer_changed.remote(block, recipe, folders, fitted_ref) for block in blocks])
    except AudioError as error:
        return {}, [f"Robustness was not measured: a test track cannot be read any more ({error})."]
    answers = {change: np.concatenate([part[change] for part in parts], axis=1) for change in parts[0]}
    seeds = {one.label: len(one.folders) for one in saved}
    return robustness.by_row(clips.labels, seeds, answers, _BASELINE if fitted is not None else ""), []


def _predictor(folder: Location) -> robustness.Predictor:
    card, classifier = checkpoint.load(folder)
    return lambda clips: predict(classifier, clips, card.frames(), card.eval_windows)


def _write_card(place: Location, board: Board, row: report.Row) -> None:
    card, _ = checkpoint.load(place)
    correction = calibration.fit([calibration.load(place, len(card.classes))], precision=0.0)
    judged = row if board.part == "test" else None  # the card speaks of tracks that decided nothing
    text = modelcard.card_markdown(
        card, board.corpus, judged, correction, board.versions, board.commit, folder=str(place)
    )
    modelcard.write(place, text)
