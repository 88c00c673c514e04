"""What a features folder has, what it still lacks, and its final tables.

Every scanned track ends in exactly one of `tracks.parquet` (it has clips) and `rejects.parquet` (with a
reason); `finish` refuses to write a manifest when that does not hold.

A file is known by its size and time of modification, and what was decoded by the SHA-256 of its content:
a file that was only touched is recognised and not decoded again. Names of parts and outcomes start with
the number of the run that wrote them, so later ones are newer, and what a killed run's last processes
may still write is never mistaken for news: `settings.json` names the last run whose outcomes are in the tables.

Everything is done on columns: a list of a million tracks takes seconds and some hundred bytes a track.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from genre import __version__, corpora, features
from genre.config import Config, CorpusSettings, differences
from genre.corpora import Track
from genre.errors import ArtifactError
from genre.features import duplicates, splits
from genre.features.preparation import OUTCOME_SCHEMA, Recipe
from genre.storage import Location

SCAN_COLUMNS = ("track_id", "path", "genre", "group", "split", "size", "modified")
SCAN_SCHEMA = pa.schema([features.TRACK_SCHEMA.field(name) for name in SCAN_COLUMNS])
# Of prepare's settings those that decide what is rejected: under others, rejects are decoded again.
LIMITS = {"file_timeout_s", "max_file_memory_mb", "max_track_seconds", "min_decoded_fraction"}
_SCAN_BATCH = 10_000


def scan(settings: CorpusSettings) -> pa.Table:
    """Every track of the corpus as columns, sorted by track_id, without those its published split leaves out.

    Raises `ArtifactError` when two tracks have the same id.
    """
    batches = list(_batches(corpora.scan(settings)))
    table = pa.Table.from_batches(batches, SCAN_SCHEMA)
    table = table.filter(pc.fill_null(pc.not_equal(table["split"], splits.EXCLUDED), True))
    table = table.sort_by("track_id").combine_chunks()
    ids = table["track_id"]
    twice = pc.index(pc.equal(ids[1:], ids[:-1]), True).as_py() if len(ids) > 1 else -1
    if twice >= 0:
        raise ArtifactError(f"the corpus lists track_id {ids[twice].as_py()!r} twice; rename one of the tracks")
    return table


def check_settings(folder: Location, recipe: Recipe) -> None:
    """Raises `ArtifactError` when `folder` holds features made with other settings."""
    found = _read_settings(folder)
    if not found or found["fingerprint"] == recipe.fingerprint():
        return
    changes = differences(feature_settings(recipe), found["settings"]) or ["made by another version"]
    raise ArtifactError(
        f"{folder} holds features with other settings: {changes[0]}; choose another output, or delete it"
    )


def claim(folder: Location, recipe: Recipe) -> None:
    """Mark `folder` as that of these settings, before anything is written into it."""
    found = _read_settings(folder)
    if found is None:
        _write_settings(folder, recipe, limits(recipe), finished=0)
    elif found.get("limits") != limits(recipe):
        # the new limits are entered at the end: until then rejects of both the old and the new may be here
        _write_settings(folder, recipe, None, _finished_run(folder))


def feature_settings(recipe: Recipe) -> dict[str, Any]:
    """The settings that the fingerprint covers."""
    return recipe.model_dump(mode="json", include={"audio", "spectrogram"})


def limits(recipe: Recipe) -> dict[str, Any]:
    """The settings that decide what is rejected, beside the fingerprint's."""
    return recipe.prepare.model_dump(mode="json", include=LIMITS)


def next_run(folder: Location) -> int:
    """One more than the highest number of a run that left something here."""
    written = (file.name for name in ("clips", "outcomes") for file in (folder / name).files(".parquet"))
    return 1 + max([_finished_run(folder), *map(_run_of, written)])


def outcomes(folder: Location) -> pa.Table:
    """The newest word on every track that was ever finished here and whose clips are there, sorted by track_id."""
    tables = []
    for name in ("tracks.parquet", "rejects.parquet"):
        if (folder / name).exists():
            tables.append((folder / name).read_table().select(OUTCOME_SCHEMA.names).cast(OUTCOME_SCHEMA))
    finished = _finished_run(folder)
    written = [file.path for file in (folder / "outcomes").files(".parquet") if _run_of(file.name) > finished]
    if written:
        # as one data set, whose files are read side by side: a big job killed at its end has ten thousand
        import pyarrow.dataset  # brings pandas with it, which no worker needs

        source = pyarrow.dataset.dataset(written, OUTCOME_SCHEMA, format="parquet", filesystem=folder.filesystem)
        tables.append(source.to_table(cache_metadata=False))
    table = pa.concat_tables(tables) if tables else OUTCOME_SCHEMA.empty_table()
    parts = pa.array([file.name for file in (folder / "clips").files(".parquet")], pa.string())
    there = pc.or_(pc.is_valid(table["reason"]), pc.is_in(table["part"], value_set=parts))
    return _newest(table, np.flatnonzero(there.to_numpy()))


def standing(done: pa.Table, folder: Location, recipe: Recipe) -> pa.Table:
    """Those of the outcomes that need not be found out again under the present settings."""
    again = pa.array(np.zeros(len(done), dtype=bool))
    if recipe.prepare.retry_rejects:
        again = pc.is_valid(done["reason"])
    if (_read_settings(folder) or {}).get("limits") != limits(recipe):
        too_long = pc.greater(done["seconds"], recipe.prepare.max_track_seconds)
        affected = pc.or_kleene(pc.is_valid(done["reason"]), pc.or_kleene(done["truncated"], too_long))
        again = pc.or_(again, pc.fill_null(affected, False))
    return done.filter(pc.invert(again))


def suspects(scanned: pa.Table, done: pa.Table, everything: bool = False) -> pa.Table:
    """Tracks to be compared by content: those touched without a change of size, or all that have clips.

    Columns track_id, path, size, modified of the scan and `content` of the outcome.
    """
    place = _places(scanned, done)
    before = done.select(["size", "modified", "content"]).take(place)
    suspicious = pc.and_kleene(pc.equal(before["size"], scanned["size"]), pc.is_valid(before["content"]))
    if not everything:
        suspicious = pc.and_kleene(suspicious, pc.not_equal(before["modified"], scanned["modified"]))
    view = scanned.select(["track_id", "path", "size", "modified"]).append_column("content", before["content"])
    return view.filter(suspicious)


def confirm(done: pa.Table, compared: pa.Table, same: pa.Table, folder: Location, run: int) -> pa.Table:
    """`done` after `compared` (a result of `suspects`) was read and `same` of it found unchanged.

    Outcomes of tracks that changed are gone; those of tracks only touched are written anew, with their new time.
    """
    others = done.filter(pc.invert(pc.is_in(done["track_id"], value_set=_whole(compared["track_id"]))))
    kept = done.take(_places(same, done))
    for name in ("path", "size", "modified"):
        kept = kept.set_column(kept.schema.get_field_index(name), name, same[name])
    touched = pending(kept, done)
    if len(touched):
        (folder / "outcomes" / f"{run:05d}-touched.parquet").write_table(touched)
    return pa.concat_tables([others, kept]).sort_by("track_id")


def pending(scanned: pa.Table, done: pa.Table) -> pa.Table:
    """The scanned tracks that are not done, or whose file changed since, in their order."""
    return scanned.filter(pc.invert(_same_file(scanned, done.take(_places(scanned, done)))))


def finish(folder: Location, scanned: pa.Table, config: Config) -> dict[str, Any]:
    """Write the final tables and, last, the manifest, which is returned. Removes what no track needs any more.

    Raises `ArtifactError` unless every scanned track is in exactly one of the two tables.
    """
    recipe, last = Recipe.of(config), next_run(folder) - 1
    kept, rejected = _joined(scanned, outcomes(folder))
    if len(kept) + len(rejected) != len(scanned):
        raise ArtifactError(
            f"{folder}: {len(scanned)} tracks scanned, but {len(kept)} with features and {len(rejected)} rejected; "
            "files changed while the job ran, run it again"
        )
    kept = duplicates.part_splits(_with_splits(kept, config.corpus))
    copies = duplicates.find(kept)
    published = len(scanned) > 0 and scanned["split"].null_count == 0
    manifest = _manifest(kept, rejected, copies, recipe, config) | {"split": "official" if published else "random"}
    if _says_the_same(folder, manifest, {"tracks": kept, "rejects": rejected}):
        written: dict[str, Any] = (folder / "manifest.json").read_json()
        _write_settings(folder, recipe, limits(recipe), last)
        _tidy(folder, kept)
        return written
    # from here to the new manifest the folder is unfinished, and readers are told so
    (folder / "manifest.json").delete()
    (folder / "tracks.parquet").write_table(kept, **features.TRACK_WRITE_OPTIONS)
    (folder / "rejects.parquet").write_table(rejected, **features.TRACK_WRITE_OPTIONS)
    (folder / "duplicates.parquet").write_table(copies, **features.TRACK_WRITE_OPTIONS)
    _write_settings(folder, recipe, limits(recipe), last)
    (folder / "manifest.json").write_json(manifest)
    _tidy(folder, kept)
    return manifest


def reasons(rejected: pa.Table) -> dict[str, int]:
    """How many tracks were rejected for each reason, the commonest first."""
    counts = pc.value_counts(rejected["reason"]).to_pylist()
    return {entry["values"]: entry["counts"] for entry in sorted(counts, key=lambda e: (-e["counts"], e["values"]))}


def versions() -> dict[str, str]:
    """Versions of what decides the numbers."""
    packages = ("ray", "torch", "torchaudio", "librosa", "soundfile", "soxr", "scikit-learn", "pyarrow")
    ours = {"genre": __version__, "python": sys.version.split()[0]}
    return ours | {package: version(package) for package in packages}


def _joined(scanned: pa.Table, done: pa.Table) -> tuple[pa.Table, pa.Table]:
    """The scanned tracks with their outcomes: those with clips, and the rejected."""
    found = done.take(_places(scanned, done))
    columns = {name: (scanned if name in SCAN_COLUMNS else found)[name] for name in features.TRACK_SCHEMA.names}
    joined = pa.table(columns, schema=features.TRACK_SCHEMA)
    done_now, prepared = _same_file(scanned, found), pc.is_null(found["reason"])
    return joined.filter(pc.and_(done_now, prepared)), joined.filter(pc.and_not(done_now, prepared))


def _places(tracks: pa.Table, done: pa.Table) -> pa.ChunkedArray:
    """Row of each track in `done`, null where it has none. Leaner than a join, whose hash tables hold all columns."""
    return pc.index_in(tracks["track_id"], value_set=_whole(done["track_id"]))


def _same_file(tracks: pa.Table, found: pa.Table) -> pa.ChunkedArray:
    """Whether the file is the one that was found: a track whose size or time changed is another one."""
    pairs = (pc.equal(tracks[name], found[name]) for name in ("size", "modified"))
    return pc.fill_null(pc.and_kleene(*pairs), False)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    combined = column.combine_chunks()
    return combined.combine_chunks() if isinstance(combined, pa.ChunkedArray) else combined


def _batches(tracks: Iterable[Track]) -> Iterator[pa.RecordBatch]:
    iterator = iter(tracks)
    while rows := list(itertools.islice(iterator, _SCAN_BATCH)):
        yield pa.RecordBatch.from_pylist([vars(track) for track in rows], SCAN_SCHEMA)


def _read_settings(folder: Location) -> dict[str, Any] | None:
    path = folder / "settings.json"
    found: dict[str, Any] | None = path.read_json() if path.exists() else None
    return found


def _write_settings(folder: Location, recipe: Recipe, limited: dict[str, Any] | None, finished: int) -> None:
    content = {"fingerprint": recipe.fingerprint(), "settings": feature_settings(recipe)}
    (folder / "settings.json").write_json(content | {"limits": limited, "finished_run": finished})


def _finished_run(folder: Location) -> int:
    """The last run whose outcomes the folder's tables hold; 0 where none ever ended."""
    return int((_read_settings(folder) or {}).get("finished_run", 0))


def _run_of(name: str) -> int:
    """The number of the run that wrote a file; 0 for a file of somebody else's."""
    number = name.split("-")[0]
    return int(number) if number.isdecimal() else 0


def _newest(table: pa.Table, rows: npt.NDArray[np.intp]) -> pa.Table:
    """Of some rows of the table the last one of each track_id, sorted by track_id. Copies the table only once."""
    codes = _whole(table["track_id"]).dictionary_encode()
    last = np.full(len(codes.dictionary), -1, dtype=np.int64)
    last[codes.indices.to_numpy()[rows]] = rows  # of several the last one stays
    order = last[pc.sort_indices(codes.dictionary).to_numpy()]
    return table.take(order[order >= 0])


def _with_splits(tracks: pa.Table, settings: CorpusSettings) -> pa.Table:
    """Decide the splits; the same audio under two names counts as one."""
    view = tracks.select(["track_id", "genre", "group", "split"]).append_column("content", tracks["sound"])
    decided = splits.assign(view, settings)["split"]
    return tracks.set_column(tracks.schema.get_field_index("split"), tracks.schema.field("split"), decided)


def _manifest(kept: pa.Table, rejected: pa.Table, copies: pa.Table, recipe: Recipe, config: Config) -> dict[str, Any]:
    fixed = corpora.classes(config.corpus)
    return {
        "stage": "features",
        "schema_version": features.SCHEMA_VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "fingerprint": recipe.fingerprint(),
        "contents": features.contents(kept),
        "settings": feature_settings(recipe),
        "corpus": config.corpus.model_dump(mode="json"),
        "shape": vars(recipe.shape()),
        "classes": fixed if fixed is not None else sorted(pc.unique(kept["genre"]).to_pylist()),
        "counts": {
            "scanned": len(kept) + len(rejected),
            "tracks": len(kept),
            "clips": pc.sum(kept["clips"]).as_py() or 0,
            "truncated": pc.sum(kept["truncated"]).as_py() or 0,
            "rejected": len(rejected),
            "reasons": reasons(rejected),
            "duplicates": duplicates.counts(copies),
            "splits": splits.summary(kept),
        },
        "versions": versions(),
    }


def _says_the_same(folder: Location, manifest: dict[str, Any], tables: dict[str, pa.Table]) -> bool:
    """Whether all that is to be written stands there already, but for the date and the versions of today."""
    path = folder / "manifest.json"
    if not path.exists():
        return False
    found, today = path.read_json(), {"created": None, "versions": None}
    if found | today != json.loads(json.dumps(manifest)) | today:
        return False
    return all((folder / f"{name}.parquet").read_table().equals(table) for name, table in tables.items())


def _tidy(folder: Location, kept: pa.Table) -> None:
    """Remove what the tables made superfluous: outcomes first, which may speak of the parts that go after them.

    Parts that no track names hold only removed or changed tracks; hidden files are what a kill left of a write.
    """
    live = set(pc.unique(kept["part"]).to_pylist())
    dead = [folder / "clips" / info.base_name for info in (folder / "clips").children() if info.base_name not in live]
    hidden = [folder / info.base_name for info in folder.children() if info.base_name.startswith(".")]
    for superfluous in (folder / "outcomes", *dead, *hidden):
        with contextlib.suppress(OSError):  # what stays does no harm, and goes next time
            superfluous.delete()
