"""Self-training: saved models predict the genres of the tracks without one, and another model learns from these too.

The method is that of pseudo-labels (Lee, "Pseudo-label", ICML workshop 2013; Xie et al., "Self-training with noisy
student improves ImageNet classification", CVPR 2020): the genre with the highest mean probability of the teachers is
taken for true, however certain it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from genre.corpora import UNLABELLED
from genre.errors import ConfigError
from genre.features import Features
from genre.model import checkpoint, provenance
from genre.model.saved_model import SavedModel, all_seeds
from genre.storage import Location
from ray_jobs.engine import models
from ray_jobs.engine.capacity import Capacity
from ray_jobs.scoring import predictions

_FILE = "predicted.parquet"  # in the folder of the student's run


@dataclass(frozen=True)
class Teacher:
    """One or several saved models, by the setting `teacher`."""

    setting: str
    models: Sequence[SavedModel]

    @classmethod
    def read(cls, setting: str, features: Features) -> Teacher:
        """Read the models, each with all of its seeds.

        Raises `ArtifactError` for a model that is missing, altered or of other features, and `ConfigError` for one that
        learned from tracks that will judge the student, or where no track lacks a genre.
        """
        saved = [model for folder in models.named(setting) for model in all_seeds(folder) or [SavedModel.read(folder)]]
        for model in saved:
            checkpoint.load(model.location)  # the weights are complete and fit
            checkpoint.check_features(model.card, features)
            if provenance.has_learned(model.location, features, ["valid", "test"]) is not False:
                raise ConfigError(
                    f"teacher={model.location} learned, or may have learned, from validation or test tracks of "
                    f"{features.folder}, which judge the new model; use a model that train made"
                )
        features.check_clips(features.tracks(UNLABELLED))
        if not len(features.tracks(UNLABELLED)):
            raise ConfigError(
                f"teacher={setting}: {features.folder} has no track without a genre; prepare some with the others, or "
                "leave the teacher out"
            )
        return cls(setting, saved)

    def deciding(self, student: Location) -> dict[str, list[str]]:
        """Return the weights of the models, without those of an earlier student, which the new one replaces."""
        return {"weights of teacher": [model.weights for model in self.models if not _is_in(model, student)]}

    def teach(self, features: Features, run: Location, device: str, capacity: Capacity) -> Features:
        """Return the features with the tracks that lack a genre as training tracks, of predicted genres.

        The predictions are kept in the folder of the student's run, for the time when it resumes.
        """
        file = run / _FILE
        if not file.exists():
            stream = predictions.Stream(
                features, UNLABELLED, [model.location for model in self.models], [], device, capacity
            )
            answers = stream.run("tracks without a genre, predicted by the teacher").probabilities
            genre = np.array(features.classes)[np.mean(answers, axis=0).argmax(axis=1)]
            tracks = features.tracks(UNLABELLED)["track_id"]
            file.write_table(pa.table({"track_id": tracks, "genre": pa.array(genre.tolist(), pa.string())}))
        return features.taught(file)


def _is_in(model: SavedModel, folder: Location) -> bool:
    return any(
        (each.filesystem, each.path) == (folder.filesystem, folder.path)
        for each in (model.location, model.location.parent)
    )
