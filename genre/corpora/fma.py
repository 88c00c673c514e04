"""FMA (Defferrard et al., ISMIR 2017, arXiv 1612.01840): tracks and 30 s excerpts from the Free Music Archive.

`corpus.root` holds the unpacked archives:

    fma_metadata/tracks.csv        header of three lines: two levels of names, then the index's name
    fma_small/000/000002.mp3       8,000 tracks of 8 balanced genres (`params.subset=small`)
    fma_medium/000/000002.mp3      25,000 tracks of 16 unbalanced genres, including the small ones
    fma_large/000/000002.mp3       106,574 tracks, half of them of these 16 genres, including the medium ones
    fma_full/000/000002.mp3        the tracks of fma_large at full length

Where the folder of a subset does not exist, it is read from that of a larger one, but never from `fma_full`. `track_id`
is the number in six digits, the genre is `genre_top`: the top-level parent of a track's genres. A track without a
genre, or with genres of several parents, is `unlabelled`: half of `large`. The group is the artist. In the official
split (training, validation, test) no artist is in two splits.

Tracks are in the order of the metadata. A listed track whose file does not exist is yielded with size `MISSING` and
ends in the rejects; an audio file that the metadata does not list is an error. Known bad tracks of fma_small
(github.com/mdeff/fma, issues 8 and 41): 098565, 098567 and 098569 are shorter than 2 s; 099134, 108925 and 133297 hold
no audio.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

import pandas as pd
from pydantic import Field

from genre.corpora import MISSING, UNLABELLED, AudioFile, Track, open_folder, walk
from genre.errors import ConfigError, one_line
from genre.settings import CorpusSettings, Settings
from genre.storage import Location

SMALL = ("Electronic", "Experimental", "Folk", "Hip-Hop", "Instrumental", "International", "Pop", "Rock")
MEDIUM = (
    "Blues", "Classical", "Country", "Easy Listening", "Electronic", "Experimental", "Folk", "Hip-Hop", "Instrumental",
    "International", "Jazz", "Old-Time / Historic", "Pop", "Rock", "Soul-RnB", "Spoken",
)  # fmt: skip

_COLUMNS = {
    "subset": ("set", "subset"),
    "split": ("set", "split"),
    "genre": ("track", "genre_top"),
    "artist": ("artist", "id"),
}
# the values of the column `subset`: that of the smallest subset which has the track
_PARTS = {
    "small": ["small"], "medium": ["small", "medium"], "large": ["small", "medium", "large"],
    "full": ["small", "medium", "large"],
}  # fmt: skip
_FOLDERS = {
    "small": ("fma_small", "fma_medium", "fma_large"), "medium": ("fma_medium", "fma_large"), "large": ("fma_large",),
    "full": ("fma_full",),
}  # fmt: skip
_SPLITS = {"training": "train", "validation": "valid", "test": "test"}


class Params(Settings):
    """FMA's own settings."""

    subset: Literal["small", "medium", "large", "full"] = Field(
        "small", description="subset: small has 8,000 excerpts, medium 25,000, large 106,574; full: large uncut"
    )


def classes(settings: CorpusSettings, params: Params) -> list[str]:
    """Return the genres of the subset."""
    return list(SMALL if params.subset == "small" else MEDIUM)


def scan(settings: CorpusSettings, params: Params) -> Iterator[Track]:
    """Yield every track of the subset, in the order of the metadata.

    Raises `ConfigError` when a folder or the metadata is missing or not as published, or when an audio file is not in
    the metadata.
    """
    root = open_folder(settings.root)
    metadata = _metadata(root / "fma_metadata" / "tracks.csv")
    folder = _audio_folder(root, params.subset)
    files = _files_by_id(folder, known=set(metadata.index))
    chosen = metadata[metadata["subset"].isin(_PARTS[params.subset])]
    _check(chosen, classes(settings, params), unlabelled=params.subset in ("large", "full"))
    for row in chosen.itertuples():
        track_id = f"{row.Index:06d}"
        audio = files.get(row.Index)
        yield Track(
            track_id=track_id,
            path=audio.path if audio else str(folder / track_id[:3] / f"{track_id}.mp3"),
            genre=row.genre or None,
            size=audio.size if audio else MISSING,
            modified=audio.modified if audio else 0.0,
            group=row.artist or None,
            split=_split(row.genre, row.split, settings),
        )


def _split(genre: str, published: str, settings: CorpusSettings) -> str | None:
    if not genre:
        return UNLABELLED
    return None if settings.split == "random" else _SPLITS[published]


def _metadata(file: Location) -> pd.DataFrame:
    """Return `tracks.csv` with the columns of `_COLUMNS` as text, indexed by the number of the track."""
    try:
        with file.filesystem.open_input_stream(file.path) as stream:
            header = pd.read_csv(stream, header=None, nrows=2, dtype=str, keep_default_na=False)
        names = list(zip(header.iloc[0], header.iloc[1], strict=True))
        positions = {names.index(levels): name for name, levels in _COLUMNS.items()}
        with file.filesystem.open_input_stream(file.path) as stream:
            rows = pd.read_csv(
                stream, header=None, skiprows=3, usecols=[0, *positions], dtype=str, keep_default_na=False
            )
        return rows.rename(columns=positions).set_index(rows[0].astype(int)).drop(columns=0)
    except OSError:
        raise ConfigError(f"{file} cannot be read; unpack fma_metadata.zip next to the folder of the audio") from None
    except ValueError as error:  # includes the errors of pandas
        raise ConfigError(
            f"{file} is not FMA's tracks.csv ({one_line(error)}); unpack fma_metadata.zip again"
        ) from None


def _audio_folder(root: Location, subset: str) -> Location:
    for name in _FOLDERS[subset]:
        if (root / name).is_folder():
            return root / name
    raise ConfigError(f"corpus.root={root} has no folder fma_{subset}; unpack fma_{subset}.zip there")


def _files_by_id(folder: Location, known: set[int]) -> dict[int, AudioFile]:
    """Return the existing files by number; FMA's size is fixed, so a dictionary fits into memory."""
    files = {}
    for audio in walk(folder):
        match = re.fullmatch(r"\d{3}/(\d{6})\.\w+", audio.relative)
        if not match or int(match[1]) not in known:
            raise ConfigError(f"{folder}: {audio.relative!r} is not in fma_metadata/tracks.csv; take it out")
        files[int(match[1])] = audio
    return files


def _check(chosen: pd.DataFrame, genres: list[str], unlabelled: bool) -> None:
    for column, allowed in (("genre", genres), ("split", list(_SPLITS))):
        wrong = chosen[~chosen[column].isin(["", *allowed] if column == "genre" and unlabelled else allowed)]
        if len(wrong):
            raise ConfigError(
                f"fma_metadata/tracks.csv: track {wrong.index[0]} has {column} {wrong[column].iloc[0]!r}; "
                f"expected one of {', '.join(allowed)}; unpack fma_metadata.zip again"
            )
