"""Predictions of one or several models in folders, by torch. The counterpart for exported files is `onnx_ensemble`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from genre.arrays import Float32
from genre.features.preparing.tracks import PreparedTrack, clips_of
from genre.model import checkpoint
from genre.model.card import ModelCard
from genre.model.decoder import Decoder
from genre.model.saved_model import SavedModel

_BATCH_CPU, _BATCH_GPU = 16, 128  # windows; on a CPU larger batches take more memory and are not faster


class TorchEnsemble:
    """One or several models in folders, whose probabilities are averaged. See `saved_model.Ensemble`."""

    def __init__(self, models: Sequence[SavedModel], decoder: Decoder, device: str, threads: int) -> None:
        if threads:
            torch.set_num_threads(threads)
        self.models = [checkpoint.load(model.location).to(device) for model in models]
        self.decoder = decoder

    @property
    def cards(self) -> list[ModelCard]:
        return [model.card for model in self.models]

    def predict(self, tracks: Sequence[PreparedTrack]) -> tuple[Float32, Float32 | None]:
        """Return probabilities and embeddings of each clip. Several models have no common embedding."""
        first = self.models[0]
        clips = clips_of(tracks, first.card.shape)
        batch = _BATCH_CPU if first.classifier.mean.device.type == "cpu" else _BATCH_GPU
        if len(self.models) == 1:
            return first.predict_and_embed(clips, batch)
        predictions = [model.predict(clips, batch) for model in self.models]
        return np.mean(predictions, axis=0, dtype=np.float32), None
