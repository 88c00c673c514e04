"""The song that `similar` and `playlist` search with, and the tracks that they print."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.text import Text

from genre.arrays import Float32
from genre.credentials import without_credentials
from genre.errors import ArtifactError, AudioError, ConfigError, GenreError, one_line
from genre.model.card import weights_of
from genre.retrieval.embedding_table import EmbeddingTable, vectors_of
from genre.settings import Config
from genre.storage import Location
from genre.tagging import audio_files
from genre.tagging.tagger import Tagger


@dataclass(frozen=True)
class Query:
    """The embedding of a song, and the number of its own row in the table if it has one."""

    vector: Float32  # (size,) of norm 1
    row: int | None


def embed(config: Config, table: EmbeddingTable, address: str, key: str) -> Query:
    """Return the song at `address`, which the setting `key` names, as a query to `table`.

    Raises `ConfigError` when it is no file, `ArtifactError` when `config.model` is not the model of the table, and
    `GenreError` when the song cannot be read.
    """
    song = audio_files.single_file(address)
    if song is None:
        raise ConfigError(f"{key}={address} is not a file; name one song")
    if config.model:
        _check_model(table, config.model)
    try:
        content = song.sha256()
    except OSError as error:
        raise GenreError(f"{song}: cannot be read ({one_line(error)})") from None
    row = table.row_of(str(song), content)
    if row is not None:
        known = table.take(np.array([row]))
        return Query(vectors_of(known)[0], row if known["path"][0].as_py() == str(song) else None)
    model = config.model or table.model
    _check_model(table, model)
    try:
        tags = Tagger.load(model, config.min_precision, config.decoding)(str(song))
    except AudioError as error:
        raise GenreError(f"{song}: {error.line}; nothing to compare") from None
    assert tags.embedding is not None
    return Query(tags.embedding.astype("float32"), None)


def show(rows: pa.Table, cosines: Float32) -> None:
    """Print a line for each row of the table of embeddings, on standard output."""
    console = Console(highlight=False)
    genres = [genre or "" for genre in rows["genre"].to_pylist()]
    width = max(map(len, genres), default=0)
    for row, cosine, genre in zip(rows.to_pylist(), cosines, genres, strict=False):
        name = " - ".join(filter(None, (row["artist"], row["title"])))
        # names of songs may contain rich's markup
        text = f"{cosine:6.3f}  {genre:<{width}}  {name + '  ' if name else ''}{row['path']}"
        console.print(Text(without_credentials(" ".join(text.splitlines()))), soft_wrap=True)


def _check_model(table: EmbeddingTable, model: str) -> None:
    """Raise `ArtifactError` unless `model` is the folder of the model that made the table."""
    weights = weights_of(Location.of(model))
    if weights is None:
        raise ArtifactError(f"{table.file}: no model in {model}; name the folder of the model that made it with model=")
    if weights != table.weights:
        raise ArtifactError(
            f"{table.file}: made by another model than {model}; name its folder with model=, or write the table again "
            "with `genre embed`"
        )
