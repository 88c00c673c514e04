"""`splits.parquet` of a features folder: the split of every track that was ever assigned one there.

The file keeps the splits of tracks that are deleted, so that they and their group return to the same split. It is valid
for one set of shares and one seed: when these are changed, all splits are drawn again.
"""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.compute as pc

from genre.corpora import UNUSED
from genre.features.schema import TRACK_WRITE_OPTIONS
from genre.settings import CorpusSettings
from genre.storage import Location

FILE = "splits.parquet"
_COLUMNS = ["track_id", "group", "split"]
_KEY = b"drawn_with"


def read(folder: Location, settings: CorpusSettings) -> pa.Table | None:
    """Return track_id, group and split as assigned with the same shares and seed; None where there are none."""
    file = folder / FILE
    if not file.exists():
        return None
    history = file.read_table()
    return history if (history.schema.metadata or {}).get(_KEY) == _drawn_with(settings) else None


def write(folder: Location, tracks: pa.Table, history: pa.Table | None, settings: CorpusSettings) -> None:
    """Add the splits of `tracks` to `history` and write both."""
    assigned = tracks.filter(pc.invert(pc.is_in(tracks["split"], value_set=pa.array(UNUSED)))).select(_COLUMNS)
    if history is not None:
        deleted = history.filter(pc.invert(pc.is_in(history["track_id"], assigned["track_id"])))
        assigned = pa.concat_tables([assigned, deleted.select(_COLUMNS).cast(assigned.schema)])
    table = assigned.replace_schema_metadata({_KEY: _drawn_with(settings)})
    (folder / FILE).write_table(table, **TRACK_WRITE_OPTIONS)


def _drawn_with(settings: CorpusSettings) -> bytes:
    names = ("valid_fraction", "test_fraction", "split_seed")
    return json.dumps({name: getattr(settings, name) for name in names}).encode()
