"""Assign each track to the training, validation or test split, before it is cut into windows.

All tracks of a *unit* are in the same split. A unit is a group (artist, album), or a track without a group; units that
share `content` (copies of the same recording) are joined. Published splits are kept, and the other tracks of their
groups, or else of their units, follow. A track or group that an earlier run assigned (`history`) keeps its split:
nothing moves when files are added or removed. `allocation` divides the other units so that each genre gets
`corpus.valid_fraction` and `corpus.test_fraction` of its tracks; where several divisions are equally good, names and
`corpus.split_seed` decide.

If a unit joins tracks from different earlier splits, it gets the first of train, validation and test among them: a
training track never becomes a test track.

A genre with at least three units has one in every split, with two in train and test, with one in train.

Functions take a table with the columns `track_id`, `genre`, `group`, `split` and optionally `content` (any value that
is equal for copies of a recording, null where unknown). Rows may be tracks or clips of tracks. Rows with split
`excluded`, and rows without a genre, whose split is `unlabelled`, are in no split: they are not changed, and checks
ignore them. All operations work on columns: a million tracks take seconds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genre.arrays import Ints
from genre.corpora import EXCLUDED, SPLITS, UNUSED
from genre.errors import ArtifactError, ConfigError
from genre.features.columns import combined, connected
from genre.features.splitting import allocation
from genre.settings import CorpusSettings
from genre.wording import and_more, listed


def assign(tracks: pa.Table, settings: CorpusSettings, history: pa.Table | None = None) -> pa.Table:
    """Return `tracks` with every null in `split` replaced by train, valid or test; other splits are kept.

    `history` has the columns `track_id`, `group` and `split` of tracks that were assigned earlier.
    Raises `ConfigError` for a split that is none of train, valid, test, excluded, unlabelled.
    """
    codes = _codes(tracks["split"])
    active = np.flatnonzero(codes < len(SPLITS))
    table = tracks.take(pa.array(active))
    units, names = units_of(table)
    published = codes[active]
    known = published >= 0
    split = _earlier_splits(table, units, len(names), history)
    split[units[known]] = published[known]
    counted = allocation.Units.of(units, sorted_codes(table["genre"]), split)
    aims = allocation.Aims.of_splits(wanted_shares(settings))
    drawn = allocation.allocate(counted, aims, drawn_order(names, settings.split_seed))
    of_group = _published_of_group(table["group"], published)
    codes[active] = np.where(known, published, np.where(of_group >= 0, of_group, drawn[units]))
    splits = pa.array([*SPLITS, *UNUSED]).take(pa.array(codes))
    return tracks.set_column(tracks.schema.get_field_index("split"), "split", splits)


def wanted_shares(settings: CorpusSettings) -> tuple[float, float, float]:
    """Return the share of a genre's tracks for train, validation and test."""
    return 1 - settings.valid_fraction - settings.test_fraction, settings.valid_fraction, settings.test_fraction


def view(tracks: pa.Table) -> pa.Table:
    """Return the columns of a features folder that this module reads, with the recording of each track as `content`.

    A track without near copies is known by its audio.
    """
    content = pc.coalesce(tracks["recording"], tracks["sound"])
    return tracks.select(["track_id", "genre", "group", "split"]).append_column("content", content)


def check(tracks: pa.Table) -> None:
    """Raise `ArtifactError` when a track, group or content is in more than one split (leakage)."""
    if tracks["split"].null_count:
        raise ArtifactError(f"{tracks['split'].null_count} tracks have no split; prepare the features again")
    if leak := leaks(tracks):
        raise ArtifactError(f"leakage: {leak}; correct the corpus or use corpus.split=random, then prepare again")


def leaks(tracks: pa.Table) -> str:
    """Return text about tracks, groups or content in more than one split, or fold; empty if there are none."""
    active = tracks.filter(pc.invert(pc.is_in(tracks["split"], value_set=pa.array(UNUSED))))
    nouns = {"track_id": "track", "group": "group", "content": "the same recording"}
    described = (
        _describe_leaks(active, column, noun) for column, noun in nouns.items() if column in active.column_names
    )
    return next(filter(None, described), "")


def summary(tracks: pa.Table) -> dict[str, dict[str, int]]:
    """Return the number of rows by genre and split, genres in sorted order; a split without rows counts 0.

    Rows without a genre are left out.
    """
    tracks = tracks.filter(pc.is_valid(tracks["genre"]))
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
        raise ConfigError(f"genre {unknown[0]!r} is not one of the classes ({listed(classes)}); correct the corpus")
    if len(classes) < 2:
        raise ConfigError(f"one genre only ({listed(classes)}); point corpus.root at a folder with at least two genres")
    for split in needed:
        if not any(row[split] for row in counts.values()):
            raise ConfigError(
                f"no track is in the {split} split ({len(tracks)} found); add tracks or artists to the corpus"
            )
    missing = [genre for genre in classes if not counts.get(genre, {}).get("train")]
    if missing:
        raise ConfigError(f"no training track of {listed(missing)}; add tracks of it or take it out of the corpus")
    single = [genre for genre in classes if sum(counts[genre][split] for split in SPLITS) < 2]
    if single:
        raise ConfigError(f"only one track of {listed(single)}; add tracks of it or take it out of the corpus")


def _codes(split: pa.ChunkedArray) -> Ints:
    """Return the index of each split in (train, valid, test, excluded, unlabelled), -1 for null."""
    codes = pc.index_in(split, pa.array([*SPLITS, *UNUSED]))
    wrong = split.filter(pc.and_(pc.is_null(codes), pc.is_valid(split)))
    if len(wrong):
        raise ConfigError(
            f"split {wrong[0].as_py()!r} is not known; use train, valid, test, excluded, unlabelled or nothing"
        )
    return np.array(pc.fill_null(codes, -1).to_numpy(), dtype=np.int64)


def units_of(table: pa.Table) -> tuple[Ints, pa.StringArray]:
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
    audio = sorted_codes(content.filter(content.is_valid()))
    by_audio = np.argsort(audio, kind="stable")
    pairs = np.stack([by_audio[:-1], by_audio[1:]], axis=1)[np.diff(audio[by_audio]) == 0]
    component = connected(units[known][pairs], len(names))
    order = pc.sort_indices(names).to_numpy()
    _, first, merged = np.unique(component[order], return_index=True, return_inverse=True)
    new = np.empty(len(names), dtype=np.int64)
    new[order] = merged
    return new[units], names.take(pa.array(order[first]))


def _published_of_group(group: pa.ChunkedArray, published: Ints) -> Ints:
    """Return the published split of a track of each row's group, or -1: a unit may join groups of several splits."""
    encoded = combined(group).dictionary_encode()
    none = len(encoded.dictionary)
    codes = np.asarray(pc.fill_null(encoded.indices, none).to_numpy(), np.int64)
    split = np.full(none + 1, -1)
    rows = np.flatnonzero((published >= 0) & (codes < none))
    split[codes[rows]] = published[rows]
    return split[codes]


def _earlier_splits(table: pa.Table, units: Ints, count: int, history: pa.Table | None) -> Ints:
    """Return the earlier split of each of `count` units, looked up by track and group; -1 for a new unit."""
    none = len(SPLITS)  # greater than any split, so that the minimum is the first of them
    split = np.full(count, none)
    if history is not None:
        codes = _codes(history["split"])
        for column in ("track_id", "group"):
            row = pc.index_in(table[column], combined(history[column]), skip_nulls=True)
            is_known = row.is_valid().to_numpy()
            np.minimum.at(split, units[is_known], codes[row.drop_null().to_numpy()])
    return np.where(split == none, -1, split)


def drawn_order(names: pa.StringArray, seed: int) -> Ints:
    """Return an order of names drawn from the names and the seed alone: that of their keyed BLAKE2 hashes."""
    key = str(seed).encode()
    hashes = (
        int.from_bytes(hashlib.blake2b(name.as_py().encode(), digest_size=8, key=key).digest(), "little")
        for name in names
    )
    return np.argsort(np.fromiter(hashes, dtype=np.uint64, count=len(names)))


def _describe_leaks(tracks: pa.Table, column: str, noun: str) -> str:
    """Return text about the first few values of `column` that are in several splits; empty if there are none."""
    values, splits = (combined(tracks[name]).dictionary_encode() for name in (column, "split"))
    # numbers, since to group strings takes several times their memory
    value_of, split_of = pc.fill_null(values.indices, -1).to_numpy().astype(np.int64), splits.indices.to_numpy()
    known, count = value_of >= 0, max(1, len(splits.dictionary))
    pairs = np.unique(value_of[known] * count + split_of[known])
    leaked = np.flatnonzero(np.bincount(pairs // count) > 1)
    examples = []
    for value in leaked[:3]:
        rows = tracks.filter(pa.array(value_of == value)).group_by("split").aggregate([("track_id", "min")])
        name = noun if column == "content" else f"{noun} {values.dictionary[int(value)].as_py()!r}"
        per_split = rows.sort_by("split").to_pylist()
        examples.append(f"{name} in " + " and ".join(f"{row['split']} ({row['track_id_min']})" for row in per_split))
    return "; ".join(examples) + and_more(len(leaked), len(examples))


def sorted_codes(column: pa.ChunkedArray) -> Ints:
    """Return the rank of each value among the sorted distinct values, independent of the order of rows."""
    encoded = combined(column).dictionary_encode()
    if not len(encoded):
        return np.zeros(0, dtype=np.int64)
    rank = np.empty(len(encoded.dictionary), dtype=np.int64)
    rank[pc.sort_indices(encoded.dictionary).to_numpy()] = np.arange(len(rank))
    codes: Ints = encoded.indices.to_numpy()
    return rank[codes]
