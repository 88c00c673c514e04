"""What a saved model learned from: the tracks of features that it was made with, or of others."""

from __future__ import annotations

from genre.features import Features
from genre.features.folds import Fold
from genre.model.card import ModelCard


def learned_from(card: ModelCard, features: Features) -> Features:
    """Return the view of `features` whose training split the model learned from, if it was made with them."""
    if "held_out" in card.facts:
        return features.of_fold(Fold(**card.facts["held_out"], splits=card.trained_on))
    return features if card.trained_on == ("train",) else features.of_fold(Fold.none_of(card.trained_on))
