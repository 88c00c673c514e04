"""Columns, shape and Parquet options of a features folder."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

ROW_GROUP = 128  # clips that a writer collects and a reader takes at a time: 20 MB with the default settings
# Compressing spectrograms saves an eighth of the space and costs three quarters of the speed (docs/LOG.md).
WRITE_OPTIONS = {"compression": "none", "use_dictionary": ["track_id"], "write_statistics": ["track_id", "clip"]}
# Only these columns repeat values: dictionaries of the others would dominate the time to write a long table.
TRACK_WRITE_OPTIONS = {"row_group_size": 4096, "use_dictionary": ["genre", "group", "split", "part"]}

TRACK_SCHEMA = pa.schema(
    [
        ("track_id", pa.string()),
        ("path", pa.string()),
        ("genre", pa.string()),
        ("group", pa.string()),
        ("split", pa.string()),
        ("size", pa.int64()),
        ("modified", pa.float64()),
        ("content", pa.string()),  # SHA-256 of the file
        ("sound", pa.string()),  # SHA-256 of the spectrograms: equal for the same audio in different files
        ("recording", pa.string()),  # the `sound` of one of its near copies, equal for all of them; null: it has none
        ("sketch", pa.binary()),  # see `sketches`; null: it has too few landmarks
        ("seconds", pa.float64()),
        ("sample_rate", pa.int32()),
        ("channels", pa.int32()),
        ("truncated", pa.bool_()),
        ("clips", pa.int32()),
        ("part", pa.string()),  # the file in clips/ that holds them
        ("part_bytes", pa.int64()),  # size of that file; where it differs, its tracks are decoded again
        ("part_rows", pa.int64()),  # clips in that file, also of tracks that have been removed since
        ("reason", pa.string()),  # null: the track has clips
        ("message", pa.string()),
    ]
)
# The published fold: the last column of tracks.parquet and rejects.parquet, where the corpus has folds.
FOLD = pa.field("fold", pa.string())
SCAN_SCHEMA = pa.schema(
    [TRACK_SCHEMA.field(name) for name in ("track_id", "path", "genre", "group", "split", "size", "modified")]
).append(FOLD)
# The result of decoding a track. Genre, group and split belong to the corpus and are joined at the end, as is the
# recording, which depends on the other tracks. Sketches are in the files of outcomes and read only then: a list of
# outcomes with them would take more than twice the memory.
_JOINED = ("genre", "group", "split", "recording", "sketch")
OUTCOME_SCHEMA = pa.schema([field for field in TRACK_SCHEMA if field.name not in _JOINED])
OUTCOME_FILE_SCHEMA = OUTCOME_SCHEMA.append(TRACK_SCHEMA.field("sketch"))


@dataclass(frozen=True)
class Shape:
    """What every spectrogram of a folder has in common."""

    bins: int
    frames: int
    range_db: float
    frame_seconds: float  # from one frame to the next

    @property
    def bytes(self) -> int:
        """Size of a stored spectrogram."""
        return self.bins * self.frames

    def frames_in(self, seconds: float) -> int:
        """Return the frames of a window of `seconds`: at least 1, at most those of a clip."""
        return max(1, min(self.frames, round(seconds / self.frame_seconds)))

    def clip_schema(self) -> pa.Schema:
        """Return the columns of clips/*.parquet."""
        return pa.schema(
            [
                ("track_id", pa.string()),
                ("clip", pa.int32()),
                ("start_seconds", pa.float32()),
                ("peak_db", pa.float32()),
                ("spectrogram", pa.binary(self.bytes)),
            ],
            metadata={"bins": str(self.bins), "frames": str(self.frames), "range_db": str(self.range_db)},
        )
