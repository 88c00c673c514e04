"""Assign each track to the training, validation or test split, before it is cut into windows.

All tracks of a *unit* are in the same split. A unit is a group (artist, album), or a track without a group; units that
share `content` (the same audio under another name) are joined. A unit has a fixed position in [0, 1), drawn from
nothing but its own name and `corpus.split_seed` (`positions`):

    0 ... valid ... valid_fraction ... train ... 1 - test_fraction ... test ... 1

**Stability against exactness.** If no track may ever change its split when files are added or removed, and no history
is kept, then the split can only depend on the unit's own name. The sizes of the splits then vary around their shares:
binomially, for names without numbers. We accept that, because a split that changes between two runs is leakage. Three
rules reduce the variation:

- Names with numbers are stratified in blocks of 20.
- A genre with at least three units has one in every split, with two in train and test, with one in train. Where the
  draw left a split empty, the unit nearest to that split's interval is moved there, and moves back when the genre gets
  a unit that belongs there. This is the only exception to stability: it concerns genres of about a dozen units, rarely
  larger ones (at 30 units and the default shares, fewer than one in a hundred).
- Units that have a published split keep it, and their other tracks follow.

Functions take a table with the columns `track_id`, `genre`, `group`, `split` and optionally `content` (any value that
is equal for equal audio, null where unknown). Rows may be tracks or clips of tracks. Rows with split `excluded` are in
no split: they are not changed, and checks ignore them. All operations work on columns: a million tracks take seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from genre.corpora import EXCLUDED, SPLITS
from genre.errors import ArtifactError, ConfigError
from genre.features.columns import combined
from genre.features.positions import Floats, positions
from genre.settings import CorpusSettings

_TRAIN, _VALID, _TEST = range(3)

Ints = npt.NDArray[np.int64]


@dataclass
class _Assignment:
    split: Ints  # of each unit
    published: npt.NDArray[np.bool_]  # must not change


def assign(tracks: pa.Table, settings: CorpusSettings) -> pa.Table:
    """Return `tracks` with every null in `split` replaced by train, valid or test; other splits are kept.

    Raises `ConfigError` for a split that is none of train, valid, test, excluded.
    """
    codes = _codes(tracks["split"])
    active = np.flatnonzero(codes != len(SPLITS))  # not excluded
    table = tracks.take(pa.array(active))
    units, names = _units(table)
    position = positions(names, settings.split_seed)
    low, high = settings.valid_fraction, 1 - settings.test_fraction
    drawn = np.select([position < low, position >= high], [_VALID, _TEST], _TRAIN)
    assignment = _Assignment(drawn, np.zeros(len(names), dtype=bool))
    published = codes[active]
    known = published >= 0
    assignment.split[units[known]] = published[known]
    assignment.published[units[known]] = True
    _fill_empty_splits(units, _sorted_codes(table["genre"]), assignment, _distances(position, low, high))
    codes[active] = np.where(known, published, assignment.split[units])
    splits = pa.array([*SPLITS, EXCLUDED]).take(pa.array(codes))
    return tracks.set_column(tracks.schema.get_field_index("split"), "split", splits)


def check(tracks: pa.Table) -> None:
    """Raise `ArtifactError` when a track, group or content is in more than one split (leakage)."""
    if tracks["split"].null_count:
        raise ArtifactError(f"{tracks['split'].null_count} tracks have no split; prepare the features again")
    active = tracks.filter(pc.not_equal(tracks["split"], EXCLUDED))
    for column, noun in (("track_id", "track"), ("group", "group"), ("content", "the same audio")):
        if column in active.column_names:
            leaks = _describe_leaks(active, column, noun)
            if leaks:
                raise ArtifactError(
                    f"leakage: {leaks}; correct the corpus or use corpus.split=random, then prepare again"
                )


def summary(tracks: pa.Table) -> dict[str, dict[str, int]]:
    """Return the number of rows by genre and split, genres in sorted order; a split without rows counts 0."""
    counts = tracks.group_by(["genre", "split"]).aggregate([([], "count_all")])
    rows: dict[str, dict[str, int]] = {
        genre: dict.fromkeys((*SPLITS, EXCLUDED), 0) for genre in sorted(pc.unique(counts["genre"]).to_pylist())
    }
    for row in counts.to_pylist():
        rows[row["genre"]][row["split"]] = row["count_all"]
    return rows


def require_trainable(tracks: pa.Table, classes: Sequence[str], needed: Sequence[str] = SPLITS) -> None:
    """Raise `ConfigError` unless a model can be trained on these tracks.

    There must be at least two classes, each with a training track and another one, and tracks in all `needed` splits.
    """
    counts = summary(tracks)
    unknown = sorted(set(counts) - set(classes))
    if unknown:
        raise ConfigError(f"genre {unknown[0]!r} is not one of the classes ({_some(classes)}); correct the corpus")
    if len(classes) < 2:
        raise ConfigError(f"one genre only ({_some(classes)}); point corpus.root at a folder with at least two genres")
    for split in needed:
        if not any(row[split] for row in counts.values()):
            raise ConfigError(
                f"no track is in the {split} split ({len(tracks)} found); add tracks or artists to the corpus"
            )
    missing = [genre for genre in classes if not counts.get(genre, {}).get("train")]
    if missing:
        raise ConfigError(f"no training track of {_some(missing)}; add tracks of it or take it out of the corpus")
    single = [genre for genre in classes if sum(counts[genre][split] for split in SPLITS) < 2]
    if single:
        raise ConfigError(f"only one track of {_some(single)}; add tracks of it or take it out of the corpus")


def _codes(split: pa.ChunkedArray) -> Ints:
    """Return the index of each split in (train, valid, test, excluded), -1 for null."""
    codes = pc.index_in(split, pa.array([*SPLITS, EXCLUDED]))
    wrong = split.filter(pc.and_(pc.is_null(codes), pc.is_valid(split)))
    if len(wrong):
        raise ConfigError(f"split {wrong[0].as_py()!r} is not known; use train, valid, test, excluded or nothing")
    return np.array(pc.fill_null(codes, -1).to_numpy(), dtype=np.int64)


def _units(table: pa.Table) -> tuple[Ints, pa.StringArray]:
    """Return the unit of each row and the name of each unit; a prefix separates groups and tracks of the same name."""
    group = pc.binary_join_element_wise("group", table["group"], "\0")
    track = pc.binary_join_element_wise("track", table["track_id"], "\0")
    encoded = combined(pc.coalesce(group, track)).dictionary_encode()
    units, names = encoded.indices.to_numpy().astype(np.int64), encoded.dictionary
    if "content" not in table.column_names or not len(table):
        return units, names
    return _joined(units, names, table["content"])


def _joined(units: Ints, names: pa.StringArray, content: pa.ChunkedArray) -> tuple[Ints, pa.StringArray]:
    """Return the units after joining those that share content; each is named after its first member in sorted order."""
    known = pc.is_valid(content).to_numpy()
    audio = _sorted_codes(content.filter(content.is_valid()))
    if not len(audio) or np.bincount(audio).max() == 1:  # nothing is shared: saves the half second of importing scipy
        component = np.arange(len(names))
    else:
        component = _components(units[known], audio, len(names))
    order = pc.sort_indices(names).to_numpy()
    _, first, merged = np.unique(component[order], return_index=True, return_inverse=True)
    new = np.empty(len(names), dtype=np.int64)
    new[order] = merged
    return new[units], names.take(pa.array(order[first]))


def _components(units: Ints, audio: Ints, count: int) -> Ints:
    """Return the component of each of `count` units, where rows of equal `audio` connect their `units`."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    nodes = count + int(audio.max()) + 1
    edges = (np.ones(len(audio), dtype=bool), (units, count + audio))
    _, component = connected_components(coo_matrix(edges, shape=(nodes, nodes)), directed=False)
    return np.asarray(component[:count], dtype=np.int64)


def _fill_empty_splits(units: Ints, genres: Ints, assignment: _Assignment, distances: dict[int, Floats]) -> None:
    """Give every genre that is large enough a unit in each split: the nearest one that can be spared."""
    if not len(units):
        return
    pairs = np.unique(np.stack([genres, units], axis=1), axis=0)  # sorted by genre
    counts = np.zeros((int(genres.max()) + 1, len(SPLITS)), dtype=np.int64)
    np.add.at(counts, (pairs[:, 0], assignment.split[pairs[:, 1]]), 1)
    by_unit = pairs[np.argsort(pairs[:, 1], kind="stable")]  # a group may have several genres
    for genre in np.flatnonzero((counts == 0).any(axis=1)):
        members = pairs[slice(*np.searchsorted(pairs[:, 0], [genre, genre + 1])), 1]
        for split in (_TRAIN, _TEST, _VALID)[: len(members)]:
            if counts[genre, split]:
                continue
            last_resort = split == _TRAIN and len(members) < len(SPLITS)
            for unit in members[np.argsort(distances[split][members], kind="stable")]:
                unit_genres = by_unit[slice(*np.searchsorted(by_unit[:, 1], [unit, unit + 1])), 0]
                spare = last_resort or counts[unit_genres, assignment.split[unit]].min() > 1
                if spare and not assignment.published[unit]:
                    counts[unit_genres, assignment.split[unit]] -= 1
                    counts[unit_genres, split] += 1
                    assignment.split[unit] = split
                    break


def _distances(position: Floats, low: float, high: float) -> dict[int, Floats]:
    """Return the distance of each unit from the interval of each split."""
    train = np.maximum(np.maximum(low - position, position - high), 0)
    return {_TRAIN: train, _VALID: np.maximum(position - low, 0), _TEST: np.maximum(high - position, 0)}


def _describe_leaks(tracks: pa.Table, column: str, noun: str) -> str:
    """Return text about the first few values of `column` that are in several splits; empty if there are none."""
    known = tracks.filter(tracks[column].is_valid())
    pairs = known.group_by([column, "split"]).aggregate([("track_id", "min")])
    several = pairs.group_by(column).aggregate([("split", "count")])
    values = several.filter(pc.greater(several["split_count"], 1))[column]
    if not len(values):
        return ""
    examples = []
    for value in values.slice(0, 3):
        rows = pairs.filter(pc.equal(pairs[column], value)).sort_by("split").to_pylist()
        name = noun if column == "content" else f"{noun} {value.as_py()!r}"
        examples.append(f"{name} in " + " and ".join(f"{row['split']} ({row['track_id_min']})" for row in rows))
    more = f" and {len(values) - 3} more" if len(values) > 3 else ""
    return "; ".join(examples) + more


def _sorted_codes(column: pa.ChunkedArray) -> Ints:
    """Return the rank of each value among the sorted distinct values, independent of the order of rows."""
    encoded = combined(column).dictionary_encode()
    if not len(encoded):
        return np.zeros(0, dtype=np.int64)
    rank = np.empty(len(encoded.dictionary), dtype=np.int64)
    rank[pc.sort_indices(encoded.dictionary).to_numpy()] = np.arange(len(rank))
    codes: Ints = encoded.indices.to_numpy()
    return rank[codes]


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
