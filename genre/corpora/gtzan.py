"""GTZAN (Tzanetakis and Cook, 2002): 1,000 excerpts of 30 s, 100 numbered tracks in each of ten genres.

`corpus.root` is the folder with the ten genre folders, or a parent of it as the archives have it (`genres`,
`genres_original`, `Data/genres_original`). The original `.au` files, copies as `.wav` and any other audio extension are
accepted: `blues/blues.00000.au`. `track_id` is `blues.00000`.

The official split is the fault-filtered one: 443 train, 197 valid, 290 test, no artist in two splits (Kereliuk, Sturm,
Larsen, arXiv 1507.04761). The 70 tracks that it does not name are repeated, mislabelled or distorted (Sturm, arXiv
1306.1461): they are yielded with the split `excluded`, so that the counts add up. jazz.00054 is in the training split
and unreadable in most copies. The artists are not known, so there are no groups: with `corpus.split=random` all 1,000
tracks take part, artists and repeated recordings are in several splits, and the scores are much too high
(docs/SPLITS.md).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from importlib import resources

from genre.corpora import EXCLUDED, Track, open_folder, walk
from genre.errors import ConfigError
from genre.settings import CorpusSettings, Settings
from genre.storage import Location

GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")

_PARENTS = ((), ("genres",), ("genres_original",), ("Data", "genres_original"))


class Params(Settings):
    """GTZAN has no settings of its own."""


def classes(settings: CorpusSettings, params: Params) -> list[str]:
    """Return the ten genres."""
    return list(GENRES)


def scan(settings: CorpusSettings, params: Params) -> Iterator[Track]:
    """Yield every existing track, by genre and number.

    Raises `ConfigError` as `walk` does, when there is no genre folder, when one holds a file that is not a GTZAN track,
    and when a track exists twice (as `.au` and as `.wav`).
    """
    root = _parent_of_genres(settings)
    for genre in GENRES:
        if not (root / genre).is_folder():
            continue  # a partial copy; training fails if a class has no track
        seen: dict[str, str] = {}
        for audio in walk(root / genre):
            track_id = _track_id(genre, audio.relative, root)
            if track_id in seen:
                raise ConfigError(f"{root / genre}: {seen[track_id]} and {audio.relative} are one track; keep only one")
            seen[track_id] = audio.relative
            split = None if settings.split == "random" else official_split(track_id)
            yield Track(track_id, audio.path, genre, audio.size, audio.modified, split=split)


def official_split(track_id: str) -> str:
    """Return the fault-filtered split of a track: train, valid, test, or excluded."""
    return filtered_split().get(track_id, EXCLUDED)


@cache
def filtered_split() -> dict[str, str]:
    """Return the split of each track in the published lists, from lines like `blues train 29-39,41`."""
    splits = {}
    for line in (resources.files(__package__) / "_gtzan_filtered.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        genre, split, ranges = line.split()
        for part in ranges.split(","):
            first, _, last = part.partition("-")
            for number in range(int(first), int(last or first) + 1):
                splits[f"{genre}.{number:05d}"] = split
    return splits


def _parent_of_genres(settings: CorpusSettings) -> Location:
    """Return the folder at or below the root that has a folder of one of the genres."""
    root = open_folder(settings.root)
    for parents in _PARENTS:
        folder = root.below(parents)
        if any((folder / genre).is_folder() for genre in GENRES):
            return folder
    raise ConfigError(f"corpus.root={root} has no genre folder (blues, classical, ...); point it at the unpacked GTZAN")


def _track_id(genre: str, relative: str, root: Location) -> str:
    match = re.fullmatch(rf"({genre}\.000\d\d)\.\w+", relative)
    if not match:
        raise ConfigError(
            f"{root / genre}: {relative!r} is not named like a GTZAN track ({genre}.00000.wav); "
            "take it out, or use corpus.kind=folder"
        )
    return match[1]
