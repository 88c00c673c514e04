"""Print the tracks of a collection that are nearest to a song.

    genre similar song.mp3 n=20 output=outputs/mine

Search OUTPUT/embeddings, which `embed` writes. A song that is not in it is decoded and embedded by the same model.
"""

from __future__ import annotations

import sys

from genre.retrieval.embedding_table import EmbeddingTable
from genre.retrieval.nearest import nearest
from genre.settings import Config
from genre.storage import Location
from ray_jobs.engine import cli
from ray_jobs.tagging import queries


def run(config: Config) -> None:
    """Print cosine, genre and name of the `config.similar.n` nearest tracks, without the song itself."""
    table = EmbeddingTable.open(Location.of(config.output) / "embeddings")
    query = queries.embed(config, table, config.inputs, "inputs")
    rows, cosines = nearest(table.blocks(), query.vector, config.similar.n + 1)
    others = rows != query.row
    queries.show(table.take(rows[others][: config.similar.n], vectors=False), cosines[others])


if __name__ == "__main__":
    sys.exit(cli.main("similar"))
