"""The final models of the winners, one for each seed: copied from the search if it finished them, else trained.

With tune.folds (on all tracks that are not test) or tune.sample (on the training split) all of them are trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import ray

from genre import devices
from genre.errors import TrainingError
from genre.features.cache import ClipCache
from genre.features.splitting.folds import NOT_TEST, Fold
from genre.model.card import CARD
from genre.model.saved_model import SavedModel
from genre.report.entries import SavedRuns
from genre.settings import Config
from genre.storage import Location
from genre.training import experiment
from genre.training.experiment import Data, Experiment
from genre.wording import plural
from ray_jobs.engine import cli
from ray_jobs.search import runner, space
from ray_jobs.search.results import Winner
from ray_jobs.search.runner import Runner
from ray_jobs.search.slots import Slot, unsettled
from ray_jobs.search.trial import cache_of, facts_of, trainer_for
from ray_jobs.search.trial_folder import TrialFolder


@dataclass(frozen=True)
class Finals:
    """The saved models of the winners, and notes for the report on those that could not be trained."""

    saved: list[SavedRuns] = field(default_factory=list)
    defaults: list[SavedRuns] = field(default_factory=list)  # of the configured settings, where others won
    notes: list[str] = field(default_factory=list)
    interrupted: bool = False
    fold: Fold | None = None  # of which the models are the networks, where no time was left to train them on all tracks


def train(trials: Runner, winners: Sequence[Winner], defaults: Sequence[Winner], seeds: int) -> Finals:
    """Train each winner completely with `seeds` seeds on all tracks, and save the models in OUTPUT/models.

    If the search was on all tracks and one split, the trial itself is the training with the first seed: it is reused if
    it finished, else resumed. A seed whose training fails is left out, with a note for the report. Raises
    `TrainingError` when all trainings of winners failed.

    `defaults`, trials of the configured settings where others won, are trained in the same way. Their models stay in
    the folders of the trials, since they are for comparison only.
    """
    first = trials.base.seed
    slots = {
        (chosen.slot.log_name, seed): _slot(chosen, seed, is_trial=seed == first and not trials.is_on_subset)
        for chosen in (*winners, *defaults)
        for seed in range(first, first + seeds)
    }
    missing = unsettled(list(slots.values()))
    if missing:
        settings = {chosen.slot.log_name: chosen.settings for chosen in (*winners, *defaults)}
        specs = [
            slot.spec(settings[trial] | {"seed": seed}) for (trial, seed), slot in slots.items() if slot in missing
        ]
        trained = trials.on_all().run("final", list(slots.values()), missing, **runner.listed(specs))
        slots = dict(zip(slots, trained, strict=True))
    if not all(slot.has_ended for slot in slots.values()):
        return Finals(interrupted=True)
    finals = _publish(trials.base, winners, slots)
    named = {winner.model_name(trials.base): winner for winner in winners}
    rows = {winner.architecture: name for name, winner in named.items()}  # the name may follow from settings that vary
    for default in defaults:
        row = rows[default.architecture]
        if not default.slot.has_all_folds:  # otherwise they learned from what the winner's models learned from
            named[default_name(row)] = default
        _add_default(finals, default, row, slots)
    names = {runs.name for runs in (*finals.saved, *finals.defaults)}
    finals.notes.extend(
        note for name, chosen in named.items() if name in names and (note := _learned_from(trials, chosen, name))
    )
    return finals


def take_best_epochs(trials: Runner, winners: Sequence[Winner]) -> Finals:
    """Save the winners' best epochs so far in OUTPUT/models, without further training; with folds, of the first."""
    config, finals = trials.base, Finals(fold=trials.first_fold)
    for winner in winners:
        parent = Location.of(config.output) / "models" / winner.model_name(config)
        target = parent / f"seed-{config.seed}"
        finals.saved.append(best_epoch(trials, winner, target))
        _delete_others(parent, {target.name})
        if trials.base.tune.folds:
            finals.notes.append(
                f"{winner.architecture}: tune.minutes left no time to train it on all tracks that are not test; its "
                f"model is that of the first of {config.tune.folds} folds, which did not learn from the tracks that "
                "the fold held out. Its valid F1 is that on these tracks, and it is calibrated by them."
            )
        elif trials.is_on_subset:
            finals.notes.append(
                f"{winner.architecture}: tune.minutes left no time to train it on all tracks; its model is that of the "
                f"search, trained on {config.tune.sample:.0%} of them."
            )
        record = winner.slot.record
        if record is not None and record.ended != "finished" and not record.folds:
            finals.notes.append(
                f"{winner.architecture}: tune.minutes ended its training after {record.epochs} of "
                f"{plural(winner.slot.epochs, 'epoch')}; the model is that of its best epoch."
            )
    return finals


def best_epoch(trials: Runner, winner: Winner, target: Location) -> SavedRuns:
    """Save the best epoch of a winner, finished or not, as a model in `target`."""
    folder = winner.slot.folder
    if winner.slot.has_model:
        saved = _published(folder.model, target)
    else:
        save = _save_best_epoch.options(num_cpus=trials.resources.cpus)
        planned = space.experiment(trials.base, winner.settings)
        ray.get(save.remote(planned, trials.cache, trials.first_fold, folder, target))
        saved = SavedModel.read(target)
    return SavedRuns(winner.model_name(trials.base), [saved], winner.trials)


@ray.remote
def _save_best_epoch(
    planned: Experiment, cache: ClipCache, fold: Fold | None, folder: TrialFolder, target: Location
) -> None:
    data, number = Data.open(cache_of(cache, fold)), fold.number if fold else 0
    card, trainer = trainer_for(planned, data, devices.device_for("cpu"), folder, number)
    experiment.save_best(target, card, trainer, **facts_of(fold))


def _slot(winner: Winner, seed: int, is_trial: bool) -> Slot:
    """Return the slot of a winner's training with `seed`.

    If this training is the trial itself (`is_trial`), a finished trial is reused, and another one is resumed from its
    state.
    """
    if is_trial and winner.slot.is_finished:
        return winner.slot
    slot, trial = winner.slot.final(seed), winner.slot.record
    if is_trial:
        slot.folder.start_from(winner.slot.folder)
        return slot.read()
    if slot.last and slot.record is not None and trial is not None and slot.record.folds != trial.folds:
        slot.folder.location.delete()  # it repeated the trial when fewer folds had finished
        return slot.read()
    return slot


def default_name(name: str) -> str:
    """Return the name of the row of the network `name` with the configured settings."""
    return f"{name} default"


def _add_default(finals: Finals, default: Winner, name: str, slots: dict[tuple[str, int], Slot]) -> None:
    """Add the models of the configured settings of the network in row `name`, unless it or all of them failed."""
    if name not in {runs.name for runs in finals.saved}:
        return
    row = default_name(name)
    models = [
        SavedModel.read(model) for model in _models(default, slots, f"{row}: the training", finals.notes).values()
    ]
    if models:
        finals.defaults.append(SavedRuns(row, models, default.trials, default_of=name))


def _models(chosen: Winner, slots: dict[tuple[str, int], Slot], what: str, notes: list[str]) -> dict[int, Location]:
    """Return by seed the models of the trainings that succeeded; print and note that `what` of the others failed."""
    models = {}
    for (trial, seed), slot in slots.items():
        if trial != chosen.slot.log_name or slot.record is None:
            continue
        if slot.record.failure:
            notes.append(f"{what} of seed-{seed} failed and is left out: {slot.record.failure}")
            cli.say(f"  {notes[-1]}")
        else:
            models[seed] = slot.folder.model
    return models


def _learned_from(trials: Runner, winner: Winner, name: str) -> str:
    """Return what the models of a winner in row `name` learned from, if that is not the training split alone."""
    count, record = trials.base.tune.folds, winner.slot.record
    if not count or record is None:
        return ""
    finished = len(record.folds)
    tracks = sum(len(trials.cache.features.tracks(split)) for split in NOT_TEST)
    chosen = f"{plural(record.epochs_to_train(winner.slot.epochs), 'epoch')} of the schedule of {winner.slot.epochs}"
    learned = f"{name}: its models learned from all {tracks} tracks that are not test, without validation, for {chosen}"
    if finished < count:
        score = f"the mean over the {finished} that it finished" if finished else "that of the first so far"
        calibrated = "" if finished else ", and they are not calibrated"
        return (
            f"{learned}: no trial of it finished {count} folds. Its valid F1 is {score}, each judged by a network that "
            f"learned from the other folds{calibrated}."
        )
    best = ", ".join(str(fold.best_epoch) for fold in record.folds)
    return (
        f"{learned}, the median of the best epochs ({best}) of {count} folds of these tracks. Its valid F1, by which "
        "its settings were chosen, is the mean over the folds, and its calibration follows from their predictions: "
        f"each by a network that learned from the other folds, {1 - 1 / count:.0%} of these tracks."
    )


def _publish(config: Config, winners: Sequence[Winner], slots: dict[tuple[str, int], Slot]) -> Finals:
    """Copy the models to OUTPUT/models/NAME/seed-N, and delete the models of an earlier search.

    If all seeds of a winner failed, OUTPUT/models/NAME is deleted: an earlier model in it would have other settings
    than the leaderboard states. The earlier search can be run again to restore it, since OUTPUT/tune keeps its trials.
    Raises `TrainingError` when all seeds of all winners failed, and keeps the earlier models.
    """
    notes: list[str] = []
    rows: list[tuple[Location, SavedRuns]] = []
    for winner in winners:
        parent = Location.of(config.output) / "models" / winner.model_name(config)
        trained = _models(winner, slots, f"{parent.name}: the final training", notes)
        models = [_published(model, parent / f"seed-{seed}") for seed, model in trained.items()]
        rows.append((parent, SavedRuns(parent.name, models, winner.trials)))
    if not any(runs.models for _, runs in rows):
        raise TrainingError(f"all final trainings failed; {notes[0]}")
    for parent, runs in rows:
        if runs.models:
            _delete_others(parent, {model.location.name for model in runs.models})
        else:
            parent.delete()
    return Finals([runs for _, runs in rows if runs.models], notes=notes)


def _published(model: Location, target: Location) -> SavedModel:
    """Return the saved model in `target`, after copying it unless it is there, maybe calibrated by other tracks."""
    if not _is_same(model, target):
        copy_model(model, target)
    return SavedModel.read(target)


def _delete_others(parent: Location, kept: set[str]) -> None:
    """Delete the models of seeds whose names are not in `kept`."""
    for child in parent.children():
        if child.base_name.startswith("seed-") and child.base_name not in kept:
            (parent / child.base_name).delete()


def copy_model(model: Location, target: Location) -> None:
    """Copy all files of a saved model's folder, model.json last; other files of another model are deleted."""
    files = list(model.files())
    if not _is_same(model, target):
        (target / CARD).delete()
        names = {file.name for file in files}
        for file in target.files():
            if file.name not in names:
                file.delete()
    for file in sorted(files, key=lambda file: file.name == CARD):
        (target / file.name).write_bytes(file.read_bytes())


def _is_same(model: Location, other: Location) -> bool:
    """Return whether `other` holds the same saved model."""
    card = other / CARD
    return card.exists() and card.read_bytes() == (model / CARD).read_bytes()
