"""From saved models to a published leaderboard, with the reference rows that models are compared with."""

from __future__ import annotations

import statistics
from dataclasses import replace

import numpy as np
import ray

from genre import config, report
from genre.arrays import Ints
from genre.evaluation import robustness
from genre.evaluation.baseline import Baseline
from genre.features import Features
from genre.report import JUDGED, Board, Entry, Search, cross_validation, entries, model_card
from genre.report.entries import SavedRuns
from genre.settings import Config
from genre.storage import Location
from ray_jobs.engine import cli, jobs, printing
from ray_jobs.engine.capacity import Capacity
from ray_jobs.engine.progress import JobProgress
from ray_jobs.engine.tasks import finished
from ray_jobs.scoring import scores
from ray_jobs.scoring.baseline import FoldBaseline, fit_baseline_of_folds
from ray_jobs.scoring.cross_validation import CrossValidation
from ray_jobs.scoring.robustness import BASELINE, ChangedAudio
from ray_jobs.scoring.scores import JudgedSplit


def judge(
    on: JudgedSplit,
    saved: list[SavedRuns],
    fitted: ray.ObjectRef[Baseline] | None = None,
    search: Search | None = None,
    changed: ChangedAudio | None = None,
    judged_from: str = "",
) -> Board:
    """Score every saved model once on a split of the features.

    Models with the configured settings (`SavedRuns.default_of`) come last and are not in the ensemble. A sample of the
    tracks is scored on `changed` audio as well. `fitted` is the classical baseline. The board keeps `judged_from` if
    everything could be measured. No clip enters this process.
    """
    scored, features, split = scores.score(on, saved, fitted, changed), on.features, on.split
    f1 = scored.robustness
    rows = [
        entries.network(runs, scored.predictions[runs.name], scored.costs[runs.name], f1.get(runs.name, {}))
        for runs in saved
    ]
    tuned = [row for row in rows if row.kind == "network"]
    if len(tuned) > 1:
        rows.append(entries.ensemble(tuned, f1.get(robustness.ENSEMBLE, {})))
    if scored.baseline is not None:
        rows.append(entries.classical(*scored.baseline, f1.get(BASELINE, {})))
    if scored.nearest is not None:
        rows.append(entries.neighbours(scored.nearest))
    rows.append(entries.majority(features, split, saved))
    notes = [*scored.notes, *entries.absent_genres(features, split), *entries.unknown_artists(features)]
    if split != "test":
        notes.append(f"These are scores on the {JUDGED[split]} tracks, which took part in making the models.")
    board = entries.board(features, split, rows, on.seed, notes, search)
    board.commands.extend(_commands(features))
    return replace(board, judged_from=judged_from if scored.is_complete else "")


def cross_validate(
    planned: CrossValidation, saved: list[SavedRuns], seed: int, capacity: Capacity, calibrates: bool
) -> Board:
    """Return the board of a cross-validation whose trainings have ended, with the costs of the `saved` models.

    The classical baseline is fitted for each fold. If it `calibrates`, the saved models get the predictions of the
    networks to be calibrated by.
    """
    features, fold = planned.features, planned.tracks["fold"].to_numpy()
    fitted = fit_baseline_of_folds.remote(features, fold, planned.settings()[0].class_weights, capacity)
    with JobProgress("judging", 1 + len(saved)) as progress:
        (done,) = finished([fitted], progress, "fitting the baseline of each fold")
        baselines: list[FoldBaseline] = ray.get(done)
        any_fold = features.of_fold(planned.trainings[0].fold)  # costs do not depend on the music
        costs = scores.measure_costs(saved, any_fold, "valid", progress)
    calibrated = planned.calibrate(saved) if calibrates else []
    predicted = planned.predictions()
    rows = [entries.network(runs, predicted[runs.name], costs[runs.name], {}) for runs in saved]
    board = cross_validation.board(features, planned.tracks, rows, _classical(baselines, fold), seed)
    board.notes.extend(calibrated)
    board.commands.extend(_commands(features))
    return board


def _classical(baselines: list[FoldBaseline], fold: Ints) -> Entry:
    """Return the entry of the baselines of all folds, each for the tracks, (tracks,), that its fold holds out."""
    probabilities = np.empty((len(fold), baselines[0].probabilities.shape[1]), np.float32)
    for number, fitted in enumerate(baselines, 1):
        probabilities[fold == number] = fitted.probabilities
    seconds = statistics.fmean(fitted.train_seconds for fitted in baselines)
    settings = [fitted.settings for fitted in baselines]
    return entries.classical_of_folds(baselines[0].name, settings, probabilities, seconds)


def _commands(features: Features) -> list[str]:
    """Return the commands that make a report: those of the features and of this job, which may be one."""
    return list(dict.fromkeys(filter(None, (features.manifest.command, cli.command_line()))))


def publish(board: Board, folder: Location, saved: list[SavedRuns], job: str, settings: Config) -> None:
    """Write the report's files, the settings of the job that made it, and the card of each model; print the table."""
    (folder / "settings.yaml").write_text(config.to_yaml(settings, jobs.JOBS[job].reads))
    table = report.write(board, folder)
    for runs in saved:
        row = next(row for row in table.rows if row.entry.name == runs.name)
        for model in runs.models:
            model_card.write_scored(model, board, row)
    printing.show(report.text_table(table, printing.width(report.TEXT_WIDTH)))
    cli.say(f"report: {folder / 'leaderboard.html'}")
