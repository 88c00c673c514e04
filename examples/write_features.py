"""Write a features folder of your own spectrograms with pyarrow and numpy alone, and train on it.

    python examples/write_features.py my_run                                # synthetic spectrograms, to show the format
    python examples/write_features.py my_run --convert spectrograms.parquet # published ones of GTZAN
    genre train output=my_run architecture=crnn

`write` below is the complete writer; docs/FEATURES.md describes every file and column.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROWS = 128  # in a row group, which a reader takes at a time
TRACK_SCHEMA = pa.schema([(name, pa.string()) for name in ("track_id", "genre", "split", "group", "fold")])


@dataclass
class Track:
    track_id: str
    genre: str
    split: str  # train, valid or test
    clips: list[np.ndarray]  # one or more of shape (bins, frames), float, in dB
    group: str | None = None  # artist or album: all its tracks belong in the same split
    fold: str | None = None  # number or name of the published fold, where there are folds


def write(folder: Path, tracks: Iterable[Track], bins: int, frames: int, range_db: float, frame_seconds: float) -> None:
    """Write clips, then tracks, then the manifest, which marks the folder as complete.

    Raises `ValueError` for a clip of another shape, and for one with NaN or infinite levels.
    """
    schema = pa.schema(
        [
            ("track_id", pa.string()),
            ("clip", pa.int32()),
            ("peak_db", pa.float32()),
            ("spectrogram", pa.binary(bins * frames)),
        ]
    )
    listed = []
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(folder / "clips" / "part-0.parquet", schema, compression="none") as file:
        rows = []
        for track in tracks:
            listed.append({name: getattr(track, name) for name in TRACK_SCHEMA.names})
            for number, clip in enumerate(track.clips):
                check(track, clip, (bins, frames))
                values, peak = encode(clip, range_db)
                rows.append({"track_id": track.track_id, "clip": number, "peak_db": peak, "spectrogram": values})
            if len(rows) >= ROWS:
                file.write_table(pa.Table.from_pylist(rows, schema))
                rows = []
        if rows:
            file.write_table(pa.Table.from_pylist(rows, schema))
    pq.write_table(pa.Table.from_pylist(listed, TRACK_SCHEMA), folder / "tracks.parquet")
    manifest = {
        "stage": "features",
        "schema_version": 2,
        "shape": {"bins": bins, "frames": frames, "range_db": range_db, "frame_seconds": frame_seconds},
        "classes": sorted({row["genre"] for row in listed}),
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2))


def check(track: Track, clip: np.ndarray, shape: tuple[int, int]) -> None:
    """Raise `ValueError` for a clip that has another shape than (bins, frames), or levels that are not finite."""
    if clip.shape != shape:
        raise ValueError(f"track {track.track_id!r}: a clip has shape {clip.shape}, not (bins, frames) {shape}")
    if not np.isfinite(clip).all():
        raise ValueError(f"track {track.track_id!r}: a clip has NaN or infinite levels; limit them or leave it out")


def encode(levels: np.ndarray, range_db: float) -> tuple[bytes, float]:
    """Return (bins, frames) in dB as bytes, frame by frame: 255 is the loudest point, 0 is `range_db` below it."""
    peak = float(levels.max())
    scaled = (levels.T - (peak - range_db)) * (255 / range_db)
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8).tobytes(), peak


def synthetic(bins: int, frames: int) -> Iterator[Track]:
    """Yield noise with a bright band, higher in one genre than in the other; every seventh track has two clips."""
    rng = np.random.default_rng(0)
    for number in range(60):
        genre = ("low", "high")[number % 2]
        split = ("train", "train", "train", "valid", "test")[number // 2 % 5]
        clips = rng.normal(-60, 8, (1 + (number % 7 == 0), bins, frames))
        clips[:, slice(4, 12) if genre == "low" else slice(20, 28)] += 30
        yield Track(f"track{number:02d}", genre, split, list(clips))


def convert(source: Path, range_db: float, bins: int, frames: int, bands: int) -> Iterator[Track]:
    """Yield the tracks of a Parquet file with track_id, genre, split and `spectrogram` (bins x frames bytes).

    A column `fold` is kept.

    The spectrograms come from plots, each scaled to 0..255, which do not give the scale in dB: `range_db` is assumed,
    and the peak of each track is set to 0 dB. Half of the bins, which are equally wide, are in the highest octave;
    `bands` mel-spaced bands replace them.
    """
    warped = mel_spaced(bands, bins)
    for batch in pq.ParquetFile(source).iter_batches(64):
        for row in batch.to_pylist():
            values = np.frombuffer(row["spectrogram"], np.uint8).reshape(bins, frames)
            levels = values * (range_db / 255) - range_db
            fold = row.get("fold")
            yield Track(
                row["track_id"], row["genre"], row["split"], [warped @ levels], fold=None if fold is None else str(fold)
            )


def mel_spaced(bands: int, bins: int, nyquist: float = 11025.0) -> np.ndarray:
    """Return weights (bands, bins) that average bins of equal width from 0 Hz to `nyquist` into mel-spaced bands.

    They are triangles on the scale of O'Shaughnessy 1987, at least one bin wide on each side, so that low bands
    interpolate between bins instead of being empty. Each row sums to one.
    """
    spacing = nyquist / (bins - 1)
    edges = 700 * np.expm1(np.linspace(0, np.log1p(nyquist / 700), bands + 2))
    centre = edges[1:-1, None]
    low, high = np.minimum(edges[:-2, None], centre - spacing), np.maximum(edges[2:, None], centre + spacing)
    frequency = np.arange(bins) * spacing
    below, above = (frequency - low) / (centre - low), (high - frequency) / (high - centre)
    weights: np.ndarray = np.clip(np.minimum(below, above), 0, None)
    weights /= weights.sum(axis=1, keepdims=True)
    return weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, help="folder of a run; the features are written to its folder 'features'")
    parser.add_argument("--convert", type=Path, help="Parquet with track_id, genre, split, spectrogram (uint8)")
    parser.add_argument("--bands", type=int, default=40, help="with --convert: number of mel-spaced bands")
    options = parser.parse_args()
    folder = options.output / "features"
    if options.convert:
        shape = pq.read_schema(options.convert).metadata[b"shape"].decode()
        bins, frames = (int(number) for number in shape.split(","))
        tracks = convert(options.convert, 80.0, bins, frames, options.bands)
        write(folder, tracks, options.bands, frames, range_db=80.0, frame_seconds=30.0 / frames)
    else:
        write(folder, synthetic(32, 200), 32, 200, range_db=80.0, frame_seconds=0.05)
    print(f"wrote {folder}")


if __name__ == "__main__":
    main()
