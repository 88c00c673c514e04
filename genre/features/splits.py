"""Which tracks train, which validate, which test: decided once per track, before anything is cut into windows.

What must not be parted is a *unit*: all tracks of a group (artist, album), or a single track that has
none, joined with whatever shares its `content` (the same audio under another name). A unit has a fixed
place in [0, 1), drawn from nothing but its own name and `corpus.split_seed`:

    0 ... valid ... valid_fraction ... train ... 1 - test_fraction ... test ... 1

**Stability against exactness.** A rule under which no track ever changes sides when files are added or
removed, and which keeps no history, can only look at the unit's own name; the sizes of the splits then
scatter about their shares, for names without order like a binomial. We take that: a split that moves
between two runs is a leak. Three things narrow it:

- Names that count (`blues.00017`, `artist 4`) are placed by permuted blocks, as patients in a trial:
  each run of 20 numbers below one name takes each twentieth of [0, 1) once, in an order drawn from the
  name. Whole runs are stratified exactly, parts of runs scatter less than a binomial and never more.
- A genre with at least three units has one in every split, with two in train and test, with one in
  train. Where the draw left a split without one, the unit nearest to that split's interval is taken,
  and goes back when the genre has grown a unit that belongs there. This is the only exception to
  stability: it concerns genres of a dozen units, hardly larger ones (at 30 units and the default
  shares, fewer than one in a hundred).
- Units that already hold a published split keep it and draw their other tracks to their side.

Only columns are used, no objects per track: a million tracks take seconds.
Functions take a table with the columns `track_id`, `genre`, `group`, `split` and optionally `content`
(anything equal for equal audio, null where unknown); rows may be tracks or clips of tracks. Rows with
split `excluded` are in no split: they are left alone and ignored by the checks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from genre.config import CorpusSettings
from genre.errors import ArtifactError, ConfigError
from genre.features.columns import combined
from genre.features.schema import EXCLUDED, SPLITS

_TRAIN, _VALID, _TEST = range(3)
_BLOCK = 20  # 15 % and 20 % of it are whole numbers
_NUMBERED = r"(?s)^(?P<before>.*?)(?P<number>[0-9]{1,9})(?P<after>[^0-9]*(?:\.[A-Za-z][A-Za-z0-9]{0,4})?)$"

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]


@dataclass
class _Sides:
    of: Ints  # split of each unit
    held: npt.NDArray[np.bool_]  # published: must not move


def assign(tracks: pa.Table, settings: CorpusSettings) -> pa.Table:
    """`tracks` with every null in `split` replaced by train, valid or test; other splits stay as they are.

    Raises `ConfigError` for a split that is none of train, valid, test, excluded.
    """
    given = _codes(tracks["split"])
    active = np.flatnonzero(given != len(SPLITS))  # not excluded
    table = tracks.take(pa.array(active))
    units, names = _units(table)
    place = _places(names, settings.split_seed)
    low, high = settings.valid_fraction, 1 - settings.test_fraction
    sides = _Sides(np.select([place < low, place >= high], [_VALID, _TEST], _TRAIN), np.zeros(len(names), dtype=bool))
    published = given[active]
    known = published >= 0
    sides.of[units[known]] = published[known]
    sides.held[units[known]] = True
    _fill(units, _dictionary(table["genre"]), sides, _distances(place, low, high))
    given[active] = np.where(known, published, sides.of[units])
    words = pa.array([*SPLITS, EXCLUDED]).take(pa.array(given))
    return tracks.set_column(tracks.schema.get_field_index("split"), "split", words)


def check(tracks: pa.Table) -> None:
    """The leakage gate: raises `ArtifactError` when a track, group or content is in more than one split."""
    if tracks["split"].null_count:
        raise ArtifactError(f"{tracks['split'].null_count} tracks have no split; prepare the features again")
    inside = tracks.filter(pc.not_equal(tracks["split"], EXCLUDED))
    for column, what in (("track_id", "track"), ("group", "group"), ("content", "the same audio")):
        if column in inside.column_names:
            leaks = _leaks(inside, column, what)
            if leaks:
                raise ArtifactError(
                    f"leakage: {leaks}; correct the corpus or use corpus.split=random, then prepare again"
                )


def summary(tracks: pa.Table) -> dict[str, dict[str, int]]:
    """Rows per genre and split, genres in sorted order; a split without rows counts 0."""
    counts = tracks.group_by(["genre", "split"]).aggregate([([], "count_all")])
    rows: dict[str, dict[str, int]] = {
        genre: dict.fromkeys((*SPLITS, EXCLUDED), 0) for genre in sorted(pc.unique(counts["genre"]).to_pylist())
    }
    for row in counts.to_pylist():
        rows[row["genre"]][row["split"]] = row["count_all"]
    return rows


def require_trainable(tracks: pa.Table, classes: Sequence[str], needed: Sequence[str] = SPLITS) -> None:
    """Raises `ConfigError` unless there are two classes of two tracks, one of them to train, and all of `needed`."""
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
    lone = [genre for genre in classes if sum(counts[genre][split] for split in SPLITS) < 2]
    if lone:
        raise ConfigError(f"only one track of {_some(lone)}; add tracks of it or take it out of the corpus")


def _codes(split: pa.ChunkedArray) -> Ints:
    """Index into (train, valid, test, excluded), -1 for null."""
    codes = pc.index_in(split, pa.array([*SPLITS, EXCLUDED]))
    wrong = split.filter(pc.and_(pc.is_null(codes), pc.is_valid(split)))
    if len(wrong):
        raise ConfigError(f"split {wrong[0].as_py()!r} is not known; use train, valid, test, excluded or nothing")
    return np.array(pc.fill_null(codes, -1).to_numpy(), dtype=np.int64)


def _units(table: pa.Table) -> tuple[Ints, pa.StringArray]:
    """Unit of each row, and the name of each unit; a letter keeps groups and lone tracks apart."""
    group = pc.binary_join_element_wise("group", table["group"], "\0")
    lone = pc.binary_join_element_wise("track", table["track_id"], "\0")
    encoded = combined(pc.coalesce(group, lone)).dictionary_encode()
    units, names = encoded.indices.to_numpy().astype(np.int64), encoded.dictionary
    if "content" not in table.column_names or not len(table):
        return units, names
    return _joined(units, names, table["content"])


def _joined(units: Ints, names: pa.StringArray, content: pa.ChunkedArray) -> tuple[Ints, pa.StringArray]:
    """Units that share content become one, named like its first member in sorted order."""
    known = pc.is_valid(content).to_numpy()
    audio = _dictionary(content.filter(content.is_valid()))
    if not len(audio) or np.bincount(audio).max() == 1:  # nothing is shared: without half a second of scipy's import
        component = np.arange(len(names))
    else:
        component = _components(units[known], audio, len(names))
    order = pc.sort_indices(names).to_numpy()
    _, first, merged = np.unique(component[order], return_index=True, return_inverse=True)
    new = np.empty(len(names), dtype=np.int64)
    new[order] = merged
    return new[units], names.take(pa.array(order[first]))


def _components(units: Ints, audio: Ints, count: int) -> Ints:
    """Number of the component of each of `count` units, where rows of equal `audio` connect their `units`."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    nodes = count + int(audio.max()) + 1
    edges = (np.ones(len(audio), dtype=bool), (units, count + audio))
    _, component = connected_components(coo_matrix(edges, shape=(nodes, nodes)), directed=False)
    return np.asarray(component[:count], dtype=np.int64)


def _places(names: pa.StringArray, seed: int) -> Floats:
    """Where in [0, 1) each unit lies: a function of its own name and the seed alone."""
    parts = pc.extract_regex(names, _NUMBERED)
    numbered = parts.is_valid().to_numpy(zero_copy_only=False)
    before, number, after = (pc.struct_field(parts, field) for field in ("before", "number", "after"))
    stem = pc.if_else(parts.is_valid(), pc.binary_join_element_wise(before, after, "\0"), names)
    counted = pc.fill_null(pc.cast(number, pa.uint64()), 0).to_numpy(zero_copy_only=False)
    block, position = np.divmod(counted, np.uint64(_BLOCK))
    drawn = _mix(_hashes(stem, seed) + _mix(block))
    own = _mix(drawn + position + np.uint64(1))
    rank = np.zeros(len(names))
    for other in range(1, _BLOCK + 1):  # how many of the block's 20 draws are smaller: a random permutation
        rank += _mix(drawn + np.uint64(other)) < own
    return np.where(numbered, (rank + _unit_interval(_mix(own))) / _BLOCK, _unit_interval(drawn))


def _hashes(texts: pa.StringArray, seed: int) -> Words:
    """64-bit keyed BLAKE2 of each text: the same in every process, version and machine."""
    encoded = texts.dictionary_encode()
    key = str(seed).encode()
    words = (
        int.from_bytes(hashlib.blake2b(text.as_py().encode(), digest_size=8, key=key).digest(), "little")
        for text in encoded.dictionary
    )
    unique = np.fromiter(words, dtype=np.uint64, count=len(encoded.dictionary))
    codes: Ints = encoded.indices.to_numpy()
    return unique[codes]


def _mix(words: Words) -> Words:
    """Scatter 64-bit words (the finalizer of SplitMix64; Steele, Lea, Flood, OOPSLA 2014)."""
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def _unit_interval(words: Words) -> Floats:
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _fill(units: Ints, genres: Ints, sides: _Sides, distances: dict[int, Floats]) -> None:
    """Give every genre that is large enough a unit in each split, taking the nearest one that can be spared."""
    if not len(units):
        return
    pairs = np.unique(np.stack([genres, units], axis=1), axis=0)  # by genre
    counts = np.zeros((int(genres.max()) + 1, len(SPLITS)), dtype=np.int64)
    np.add.at(counts, (pairs[:, 0], sides.of[pairs[:, 1]]), 1)
    homes = pairs[np.argsort(pairs[:, 1], kind="stable")]  # by unit: a group may have several genres
    for genre in np.flatnonzero((counts == 0).any(axis=1)):
        members = pairs[slice(*np.searchsorted(pairs[:, 0], [genre, genre + 1])), 1]
        for split in (_TRAIN, _TEST, _VALID)[: len(members)]:
            if counts[genre, split]:
                continue
            last_resort = split == _TRAIN and len(members) < len(SPLITS)
            for unit in members[np.argsort(distances[split][members], kind="stable")]:
                home = homes[slice(*np.searchsorted(homes[:, 1], [unit, unit + 1])), 0]
                spare = last_resort or counts[home, sides.of[unit]].min() > 1
                if spare and not sides.held[unit]:
                    counts[home, sides.of[unit]] -= 1
                    counts[home, split] += 1
                    sides.of[unit] = split
                    break


def _distances(place: Floats, low: float, high: float) -> dict[int, Floats]:
    """How far each unit lies from the interval of each split."""
    train = np.maximum(np.maximum(low - place, place - high), 0)
    return {_TRAIN: train, _VALID: np.maximum(place - low, 0), _TEST: np.maximum(high - place, 0)}


def _leaks(tracks: pa.Table, column: str, what: str) -> str:
    """The first few values of `column` that are in several splits, in words; empty if there are none."""
    known = tracks.filter(tracks[column].is_valid())
    pairs = known.group_by([column, "split"]).aggregate([("track_id", "min")])
    several = pairs.group_by(column).aggregate([("split", "count")])
    values = several.filter(pc.greater(several["split_count"], 1))[column]
    if not len(values):
        return ""
    examples = []
    for value in values.slice(0, 3):
        rows = pairs.filter(pc.equal(pairs[column], value)).sort_by("split").to_pylist()
        name = what if column == "content" else f"{what} {value.as_py()!r}"
        examples.append(f"{name} in " + " and ".join(f"{row['split']} ({row['track_id_min']})" for row in rows))
    more = f" and {len(values) - 3} more" if len(values) > 3 else ""
    return "; ".join(examples) + more


def _dictionary(column: pa.ChunkedArray) -> Ints:
    """A small number for each value, in sorted order of the values, so that nothing depends on the order of rows."""
    encoded = combined(column).dictionary_encode()
    if not len(encoded):
        return np.zeros(0, dtype=np.int64)
    rank = np.empty(len(encoded.dictionary), dtype=np.int64)
    rank[pc.sort_indices(encoded.dictionary).to_numpy()] = np.arange(len(rank))
    codes: Ints = encoded.indices.to_numpy()
    return rank[codes]


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:5]) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")
