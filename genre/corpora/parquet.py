"""Parquet files with the audio inside, as Hugging Face's hub has them. `corpus.root` is a file, or a folder of files.

    audio     struct<bytes, path> or binary: the content of an audio file
    genre     text, or numbers with the names of Hugging Face's ClassLabel in the metadata of the schema
    artist    optional: the group, whose tracks are all in the same split

Other names of columns are set in `params`. A file named `train-...`, `validation-...` or `test-...`, or in a folder of
that name, has that split, if there are files of all three. `track_id` is the path below the root and the row. A row
without a genre is `unlabelled`; a row without bytes is a reject.

Only labels are read here. A worker reads the audio of a row from its row group (`genre.audio.members`). A changed file
is prepared again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field

from genre.audio.members import row_address
from genre.corpora import UNLABELLED, Track
from genre.corpora._artists import artist_key
from genre.corpora._shards import ShardFile, find_shards
from genre.errors import ArtifactError, ConfigError, one_line
from genre.settings import CorpusSettings, Settings

_AUDIO, _GENRES, _GROUPS = ("audio",), ("genre", "label"), ("artist", "group")  # columns, unless settings name others


class Params(Settings):
    """The names of the columns."""

    audio_column: str | None = Field(None, description="column of the audio; null: 'audio'")
    genre_column: str | None = Field(None, description="column of the genre; null: 'genre', else 'label'")
    group_column: str | None = Field(None, description="column of the artist; null: 'artist' or 'group' if it exists")


def scan(settings: CorpusSettings, params: Params) -> Iterator[Track]:
    """Yield every row of every file, in the order of paths and rows.

    Raises `ConfigError` for a file that is not Parquet or is cut, and for one without a column of audio or genres.
    """
    for shard in find_shards(settings, ".parquet"):
        try:
            with shard.file.open_parquet() as reader:
                yield from _tracks(reader, shard, params)
        except (ArtifactError, pa.ArrowException, OSError) as error:
            raise ConfigError(f"corpus.root: {shard.file} cannot be read ({one_line(error)}); copy it again") from None


def _tracks(reader: pq.ParquetFile, shard: ShardFile, params: Params) -> Iterator[Track]:
    schema = reader.schema_arrow
    audio = _column(schema, params.audio_column, _AUDIO, shard, "audio_column")
    genre = _column(schema, params.genre_column, _GENRES, shard, "genre_column")
    group = _column(schema, params.group_column, _GROUPS if params.group_column is None else (), shard, "group_column")
    assert audio is not None
    assert genre is not None
    _check_audio(schema.field(audio).type, audio, shard)
    names, first = _label_names(schema, genre), 0
    for number in range(reader.num_row_groups):
        labels = reader.read_row_group(number, columns=[genre, group] if group else [genre])
        genres = _texts(labels[genre], names)
        groups = _texts(labels[group], None) if group else [None] * len(genres)
        for row, (name, artist) in enumerate(zip(genres, groups, strict=True)):
            yield Track(
                track_id=f"{shard.relative}#{first + row:08d}",
                path=row_address(shard.file, audio, number, row),
                genre=name,
                size=shard.size,
                modified=shard.modified,
                group=artist_key(artist),
                split=shard.split if name else UNLABELLED,
            )
        first += len(genres)


def _column(schema: pa.Schema, name: str | None, defaults: Sequence[str], shard: ShardFile, setting: str) -> str | None:
    """Return the column of a setting, or the first default that exists; None where there is no column of groups."""
    for candidate in [name] if name else defaults:
        if candidate in schema.names:
            return candidate
    if not name and setting == "group_column":
        return None
    raise ConfigError(
        f"corpus.root: {shard.file} has no column {name or defaults[0]!r}; it has {', '.join(schema.names)}; "
        f"set corpus.params.{setting}"
    )


def _check_audio(kind: pa.DataType, column: str, shard: ShardFile) -> None:
    """Raise `ConfigError` unless a column of this type may hold the bytes of files."""
    if pa.types.is_struct(kind):
        names = [kind.field(index).name for index in range(kind.num_fields)]
        if "bytes" in names and (_is_binary(kind.field("bytes").type) or pa.types.is_null(kind.field("bytes").type)):
            return
    elif _is_binary(kind):
        return
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        raise ConfigError(
            f"corpus.root: column {column!r} of {shard.file} holds paths, not files; use corpus.kind=table "
            f"corpus.params.path_column={column}"
        )
    raise ConfigError(
        f"corpus.root: column {column!r} of {shard.file} is {kind}; it should be binary or struct<bytes, path>"
    )


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _label_names(schema: pa.Schema, column: str) -> list[str] | None:
    """Return the names of the classes of a ClassLabel, None for another column."""
    try:
        features: Any = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[column]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return [str(name) for name in names] if isinstance(names, list) else None


def _texts(column: pa.ChunkedArray, names: list[str] | None) -> list[str | None]:
    """Return the values as text; empty ones, and numbers that have no name, are None."""
    if names is not None and pa.types.is_integer(column.type):
        return [names[value] if value is not None and 0 <= value < len(names) else None for value in column.to_pylist()]
    texts = pc.utf8_trim_whitespace(pc.cast(column, pa.string())).to_pylist()
    return [text or None for text in texts]
