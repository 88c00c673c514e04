"""Repeat the training of a saved model on other tracks, such as the folds of a cross-validation.

The network, all settings, the seed and the number of epochs are those that the model's card records. Nothing is chosen
again, so no track has to be held out for it: the weights after the last epoch are used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from genre.arrays import Float32
from genre.config import validate
from genre.errors import ArtifactError, ConfigError
from genre.model.card import ModelCard
from genre.settings import TrainSettings
from genre.storage import Location
from genre.training import experiment
from genre.training.experiment import EXECUTION_SETTINGS, Data, Experiment


@dataclass(frozen=True)
class Repetition:
    """The training of a saved model: its experiment, and the number of `epochs` of the weights that were saved.

    The schedule is that of the complete training, cut after `epochs`.
    """

    experiment: Experiment
    epochs: int
    seconds_per_epoch: float  # as measured in the training of the saved model, with its validations
    trained_on: tuple[str, ...] = ("train",)  # the splits that the saved model learned from
    trained_share: float = 1.0  # of their tracks, about

    @classmethod
    def of(cls, card: ModelCard, source: Location) -> Repetition:
        """Return the training of the model in `source`. Raises `ArtifactError` when its card does not record it."""
        facts = card.facts
        try:
            # cards of earlier versions lack the setting, whose default was another one
            recorded = facts["settings"]["train"] | {"window_norm": card.window_norm}
            settings = validate(TrainSettings, recorded, "train.")
            repeated = Experiment(card.architecture, card.params, settings, int(facts["seed"]))
            seconds = float(facts["train_seconds"]) / int(facts["history"][-1]["epoch"])
            share = float(facts.get("trained_share", 1.0))
            return cls(repeated, int(facts["best_epoch"]), seconds, card.trained_on, share)
        except (KeyError, IndexError, TypeError, ConfigError) as error:
            raise ArtifactError(
                f"{source}: model.json does not say how the model was trained ({error}); train it again"
            ) from None

    def deciding(self) -> dict[str, Any]:
        """Return everything but the data that decides the predictions, in plain types."""
        return {
            "architecture": self.experiment.architecture,
            "params": self.experiment.params,
            "train": self.experiment.train.model_dump(mode="json", exclude=EXECUTION_SETTINGS),
            "seed": self.experiment.seed,
            "epochs": self.epochs,
        }

    def predictions(self, data: Data, device: torch.device) -> Float32:
        """Train on `data.train`; return the probabilities of the tracks of `data.valid`, (tracks, classes).

        Raises `TrainingError` when a loss is not finite.
        """
        _, trainer = experiment.trainer_for(self.experiment, data, device)
        for _ in trainer.run_to(self.epochs):
            pass
        return trainer.best_predictions()
