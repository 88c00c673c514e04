"""Write a playlist of tracks that are like a song, or of one genre.

    genre playlist like=song.mp3 minutes=60 output=outputs/mine
    genre playlist genre=jazz minutes=60 output=outputs/mine

Choose from OUTPUT/embeddings, which `embed` writes. No two tracks of an artist follow each other where this can be
avoided, and near-duplicates are left out. Write OUTPUT/playlists/NAME.m3u8, with paths relative to its folder.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator

import numpy as np

from genre.arrays import Ints
from genre.errors import ConfigError, GenreError
from genre.retrieval import m3u, playlist
from genre.retrieval.embedding_table import EmbeddingTable, vectors_of
from genre.retrieval.nearest import nearest
from genre.retrieval.playlist import Song
from genre.settings import Config, PlaylistSettings, require_known
from genre.storage import Location
from genre.wording import duration, plural
from ray_jobs.engine import cli
from ray_jobs.tagging import queries

_BATCH = 1000  # rows that are read at a time


def run(config: Config) -> None:
    """Write the playlist. Raises `ConfigError` unless one of `playlist.like` and `playlist.genre` is set."""
    settings = config.playlist
    if bool(settings.like) == bool(settings.genre):
        raise ConfigError("playlist takes one of playlist.like=SONG and playlist.genre=GENRE; set one of them")
    output = Location.of(config.output)
    target = _target(settings, output)
    table = EmbeddingTable.open(output / "embeddings")
    order = _rows_like(config, table) if settings.like else _rows_of_genre(settings.genre, table)
    unwritable: list[str] = []
    songs = playlist.choose(
        _writable(_songs(table, order), target, unwritable), 60 * settings.minutes, settings.max_cosine
    )
    if not songs:
        raise GenreError("no track is left for a playlist; every name has a line break")
    target.write_text(m3u.content(songs, target))
    for path in unwritable:
        cli.say(f"playlist: left out, since a playlist cannot hold the line break in its name: {path!r}")
    seconds = sum(song.seconds for song in songs)
    short = "" if seconds >= 60 * settings.minutes else f" of {settings.minutes:g} minutes, all that fit"
    cli.say(f"playlist: {plural(len(songs), 'track')}, {duration(seconds)}{short} -> {target}")


def _target(settings: PlaylistSettings, output: Location) -> Location:
    """Return the file to write. Raises `ConfigError` when `playlist.file` is no playlist by its name."""
    if settings.file:
        if not settings.file.lower().endswith((".m3u8", ".m3u")):
            raise ConfigError(f"playlist.file={settings.file} does not end in .m3u8; name a playlist")
        return Location.of(settings.file)
    name = re.sub(r"[^\w .-]", "_", settings.genre or Location.of(settings.like).name)
    return output / "playlists" / f"{name}.m3u8"


def _rows_like(config: Config, table: EmbeddingTable) -> Iterator[Ints]:
    """Yield arrays of rows: the row of the song `playlist.like`, if it has one, then others, the nearest first."""
    query = queries.embed(config, table, config.playlist.like, "playlist.like")
    own = np.array([] if query.row is None else [query.row], np.int64)
    yield own
    done = 0
    for count in dict.fromkeys((min(_BATCH, table.rows), table.rows)):  # seldom more than the first
        rows, _ = nearest(table.blocks(), query.vector, count)
        yield rows[done:][~np.isin(rows[done:], own)]
        done = count


def _rows_of_genre(genre: str, table: EmbeddingTable) -> Iterator[Ints]:
    """Yield an array of the rows whose predicted genre is `genre`, in any case, the most probable first."""
    answers = table.columns("genre", "probability")
    known = answers["genre"].unique().to_pylist()
    alike = [name for name in known if name.casefold() == genre.casefold()]
    if genre not in known and len(alike) == 1:
        genre = alike[0]
    require_known("playlist.genre", genre, known)
    rows = np.flatnonzero(np.asarray(answers["genre"]) == genre)
    yield rows[np.argsort(-answers["probability"].to_numpy()[rows], kind="stable")]


def _songs(table: EmbeddingTable, order: Iterable[Ints]) -> Iterator[Song]:
    """Yield the songs of these rows, read a few at a time."""
    for rows in order:
        for begin in range(0, len(rows), _BATCH):
            batch = table.take(rows[begin : begin + _BATCH])
            for row, vector in zip(batch.drop_columns("embedding").to_pylist(), vectors_of(batch), strict=True):
                name = " - ".join(filter(None, (row["artist"], row["title"]))) or Location.of(row["path"]).name
                yield Song(row["path"], row["group"], name, row["seconds"], vector)


def _writable(songs: Iterable[Song], target: Location, unwritable: list[str]) -> Iterator[Song]:
    """Yield the songs that a playlist at `target` can hold; append the paths of others to `unwritable`."""
    for song in songs:
        if m3u.address(song.path, target) is None:
            unwritable.append(song.path)
        else:
            yield song


if __name__ == "__main__":
    sys.exit(cli.main("playlist"))
