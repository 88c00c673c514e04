"""Cross-validation of saved models, in Ray tasks: each is trained again for every fold, and predicts the fold's tracks.

    OUTPUT/cross_validation/fold_predictions/<model>-<seed>-<key>/fold-<n>.parquet

The key depends on everything that the predictions follow from, and a file is written when its training has ended, so
that the same command trains only what is missing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import torch

from genre import devices
from genre.arrays import Float32
from genre.audio.isolation import portable
from genre.config import fingerprint
from genre.features import Features
from genre.features.cache import ClipCache
from genre.features.cache.cache_folder import Report
from genre.features.columns import combined
from genre.features.splitting import folds
from genre.features.splitting.folds import Fold
from genre.model import calibration
from genre.model.saved_model import SavedModel
from genre.report.entries import SavedRuns
from genre.settings import CacheSettings, TrainSettings
from genre.storage import Location
from genre.training import experiment, fold_predictions
from genre.training.experiment import Data
from genre.training.repetition import Repetition
from genre.wording import duration, plural
from ray_jobs.engine import blocks, cli, reporter
from ray_jobs.engine.capacity import SHARE_OF_GPU, Capacity, is_cluster
from ray_jobs.engine.progress import JobProgress

# Folds calibrate a model only if their networks and the model learned from numbers of tracks within this factor.
MOST_MORE = 1.25


@dataclass(frozen=True)
class FoldTraining:
    """The training of one model for one fold, and the file of its predictions."""

    model_name: str
    repetition: Repetition
    fold: Fold
    file: Location

    @property
    def name(self) -> str:
        return f"{self.model_name}, seed {self.repetition.experiment.seed}, {self.fold}"

    def run(self, features: Features, cache: CacheSettings, device: torch.device, report: Report) -> int:
        """Train on the other folds and write the predictions for this one. Return how many of them are right.

        `report` gets a message before clips are copied. Raises `ArtifactError` when the view of this process has a
        track, a group or audio in two folds.
        """
        view = features.of_fold(self.fold)
        experiment.check_leakage(view)
        data = Data.open(ClipCache.of(view, cache), report)
        probabilities = self.repetition.predictions(data, device)
        fold_predictions.write(self.file, data.valid.track_ids, probabilities)
        return int((probabilities.argmax(axis=1) == data.valid.labels).sum())


@dataclass(frozen=True)
class CrossValidation:
    """The trainings of all saved models, one for each fold."""

    features: Features
    tracks: pa.Table  # with the column `fold`
    models: dict[str, list[list[FoldTraining]]]  # by name, one list for each seed

    @classmethod
    def plan(
        cls, features: Features, saved: Sequence[SavedRuns], count: int, seed: int, folder: Location
    ) -> CrossValidation:
        """Divide the labelled tracks into `count` folds and list the trainings.

        Raises `ConfigError` where the tracks do not suffice, and `ArtifactError` for a model whose card does not
        record its training.
        """
        tracks = features.tracks()
        all_folds = folds.of_tracks(tracks, count, seed)
        published = all_folds[0].seed is None
        fold_of_track = folds.assign(tracks, count, all_folds[0].seed)
        folds.check(tracks, fold_of_track, count, features.classes, published=published)
        models = {
            runs.name: [_planned(runs.name, model, features, all_folds, folder) for model in runs.models]
            for runs in saved
        }
        return cls(features, folds.table(tracks, fold_of_track, published=published), models)

    @property
    def trainings(self) -> list[FoldTraining]:
        return [training for runs in self.models.values() for trainings in runs for training in trainings]

    def settings(self) -> list[TrainSettings]:
        """Return the settings of training of each saved model."""
        return [trainings[0].repetition.experiment.train for runs in self.models.values() for trainings in runs]

    def missing(self) -> list[FoldTraining]:
        """Return the trainings without predictions, the longest first, so that no long one runs alone at the end."""
        missing = [training for training in self.trainings if not training.file.exists()]
        return sorted(missing, key=lambda training: -self._seconds(training))

    def cost(self, missing: Sequence[FoldTraining]) -> str:
        """Return in one line what there is to train and how long that takes."""
        total = len(self.trainings)
        before = f", {total - len(missing)} of them finished before" if len(missing) < total else ""
        sizes = np.bincount(self.tracks["fold"].to_numpy())[1:]
        seconds = duration(sum(map(self._seconds, missing)))
        kind = "published " if self.trainings[0].fold.seed is None else ""
        return (
            f"{plural(total, 'training')} over {len(sizes)} {kind}folds of {sizes.min()} to {sizes.max()} tracks"
            f"{before}; about {seconds} of training in one process, as long as the saved models took"
        )

    def train(self, missing: Sequence[FoldTraining], cache: CacheSettings, device: str, capacity: Capacity) -> None:
        """Run the `missing` trainings. Raises the error of the first that fails; those that ended are kept."""
        capacity.check_device(device)
        use_gpu = capacity.gives_gpu(device)
        # of all, not of the missing: the last bits of predictions depend on the number of threads, also after a resume
        cpus = 1 if is_cluster() else max(1, int(capacity.cpus // len(self.trainings)))
        needed = {"CPU": float(cpus)} | ({"GPU": SHARE_OF_GPU} if use_gpu else {})
        task = _run.options(num_cpus=cpus, num_gpus=needed.get("GPU", 0))
        most = min(capacity.cpus / cpus, capacity.gpus / SHARE_OF_GPU if use_gpu else np.inf, blocks.MOST_CPUS)
        with reporter.messages("evaluate") as mailbox, JobProgress("cross-validation", len(missing)) as progress:
            shared = ray.put((self.features, cache, cpus, "cuda" if use_gpu else "cpu", mailbox))
            results = blocks.completed(
                lambda number: task.remote(number, missing[number], shared), len(missing), max(1, int(most)), needed
            )
            for number, right, seconds in results:
                training = missing[number]
                judged = pc.sum(pc.equal(self.tracks["fold"], training.fold.number)).as_py()
                cli.say(f"  {training.name}: {right} of {judged} right, {duration(seconds)}")
                progress.step(1, training.name)

    def predictions(self) -> dict[str, list[Float32]]:
        """Return by name, for each saved model, the probabilities of all tracks, (tracks, classes)."""
        return {name: [self._joined(trainings) for trainings in runs] for name, runs in self.models.items()}

    def calibrate(self, saved: Sequence[SavedRuns]) -> list[str]:
        """Give the `saved` models these predictions to be calibrated by; return what was done, in sentences.

        A model keeps its own predictions if they are for other tracks, or if the networks of the folds learned from a
        number of tracks that differs from its own by more than the factor `MOST_MORE`.
        """
        count, ids = self.trainings[0].fold.count, self.tracks["track_id"].to_pylist()
        labels = self.features.labels(self.tracks).to_numpy()
        hashes, kept, names = set(calibration.hashed(ids)), [], []
        for runs in saved:
            for model, trainings in zip(runs.models, self.models[runs.name], strict=True):
                name = f"{runs.name}, seed {model.card.facts['seed']}"
                ratio = len(self.tracks) * (1 - 1 / count) / self._learned_from(trainings[0])
                if not 1 / MOST_MORE <= ratio <= MOST_MORE:
                    kept.append(
                        f"{name}: not calibrated by these predictions. The networks of the folds learned from "
                        f"{ratio:.2f} times as many tracks as this model, and the factor has to be between "
                        f"{1 / MOST_MORE:g} and {MOST_MORE:g}. Its calibration by its own held-out tracks stays."
                    )
                    continue
                own = model.read_validation()
                if own is None or not hashes.issuperset(own.tracks):
                    kept.append(f"{name}: not calibrated by these predictions, since its validation tracks are others.")
                    continue
                calibration.save(model.location, ids, labels, self._joined(trainings), count)
                names.append(name)
        done = (
            f"Calibrated by these predictions, from which temperature and thresholds are computed: {'; '.join(names)}."
        )
        return ([done] if names else []) + kept

    def _joined(self, trainings: Sequence[FoldTraining]) -> Float32:
        """Return the predictions of all folds in the order of the tracks, (tracks, classes)."""
        files = [training.file for training in trainings]
        return fold_predictions.joined(files, combined(self.tracks["track_id"]), len(self.features.classes))

    def _learned_from(self, training: FoldTraining) -> float:
        """Return the number of tracks that the saved model learned from."""
        saved = training.repetition
        return max(1.0, saved.trained_share * sum(len(self.features.tracks(split)) for split in saved.trained_on))

    def _seconds(self, training: FoldTraining) -> float:
        """Return the expected seconds of a training: those of the saved model, in proportion to the tracks."""
        is_trained_on = pc.not_equal(self.tracks["fold"], training.fold.number)
        ratio = pc.sum(is_trained_on).as_py() / self._learned_from(training)
        return training.repetition.epochs * training.repetition.seconds_per_epoch * float(ratio)


def _planned(
    name: str, model: SavedModel, features: Features, all_folds: Sequence[Fold], folder: Location
) -> list[FoldTraining]:
    """Return the trainings of a saved model."""
    repetition = Repetition.of(model.card, model.location)
    manifest = features.manifest
    deciding = repetition.deciding() | {"features": [manifest.fingerprint, manifest.contents]}
    deciding |= experiment.start_of(repetition.experiment.train, folder)
    folds_key = {key: value for key, value in asdict(all_folds[0]).items() if key != "number"}
    parent = folder / "fold_predictions" / f"{name}-{repetition.experiment.seed}-{fingerprint(deciding | folds_key)}"
    return [FoldTraining(name, repetition, fold, fold_predictions.file_of(parent, fold.number)) for fold in all_folds]


@ray.remote
def _run(
    number: int, training: FoldTraining, shared: tuple[Features, CacheSettings, int, str, Any]
) -> tuple[int, int, float] | Exception:
    """Run a training; return its number, how many predictions are right, and its seconds, or the error."""
    features, cache, threads, device, mailbox = shared
    started = time.monotonic()
    try:
        torch.set_num_threads(threads)
        right = training.run(features, cache, devices.device_for(device), mailbox.put.remote)
    except Exception as error:
        return portable(error)
    return number, right, time.monotonic() - started
