"""Score saved models on prepared features again, and write their report to OUTPUT/evaluation.

With model=FOLDER it scores that model, otherwise every model below OUTPUT/models.

With evaluate.folds=5 it divides all labelled tracks into 5 folds by group, or takes the 5 that are published, trains
each model and the classical baseline again for every fold, on the tracks of the others, and scores each track by those
that never saw its group. It writes the report and the folds to OUTPUT/cross_validation, and calibrates the models below
OUTPUT/models by these scores. After an interruption, the same command trains only what is missing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from genre.errors import ArtifactError, ConfigError
from genre.features import SPLITS, Features
from genre.model import checkpoint, provenance
from genre.model.saved_model import SavedModel, all_seeds
from genre.report import Judged, cross_validation
from genre.report.entries import SavedRuns
from genre.settings import Config
from genre.storage import Location, lease
from genre.training import experiment
from ray_jobs.engine import cli, cluster
from ray_jobs.scoring import judging
from ray_jobs.scoring.cross_validation import CrossValidation
from ray_jobs.scoring.scores import JudgedSplit


def run(config: Config) -> None:
    """Write the report on one split to OUTPUT/evaluation, or that of a cross-validation to OUTPUT/cross_validation."""
    output = Location.of(config.output)
    folder = Location.of(config.evaluate.features) if config.evaluate.features else output / "features"
    features = Features.open(folder)
    saved = [_named_model(config.model)] if config.model else list(_all_models(output / "models"))
    if not saved:
        raise ArtifactError(f"{output / 'models'} holds no model; run train or tune, or name one with model=FOLDER")
    for runs in saved:
        for model in runs.models:
            checkpoint.load(model.location)  # the weights are complete and fit
            checkpoint.check_features(model.card, features)
            _check_unseen(config, model, features)
    if config.evaluate.folds:
        if config.evaluate.split != "test":
            raise ConfigError("evaluate.folds judges the tracks of all splits; leave out evaluate.split, or the folds")
        _cross_validate(config, features, saved)
    else:
        _score(config, features, saved)


def _score(config: Config, features: Features, saved: list[SavedRuns]) -> None:
    """Score the models on one split."""
    _check_split(config.evaluate.split, features)
    experiment.check_leakage(features)  # the report says that it passed
    features.check_clips(features.tracks(config.evaluate.split))
    names, output = ", ".join(runs.name for runs in saved), Location.of(config.output)
    cli.say(f"evaluate: {names} on the {config.evaluate.split} split of {features.folder}")
    with lease.held(config.output, "evaluate"), cluster.connected(config.cluster, config.output) as capacity:
        on = JudgedSplit(features, config.evaluate.split, config.seed, capacity, config.device)
        board = judging.judge(on, saved)
        judging.publish(board, output / "evaluation", [], "evaluate", config)


def _cross_validate(config: Config, features: Features, saved: list[SavedRuns]) -> None:
    """Judge all labelled tracks by networks that are trained for it."""
    saved = _without_students(saved)
    folder = Location.of(config.output) / "cross_validation"
    planned = CrossValidation.plan(features, saved, config.evaluate.folds, config.seed, folder)
    for settings in planned.settings():
        experiment.check_start(settings, features, SPLITS)
    features.check_clips(features.labelled())
    missing = planned.missing()
    names = ", ".join(runs.name for runs in saved)
    cli.say(f"evaluate: cross-validation of {names} on {features.folder}: {planned.cost(missing)}")
    for line in cross_validation.absent_genres(features, planned.tracks):
        cli.say(f"evaluate: {line}")
    with lease.held(config.output, "evaluate"), cluster.connected(config.cluster, config.output) as capacity:
        (folder / "folds.parquet").write_table(planned.tracks)
        planned.train(missing, config.cache, config.device, capacity)
        board = judging.cross_validate(planned, saved, config.seed, capacity, calibrates=not config.model)
        judging.publish(board, folder, [], "evaluate", config)


def _check_unseen(config: Config, model: SavedModel, features: Features) -> None:
    """Raise `ConfigError` for a model that learned from tracks that it would be scored on."""
    if model.card.teacher and provenance.has_learned(model.location, features, [config.evaluate.split]):
        raise ConfigError(
            f"{model.location} learned from tracks that are in split {config.evaluate.split} today, with genres that "
            "its teacher predicted; train it again, or move it out of the models"
        )
    if config.evaluate.split != "valid" or "valid" not in model.card.trained_on:
        return
    has_learned = provenance.has_learned(model.location, features, ["valid"])
    # by their addresses: both are below OUTPUT, or nothing says that the model which is named is from elsewhere
    is_own = not config.evaluate.features and (not config.model or has_learned is None)
    if is_own or has_learned:
        raise ConfigError(
            f"{model.location} learned from the validation tracks as well (tune.folds); use evaluate.split=test, or "
            "evaluate.folds=5, whose networks never saw what they are scored on"
        )


def _without_students(saved: list[SavedRuns]) -> list[SavedRuns]:
    """Return the models without a teacher: in each fold it would have learned from what the student is judged on.

    Raises `ConfigError` where no model is left.
    """
    students = [runs.name for runs in saved if runs.best.card.teacher]
    if len(students) == len(saved):
        raise ConfigError(
            f"evaluate.folds: {', '.join(students)} learned what a teacher predicts, which learned from tracks of "
            "other folds; name a model without a teacher with model=FOLDER, or leave out the folds"
        )
    if students:
        cli.say(f"evaluate: without {', '.join(students)}, whose teachers learned from tracks of other folds")
    return [runs for runs in saved if not runs.best.card.teacher]


def _check_split(split: Judged, features: Features) -> None:
    """Check that the split to score has tracks. Raises `ArtifactError`."""
    counts = {name: len(features.tracks(name)) for name in SPLITS}
    if not counts[split]:
        others = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise ArtifactError(
            f"{features.folder}: the {split} split holds no tracks (found: {others}); "
            "choose another with evaluate.split, or prepare the features with other fractions"
        )


def _named_model(path: str) -> SavedRuns:
    model = SavedModel.read(Location.of(path))
    return SavedRuns(model.card.name, [model])


def _all_models(models: Location) -> Iterator[SavedRuns]:
    """Yield each name with its models."""
    for folder in models.folders():
        if runs := all_seeds(folder):
            yield SavedRuns(folder.name, runs)


if __name__ == "__main__":
    sys.exit(cli.main("evaluate"))
