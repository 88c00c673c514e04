"""Describe how the tracks of each genre are divided among groups and splits, for the person who prepares a corpus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genre.corpora import SPLITS, UNUSED
from genre.features.splitting import splits
from genre.features.splitting.allocation import is_dispersed
from genre.settings import CorpusSettings
from genre.wording import listed, plural

_NAMES = {"train": "training", "valid": "validation", "test": "test"}
_REFUSED = "train and tune will refuse the corpus"
_SHOWN = 5  # genres
_MANY = 20  # genres; more folders than that are rather those of artists


def describe(tracks: pa.Table, settings: CorpusSettings, *, drawn: bool) -> list[str]:
    """Return lines about the groups of `tracks`, genres that nothing judges, and those far from their shares.

    `tracks` has the columns `genre`, `group` and `split`. If the splits were not `drawn`, they have no shares.
    """
    active = tracks.filter(pc.invert(pc.is_in(tracks["split"], value_set=pa.array(UNUSED))))
    if not len(active):  # no track has a genre: there are no scores
        return []
    missing = _missing_splits(active)
    lines = [_groups(active, settings.kind), *_unjudged_genres(active, missing, drawn=drawn)]
    return lines + _dispersed_genres(active, settings, missing) if drawn else lines


def absent_genres(tracks: pa.Table, genres: Sequence[str], split: str, *, judges: bool) -> str:
    """Return a sentence on the `genres` without a track in a split that has tracks; "" if there are none.

    The split `judges` the models of a report, or epochs, settings and thresholds are chosen by it.
    """
    counts = splits.summary(tracks)
    absent = [genre for genre in genres if not counts.get(genre, {}).get(split)]
    if not 0 < len(absent) < len(genres):
        return ""
    shown = ", ".join([*absent[:_SHOWN], *([f"{len(absent) - _SHOWN} more"] if len(absent) > _SHOWN else [])])
    effect = "no score says how they are recognised" if judges else "nothing is chosen by them"
    return f"No {_NAMES[split]} track has one of these genres, so that {effect}: {shown}."


def _groups(tracks: pa.Table, kind: str) -> str:
    sizes = Counter({entry["values"]: entry["counts"] for entry in pc.value_counts(tracks["group"]).to_pylist()})
    alone = sizes.pop(None, 0)
    if not sizes:
        remedy = "; name their column in corpus.params.group_column, or add one to the table" if kind == "table" else ""
        return (
            f"artists are unknown: tracks of one artist may be in several splits, which makes scores too high{remedy}"
        )
    name, tracks_of_largest = sizes.most_common(1)[0]
    rest = f", {plural(alone, 'track')} without a group" if alone else ""
    return f"{plural(len(sizes), 'group')} (largest: {name!r}, {plural(tracks_of_largest, 'track')}){rest}"


def describe_single(tracks: pa.Table) -> list[str]:
    """Return a line about the genres that have one track, which no model can learn."""
    used = tracks.filter(pc.is_valid(tracks["genre"]))
    counts = {entry["values"]: entry["counts"] for entry in pc.value_counts(used["genre"]).to_pylist()}
    single = sorted(genre for genre, count in counts.items() if count == 1)
    if not single:
        return []
    return [f"only one track of {listed(single)}, so that {_REFUSED}; add tracks of it, or take it out of the corpus"]


def _missing_splits(tracks: pa.Table) -> dict[str, list[str]]:
    """Return in which of validation and test a genre has no track, although others have some, by genre."""
    rows = splits.summary(tracks)
    used = [split for split in SPLITS[1:] if any(row[split] for row in rows.values())]
    missing = {genre: [split for split in used if not row[split]] for genre, row in rows.items()}
    return {genre: names for genre, names in missing.items() if names}


def _unjudged_genres(tracks: pa.Table, missing: dict[str, list[str]], *, drawn: bool) -> list[str]:
    number, rows, lines = _group_counts(tracks), splits.summary(tracks), []
    for genre in sorted(missing, key=lambda genre: sum(rows[genre].values()) >= 2):  # first what ends train and tune
        names = missing[genre]
        of_groups = f" in {plural(number[genre], 'group')}" if number[genre] else ""
        effect = "nothing judges it" if "test" in names else "the search and the thresholds do not know it"
        if sum(rows[genre].values()) < 2:
            effect += f", and {_REFUSED}"
        more = "artists" if number[genre] else "tracks"
        remedy = f"give it more {more}" if drawn else "correct the splits of its tracks"
        lines.append(
            f"{genre} has {plural(sum(rows[genre].values()), 'track')}{of_groups}: none in {' and '.join(names)}, so "
            f"that {effect}; {remedy}, or take it out of the corpus"
        )
    more_genres = len(lines) - _SHOWN
    hint = [f"{plural(more_genres, 'more genre')} without a validation or test track"] if more_genres > 0 else []
    return lines[:_SHOWN] + hint


def _group_counts(tracks: pa.Table) -> dict[str, int]:
    groups = tracks.group_by("genre").aggregate([("group", "count_distinct")])
    return dict(zip(groups["genre"].to_pylist(), groups["group_count_distinct"].to_pylist(), strict=True))


def _dispersed_genres(tracks: pa.Table, settings: CorpusSettings, named: Collection[str]) -> list[str]:
    """Return lines about the genres far from their shares, except those that are `named` already."""
    number, lines = _group_counts(tracks), []
    for genre, row in splits.summary(tracks).items():
        if genre in named:
            continue
        counts = np.array([row[split] for split in SPLITS], dtype=np.float64)
        wanted = counts.sum() * np.array(splits.wanted_shares(settings))
        if is_dispersed(counts[1:], wanted[1:]).any():  # validation and test
            present = ", ".join(f"{split} {row[split]}" for split in SPLITS)
            train, valid, test = (f"{count:.0f}" if count >= 100 else f"{count:.3g}" for count in wanted)
            lines.append(
                f"{genre} has {plural(int(counts.sum()), 'track')} in {plural(number[genre], 'group')}: {present}, "
                f"not {train}, {valid} and {test}; give it more groups"
            )
    more = len(lines) - _SHOWN
    hints = [f"{more} more genres are as far from their shares"] if more > 0 else []
    if settings.kind == "folder" and 2 * (len(lines) + len(named)) > len(number) >= _MANY:
        hints.append(
            "if the folders are artists and not genres, use corpus.kind=tags, which reads genres from the files"
        )
    return lines[:_SHOWN] + hints
