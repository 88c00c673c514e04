"""One genre for an album, which its tracks decide together; a track that is confident of another keeps its own.

An album is the files of one folder whose tags name the same album; files that name none are an album as well, unless
they are more than `MOST_UNNAMED`. Files of several artists are a compilation, and no album. "Various Artists" and the
like are no artist. The discs of an album that are folders of their own are albums of their own.

The album's prediction is the mean of the log-probabilities of its tracks, normalised: the best single distribution for
all of them. It never depends on their order. It is accepted by the same thresholds as the prediction for a track,
although they were proven for single tracks.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from genre.arrays import Float32, Float64, Ints
from genre.audio import tags
from genre.audio.tags import FileTags
from genre.corpora import group_of
from genre.model.calibration import Calibration
from genre.storage import Location

NO_ALBUM = -1
MOST_UNNAMED = 100  # files without an album in their tags; a folder of more is a collection of single songs
AGREES, FILLED, DIFFERS = "agrees", "filled", "differs"  # see `Albums.decide`

_UNNAMED = frozenset(("", "unknown", "unknown album"))
_SMALLEST = 1e-6  # smaller probabilities are raised to it, so that one track has no veto
_UNIT = 2.0**-40  # logarithms are added as integers of this unit, so that their order does not matter
_THREADS = 32  # they wait for disks and networks
_log = logging.getLogger(__name__)


def read_numbers(paths: Sequence[str], present: Sequence[bool]) -> Ints:
    """Return the number of the album of each file, `NO_ALBUM` where there is none, from the files' tags.

    `present` says which files were listed. The others may be gone with their folder or disk, which counts as a file
    without tags. Raises `StorageError` when the storage of a present file is unavailable.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        file_tags = list(pool.map(_read, paths, present, chunksize=64))
    unreadable = sum(each is None for each in file_tags)
    if unreadable:
        _log.warning("the tags of %d files cannot be read; they count as files without tags", unreadable)
    return numbers(paths, [each or FileTags() for each in file_tags])


def numbers(paths: Sequence[str], file_tags: Sequence[FileTags]) -> Ints:
    """Return the number of the album of each file with these tags, `NO_ALBUM` where there is none."""
    members: dict[tuple[str, str], list[int]] = {}
    for place, (path, each) in enumerate(zip(paths, file_tags, strict=True)):
        album = each.album.casefold()
        members.setdefault((os.path.dirname(path), "" if album in _UNNAMED else album), []).append(place)
    result = np.full(len(paths), NO_ALBUM, np.int64)
    for number, ((_, album), places) in enumerate(members.items()):
        artists = {group_of(replace(file_tags[place], album="")) for place in places} - {None}
        if len(places) > 1 and len(artists) <= 1 and (album or len(places) <= MOST_UNNAMED):
            result[places] = number
    return result


class Albums:
    """The predictions for albums, from the calibrated probabilities of their tracks."""

    def __init__(self, numbers: Ints, classes: int, calibration: Calibration) -> None:
        """Take the album of each track, and the number of genres."""
        self._numbers, self._calibration = numbers, calibration
        albums = int(numbers.max(initial=NO_ALBUM)) + 1
        self._sums = np.zeros((albums, classes), np.int64)
        self._counts = np.zeros(albums, np.int64)

    def add(self, tracks: Ints, probabilities: Float32) -> None:
        """Count the `probabilities` (tracks, classes) of tracks with these places in the list of numbers."""
        numbers = self._numbers[tracks]
        member = numbers != NO_ALBUM
        logs = np.log(np.maximum(probabilities[member].astype(np.float64), _SMALLEST))
        np.add.at(self._sums, numbers[member], np.rint(logs / _UNIT).astype(np.int64))
        np.add.at(self._counts, numbers[member], 1)

    def decide(self, tracks: Ints, own: Ints) -> tuple[Ints, list[str | None]]:
        """Return the genre of each track and how it relates to its album, after all tracks were added.

        `own` is the track's own genre, -1 for unknown; so is the result. `AGREES`: the album's genre is the same.
        `FILLED`: the track's is unknown, and the album's is taken. `DIFFERS`: the track's is another, and is
        kept. None: there is no album, its genre is unknown, or no other track is in it.
        """
        answers = self._answers()
        numbers = self._numbers[tracks]
        counts = np.where(numbers == NO_ALBUM, 0, self._counts[numbers] if len(self._counts) else 0)
        of_album = np.where(counts > 1, answers[numbers] if len(answers) else -1, -1)
        states: list[str | None] = [
            None if album < 0 else FILLED if track < 0 else AGREES if track == album else DIFFERS
            for track, album in zip(own.tolist(), of_album.tolist(), strict=True)
        ]
        return np.where((own < 0) & (of_album >= 0), of_album, own), states

    def _answers(self) -> Ints:
        """Return the genre of each album, -1 where it is unknown."""
        means = self._sums * _UNIT / np.maximum(self._counts, 1)[:, None]
        powers: Float64 = np.exp(means - means.max(axis=1, keepdims=True, initial=-np.inf))
        probabilities = powers / powers.sum(axis=1, keepdims=True)
        return self._calibration.reported(probabilities)


def _read(path: str, is_present: bool) -> FileTags | None:
    read = tags.read if is_present else tags.read_once
    try:
        return read(Location.of(path))
    except (OSError, ValueError):
        return None
