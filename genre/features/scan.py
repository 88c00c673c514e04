"""The tracks of a corpus as columns."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from genre import corpora
from genre.audio import members
from genre.corpora import EXCLUDED, MISSING, Track
from genre.errors import ArtifactError, ConfigError, StorageError
from genre.faults import find_away, find_emptied_folder
from genre.features.columns import combined
from genre.features.corrections import corrected
from genre.features.ledger import row_of
from genre.features.schema import SCAN_SCHEMA
from genre.settings import CorpusSettings
from genre.storage import Location
from genre.wording import plural

_BATCH = 10_000  # tracks


def scan(
    settings: CorpusSettings, report: Callable[[str], None] | None = None, folder: Location | None = None
) -> pa.Table:
    """Return the tracks of a corpus, sorted by track_id, without those that its published split excludes.

    Genres are those of `settings.corrections` where it has the file. `report` and `folder` are those of `corpora.scan`.
    Raises `ConfigError` when there is no track, or the file of none exists, which would take all tracks out of the
    features, and `ArtifactError` when two have the same id.
    """
    tracks = corpora.scan(settings, report, folder)
    if settings.corrections:
        tracks = corrected(tracks, settings, report)
    table = pa.Table.from_batches(list(_batches(tracks)), SCAN_SCHEMA)
    table = table.filter(pc.fill_null(pc.not_equal(table["split"], EXCLUDED), True))
    if not len(table):
        raise ConfigError(f"corpus.root={settings.root} lists no track; point it at a corpus that has some")
    if pc.all(pc.equal(table["size"], MISSING)).as_py():
        raise ConfigError(
            f"corpus.root={settings.root}: none of {plural(len(table), 'listed file')} exists, such as "
            f"{table['path'][0].as_py()!r}; mount the folder of the music, or correct the paths"
        )
    table = table.sort_by("track_id").combine_chunks()
    ids = table["track_id"]
    repeated = pc.index(pc.equal(ids[1:], ids[:-1]), True).as_py() if len(ids) > 1 else -1
    if repeated >= 0:
        raise ArtifactError(f"the corpus lists track_id {ids[repeated].as_py()!r} twice; rename one of the tracks")
    return table


def check_present(scanned: pa.Table, outcomes: pa.Table, folder: Location) -> None:
    """Raise `StorageError` when the file of a track that has clips is away together with its folder, as with a disk.

    Without this error the track would become a reject or be forgotten, and its clips would be deleted. `outcomes` are
    those of earlier runs into `folder`. A file that is missing from a folder with other files was deleted, and one that
    was never prepared may be a part of the corpus that nobody has.

    Raises `ArtifactError` when none of the earlier tracks is listed: all of their clips would be deleted.
    """
    _check_listed(scanned, outcomes)
    _check_same_corpus(scanned, outcomes, folder)
    gone = scanned.filter(pc.equal(scanned["size"], MISSING))
    earlier = outcomes.select(["part"]).take(row_of(gone, outcomes))
    paths = gone["path"].filter(pc.is_valid(earlier["part"])).to_pylist()
    if file := find_away(Location.of(members.file_of(path)) for path in paths):
        raise StorageError(
            f"{file}, which was prepared earlier, is away, and {file.parent} is missing or empty; mount it and run the "
            "same command again, or take the tracks out of the corpus"
        )


def _check_listed(scanned: pa.Table, outcomes: pa.Table) -> None:
    """Raise `StorageError` when tracks that have clips are no longer listed, and were below a folder that is empty now.

    A mount point without its disk is such a folder.
    """
    is_gone = pc.invert(pc.is_in(outcomes["track_id"], value_set=combined(scanned["track_id"])))
    gone = outcomes.filter(pc.and_(is_gone, pc.is_valid(outcomes["part"])))
    if folder := find_emptied_folder(Location.of(members.file_of(path)) for path in gone["path"].to_pylist()):
        raise StorageError(
            f"{folder} is empty or denied, and tracks below it were prepared earlier; mount its disk and run the "
            "same command again, or delete the folder if its music is gone"
        )


def _check_same_corpus(scanned: pa.Table, outcomes: pa.Table, folder: Location) -> None:
    prepared = outcomes.filter(pc.is_valid(outcomes["part"]))
    own = prepared.filter(pc.not_equal(prepared["track_id"], prepared["path"]))  # corrections add files by their paths
    prepared = own if len(own) else prepared
    if len(prepared) and not pc.any(pc.is_in(prepared["track_id"], value_set=combined(scanned["track_id"]))).as_py():
        raise ArtifactError(
            f"{folder} holds {plural(len(prepared), 'track')} of another corpus, such as "
            f"{prepared['track_id'][0].as_py()}, and none of them is in this one; choose another output, or "
            f"delete {folder}"
        )


def _batches(tracks: Iterable[Track]) -> Iterator[pa.RecordBatch]:
    iterator = iter(tracks)
    while rows := list(itertools.islice(iterator, _BATCH)):
        yield pa.RecordBatch.from_pylist([vars(track) for track in rows], SCAN_SCHEMA)
