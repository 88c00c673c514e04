"""The sketch of a track: a sample of its landmarks, by which copies that are not bit-equal are recognised.

A landmark is four peaks of the spectrogram that follow each other within two seconds: their bands and the times between
them (Wang, "An industrial-strength audio search algorithm", ISMIR 2003, with four peaks in place of two). It depends
neither on the level nor on where the track begins, and lossy encoding keeps many of them. Landmarks that occur more
than once, as in a loop, are left out. The hashes of the others are ordered, and the first `LANDMARKS` are kept
(Broder, "On the resemblance and containment of documents", 1997): two tracks that have a share of their landmarks in
common have about that share of their sketches in common.

A sketch is `BYTES` bytes: hashes (LANDMARKS,) as uint32, then the frame of the first peak of each (LANDMARKS,) as
uint16, both little-endian; frames are counted modulo 65536. Another way of computing them is a kind of sketch that
must not match these: give it another length.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from genre.arrays import Bytes, Float64, Ints
from genre.features.clips import StoredClip
from genre.features.schema import Shape

LANDMARKS = 64  # in a sketch
BYTES = 6 * LANDMARKS

_LARGEST = float(2**64 - 2**11)  # the largest hash that a float holds
_MOST_SECONDS = 120  # of a track that are looked at
_FOLLOWING = 7  # peaks after the first from which the other three are chosen
_REACH_SECONDS, _REACH_BANDS = 0.28, 1 / 16  # no higher point is this near a peak, in time and in share of all bands
_SPAN_SECONDS = 2.1  # from the first peak of a landmark to its last
_STEP_SECONDS = 0.093  # times between peaks are rounded down to multiples of it, since lossy copies shift peaks
_LEAST_LEVEL = 64  # bytes: peaks in the lowest quarter of the stored range are noise
_OTHERS = np.array(list(itertools.combinations(range(_FOLLOWING), 3))).T
# odd numbers without a pattern, one for each peak of a landmark
_FACTORS = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0xD6E8FEB86659FD93], np.uint64)

Hashes = npt.NDArray[np.uint64]


def sketch(clips: Sequence[StoredClip], end_seconds: float, shape: Shape) -> bytes | None:
    """Return the sketch of the clips of a track whose sound ends at `end_seconds`; None for too few landmarks.

    That is so for single tones, and for some tracks of a second.
    """
    # the last clip repeats its start, and a landmark must not be counted twice for that
    own = int(min(end_seconds - clips[0].start_seconds, _MOST_SECONDS) / shape.frame_seconds) + 1
    content = b"".join(clip.spectrogram for clip in clips[: 1 + own // shape.frames])
    spectrogram = np.frombuffer(content, np.uint8).reshape(-1, shape.bins)[:own]
    times, bands = _peaks(spectrogram, shape)
    hashes, peak = _landmarks(times, bands, shape)
    share = 4 * LANDMARKS / max(1, len(hashes))  # of the hashes that are enough, where few landmarks are repeated
    while True:
        low = np.flatnonzero(hashes <= np.uint64(min(share, 1) * _LARGEST))
        unique, index, count = np.unique(hashes[low], return_index=True, return_counts=True)
        once = np.flatnonzero(count == 1)[:LANDMARKS]
        if len(once) == LANDMARKS:
            # the upper half of a hash decides the order, so that the lower half is evenly distributed
            frames = times[peak[low[index[once]]]].astype(np.int64)
            return unique[once].astype("<u4").tobytes() + frames.astype("<u2").tobytes()
        if share >= 1:
            return None
        share *= 4


def _peaks(spectrogram: Bytes, shape: Shape) -> tuple[Float64, Ints]:
    """Return the times, in frames, and the bands of the peaks of a spectrogram (frames, bins), in the order of time."""
    reach = _frames(_REACH_SECONDS, shape), max(1, round(_REACH_BANDS * shape.bins))
    highest = cv2.dilate(spectrogram, np.ones([2 * each + 1 for each in reach], np.uint8))
    frames, bands = np.divmod(np.flatnonzero((spectrogram == highest) & (spectrogram >= _LEAST_LEVEL)), shape.bins)
    inside = (frames > 0) & (frames < len(spectrogram) - 1) & (bands > 0)
    frames, bands = frames[inside], bands[inside]
    before, here, after = (spectrogram[frames + step, bands].astype(np.float64) for step in (-1, 0, 1))
    # of equal neighbours, as in a steady tone, only the first is a peak
    is_first = (here > before) & (here > spectrogram[frames, bands - 1])
    # a parabola through three levels has its highest point there: a tenth of a frame decides between two steps
    times = frames + (before - after) / np.where(is_first, 2 * (before - 2 * here + after), 1)
    return times[is_first], bands[is_first]


def _landmarks(times: Float64, bands: Ints, shape: Shape) -> tuple[Hashes, Ints]:
    """Return the hash of each landmark and its first peak, both (landmarks,), in no order."""
    ahead = np.arange(len(times))[:, None] + np.arange(1, _FOLLOWING + 1)
    ends = np.append(times, np.full(_FOLLOWING, np.inf))[ahead] - times[:, None]
    is_near = ends <= _SPAN_SECONDS / shape.frame_seconds
    steps = np.rint(np.where(is_near, ends, 0) * (shape.frame_seconds / _STEP_SECONDS)).astype(np.int64)
    codes = (steps * shape.bins + np.append(bands, np.zeros(_FOLLOWING, np.int64))[ahead]).astype(np.uint64)
    first, second, third = _OTHERS
    hashes = (bands.astype(np.uint64) * _FACTORS[0])[:, None] + (codes * _FACTORS[1])[:, first]
    hashes += (codes * _FACTORS[2])[:, second]
    hashes += (codes * _FACTORS[3])[:, third]
    used = is_near[:, third]
    return _mixed(hashes[used]), np.nonzero(used)[0]


def _mixed(values: Hashes) -> Hashes:
    """Return values whose bits all depend on all bits of the given ones: the finaliser of SplitMix64 (Steele 2014)."""
    values = (values ^ (values >> np.uint64(30))) * _FACTORS[1]
    values = (values ^ (values >> np.uint64(27))) * _FACTORS[2]
    mixed: Hashes = values ^ (values >> np.uint64(31))
    return mixed


def _frames(seconds: float, shape: Shape) -> int:
    return max(1, round(seconds / shape.frame_seconds))
