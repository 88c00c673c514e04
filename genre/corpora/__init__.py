"""Where tracks and their genres come from. One file per corpus; the file name is `corpus.kind`.

A corpus module holds:

- `class Params(Settings)`: its own settings, reached as `corpus.params.*`;
- `def scan(settings, params) -> Iterator[Track]`: every track, in an order that does not depend on
  the file system, one at a time (a corpus may have a million);
- `def classes(settings, params) -> list[str] | None`: the genres in fixed order, or None when they
  are whatever genres the scan finds, in sorted order.

`Track.split` is the published split where the corpus has one and `settings.split` is not `random`;
else it is None, and `genre.features.splits` decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from genre import registry
from genre.config import CorpusSettings, require_known, validate
from genre.corpora._walk import AudioFile, is_audio, is_system_file, open_folder, open_root, size_and_time, walk

__all__ = [
    "AudioFile", "Track", "classes", "is_audio", "is_system_file", "open_folder", "open_root", "scan", "size_and_time",
    "walk",
]  # fmt: skip


@dataclass(frozen=True)
class Track:
    """One piece of music that should end in the features or in the rejects."""

    track_id: str  # unique in its corpus, stable when the corpus moves
    path: str  # address of the file
    genre: str
    size: int  # bytes, as listed
    modified: float  # seconds since 1970, as listed
    group: str | None = None  # artist or album: never on two sides of a split
    split: str | None = None  # train, valid, test, or None: decided by genre.features.splits


def scan(settings: CorpusSettings) -> Iterator[Track]:
    """Every track of the corpus that `settings` names."""
    require_known("corpus.kind", settings.kind, registry.names(__name__))
    module = registry.load(__name__, settings.kind)
    yield from module.scan(settings, validate(module.Params, settings.params, "corpus.params."))


def classes(settings: CorpusSettings) -> list[str] | None:
    """The corpus's genres in fixed order, or None when the scan decides."""
    module = registry.load(__name__, settings.kind)
    found: list[str] | None = module.classes(settings, validate(module.Params, settings.params, "corpus.params."))
    return found
