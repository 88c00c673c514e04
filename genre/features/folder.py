"""A finished features folder: its manifest, its tracks and its clips."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genre.corpora import SPLITS
from genre.errors import ArtifactError, StorageError, first_line, one_line
from genre.features import manifest
from genre.features.clips import check_no_nulls, check_peaks
from genre.features.columns import combined
from genre.features.manifest import Manifest
from genre.features.schema import ROW_GROUP, Shape
from genre.features.splitting.folds import Fold
from genre.features.splitting.sampling import Music, Sample, Taught
from genre.storage import Location
from genre.storage.faults import is_denied, is_fault, unreachable

# the columns of a track that jobs need: less than half of the bytes
_TRACK_COLUMNS = ("track_id", "path", "genre", "group", "split", "sound", "recording", "clips", "part", "fold")
_CLIP_COLUMNS = ("track_id", "clip", "peak_db", "spectrogram")  # the columns of a clip that loading needs


View = Sample | Fold | Music | Taught


class Features:
    """A finished features folder, or a view of it: a sample of tracks, a fold in place of its splits, both, or
    music without genres.

    A job opens it once and passes it on; its pickle holds only address, manifest and the rules of the view, which apply
    in their order.
    All methods raise `ArtifactError` when the folder was altered or lacks what it lists; those that read an open folder
    raise `StorageError` when its storage cannot be reached.
    """

    def __init__(
        self,
        folder: Location,
        manifest: Manifest,
        tracks: pa.Table | None = None,
        views: tuple[View, ...] = (),
    ) -> None:
        self.folder = folder
        self.manifest = manifest
        self.views = views
        self._tracks = tracks

    @classmethod
    def open(cls, folder: Location) -> Features:
        """Read the manifest of a folder. Raises `ArtifactError` when it is missing, unfinished or not of features."""
        content = manifest.read(folder)
        if "contents" in content:
            return cls(folder, Manifest.from_json(content))
        tracks = _read_tracks(folder)
        return cls(folder, Manifest.from_json(manifest.with_defaults(content, tracks, folder)), tracks)

    def __reduce__(self) -> tuple[type[Features], tuple[Location, Manifest, None, tuple[View, ...]]]:
        return Features, (self.folder, self.manifest, None, self.views)

    def sampled(self, share: float, seed: int) -> Features:
        """Return this folder or view with a sample of its training and validation tracks; itself for a share of 1."""
        if share == 1:
            return self
        sample = Sample(share, seed)
        return Features(self.folder, self.manifest, sample.of(self.tracks()), (*self.views, sample))

    def of_fold(self, fold: Fold) -> Features:
        """Return this folder with the tracks of a fold as the validation split, and those of the others to train on.

        It takes the place of an earlier view. See `Fold.of`.
        """
        return Features(self.folder, self.manifest, fold.of(self.complete().tracks()), (fold,))

    def music(self) -> Features:
        """Return this folder with the music that pretraining learns from as split train, without genres: `Music`."""
        music = Music()
        return Features(self.folder, self.manifest, music.of(self.complete().tracks()), (music,))

    def taught(self, predictions: Location) -> Features:
        """Return this folder with unlabelled tracks in split train, of the genres in a file: `Taught`."""
        view = Taught.by(predictions)
        return Features(self.folder, self.manifest, view.of(self.complete().tracks()), (view,))

    def complete(self) -> Features:
        """Return this folder with all tracks in their own splits."""
        return Features(self.folder, self.manifest) if self.views else self

    def reopened(self) -> Features:
        """Return the folder, or the same view of it, as it is now."""
        with reading(self.folder / manifest.FILE):
            return Features(self.folder, Features.open(self.folder).manifest, views=self.views)

    @contextlib.contextmanager
    def unchanged(self) -> Iterator[None]:
        """Name the cause of an `ArtifactError` in the block if the features were prepared again since they were opened.

        Files that no track needs any more are deleted then, so that a reader misses them.
        """
        try:
            yield
        except ArtifactError:
            if self.reopened().manifest != self.manifest:
                raise prepared_again(self.folder) from None
            raise

    def check_present(self, error: Exception) -> None:
        """Raise `StorageError` when the folder, which existed, is empty or cannot be listed, as when a disk is away.

        `error` is what a reader of the folder raised.
        """
        if is_fault(FileNotFoundError(), self.folder / manifest.FILE):
            raise StorageError(
                f"{self.folder} is missing, empty or denied ({first_line(error)}); run the same command again when its "
                "storage is back"
            ) from error

    @property
    def shape(self) -> Shape:
        """The shape of each spectrogram."""
        return self.manifest.shape

    @property
    def classes(self) -> list[str]:
        """The genres, in the order of the models' outputs."""
        return self.manifest.classes

    def tracks(self, split: str | None = None) -> pa.Table:
        """Return the tracks that have clips, sorted by track_id: all of them, or those of one split.

        In a folder that prepare did not write, missing columns are null, and missing `clips` are counted. The column
        `fold` is there only where tracks have published folds.
        """
        if self._tracks is None or "clips" not in self._tracks.column_names:
            with reading(self.folder / "tracks.parquet"):
                tracks = _read_tracks(self.folder) if self._tracks is None else self._tracks
            if "clips" not in tracks.column_names:
                tracks = tracks.append_column("clips", self._count_clips(tracks))
            for view in self.views:
                tracks = view.of(tracks)
            self._tracks = tracks
        return self._tracks if split is None else self._tracks.filter(pc.equal(self._tracks["split"], split))

    def labelled(self) -> pa.Table:
        """Return the tracks that are in train, valid or test, sorted by track_id."""
        tracks = self.tracks()
        return tracks.filter(pc.is_in(tracks["split"], pa.array(SPLITS)))

    def clip_count(self, split: str) -> int:
        """Return the number of clips of a split."""
        return int(pc.sum(self.tracks(split)["clips"]).as_py() or 0)

    def labels(self, tracks: pa.Table) -> pa.Int64Array:
        """Return the index into `classes` of each of `tracks`, (tracks,); 0 for all of `music`."""
        if Music() in self.views:
            return pa.array(np.zeros(len(tracks), np.int64))
        indices = pc.index_in(tracks["genre"], pa.array(self.classes, pa.string()))
        if indices.null_count:
            stray = tracks.filter(pc.is_null(indices))["genre"][0].as_py()
            raise ArtifactError(
                f"{self.folder}: tracks.parquet names genre {stray!r}, which manifest.json does not list"
            )
        return combined(indices.cast(pa.int64()))

    def clip_files(self, tracks: pa.Table) -> Iterator[Location]:
        """Yield the files that may hold clips of `tracks`, in the order of their names."""
        parts = None if tracks["part"].null_count else set(pc.unique(tracks["part"]).to_pylist())
        with reading(self.folder / "clips"):
            files = list((self.folder / "clips").files(".parquet"))
        return (file for file in files if parts is None or file.name in parts)

    def iter_clips(
        self, tracks: pa.Table, columns: Sequence[str] = _CLIP_COLUMNS
    ) -> Iterator[tuple[str, pa.RecordBatch]]:
        """Yield clip rows, at most `ROW_GROUP` at a time, with the name of their file.

        Files that hold no clips of `tracks` are skipped.
        """
        for file in self.clip_files(tracks):
            for batch in self.iter_rows(file, columns=columns):
                yield file.name, batch

    def iter_rows(
        self, file: Location, groups: range | None = None, columns: Sequence[str] = _CLIP_COLUMNS
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows of one clip file, at most `ROW_GROUP` at a time: all of them, or those of some row groups."""
        with reading(file), file.open_parquet() as reader:
            _check_clip_schema(file, reader.schema_arrow, self.shape)
            for group in groups or range(reader.num_row_groups):
                yield from reader.iter_batches(ROW_GROUP, row_groups=[group], columns=list(columns))

    def check_clips(self, tracks: pa.Table) -> None:
        """Raise `ArtifactError` when a clip of `tracks` lacks its number or its peak level.

        Spectrograms are not read: a million clips take some seconds. What prepare wrote, which states `versions`, has
        them all.
        """
        if self.manifest.versions:
            return
        for file, rows in self.iter_clips(tracks, ["track_id", "clip", "peak_db"]):
            source = f"{self.folder}: {file}"
            check_no_nulls(source, rows)
            unknown = rows.filter(pc.invert(pc.fill_null(pc.is_finite(rows["peak_db"]), False)))
            if len(unknown):
                used = tracks.filter(pc.fill_null(pc.equal(tracks["part"], file), True))["track_id"]
                unknown = unknown.filter(pc.is_in(unknown["track_id"].cast(pa.string()), combined(used)))
                check_peaks(source, unknown["track_id"], unknown["peak_db"].to_numpy(zero_copy_only=False))

    def _count_clips(self, tracks: pa.Table) -> pa.Array:
        """Return the number of clips of each track, for a tracks.parquet without that column."""
        batches = [batch["track_id"] for _, batch in self.iter_clips(tracks, ["track_id"])]
        counts = pc.value_counts(pa.chunked_array(batches, pa.string()))
        rows = pc.index_in(tracks["track_id"], value_set=pc.struct_field(counts, "values"))
        if rows.null_count:
            track = tracks.filter(pc.is_null(rows))["track_id"][0].as_py()
            raise ArtifactError(
                f"{self.folder}: track {track!r} has no clips; write some, or leave it out of tracks.parquet"
            )
        return pc.struct_field(counts, "counts").take(rows.combine_chunks())


@contextlib.contextmanager
def reading(file: Location) -> Iterator[None]:
    """Raise a `GenreError` in place of an `OSError` in the block, which reads `file`.

    It is a `StorageError` if the storage is the reason (`is_fault`), and an `ArtifactError` if the file is.
    """
    try:
        yield
    except OSError as error:
        if is_fault(error, file):
            raise unreachable(file, error) from None
        if is_denied(error):
            remedy = "check your access"
        elif isinstance(error, FileNotFoundError):
            remedy = "prepare the features again"
        else:
            remedy = "delete this file and prepare the features again"
        raise ArtifactError(f"{file}: cannot be read ({one_line(error)}); {remedy}") from None


def prepared_again(folder: Location) -> ArtifactError:
    """Return what to raise when the features that a job read are no longer there."""
    return ArtifactError(f"{folder}: the features were prepared again while this job ran; run the same command again")


def _read_tracks(folder: Location) -> pa.Table:
    path = folder / "tracks.parquet"
    if not path.exists():
        raise ArtifactError(f"{path} is missing; prepare the features again")
    with path.open_parquet() as reader:
        table = reader.read([name for name in _TRACK_COLUMNS if name in reader.schema_arrow.names])
    for name in ("track_id", "genre", "split"):
        if name not in table.column_names:
            raise ArtifactError(f"{path}: column {name!r} is missing; docs/FEATURES.md lists the columns")
    for name in ("track_id", "genre", "split", "group", "sound", "recording", "part"):
        table = _with_strings(table, name, path)
    if "fold" in table.column_names:
        table = _with_strings(table, "fold", path)
    return table.sort_by("track_id")


def _with_strings(table: pa.Table, name: str, path: Location) -> pa.Table:
    """Return the table with a column cast to pa.string(); a missing column becomes nulls."""
    if name not in table.column_names:
        return table.append_column(name, pa.nulls(len(table), pa.string()))
    try:
        texts = table[name].cast(pa.string())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        raise ArtifactError(
            f"{path}: column {name!r} should hold strings, found {table[name].type}; convert it"
        ) from None
    return table.set_column(table.schema.get_field_index(name), name, texts)


def _check_clip_schema(file: Location, schema: pa.Schema, shape: Shape) -> None:
    width = pa.binary(shape.bytes)
    checks: dict[str, tuple[Any, str]] = {
        "track_id": (lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind), "string"),
        "clip": (pa.types.is_integer, "int32"),
        "peak_db": (pa.types.is_floating, "float32"),
        "spectrogram": (lambda kind: kind == width, str(width)),
    }
    for name, (fits, expected) in checks.items():
        kind = schema.field(name).type if name in schema.names else "no such column"
        if name not in schema.names or not fits(kind):
            raise ArtifactError(f"{file}: column {name!r} should be {expected}, found {kind}; write it again")
