"""Corpora: where tracks and their genres come from. One module per corpus; its name is `corpus.kind`.

Input: settings. Output: tracks. A corpus lists files and does not decode them.
Independent of features and models.

A corpus module has:

- `class Params(Settings)`: its own settings, `corpus.params.*` in the configuration;
- `def scan(settings, params) -> Iterator[Track]`: every track, in an order that does not depend on the file system,
  one at a time (a corpus may have a million);
- optionally `def classes(settings, params) -> list[str]`: the genres in fixed order; without it, they are those of the
  scanned tracks, sorted;
- optionally `def scan_with_report(settings, params, report, folder) -> Iterator[Track]`: the same tracks as `scan`. It
  calls `report` at any time with lines for the user: the progress of a long scan, and what to know about the corpus. In
  `folder`, if it is not None, it may keep what it read of files for the next scan. Where labels are the tags in the
  files, it has another parameter, `written`: the table of the genres that `tag` wrote into files, or None;
- optionally `def is_composed(settings) -> bool`, for a corpus whose `scan` writes its music: whether all files exist.
  If not, `prepare --dry-run` has no forecast.

`Track.split` is the published split where the corpus has one and `settings.split` is not `random`; otherwise it is
None, and `genre.features.splitting.splits` decides. A track without a genre has the split `unlabelled`. `Track.fold` is
the published fold of a cross-validation, under the same rule. `genre.testing.check_corpus` checks a corpus.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from genre import registry
from genre.config import validate
from genre.corpora._artists import group_of
from genre.corpora._genre_names import fold
from genre.corpora._walk import (
    MISSING,
    AudioFile,
    is_audio,
    is_system_file,
    open_folder,
    open_root,
    size_and_time,
    walk,
)  # fmt: skip
from genre.settings import CorpusSettings, require_known
from genre.storage import Location

__all__ = [
    "EXCLUDED", "MISSING", "SPLITS", "UNLABELLED", "UNUSED", "AudioFile", "Track", "classes", "fold",
    "group_of", "is_audio", "is_system_file", "open_folder", "open_root", "scan", "size_and_time", "walk",
]  # fmt: skip


SPLITS = ("train", "valid", "test")
EXCLUDED = "excluded"  # the split of a track that is not used, such as a known bad track
# the split of a track without a genre: its features are prepared, for `pretrain` and for `train` with a teacher
UNLABELLED = "unlabelled"
UNUSED = (EXCLUDED, UNLABELLED)


@dataclass(frozen=True)
class Track:
    """One piece of music, which ends in the features or in the rejects."""

    track_id: str  # unique in its corpus, stable when the corpus moves
    path: str  # path or URI of the file
    genre: str | None  # None: unlabelled
    size: int  # bytes as listed, or MISSING
    modified: float  # seconds since 1970, as listed
    group: str | None = None  # artist or album: never in two splits
    split: str | None = None  # train, valid, test, excluded or unlabelled; None: decided by features.splitting
    fold: str | None = None  # name of the published fold; None: there is none


def scan(
    settings: CorpusSettings,
    report: Callable[[str], None] | None = None,
    folder: Location | None = None,
    written: Location | None = None,
) -> Iterator[Track]:
    """Yield every track of a corpus. Raises `ConfigError` when its settings or files are wrong.

    `report` is called with lines for a person, by a corpus that has something to say; a name with a line break is still
    one line. In `folder`, a corpus that reads files keeps what it read, so that an interrupted scan resumes and a later
    one reads only new and changed files. `written` is the written.csv of `tag`: where labels are the files' own tags,
    the genres in it are predictions, and no labels.
    """
    require_known("corpus.kind", settings.kind, registry.names(__name__))
    module = registry.load(__name__, settings.kind)
    params = validate(module.Params, settings.params, "corpus.params.")
    if report and hasattr(module, "scan_with_report"):
        scan_with_report = module.scan_with_report
        options = {"written": written} if "written" in inspect.signature(scan_with_report).parameters else {}
        yield from scan_with_report(
            settings, params, lambda text: report(" ".join(text.splitlines())), folder, **options
        )
    else:
        yield from module.scan(settings, params)


def classes(settings: CorpusSettings) -> list[str] | None:
    """Return the genres of a corpus in fixed order, or None: those of the scanned tracks, sorted."""
    module = registry.load(__name__, settings.kind)
    if not hasattr(module, "classes"):
        return None
    genres: list[str] = module.classes(settings, validate(module.Params, settings.params, "corpus.params."))
    return genres
