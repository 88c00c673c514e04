"""Tagged collections for the tests of the review."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from saving import CLASSES, save_model

from genre.model.saved_model import SavedEnsemble
from genre.storage import Location
from genre.tagging.tag_rows import SCHEMA
from genre.tagging.tag_table import TagTable


@dataclass(frozen=True)
class Tagged:
    """What the model says about a file, and what the file's own tags say."""

    path: str
    genre: str
    probability: float
    artist: str | None = None
    title: str | None = None
    own_genre: str | None = None


def write_tags(output: Path, files: Sequence[Tagged], model: Path | None = None) -> None:
    """Write OUTPUT/tags as `tag` does, with these answers of an untrained model, saved in `model` or OUTPUT/model."""
    ensemble = SavedEnsemble.read([Location.of(save_model(model or output / "model"))], 0.93)
    table = TagTable(Location.of(output) / "tags", ensemble)
    shares = np.array([_shares(file.genre, file.probability) for file in files], np.float32)
    rows = pa.Table.from_pylist(
        [
            {
                "path": file.path,
                "size": 1,
                "modified": 0.0,
                "content": f"{number:064d}",
                "seconds": 3.0,
                "probabilities": row.tolist(),
                "timeline": [{"start": 0.0, "end": 3.0, "probabilities": row.tolist()}],
                "is_embedded": False,
                "artist": file.artist,
                "title": file.title,
                "own_genre": file.own_genre,
                "group": file.artist and file.artist.lower(),
            }
            for number, (file, row) in enumerate(zip(files, shares, strict=True))
        ],
        SCHEMA,
    )
    table.add(rows)
    table.finish(rows.select(["path", "size", "modified"]), None, top_k=3)


def _shares(genre: str, probability: float) -> list[float]:
    rest = (1 - probability) / (len(CLASSES) - 1)
    return [probability if name == genre else rest for name in CLASSES]
