"""Parquet files with the audio inside, as Hugging Face's hub has them. `corpus.root` is a file, or a folder of files.

    audio     struct<bytes, path> or binary: the content of an audio file
    genre     text, or numbers with the names of Hugging Face's ClassLabel in the metadata of the schema
    artist    optional: the group, whose tracks are all in the same split

Other names of columns are set in `params`. A file named `train-...`, `validation-...` or `test-...`, or in a folder of
that name, has that split, if there are files of all three. `track_id` is the path below the root and the row. A row
without a genre is `unlabelled`; a row without bytes is a reject. Of a list of genres or artists the first that is not
empty counts. A file that is not Parquet or is truncated is left out and reported.

Only labels are read here. A worker reads the audio of a row from its row group (`genre.audio.members`). A changed file
is prepared again.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
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
from genre.storage import Location
from genre.storage.faults import STORAGE_SECONDS, retry

_AUDIO, _GENRES, _GROUPS = ("audio",), ("genre", "label"), ("artist", "group")  # columns, unless settings name others


class Params(Settings):
    """The names of the columns."""

    audio_column: str | None = Field(None, description="column of the audio; null: 'audio'")
    genre_column: str | None = Field(None, description="column of the genre; null: 'genre', else 'label'")
    group_column: str | None = Field(None, description="column of the artist; null: 'artist' or 'group' if it exists")


def scan(settings: CorpusSettings, params: Params) -> Iterator[Track]:
    """Yield every row of every file, in the order of paths and rows."""
    return scan_with_report(settings, params, lambda line: None, None)


def scan_with_report(
    settings: CorpusSettings, params: Params, report: Callable[[str], None], folder: Location | None
) -> Iterator[Track]:
    """Yield what `scan` does, then report the files that cannot be read. Nothing is kept in `folder`.

    Raises `ConfigError` when no file can be read, and for one without a column of audio or genres; `StorageError` for
    one that cannot be reached.
    """
    shards, problems = find_shards(settings, ".parquet"), []
    for shard in shards:
        try:
            with contextlib.ExitStack() as stack:
                yield from _tracks(_open(shard, stack), shard, params)
        except ArtifactError as error:
            problems.append(str(error).replace("make it again", "copy it again"))
        except (pa.ArrowException, OSError) as error:
            problems.append(f"{shard.file} cannot be read ({one_line(error)}); copy it again")
    if len(problems) == len(shards):
        raise ConfigError(f"corpus.root: {problems[0]}")
    for problem in problems:
        report(f"odd: rows are left out: {problem}")


def _open(shard: ShardFile, stack: contextlib.ExitStack) -> pq.ParquetFile:
    return retry(lambda: stack.enter_context(shard.file.open_parquet()), shard.file, STORAGE_SECONDS)


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
        labels = _read_labels(reader, number, [genre, group] if group else [genre], shard)
        genres = _texts(labels[genre], names, f"column {genre!r} of {shard.file}")
        groups = _texts(labels[group], None, f"column {group!r} of {shard.file}") if group else [None] * len(genres)
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


def _read_labels(reader: pq.ParquetFile, number: int, columns: list[str], shard: ShardFile) -> pa.Table:
    return retry(lambda: reader.read_row_group(number, columns=columns), shard.file, STORAGE_SECONDS)


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
        feature = features[column]
        names = feature.get("feature", feature)["names"]  # the first of a list of labels
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    return [str(name) for name in names] if isinstance(names, list) else None


def _texts(column: pa.ChunkedArray, names: list[str] | None, place: str) -> list[str | None]:
    """Return the values as text, of a list its first; empty ones, and numbers that have no name, are None.

    Raises `ConfigError` for values of another type.
    """
    if _is_list(column.type):
        parts = [chunk.flatten() for chunk in column.chunks]
        values = iter(_texts(pa.chunked_array(parts, column.type.value_type), names, place))
        lengths = pc.list_value_length(column).to_pylist()
        return [next(filter(None, list(islice(values, length or 0))), None) for length in lengths]
    if names is not None and pa.types.is_integer(column.type):
        return [names[value] if value is not None and 0 <= value < len(names) else None for value in column.to_pylist()]
    try:
        texts = pc.utf8_trim_whitespace(pc.cast(column, pa.string())).to_pylist()
    except pa.ArrowNotImplementedError:
        raise ConfigError(
            f"corpus.root: {place} is {column.type}; it should be text, numbers, or lists of them"
        ) from None
    return [text or None for text in texts]


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))
