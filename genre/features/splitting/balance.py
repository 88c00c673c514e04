"""Describe how the tracks of each genre are divided among groups and splits, for the person who prepares a corpus."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genre.corpora import SPLITS, UNUSED
from genre.features.splitting import splits
from genre.features.splitting.allocation import is_dispersed
from genre.settings import CorpusSettings
from genre.wording import plural

_SHOWN = 5  # genres
_MANY = 20  # genres; more folders than that are rather those of artists


def describe(tracks: pa.Table, settings: CorpusSettings, *, drawn: bool) -> list[str]:
    """Return lines about the groups of `tracks`, and where splits were `drawn`, about genres far from their shares.

    `tracks` has the columns `genre`, `group` and `split`.
    """
    active = tracks.filter(pc.invert(pc.is_in(tracks["split"], value_set=pa.array(UNUSED))))
    lines = [_groups(active, settings.kind)] if len(active) else []  # no track has a genre: there are no scores
    return lines + _dispersed_genres(active, settings) if drawn else lines


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


def _dispersed_genres(tracks: pa.Table, settings: CorpusSettings) -> list[str]:
    lines = []
    groups = tracks.group_by("genre").aggregate([("group", "count_distinct")])
    number = dict(zip(groups["genre"].to_pylist(), groups["group_count_distinct"].to_pylist(), strict=True))
    for genre, row in splits.summary(tracks).items():
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
    if settings.kind == "folder" and 2 * len(lines) > len(number) >= _MANY:
        hints.append(
            "if the folders are artists and not genres, use corpus.kind=tags, which reads genres from the files"
        )
    return lines[:_SHOWN] + hints
