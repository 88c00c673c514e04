"""Genres written into the files that were tagged, and taken back."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from genre import lease
from genre.audio import tags
from genre.errors import ArtifactError, ConfigError
from genre.features.columns import combined
from genre.model.calibration import UNKNOWN
from genre.model.saved_model import SavedEnsemble
from genre.settings import TagSettings
from genre.storage import Location
from genre.tagging import tag_table, written_table
from genre.tagging.file_tags import Action
from genre.tagging.tag_table import TagTable
from ray_jobs.tagging import tag_report


def require_local(settings: TagSettings, inputs: str) -> None:
    """Raise `ConfigError` when the files are not on this machine."""
    if "://" in inputs:
        raise ConfigError(
            f"tag.write_genres={settings.write_genres} changes files in local folders only, found "
            f"inputs={inputs}; copy the music to this machine, or leave tag.write_genres out"
        )


def require_precision(settings: TagSettings, min_precision: float, ensemble: SavedEnsemble) -> None:
    """Raise `ConfigError` if genres are to be written, or taken from albums, and their precision is not known."""
    for setting, is_set in (
        (f"tag.write_genres={settings.write_genres}", settings.write_genres != "never"),
        (f"tag.album={settings.album}", settings.album == "agree"),
    ):
        if not is_set:
            continue
        tags.require(setting)
        if not ensemble.calibration.tracks or not min_precision:
            why = (
                "min_precision=0 asks for none"
                if ensemble.calibration.tracks
                else "the model has no validation predictions"
            )
            raise ConfigError(
                f"{setting} needs a known precision, but {why}; set min_precision, or train the model again with this "
                "version"
            )


def write(settings: TagSettings, table: TagTable, rows: pa.Table) -> None:
    """Write the genres of `rows`, as `TagTable.finish` returns them, into their files, or list what would be written.

    A file that OUTPUT/features has a label for gets this one: what a person says outranks the model.
    OUTPUT/tags/written.csv says what was done.
    """
    readable = rows.filter(pc.is_null(rows["reason"]))
    labels = _labels(table.folder.parent / "features" / "tracks.parquet", combined(readable["path"]))
    named = _named(readable, labels)
    written = written_table.plan(table.folder, named, settings.field, settings.replace_genres)
    if settings.write_genres == "write":
        written = written_table.write(table.folder, written)
        table.refresh(written.filter(pc.equal(written["action"], Action.WRITTEN.value))["path"])
    counts = {"unknown": len(readable) - len(named), "labelled": len(labels) - labels.null_count}
    tag_report.show_written(written, table.folder / written_table.NAME, **counts)


def _labels(tracks: Location, paths: pa.StringArray) -> pa.StringArray:
    """Return the genre that the table of prepared tracks has for each path, null where it has none or there is none."""
    if not tracks.exists():
        return pa.nulls(len(paths), pa.string())
    with tracks.open_parquet() as reader:
        if "path" not in reader.schema_arrow.names:
            return pa.nulls(len(paths), pa.string())
        known = reader.read(["path", "genre"]).drop_null()
    known = known.filter(pc.not_equal(known["genre"], ""))
    place = pc.index_in(paths, value_set=combined(known["path"].cast(pa.string())))
    return combined(known["genre"].cast(pa.string())).take(place)


def _named(readable: pa.Table, labels: pa.StringArray) -> pa.Table:
    """Return path and genres, best first, of the files that have a label or a predicted genre."""
    genres = [
        genres if label is None else [label]
        for genres, label in zip(readable["genres"].to_pylist(), labels.to_pylist(), strict=True)
    ]
    table = pa.table({"path": readable["path"], "genres": pa.array(genres, pa.list_(pa.string()))})
    return table.filter(pc.or_(pc.not_equal(readable["genre"], UNKNOWN), labels.is_valid()))


def undo(address: str) -> None:
    """Take back the genres that the written.csv at `address` lists. Raises `ArtifactError` when it is no such file."""
    tags.require("tag.undo")
    file = Location.of(address)
    folder = file.parent
    if not file.exists():
        raise ArtifactError(f"tag.undo={file} does not exist; name the written.csv in OUTPUT/tags")
    output = folder.parent if folder.name == "tags" else folder  # a copy of the list may be anywhere
    with lease.held(str(output), "tag"):
        undone = written_table.undo(file)
        tag_table.refresh(folder, undone.filter(pc.equal(undone["action"], Action.RESTORED.value))["path"])
    tag_report.show_undone(undone, folder / written_table.UNDONE_NAME)
