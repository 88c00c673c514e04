"""The table of embeddings of a collection, which other programs read as well.

    embeddings/
      embeddings.parquet    one row for each track, sorted by path
      clips.parquet         on request, one row for each clip: path, content, start and end in seconds, embedding

A row has the file's path and content (SHA-256), artist, title and group from its own tags, the prediction of the model
(`genre`, or unknown, and its `probability`), `seconds`, and the embedding: float16 of norm 1. The metadata of the file
name the model, since embeddings of different models cannot be compared.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genre.arrays import Float32, Ints
from genre.errors import ArtifactError
from genre.features.columns import combined
from genre.model.saved_model import SavedEnsemble
from genre.storage import Location
from genre.tagging import result_tables
from genre.tagging.row_files import RowFiles

FILE, CLIPS_FILE = "embeddings.parquet", "clips.parquet"
_MODEL = b"genre.model"  # key of the model in the metadata of a file
_COLUMNS = ("path", "content", "artist", "title", "group", "genre", "probability", "seconds")


def write(folder: Location, ensemble: SavedEnsemble, rows: Iterable[pa.Table]) -> EmbeddingTable:
    """Write the table from blocks of rows of the tag table of one model, and return it.

    Rows without an embedding are left out. Raises `ArtifactError` when no row has one.
    """
    embedded = (block.filter(pc.is_valid(block["embedding"])) for block in rows)
    tables = (_embeddings(block, ensemble) for block in embedded if len(block))
    if not _write(folder / FILE, ensemble, tables, ["artist", "group", "genre"]):
        raise ArtifactError(f"{folder}: no file has an embedding; see the failures above")
    return EmbeddingTable.open(folder)


def write_clips(folder: Location, ensemble: SavedEnsemble, rows: Iterable[pa.Table]) -> int:
    """Write the table of clips from blocks of rows of the tag table, and return how many clips it has.

    Tracks without embeddings of their clips are left out.
    """
    embedded = (block.filter(pc.is_valid(block["clip_embeddings"])) for block in rows)
    tables = (_clips(block) for block in embedded if len(block))
    return _write(folder / CLIPS_FILE, ensemble, tables, ["path", "content"])


def _write(file: Location, ensemble: SavedEnsemble, tables: Iterable[pa.Table], repeated: list[str]) -> int:
    """Write tables with the model in their metadata, and return the number of rows; without a table there is no file.

    `repeated` are the columns of text in which values occur often.
    """
    tables = iter(tables)
    first = next(tables, None)
    if first is None:
        return 0
    model = {"weights": ensemble.weights[0], "address": ensemble.addresses[0]}
    schema, rows = first.schema.with_metadata({_MODEL: json.dumps(model)}), 0
    # vectors with neither dictionary nor compression: they hardly shrink, and reading them takes an eighth of the time
    with file.table_writer(schema, use_dictionary=repeated, compression="none") as writer:
        for table in itertools.chain([first], tables):
            writer.write_table(table)
            rows += len(table)
    return rows


@dataclass(frozen=True)
class EmbeddingTable:
    """A table of embeddings on disk. Memory holds the vectors of one row group at a time."""

    file: Location
    schema: pa.Schema
    rows: int
    model: str  # its address when the table was made
    weights: str  # SHA-256 of the model's weights

    @classmethod
    def open(cls, folder: Location) -> EmbeddingTable:
        """Open the table in `folder`. Raises `ArtifactError` when there is none, or another file in its place."""
        file = folder / FILE
        if not file.exists():
            raise ArtifactError(f"{folder}: no embeddings here; write them with `genre embed` first, with this output")
        with file.open_parquet() as reader:
            schema, rows = reader.schema_arrow, reader.metadata.num_rows
        try:
            model = json.loads((schema.metadata or {})[_MODEL])
            return cls(file, schema.remove_metadata(), rows, model["address"], model["weights"])
        except (KeyError, ValueError):
            raise ArtifactError(f"{file}: names no model; write it again with `genre embed`") from None

    @property
    def size(self) -> int:
        """Length of an embedding."""
        return int(self.schema.field("embedding").type.list_size)

    def blocks(self) -> Iterator[Float32]:
        """Yield all embeddings in the order of the rows: (rows of a row group, size)."""
        with self.file.open_parquet() as reader:
            for group in range(reader.num_row_groups):
                yield vectors_of(reader.read_row_group(group, columns=["embedding"]))

    def columns(self, *names: str) -> pa.Table:
        """Return some columns of all rows."""
        return self.file.read_table(list(names))

    def take(self, rows: Ints, vectors: bool = True) -> pa.Table:
        """Return the rows with these numbers, in this order. It is faster without `vectors`, the bulk of the file."""
        schema = self.schema if vectors else self.schema.remove(self.schema.get_field_index("embedding"))
        return RowFiles(schema, [self.file]).take(np.zeros_like(rows), rows)

    def row_of(self, path: str, content: str) -> int | None:
        """Return the row number of a file, else of one with the same content; None without either."""
        keys = self.columns("path", "content")
        is_same = pc.equal(keys["content"], content)
        for candidates in (pc.and_(is_same, pc.equal(keys["path"], path)), is_same):
            if (row := pc.index(candidates, True).as_py()) >= 0:
                return int(row)
        return None


def vectors_of(rows: pa.Table) -> Float32:
    """Return the embeddings of rows of the table: (rows, size)."""
    column = combined(rows["embedding"])
    values: Float32 = column.flatten().to_numpy().astype("float32")
    return values.reshape(len(rows), column.type.list_size)


def _embeddings(rows: pa.Table, ensemble: SavedEnsemble) -> pa.Table:
    """Return rows of the tag table, all with an embedding, as rows of this table."""
    probabilities = result_tables.matrix(combined(rows["probabilities"]), len(ensemble.classes))
    predictions = result_tables.Predictions.of(probabilities, ensemble.calibration)
    tags = result_tables.tags_table(rows, ensemble.classes, predictions, top_k=1)
    columns = {name: (tags if name in tags.column_names else rows)[name] for name in _COLUMNS}
    lists = combined(rows["embedding"])
    vectors = pa.FixedSizeListArray.from_arrays(pc.list_flatten(lists), len(lists[0]))
    return pa.table(columns | {"embedding": vectors})


def _clips(rows: pa.Table) -> pa.Table:
    """Return rows of the tag table, all with embeddings of their clips, as rows of the table of clips."""
    timelines = combined(rows["timeline"])
    track, moments = pc.list_parent_indices(timelines), pc.list_flatten(timelines)
    lists = pc.list_flatten(combined(rows["clip_embeddings"]))
    return pa.table(
        {
            "path": combined(rows["path"]).take(track),
            "content": combined(rows["content"]).take(track),
            "start": pc.struct_field(moments, "start"),
            "end": pc.struct_field(moments, "end"),
            "embedding": pa.FixedSizeListArray.from_arrays(pc.list_flatten(lists), len(lists[0])),
        }
    )
