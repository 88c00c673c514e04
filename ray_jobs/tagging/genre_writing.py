"""Genres written into the files that were tagged, and taken back."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from genre.audio import tags
from genre.errors import ArtifactError, ConfigError
from genre.features import Features, manifest
from genre.features.columns import combined
from genre.features.preparing import corrections
from genre.model.calibration import UNKNOWN
from genre.model.saved_model import SavedEnsemble
from genre.settings import TagSettings
from genre.storage import Location, lease
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
                "min_precision=0 asks for none; set min_precision"
                if ensemble.calibration.tracks
                else "the model has no validation predictions; train it again with this version"
            )
            raise ConfigError(f"{setting} needs a known precision, but {why}")


def labels_of(features: Location) -> pa.Table:
    """Return path and genre of the tracks in the folder `features` that a person labelled; none without a manifest.

    Not those of a corpus whose labels are the files' own tags, but for `corpus.corrections`: tags stay as they are, and
    some may be predictions that an earlier run wrote. Raises `ArtifactError` for a damaged folder, and `ConfigError`
    when the corrections are gone.
    """
    none = pa.table({"path": pa.array([], pa.string()), "genre": pa.array([], pa.string())})
    if not (features / manifest.FILE).exists():
        return none
    opened = Features.open(features)
    corpus = opened.manifest.corpus
    is_by_tags, file = corpus.get("kind") == "tags", corpus.get("corrections", "")
    if "path" not in opened.tracks().column_names or (is_by_tags and not file):
        return none
    labels = opened.tracks().select(["path", "genre"]).cast(none.schema).drop_null()
    if is_by_tags:
        labels = labels.filter(pc.is_in(labels["path"], pa.array(corrections.read(file), pa.string())))
    return labels.filter(pc.not_equal(labels["genre"], ""))


def write(settings: TagSettings, table: TagTable, rows: pa.Table, labels: pa.Table) -> None:
    """Write the genres of `rows`, as `TagTable.finish` returns them, into their files, or list what would be written.

    A file gets its genre of `labels`, as `labels_of` returns them, if it has one: a person's word outranks the model's.
    OUTPUT/tags/written.csv says what was done.
    """
    readable = rows.filter(pc.is_null(rows["reason"]))
    label = combined(labels["genre"]).take(pc.index_in(combined(readable["path"]), value_set=combined(labels["path"])))
    genres = [
        predicted if own is None else [own]
        for predicted, own in zip(readable["genres"].to_pylist(), label.to_pylist(), strict=True)
    ]
    columns = {
        "path": readable["path"],
        "genres": pa.array(genres, pa.list_(pa.string())),
        "is_label": label.is_valid(),
    }
    named = pa.table(columns).filter(pc.or_(pc.not_equal(readable["genre"], UNKNOWN), label.is_valid()))
    planned = written_table.plan(table.folder, named, settings.field, settings.replace_genres)
    if settings.write_genres == "preview":
        written_table.preview(table.folder, planned)
        written = planned.rows
    else:
        written = written_table.write(table.folder, planned)
        table.refresh(written.filter(pc.equal(written["action"], Action.WRITTEN.value))["path"])
    unknown = len(readable) - len(named)
    tag_report.show_written(written, table.folder / written_table.NAME, unknown, combined(labels["path"]))


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
