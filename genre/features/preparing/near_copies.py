"""Which tracks are the same recording, by their sketches: other formats, levels and starts of one performance.

Two tracks are near copies when their sketches share at least `LEAST` landmarks at the same distance in time. All
tracks that are connected by such pairs are one recording. Work and memory grow with the number of tracks, not of pairs.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from genre.arrays import Ints
from genre.features.columns import combined, connected
from genre.features.preparing import sketches
from genre.features.preparing.sketches import LANDMARKS

LEAST = 6  # of 64 landmarks; docs/LOG.md has how many different pieces share, and how many copies
_MOST = 256  # tracks: a landmark that more of them have is ignored
_NEIGHBOURS = 8  # of the tracks with a landmark, each is paired with the next eight: enough to connect them all
_PARTS = 16  # landmarks are compared a part at a time, to save memory
_BATCH = 2048  # tracks, or pairs, that are looked at together
_CLOSE = 2  # frames by which the distances in time of shared landmarks may differ

Hashes = npt.NDArray[np.uint32]
Keys = npt.NDArray[np.uint64]


def recordings(tracks: pa.Table) -> pa.StringArray:
    """Return the recording of each track, which is the `sound` of its first track, (tracks,); null without near copies.

    `tracks` has the columns `sound` and `sketch`. Tracks without a sketch have the recording of equal audio, if any.
    """
    sound = combined(tracks["sound"]).dictionary_encode()
    codes = sound.indices.to_numpy().astype(np.int64)
    sketched = np.flatnonzero(pc.fill_null(pc.equal(pc.binary_length(tracks["sketch"]), sketches.BYTES), False))
    known, first = np.unique(codes[sketched], return_index=True)  # equal audio is compared once
    pairs = near(tracks["sketch"], sketched[first])
    lowest = connected(known[pairs], len(sound.dictionary))
    is_alone = np.bincount(lowest, minlength=len(lowest)) == 1
    return sound.dictionary.take(pa.array(lowest[codes], mask=is_alone[lowest[codes]]))


def near(column: pa.ChunkedArray, rows: Ints) -> Ints:
    """Return the pairs of near copies among the sketches in `rows` of a column, (pairs, 2), as indices into `rows`."""
    candidates = sharing(column, rows, LEAST)
    batches = (candidates[begin : begin + _BATCH] for begin in range(0, len(candidates), _BATCH))
    close = [batch[aligned(column, rows[batch]) >= LEAST] for batch in batches]
    return np.concatenate([np.empty((0, 2), np.int64), *close])


def sharing(column: pa.ChunkedArray, rows: Ints, least: int) -> Ints:
    """Return the pairs of sketches that share at least `least` hashes, (pairs, 2), as indices into `rows`."""
    hashes = np.empty((len(rows), LANDMARKS), np.uint32)
    for begin in range(0, len(rows), _BATCH):
        hashes[begin : begin + _BATCH] = _read(column, rows[begin : begin + _BATCH])[0]
    pairs = np.concatenate([np.empty(0, np.uint64), *_shared(hashes)])
    pairs.sort()
    begins = np.flatnonzero(np.append(True, pairs[1:] != pairs[:-1])[: len(pairs)])
    often = pairs[begins[np.diff(begins, append=len(pairs)) >= least]]
    return np.stack([often >> np.uint64(32), often & np.uint64(0xFFFFFFFF)], axis=1).astype(np.int64)


def _shared(hashes: Hashes) -> Iterator[Keys]:
    """Yield, for each hash, the pairs of rows that have it, as first row << 32 | second row."""
    part = hashes.reshape(-1).view(np.uint8)[::4] % _PARTS
    for number in range(_PARTS):
        places = np.flatnonzero(part == number)
        keys = hashes.reshape(-1)[places].astype(np.uint64) << np.uint64(32)
        keys |= (places // LANDMARKS).astype(np.uint64)
        keys.sort()
        values = (keys >> np.uint64(32)).astype(np.uint32)
        begins = np.flatnonzero(np.append(True, values[1:] != values[:-1])[: len(values)])
        sizes = np.diff(begins, append=len(values))
        is_shared = np.repeat((sizes > 1) & (sizes <= _MOST), sizes)
        values, rows = values[is_shared], keys[is_shared] & np.uint64(0xFFFFFFFF)
        for distance in range(1, _NEIGHBOURS + 1):
            same = values[:-distance] == values[distance:]
            yield rows[:-distance][same] << np.uint64(32) | rows[distance:][same]


def aligned(column: pa.ChunkedArray, pairs: Ints) -> Ints:
    """Return how many landmarks each pair of rows (pairs, 2) shares at the same distance in time, (pairs,)."""
    (hashes, frames), (other_hashes, other_frames) = _read(column, pairs[:, 0]), _read(column, pairs[:, 1])
    pair, place, other = np.nonzero(hashes[:, :, None] == other_hashes[:, None, :])
    distance = (frames[pair, place] - other_frames[pair, other]).astype(np.int16)  # frames are modulo 65536
    order = np.sort(pair << 17 | distance.astype(np.int64) + (1 << 15))
    counts = np.searchsorted(order, order + _CLOSE, side="right") - np.arange(len(order))
    most = np.zeros(len(pairs), np.int64)
    np.maximum.at(most, order >> 17, counts)
    return most


def _read(column: pa.ChunkedArray, rows: Ints) -> tuple[Hashes, npt.NDArray[np.uint16]]:
    """Return hashes and frames of the sketches in some rows, both (rows, LANDMARKS)."""
    content = np.frombuffer(b"".join(column.take(pa.array(rows)).to_pylist()), np.uint8).reshape(-1, sketches.BYTES)
    hashes, frames = np.split(content, [4 * LANDMARKS], axis=1)
    return np.ascontiguousarray(hashes).view("<u4"), np.ascontiguousarray(frames).view("<u2")
