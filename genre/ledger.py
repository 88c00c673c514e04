"""What a features folder has, what it still lacks, and its final tables.

Every scanned track ends in exactly one of `tracks.parquet` (it has clips) and `rejects.parquet` (with a
reason); `finish` refuses to write a manifest when that does not hold.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from genre import corpora, features, splits
from genre.config import Config, CorpusSettings
from genre.corpora import Track
from genre.errors import ArtifactError
from genre.preparation import OUTCOME_SCHEMA, Recipe
from genre.storage import Location

SCAN_COLUMNS = ("track_id", "path", "genre", "group", "split", "size", "modified")
SCAN_SCHEMA = pa.schema([features.TRACK_SCHEMA.field(name) for name in SCAN_COLUMNS])
_IDENTITY = ["track_id", "size", "modified"]  # a track whose size or time changed is another one
_SCAN_BATCH = 10_000


def scan(settings: CorpusSettings) -> pa.Table:
    """Every track of the corpus as columns, sorted by track_id, without those its published split leaves out."""
    batches = list(_batches(corpora.scan(settings)))
    table = pa.Table.from_batches(batches, SCAN_SCHEMA)
    table = table.filter(pc.fill_null(pc.not_equal(table["split"], splits.EXCLUDED), True))
    return table.sort_by("track_id").combine_chunks()


def check_settings(folder: Location, recipe: Recipe) -> None:
    """Claim `folder` for these settings. Raises `ArtifactError` when it holds features made with others."""
    from genre.checkpoint import differences

    path = folder / "settings.json"
    if path.exists():
        found = path.read_json()
        if found["fingerprint"] != recipe.fingerprint():
            changes = differences(feature_settings(recipe), found["settings"]) or ["made by another version"]
            raise ArtifactError(
                f"{folder} holds features with other settings: {changes[0]}; choose another output, or delete it"
            )
        return
    path.write_json({"fingerprint": recipe.fingerprint(), "settings": feature_settings(recipe)})


def feature_settings(recipe: Recipe) -> dict[str, Any]:
    """The settings that the fingerprint covers."""
    return recipe.model_dump(mode="json", include={"audio", "spectrogram"})


def outcomes(folder: Location) -> pa.Table:
    """What is known of every track that was ever finished here; the newest word on each."""
    tables = []
    for name in ("tracks.parquet", "rejects.parquet"):
        if (folder / name).exists():
            tables.append((folder / name).read_table().select(OUTCOME_SCHEMA.names).cast(OUTCOME_SCHEMA))
    tables += [file.read_table() for file in (folder / "outcomes").files(".parquet")]
    return _newest(pa.concat_tables(tables) if tables else OUTCOME_SCHEMA.empty_table())


def pending(scanned: pa.Table, done: pa.Table) -> pa.Table:
    """The scanned tracks that are not done, or whose file changed since; sorted by track_id."""
    return scanned.join(done.select(_IDENTITY), keys=_IDENTITY, join_type="left anti").sort_by("track_id")


def finish(folder: Location, scanned: pa.Table, config: Config) -> dict[str, Any]:
    """Write the final tables and, last, the manifest, which is returned. Removes what no track needs any more.

    Raises `ArtifactError` unless every scanned track is in exactly one of the two tables.
    """
    recipe = Recipe.of(config)
    joined = scanned.join(outcomes(folder).drop_columns(["path"]), keys=_IDENTITY, join_type="inner")
    joined = joined.select(features.TRACK_SCHEMA.names).cast(features.TRACK_SCHEMA).sort_by("track_id")
    kept = joined.filter(pc.is_null(joined["reason"]))
    rejected = joined.filter(pc.is_valid(joined["reason"]))
    if len(kept) + len(rejected) != len(scanned) or pc.count_distinct(joined["track_id"]).as_py() != len(scanned):
        raise ArtifactError(
            f"{folder}: {len(scanned)} tracks scanned, but {len(kept)} with features and {len(rejected)} rejected; "
            "files changed while the job ran, run it again"
        )
    kept = _with_splits(kept, config.corpus)
    (folder / "tracks.parquet").write_table(kept)
    (folder / "rejects.parquet").write_table(rejected)
    manifest = _manifest(kept, rejected, recipe, config)
    (folder / "manifest.json").write_json(manifest)
    _tidy(folder, kept)
    return manifest


def reasons(rejected: pa.Table) -> dict[str, int]:
    """How many tracks were rejected for each reason, the commonest first."""
    counts = pc.value_counts(rejected["reason"]).to_pylist()
    return {entry["values"]: entry["counts"] for entry in sorted(counts, key=lambda e: (-e["counts"], e["values"]))}


def versions() -> dict[str, str]:
    """Versions of what decides the numbers."""
    packages = ("genre", "ray", "torch", "torchaudio", "librosa", "soundfile", "soxr", "scikit-learn", "pyarrow")
    return {"python": sys.version.split()[0]} | {package: version(package) for package in packages}


def _batches(tracks: Iterable[Track]) -> Iterator[pa.RecordBatch]:
    iterator = iter(tracks)
    while rows := list(itertools.islice(iterator, _SCAN_BATCH)):
        yield pa.RecordBatch.from_pylist([vars(track) for track in rows], SCAN_SCHEMA)


def _newest(table: pa.Table) -> pa.Table:
    """The last row of each track_id."""
    numbered = table.append_column("row", pa.array(range(len(table)), pa.int64()))
    last = numbered.group_by("track_id").aggregate([("row", "max")])["row_max"]
    return table.take(last)


def _with_splits(tracks: pa.Table, settings: CorpusSettings) -> pa.Table:
    """Decide the splits; the same audio under two names counts as one."""
    view = tracks.select(["track_id", "genre", "group", "split"]).append_column("content", tracks["sound"])
    decided = splits.assign(view, settings)["split"]
    return tracks.set_column(tracks.schema.get_field_index("split"), tracks.schema.field("split"), decided)


def _manifest(kept: pa.Table, rejected: pa.Table, recipe: Recipe, config: Config) -> dict[str, Any]:
    fixed = corpora.classes(config.corpus)
    return {
        "stage": "features",
        "schema_version": features.SCHEMA_VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "fingerprint": recipe.fingerprint(),
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
            "splits": splits.summary(kept),
        },
        "versions": versions(),
    }


def _tidy(folder: Location, kept: pa.Table) -> None:
    """Outcomes now stand in the tables; parts that no track names hold only removed or changed tracks."""
    live = set(pc.unique(kept["part"]).to_pylist())
    for file in (folder / "clips").files(".parquet"):
        if file.name not in live:
            file.delete()
    (folder / "outcomes").delete()
