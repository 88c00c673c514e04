"""The final tables and the manifest of a features folder, from the outcomes of all runs.

Every scanned track ends in exactly one of `tracks.parquet` (it has clips) and `rejects.parquet` (with a reason).
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from genre import corpora, spreadsheet
from genre.corpora import SPLITS
from genre.credentials import without_credentials
from genre.errors import ArtifactError
from genre.features import manifest as manifests
from genre.features import versions
from genre.features.columns import replaced
from genre.features.manifest import Counts, Manifest
from genre.features.preparing import duplicates, near_copies
from genre.features.preparing.ledger import Ledger, is_same_file, row_of
from genre.features.recipe import Recipe
from genre.features.schema import FOLD, SCAN_SCHEMA, TRACK_SCHEMA, TRACK_WRITE_OPTIONS
from genre.features.splitting import split_history, splits
from genre.settings import CorpusSettings
from genre.storage import Location

_COMPARED = 4096  # rows that are read at a time: a row group


def finish(ledger: Ledger, scanned: pa.Table, corpus: CorpusSettings, command: str = "") -> Manifest:
    """Write the final tables and, last, the manifest, which is returned. Delete files that no track needs.

    `command` is the command line to keep in the manifest. When the tables would not change, nothing is written and the
    existing manifest is returned. Raises `ArtifactError` unless each scanned track is in exactly one of the two tables.
    """
    folder = ledger.folder
    kept, rejected = _join(scanned, ledger.outcomes())
    if len(kept) + len(rejected) != len(scanned):
        raise ArtifactError(
            f"{folder}: {len(scanned)} tracks scanned, but {len(kept)} with features and {len(rejected)} rejected; "
            "files changed while the job ran, run the same command again"
        )
    kept = replaced(kept, "sketch", ledger.sketches(kept))
    kept = replaced(kept, "recording", near_copies.recordings(kept))
    history = split_history.read(folder, corpus)
    kept = duplicates.exclude_copies(_with_splits(kept, corpus, history))
    copies = duplicates.find(kept)
    is_published = _is_published(scanned["split"])
    manifest = _manifest(kept, rejected, copies, ledger.recipe, corpus, "official" if is_published else "random")
    manifest = replace(manifest, command=command)
    if existing := _unchanged(folder, manifest, {"tracks": kept, "rejects": rejected}):
        ledger.mark_finished()
        _delete_unused(folder, kept)
        return existing
    if not is_published:  # before the tables, so that a run after a kill assigns the same splits
        split_history.write(folder, kept, history, corpus)
    # until the new manifest is written the folder is unfinished, and opening it is an error
    (folder / manifests.FILE).delete()
    for name, table in {"tracks": kept, "rejects": rejected, "duplicates": copies}.items():
        (folder / f"{name}.parquet").write_table(table, **TRACK_WRITE_OPTIONS)
    readable = rejected.select(["track_id", "path", "reason", "message"])
    (folder / "rejects.csv").write_bytes(spreadsheet.csv_bytes(readable))  # for people; no job reads it
    ledger.mark_finished()
    (folder / manifests.FILE).write_json(manifest.to_json())
    _delete_unused(folder, kept)
    return manifest


def _is_published(splits: pa.ChunkedArray) -> bool:
    """Return whether the corpus decided the split of every track that it labels, and labels one."""
    return splits.null_count == 0 and bool(pc.any(pc.is_in(splits, pa.array(SPLITS))).as_py())


def _join(scanned: pa.Table, outcomes: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Return the scanned tracks with their outcomes: those with clips, and the rejected."""
    matching = outcomes.take(row_of(scanned, outcomes))
    del outcomes  # the caller keeps none: of a million tracks they are 400 MB
    for name in ("recording", "sketch"):  # not known yet
        matching = matching.append_column(name, pa.nulls(len(matching), TRACK_SCHEMA.field(name).type))
    schema = TRACK_SCHEMA.append(FOLD) if scanned["fold"].null_count < len(scanned) else TRACK_SCHEMA
    columns = {name: (scanned if name in SCAN_SCHEMA.names else matching)[name] for name in schema.names}
    joined = pa.table(columns, schema=schema)
    is_done, has_clips = is_same_file(scanned, matching), pc.is_null(matching["reason"])
    return joined.filter(pc.and_(is_done, has_clips)), joined.filter(pc.and_not(is_done, has_clips))


def _with_splits(tracks: pa.Table, settings: CorpusSettings, history: pa.Table | None) -> pa.Table:
    """Return the tracks with their splits decided; copies count as one track."""
    return replaced(tracks, "split", splits.assign(splits.view(tracks), settings, history)["split"])


def _manifest(
    kept: pa.Table, rejected: pa.Table, copies: pa.Table, recipe: Recipe, corpus: CorpusSettings, split: str
) -> Manifest:
    return Manifest(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        fingerprint=recipe.fingerprint(),
        contents=manifests.fingerprint_of_tracks(kept),
        settings=recipe.settings(),
        corpus=corpus.model_dump(mode="json") | {"root": without_credentials(corpus.root)},
        shape=recipe.shape(),
        classes=_classes(kept["genre"], corpus),
        counts=Counts(
            scanned=len(kept) + len(rejected),
            tracks=len(kept),
            clips=pc.sum(kept["clips"]).as_py() or 0,
            truncated=pc.sum(kept["truncated"]).as_py() or 0,
            rejected=len(rejected),
            reasons=_count_reasons(rejected),
            duplicates=duplicates.count(copies),
            splits=splits.summary(kept),
            unlabelled=kept["genre"].null_count,
        ),
        versions=versions.packages(),
        split=split,
    )


def _classes(genre: pa.ChunkedArray, corpus: CorpusSettings) -> list[str]:
    """Return the genres in fixed order, and after them those that only the corrections have."""
    genres = sorted(pc.unique(genre.drop_null()).to_pylist())
    fixed = corpora.classes(corpus)
    if fixed is None:
        return genres
    return [*fixed, *(name for name in genres if corpus.corrections and name not in fixed)]


def _count_reasons(rejected: pa.Table) -> dict[str, int]:
    """Return the number of rejected tracks for each reason, the most frequent first."""
    counts = pc.value_counts(rejected["reason"]).to_pylist()
    return {entry["values"]: entry["counts"] for entry in sorted(counts, key=lambda e: (-e["counts"], e["values"]))}


def _unchanged(folder: Location, manifest: Manifest, tables: dict[str, pa.Table]) -> Manifest | None:
    """Return the folder's manifest if it and the tables equal the new ones, apart from date, versions and command."""
    path = folder / manifests.FILE
    if not path.exists():
        return None
    existing, volatile = path.read_json(), {"created": None, "versions": None, "command": None}
    if existing | volatile != manifest.to_json() | volatile:
        return None
    if not all(_holds(folder / f"{name}.parquet", table) for name, table in tables.items()):
        return None
    return Manifest.from_json(existing)


def _holds(file: Location, table: pa.Table) -> bool:
    """Return whether a file has the rows of a table. Reads some at a time, not a second table."""
    begin = 0
    with file.open_parquet() as reader:
        if not reader.schema_arrow.equals(table.schema):
            return False
        for batch in reader.iter_batches(_COMPARED):
            if not pa.Table.from_batches([batch]).equals(table.slice(begin, len(batch))):
                return False
            begin += len(batch)
    return begin == len(table)


def _delete_unused(folder: Location, kept: pa.Table) -> None:
    """Delete the outcomes, then parts whose tracks were all removed or changed, and files that were not fully written.

    Outcomes come first, because they may name the parts that are deleted after them.
    """
    parts = set(pc.unique(kept["part"]).to_pylist())
    unused = [
        folder / "clips" / info.base_name for info in (folder / "clips").children() if info.base_name not in parts
    ]
    hidden = [folder / info.base_name for info in folder.children() if info.base_name.startswith(".")]
    for location in (folder / "outcomes", *unused, *hidden):
        with contextlib.suppress(OSError):  # a file that remains does no harm, and the next run deletes it
            location.delete()
