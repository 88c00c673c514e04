"""Which tracks of a features folder a saved model learned from."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from genre.features import SPLITS, Features
from genre.features.splitting.folds import Fold
from genre.model import calibration
from genre.model.card import ModelCard, read_card
from genre.storage import Location

# tracks that a body's card names: of a body of 100,000 tracks it knows ten of a hundred validation tracks
_SAMPLE = 10_000


def learned_from(card: ModelCard, features: Features) -> Features:
    """Return the view of `features` whose training split the model learned from, if it was made with them."""
    if "held_out" in card.facts:
        fold = Fold(**card.facts["held_out"], splits=card.trained_on)
        return features.of_fold(fold) if fold.is_in(features.tracks()) else features
    return features if card.trained_on == ("train",) else features.of_fold(Fold.none_of(card.trained_on))


def has_learned(model: Location, features: Features, splits: Collection[str]) -> bool | None:
    """Return whether the saved `model` learned from tracks of these splits; None if it has no record of its tracks.

    A model did if it was trained on one of the splits and the features match. They match if more than half of its
    held-out tracks are among their labelled tracks, or more than half of their labelled tracks are held-out tracks.
    Tracks are compared by name, so features that were moved, extended a little or corrected still match. It did as well
    if most of the tracks that it held out are in other splits today, since the tracks were divided again. A student did
    if a track whose genre its teacher predicted is in the splits.

    A body did if more than half of the sample of tracks in its card is in the splits, or more than half of the tracks
    of the splits that the sample would name are in it. The splits are those of today: when the body was trained, a
    track may have had no genre and no split.
    """
    card, weights = read_card(model, may_be_body=True)
    if card.is_body:
        sample = card.facts.get("learned_from")
        return None if sample is None else _is_half(sample, _names_in(features, splits))
    if card.teacher and not set(card.facts["learned_from"]).isdisjoint(_names_in(features, splits)):
        return True
    held_out = calibration.load(model, weights, len(card.classes))
    if set(splits).isdisjoint(card.trained_on):
        return held_out is not None and not held_out.folds and _are_divided_again(held_out.tracks, features)
    if held_out is None:
        return None
    names = set(calibration.hashed(features.labelled()["track_id"].to_pylist()))
    return 2 * len(names.intersection(held_out.tracks)) > min(len(names), len(held_out))


def sample_of(track_ids: Sequence[str], known: Sequence[str]) -> list[str]:
    """Return the names of tracks that a body learned from, hashed and sorted; of many tracks those that sort first.

    `known` is the sample of the body that it started from, which has learned from those tracks as well.
    """
    return sorted({*calibration.hashed(track_ids), *known})[:_SAMPLE]


def names_known_to(model: Location) -> list[str]:
    """Return the sample of a body or a student; empty for other models, whose cards name no tracks."""
    card, _ = read_card(model, may_be_body=True)
    return list(card.facts.get("learned_from", []))


def _are_divided_again(held_out: Sequence[str], features: Features) -> bool:
    """Return whether most of the validation tracks of a training that are here are in other splits today."""
    here = set(_names_in(features, SPLITS)).intersection(held_out)
    return 2 * len(here.intersection(_names_in(features, ["valid"]))) < len(here)


def _names_in(features: Features, splits: Collection[str]) -> list[str]:
    tracks = features.tracks()
    return calibration.hashed(tracks.filter(pc.is_in(tracks["split"], pa.array(list(splits))))["track_id"].to_pylist())


def _is_half(sample: list[str], names: list[str]) -> bool:
    """Return whether more than half of `sample`, or of the names that it would list, are in both."""
    listed = {name for name in names if len(sample) < _SAMPLE or name <= sample[-1]}
    return 2 * len(listed.intersection(sample)) > min(len(listed), len(sample))
