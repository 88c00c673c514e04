"""The list of tracks that earlier runs of prepare finished in a features folder, so that the next run can resume.

A file is identified by its size and time of modification, and its decoded content by the SHA-256 of the file: a file
that was only touched is not decoded again. Names of parts (files in clips/) and of files in outcomes/ start with the
number of the run that wrote them, so a higher number is newer. `settings.json` holds the last run whose outcomes are in
the tables: outcomes that a killed process writes later are ignored.

All operations work on columns: a million tracks take seconds, and some hundred bytes each.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genre.arrays import Ints
from genre.config import differences
from genre.errors import ArtifactError, Reason
from genre.features.columns import combined, last_rows, replaced
from genre.features.preparing import parts
from genre.features.recipe import Recipe
from genre.features.schema import FOLD, OUTCOME_SCHEMA, TRACK_SCHEMA
from genre.storage import Location

_SKETCH_SCHEMA = pa.schema([TRACK_SCHEMA.field(name) for name in ("track_id", "part", "sketch")])


class Ledger:
    """The outcomes in a features folder, and the settings that they were made with."""

    def __init__(self, folder: Location, recipe: Recipe) -> None:
        """Read settings.json. Raises `ArtifactError` when the folder holds features made with other settings."""
        self.folder, self.recipe = folder, recipe
        path = folder / "settings.json"
        self._settings: dict[str, Any] = path.read_json() if path.exists() else {}
        if self._settings and self._settings["fingerprint"] != recipe.fingerprint():
            changes = differences(recipe.settings(), self._settings["settings"]) or ["made by another version"]
            raise ArtifactError(
                f"{folder} holds features with other settings: {changes[0]}; choose another output, or delete it"
            )

    @property
    def _finished_run(self) -> int:
        """The last run whose outcomes the folder's tables hold; 0 where no run finished."""
        return int(self._settings.get("finished_run", 0))

    def claim(self) -> None:
        """Mark the folder as made with this recipe, before anything is written into it."""
        if not self._settings:
            self._write_settings(self.recipe.limits(), finished_run=0)
        elif self._settings.get("limits") != self.recipe.limits():
            # the end of the run writes the new limits: until then the folder may hold rejects under the old and the new
            self._write_settings(None, self._finished_run)

    def mark_finished(self) -> None:
        """Mark all outcomes as contained in the folder's tables, and its rejects as made under these limits."""
        self._write_settings(self.recipe.limits(), self.next_run() - 1)

    def next_run(self) -> int:
        """Return the number of the next run: one more than the highest that wrote a file here."""
        names = (file.name for name in ("clips", "outcomes") for file in (self.folder / name).files(".parquet"))
        return 1 + max([self._finished_run, *map(_run_of, names)])

    def outcomes(self) -> pa.Table:
        """Return the latest outcome of each track, sorted by track_id, without those whose clips are incomplete.

        The sizes of all parts are compared; those that no finished run has used are also opened.
        """
        tables = []
        for name in ("tracks.parquet", "rejects.parquet"):
            if (self.folder / name).exists():
                tables.append(self._read(name, OUTCOME_SCHEMA))
        recent = self._recent_outcomes(OUTCOME_SCHEMA)
        if wrong := parts.with_wrong_rows(self.folder, recent):
            recent = recent.filter(pc.invert(pc.is_in(recent["part"], value_set=pa.array(wrong, pa.string()))))
        table = pa.concat_tables([*tables, recent])
        return _latest(table, np.flatnonzero(parts.have_parts(self.folder, table)))

    def sketches(self, tracks: pa.Table) -> pa.ChunkedArray:
        """Return the sketch of each of `tracks`, (tracks,); null where it has none. An outcome is known by its part."""
        tables = [self._recent_outcomes(_SKETCH_SCHEMA)]
        if (self.folder / "tracks.parquet").exists():
            tables.append(self._read("tracks.parquet", _SKETCH_SCHEMA))
        table = pa.concat_tables(tables)
        known = pa.array(np.flatnonzero(table["sketch"].is_valid()))  # the row of a file that was only touched has none
        place = pc.index_in(_outcome_key(tracks), value_set=combined(_outcome_key(table.select([0, 1]).take(known))))
        return table["sketch"].take(known.take(combined(place)))

    def _read(self, name: str, schema: pa.Schema) -> pa.Table:
        """Return the columns of a schema. Raises `ArtifactError` when another version wrote the table."""
        with (self.folder / name).open_parquet() as reader:
            if [name for name in reader.schema_arrow.names if name != FOLD.name] != TRACK_SCHEMA.names:
                raise ArtifactError(
                    f"{self.folder / name} was written by another version; choose another output, or delete the folder"
                )
            return reader.read(schema.names)

    def _recent_outcomes(self, schema: pa.Schema) -> pa.Table:
        """Return columns of the outcomes that are not in the folder's tables."""
        files = (self.folder / "outcomes").files(".parquet")
        paths = [file.path for file in files if _run_of(file.name) > self._finished_run]
        if not paths:
            return schema.empty_table()
        # as one data set, whose files are read in parallel: a large job killed at its end has ten thousand
        import pyarrow.dataset  # it imports pandas, which no worker needs

        source = pyarrow.dataset.dataset(paths, schema, format="parquet", filesystem=self.folder.filesystem)
        return source.to_table(cache_metadata=False)

    def reusable_outcomes(self) -> pa.Table:
        """Return the outcomes that are valid under this recipe.

        Files that were denied have none. With `decoding.retry_rejects`, rejects are invalid. After a change of the
        limits, rejects, truncated files and tracks that are now too long are invalid.
        """
        outcomes, decoding = self.outcomes(), self.recipe.decoding
        invalid = pc.fill_null(pc.equal(outcomes["reason"], Reason.DENIED.value), False)
        if decoding.retry_rejects:
            invalid = pc.is_valid(outcomes["reason"])
        if self._settings.get("limits") != self.recipe.limits():
            too_long = pc.greater(outcomes["seconds"], decoding.max_track_seconds)
            affected = pc.or_kleene(pc.is_valid(outcomes["reason"]), pc.or_kleene(outcomes["truncated"], too_long))
            invalid = pc.or_(invalid, pc.fill_null(affected, False))
        return outcomes.filter(pc.invert(invalid))

    def apply_comparison(self, outcomes: pa.Table, compared: pa.Table, unchanged: pa.Table, run: int) -> pa.Table:
        """Return the outcomes, updated after the files of the tracks `compared` were read.

        `unchanged` are the tracks among them whose content is the same: their outcomes get the new time, and are
        written to the folder. Outcomes of the others are removed.
        """
        others = outcomes.filter(pc.invert(pc.is_in(outcomes["track_id"], value_set=combined(compared["track_id"]))))
        kept = outcomes.take(row_of(unchanged, outcomes))
        for name in ("path", "size", "modified"):
            kept = kept.set_column(kept.schema.get_field_index(name), name, unchanged[name])
        touched = select_pending(kept, outcomes)  # those whose time or place differs from the stored outcome
        if len(touched):
            (self.folder / "outcomes" / f"{run:05d}-touched.parquet").write_table(touched)
        return pa.concat_tables([others, kept]).sort_by("track_id")

    def _write_settings(self, limits: dict[str, Any] | None, finished_run: int) -> None:
        """Write settings.json; `limits` are those of all rejects, None where they are mixed."""
        content = {"fingerprint": self.recipe.fingerprint(), "settings": self.recipe.settings()}
        (self.folder / "settings.json").write_json(content | {"limits": limits, "finished_run": finished_run})


def select_for_comparison(scanned: pa.Table, outcomes: pa.Table, verify_content: bool = False) -> pa.Table:
    """Return the tracks whose content must be read to know whether they changed.

    These are files of the same size with another time; with `verify_content`, all of the same size that have clips.
    The columns are track_id, path, size and modified of the scan, and `content` of the outcome.
    """
    earlier = outcomes.select(["size", "modified", "content"]).take(row_of(scanned, outcomes))
    selected = pc.and_kleene(pc.equal(earlier["size"], scanned["size"]), pc.is_valid(earlier["content"]))
    if not verify_content:
        selected = pc.and_kleene(selected, pc.not_equal(earlier["modified"], scanned["modified"]))
    view = scanned.select(["track_id", "path", "size", "modified"]).append_column("content", earlier["content"])
    return view.filter(selected)


def select_pending(scanned: pa.Table, outcomes: pa.Table) -> pa.Table:
    """Return the tracks that still need decoding, in their order: without an outcome, or with a changed file."""
    return scanned.filter(pc.invert(is_same_file(scanned, outcomes.take(row_of(scanned, outcomes)))))


def with_earlier_times(scanned: pa.Table, denied: pa.Table, outcomes: pa.Table) -> pa.Table:
    """Return the scan with the times of their outcomes for tracks that could not be compared, since they are denied.

    They count as prepared, and the next run compares them again.
    """
    earlier = outcomes["modified"].take(row_of(scanned, outcomes))
    is_denied = pc.is_in(scanned["track_id"], value_set=combined(denied["track_id"]))
    return replaced(scanned, "modified", pc.if_else(is_denied, earlier, scanned["modified"]))


def row_of(tracks: pa.Table, outcomes: pa.Table) -> pa.ChunkedArray:
    """Return the row of each track in `outcomes`, null where it has none.

    Takes less memory than a join, whose hash tables hold all columns.
    """
    return pc.index_in(tracks["track_id"], value_set=combined(outcomes["track_id"]))


def is_same_file(tracks: pa.Table, outcomes: pa.Table) -> pa.ChunkedArray:
    """Return whether each track's file is that of the outcome in the same row: of equal size and time."""
    pairs = (pc.equal(tracks[name], outcomes[name]) for name in ("size", "modified"))
    return pc.fill_null(pc.and_kleene(*pairs), False)


def _run_of(name: str) -> int:
    """Return the number of the run that wrote a file; 0 for a file that no run wrote."""
    number = name.split("-")[0]
    return int(number) if number.isdecimal() else 0


def _outcome_key(table: pa.Table) -> pa.ChunkedArray:
    return pc.binary_join_element_wise(table["track_id"], table["part"], "\n")


def _latest(table: pa.Table, rows: Ints) -> pa.Table:
    """Return, for each track_id, its last row among `rows`, sorted by track_id. Copies the table only once."""
    rows = rows[last_rows(table["track_id"].take(rows))]
    return table.take(rows[pc.sort_indices(table["track_id"].take(rows)).to_numpy()])
