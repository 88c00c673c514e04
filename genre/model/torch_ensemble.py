"""Predictions of one or several models in folders, by torch. The counterpart for exported files is `onnx_ensemble`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from genre.arrays import Float32
from genre.features.preparation import PreparedTrack, clips_of
from genre.model import checkpoint
from genre.model.classifier import predict, predict_and_embed
from genre.model.decoder import Decoder
from genre.model.saved_model import SavedModel

_BATCH_CPU, _BATCH_GPU = 16, 128  # windows; on a CPU larger batches take more memory and are not faster


class TorchEnsemble:
    """One or several models in folders, whose probabilities are averaged. See `saved_model.Ensemble`."""

    def __init__(self, models: Sequence[SavedModel], decoder: Decoder, device: str, threads: int) -> None:
        if threads:
            torch.set_num_threads(threads)
        loaded = [checkpoint.load(model.location) for model in models]
        self.cards = [card for card, _ in loaded]
        self.classifiers = [classifier.to(device) for _, classifier in loaded]
        self.decoder = decoder

    def predict(self, tracks: Sequence[PreparedTrack]) -> tuple[Float32, Float32 | None]:
        """Return probabilities and embeddings of each clip. Several models have no common embedding."""
        clips = clips_of(tracks, self.cards[0].shape)
        batch = _BATCH_CPU if self.classifiers[0].mean.device.type == "cpu" else _BATCH_GPU
        if len(self.classifiers) == 1:
            card = self.cards[0]
            return predict_and_embed(self.classifiers[0], clips, card.frames(), card.eval_windows, batch)
        predictions = [
            predict(classifier, clips, card.frames(), card.eval_windows, batch)
            for card, classifier in zip(self.cards, self.classifiers, strict=True)
        ]
        return np.mean(predictions, axis=0, dtype=np.float32), None
