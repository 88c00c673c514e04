"""The nearest training tracks of the tracks that are judged, by the embeddings of the best network.

Nothing here ends a job: where it fails, the report has a note in place of the row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genre.arrays import Float32
from genre.errors import ArtifactError, last_line
from genre.features import Features
from genre.model import provenance
from genre.model.saved_model import SavedModel
from genre.report.entries import NearestTracks, SavedRuns
from genre.report.facts import Setting
from genre.retrieval.neighbours import MOST_TRACKS, TEMPERATURE, VOTERS, TrainingTracks
from ray_jobs.engine.capacity import Capacity
from ray_jobs.scoring.predictions import Stream


@dataclass(frozen=True)
class Embedder:
    """The model whose embeddings are compared, and the name of its row."""

    name: str
    model: SavedModel

    @classmethod
    def best(cls, saved: Sequence[SavedRuns]) -> Embedder:
        """Return the best network by its mean score on the validation split, with its best seed."""
        row = max(saved, key=lambda runs: float(np.mean([model.card.facts["valid_f1"] for model in runs.models])))
        return cls(row.name, row.best)

    def nearest(
        self, features: Features, judged: Float32, seed: int, device: str, capacity: Capacity
    ) -> tuple[NearestTracks | None, list[str]]:
        """Return the votes of the nearest training tracks for tracks with the embeddings `judged`, (tracks, size).

        Training tracks are those of `features` that the model learned from. Where this fails, return None and a note.
        Of more than `MOST_TRACKS` a sample drawn by `seed` votes: complete groups, each genre in proportion.
        """
        try:
            return self._nearest(features, judged, seed, device, capacity), []
        except Exception as error:  # of any kind: a search that may have taken days gets its report
            return None, [f"Nearest neighbours were not looked up: {last_line(error).rstrip('.')}."]

    def _nearest(
        self, features: Features, judged: Float32, seed: int, device: str, capacity: Capacity
    ) -> NearestTracks:
        learned = provenance.learned_from(self.model.card, features)
        total = len(learned.tracks("train"))
        if not total:
            raise ArtifactError("there are no training tracks")
        sampled = learned.sampled(min(1.0, MOST_TRACKS / total), seed)
        folder = self.model.location
        stream = Stream(sampled, "train", [folder], [], device, capacity, embedded=folder)
        tracks = sampled.tracks("train")
        vectors = stream.run("training tracks embedded").embeddings
        assert vectors is not None
        train = TrainingTracks(tracks["track_id"].to_pylist(), sampled.labels(tracks).to_numpy(), vectors)
        probabilities, neighbours = train.predict(judged, len(features.classes))
        if not np.isfinite(probabilities).all():
            raise ArtifactError("embeddings are not all finite")
        model_seed = self.model.card.facts["seed"]
        settings: dict[str, Setting] = {
            "neighbours.voters": min(VOTERS, len(tracks)),
            "neighbours.temperature": TEMPERATURE,
            "neighbours.seed": model_seed,
            "neighbours.training_tracks": len(tracks),
        }
        if len(tracks) < total:
            settings["neighbours.sampled_from"] = total
        return NearestTracks(self.name, model_seed, probabilities, neighbours, settings)
