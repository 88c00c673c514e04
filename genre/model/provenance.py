"""What a saved model learned from: the tracks of features that it was made with, or of others."""

from __future__ import annotations

from collections.abc import Collection

from genre.features import Features
from genre.features.folds import Fold
from genre.model import calibration
from genre.model.card import ModelCard, read_card
from genre.storage import Location


def learned_from(card: ModelCard, features: Features) -> Features:
    """Return the view of `features` whose training split the model learned from, if it was made with them."""
    if "held_out" in card.facts:
        return features.of_fold(Fold(**card.facts["held_out"], splits=card.trained_on))
    return features if card.trained_on == ("train",) else features.of_fold(Fold.none_of(card.trained_on))


def has_learned(model: Location, features: Features, splits: Collection[str]) -> bool | None:
    """Return whether the saved `model` learned from tracks of these splits, wherever the features are now.

    The features are taken for those that it was made with, or for a part of them, if they have more than half of its
    held-out tracks, or if more than half of theirs are held-out tracks, by name: a few more tracks or corrected genres
    change nothing. None, not known, where it has no held-out tracks to compare.
    """
    card, weights = read_card(model)
    if set(splits).isdisjoint(card.trained_on):
        return False
    held_out = calibration.load(model, weights, len(card.classes))
    if held_out is None:
        return None
    names = set(calibration.hashed(features.labelled()["track_id"].to_pylist()))
    return 2 * len(names.intersection(held_out.tracks)) > min(len(names), len(held_out))
