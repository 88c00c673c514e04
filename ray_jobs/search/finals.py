"""The models of the winners, one for each seed: taken from the search where it trained them, else trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from genre import devices
from genre.errors import TrainingError
from genre.model.card import CARD, read_card
from genre.report.entries import SavedRuns
from genre.settings import Config
from genre.storage import Location
from genre.training import experiment
from genre.training.experiment import Data, Experiment
from ray_jobs.engine import cli
from ray_jobs.search import samplers, search_plan, terms, tuning
from ray_jobs.search.outcomes import Winner
from ray_jobs.search.search_plan import Slot
from ray_jobs.search.trials import Shared, apply, trainer_for


@dataclass(frozen=True)
class Finals:
    """The saved models of the winners, and what is to be said of those that could not be trained."""

    saved: list[SavedRuns] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    interrupted: bool = False


def train(config: Config, shared: Shared, winners: Sequence[Winner], count: int) -> Finals:
    """Train each winner with `count` seeds to its end, and put the models into OUTPUT/models.

    A trial of the search that ran to its end is the training with the search's own seed, and one that was stopped
    is resumed where it was. A training that fails leaves its seed out, and the leaderboard says so. Raises
    `TrainingError` when all failed.
    """
    seeds = range(config.seed, config.seed + count)
    slots = {(winner.architecture, seed): _slot(config, winner, seed) for winner in winners for seed in seeds}
    missing = search_plan.unsettled(list(slots.values()))
    if missing:
        settings = {winner.architecture: winner.settings for winner in winners}
        runs = [slot.run(settings[name] | {"seed": seed}) for (name, seed), slot in slots.items() if slot in missing]
        space, tune_config = samplers.listed(runs, terms.concurrent_trials(config))
        trained = tuning.run(config, shared, "final", list(slots.values()), missing, space, tune_config)
        slots = dict(zip(slots, trained, strict=True))
    if any(slot.record is None or slot.record.ended is None for slot in slots.values()):
        return Finals(interrupted=True)
    return _publish(config, winners, slots)


def as_they_are(config: Config, data: Data, winners: Sequence[Winner]) -> Finals:
    """Put the winners into OUTPUT/models without further training: of those that have not ended, the best epoch."""
    finals = Finals()
    for winner in winners:
        parent = Location.of(config.output) / "models" / label(config, winner)
        target = parent / f"seed-{config.seed}"
        finals.saved.append(best_so_far(config, data, winner, target))
        _forget_others(parent, {target.name})
        record = winner.slot.record
        if record is not None and record.ended != "finished":
            finals.notes.append(
                f"{winner.architecture}: tune.minutes ended its training after {record.epochs} of {winner.slot.epochs} "
                "epochs; the model is that of its best epoch."
            )
    return finals


def best_so_far(config: Config, data: Data, winner: Winner, target: Location) -> SavedRuns:
    """The best epoch of a winner that may not have ended, as a model in `target`."""
    folder = winner.slot.folder
    if winner.slot.record is not None and winner.slot.record.ended == "finished":
        _copy(folder.model, target)
    else:
        settings = apply(config, winner.settings)
        card, trainer = trainer_for(settings, data, devices.device_for("cpu"), folder)
        experiment.save_best(target, card, trainer)
    return SavedRuns(label(config, winner), [target], winner.trials)


def keep_best(saved: SavedRuns, target: Location) -> None:
    """Make the seed with the best validation score the architecture's model."""
    _copy(max(saved.folders, key=lambda folder: float(read_card(folder)[0].facts["valid_f1"])), target)


def label(config: Config, winner: Winner) -> str:
    """The name of the winner's folder and row."""
    return Experiment.of(apply(config, winner.settings)).label


def _slot(config: Config, winner: Winner, seed: int) -> Slot:
    """Where the training of a winner with `seed` is: the trial itself where that is what it was."""
    if seed == config.seed and winner.slot.record is not None and winner.slot.record.ended == "finished":
        return winner.slot
    slot = winner.slot.final(seed)
    if seed == config.seed:
        slot.folder.start_from(winner.slot.folder)
    return slot


def _publish(config: Config, winners: Sequence[Winner], slots: dict[tuple[str, int], Slot]) -> Finals:
    """Copy the models to OUTPUT/models/LABEL/seed-N, and remove those that earlier settings left there."""
    finals, failures = Finals(), []
    for winner in winners:
        name, folders = label(config, winner), []
        parent = Location.of(config.output) / "models" / name
        for (architecture, seed), slot in slots.items():
            if architecture != winner.architecture:
                continue
            assert slot.record is not None
            if slot.record.failure:
                failures.append(slot.record.failure)
                finals.notes.append(
                    f"{name}: the final training of seed-{seed} failed and is left out: {slot.record.failure}"
                )
                cli.console().print(f"  {finals.notes[-1]}")
                continue
            folders.append(parent / f"seed-{seed}")
            if not _is_same(slot.folder.model, folders[-1]):
                _copy(slot.folder.model, folders[-1])
        _forget_others(parent, {folder.name for folder in folders})
        if folders:
            finals.saved.append(SavedRuns(name, folders, winner.trials))
    if not finals.saved:
        raise TrainingError(f"no final training came to its end; the first failed: {failures[0]}")
    return finals


def _forget_others(parent: Location, kept: set[str]) -> None:
    """Remove the models of seeds that earlier settings left."""
    for child in parent.children():
        if child.base_name.startswith("seed-") and child.base_name not in kept:
            (parent / child.base_name).delete()


def _copy(model: Location, target: Location) -> None:
    """Copy a saved model with all that is in its folder; `model.json` comes last."""
    if not _is_same(model, target):
        (target / CARD).delete()
    for file in sorted(model.files(), key=lambda file: file.name == CARD):
        (target / file.name).write_bytes(file.read_bytes())


def _is_same(model: Location, other: Location) -> bool:
    """Whether `other` holds the same saved model."""
    card = other / CARD
    return card.exists() and card.read_bytes() == (model / CARD).read_bytes()
