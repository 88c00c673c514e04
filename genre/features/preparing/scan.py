"""The tracks of a corpus as columns."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from genre import corpora
from genre.audio import members
from genre.corpora import EXCLUDED, MISSING, SPLITS, UNLABELLED, UNUSED, Track
from genre.errors import ArtifactError, ConfigError, one_line
from genre.features.columns import combined
from genre.features.preparing.corrections import corrected
from genre.features.schema import SCAN_SCHEMA
from genre.settings import CorpusSettings
from genre.storage import Location, faults
from genre.wording import plural

_BATCH = 10_000  # tracks


def scan(
    settings: CorpusSettings,
    report: Callable[[str], None] | None = None,
    folder: Location | None = None,
    written: Location | None = None,
) -> pa.Table:
    """Return the tracks of a corpus, sorted by track_id, without those that its published split excludes.

    Genres are those of `settings.corrections` where it has the file. `report`, `folder` and `written` are those of
    `corpora.scan`. Raises `ConfigError` when there is no track, or the file of none exists, which would take all tracks
    out of the features, and `ArtifactError` when two have the same id.
    """
    tracks = corpora.scan(settings, report, folder, written)
    if settings.corrections:
        tracks = corrected(tracks, settings, report)
    table = pa.Table.from_batches(list(_batches(tracks, settings.kind)), SCAN_SCHEMA)
    _check_labels(table, settings.kind)
    table = table.filter(pc.fill_null(pc.not_equal(table["split"], EXCLUDED), True))
    if not len(table):
        raise ConfigError(f"corpus.root={settings.root} lists no track; point it at a corpus that has some")
    if pc.all(pc.equal(table["size"], MISSING)).as_py():
        setting = ", name it in corpus.params.folder" if settings.kind == "table" else ""
        raise ConfigError(
            f"corpus.root={settings.root}: none of {plural(len(table), 'listed file')} exists, such as "
            f"{table['path'][0].as_py()!r}; mount the folder of the music{setting}, or correct the paths"
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
    prepared = outcomes.filter(pc.is_valid(outcomes["part"]))
    missing = scanned.filter(pc.equal(scanned["size"], MISSING))
    missing = missing.filter(pc.is_in(missing["track_id"], value_set=combined(prepared["track_id"])))
    unlisted = prepared.filter(pc.invert(pc.is_in(prepared["track_id"], value_set=combined(scanned["track_id"]))))
    faults.check_present(_files(missing), _files(unlisted), "tracks", "prepared")
    _check_same_corpus(scanned, prepared, folder)


def _files(tracks: pa.Table) -> Iterator[Location]:
    return (Location.of(members.file_of(path)) for path in tracks["path"].to_pylist())


def _check_same_corpus(scanned: pa.Table, prepared: pa.Table, folder: Location) -> None:
    own = prepared.filter(pc.not_equal(prepared["track_id"], prepared["path"]))  # corrections add files by their paths
    prepared = own if len(own) else prepared
    if len(prepared) and not pc.any(pc.is_in(prepared["track_id"], value_set=combined(scanned["track_id"]))).as_py():
        raise ArtifactError(
            f"{folder} holds {plural(len(prepared), 'track')} of another corpus, such as "
            f"{prepared['track_id'][0].as_py()}, and none of them is in this one; choose another output, or "
            f"delete {folder}"
        )


def _check_labels(table: pa.Table, kind: str) -> None:
    """Raise `ConfigError` for an unknown split, and for a track with neither a genre nor the split `unlabelled`."""
    split = pc.fill_null(table["split"], "")
    unknown = pc.invert(pc.is_in(split, value_set=pa.array(["", *SPLITS, *UNUSED])))
    blank = pc.and_(pc.is_null(table["genre"]), pc.invert(pc.is_in(split, value_set=pa.array(UNUSED))))
    for wrong, reason in (
        (unknown, f"has an unknown split; use {', '.join([*SPLITS, *UNUSED])} or None"),
        (blank, f"has no genre; leave it out or give it split={UNLABELLED!r}"),
    ):
        row = pc.index(wrong, True).as_py()
        if row >= 0:
            raise ConfigError(f"corpus.kind={kind}: its track {table['track_id'][row].as_py()!r} {reason}")


def _batches(tracks: Iterable[Track], kind: str) -> Iterator[pa.RecordBatch]:
    iterator = iter(tracks)
    while rows := list(itertools.islice(iterator, _BATCH)):
        try:
            yield pa.RecordBatch.from_pylist([vars(track) for track in rows], SCAN_SCHEMA)
        except (TypeError, pa.ArrowException) as error:
            raise ConfigError(
                f"corpus.kind={kind}: scan must yield genre.corpora.Track with fields of the declared types "
                f"({one_line(error)})"
            ) from error
