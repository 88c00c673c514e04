"""Write a features folder of your own spectrograms with nothing but pyarrow and numpy, so that it trains here.

    python examples/write_features.py my_run                                # made-up spectrograms, to see the format
    python examples/write_features.py my_run --convert spectrograms.parquet # GTZAN's, as recovered from plots
    genre train output=my_run architecture=crnn

`write` below is all there is to it; docs/FEATURES.md describes every file and column.
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

ROWS = 128  # in a row group: what a reader takes at a time


@dataclass
class Track:
    track_id: str
    genre: str
    split: str  # train, valid or test
    clips: list[np.ndarray]  # one or more of shape (bins, frames), float, in dB


def write(folder: Path, tracks: Iterable[Track], bins: int, frames: int, range_db: float, frame_seconds: float) -> None:
    """Write `folder`: clips, then tracks, then the manifest, which says that all is there."""
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
            listed.append({"track_id": track.track_id, "genre": track.genre, "split": track.split})
            for number, clip in enumerate(track.clips):
                values, peak = encode(clip, range_db)
                rows.append({"track_id": track.track_id, "clip": number, "peak_db": peak, "spectrogram": values})
            if len(rows) >= ROWS:
                file.write_table(pa.Table.from_pylist(rows, schema))
                rows = []
        if rows:
            file.write_table(pa.Table.from_pylist(rows, schema))
    pq.write_table(pa.Table.from_pylist(listed), folder / "tracks.parquet")
    manifest = {
        "stage": "features",
        "schema_version": 1,
        "shape": {"bins": bins, "frames": frames, "range_db": range_db, "frame_seconds": frame_seconds},
        "classes": sorted({row["genre"] for row in listed}),
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2))


def encode(levels: np.ndarray, range_db: float) -> tuple[bytes, float]:
    """(bins, frames) in dB -> a byte each, row by row; 255 is the loudest point, 0 what lies `range_db` below."""
    peak = float(levels.max())
    scaled = (levels - (peak - range_db)) * (255 / range_db)
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8).tobytes(), peak


def made_up(bins: int, frames: int) -> Iterator[Track]:
    """Noise with a bright band, higher in one genre than in the other; every seventh track has two clips."""
    rng = np.random.default_rng(0)
    for number in range(60):
        genre = ("low", "high")[number % 2]
        split = ("train", "train", "train", "valid", "test")[number // 2 % 5]
        clips = rng.normal(-60, 8, (1 + (number % 7 == 0), bins, frames))
        clips[:, slice(4, 12) if genre == "low" else slice(20, 28)] += 30
        yield Track(f"track{number:02d}", genre, split, list(clips))


def convert(source: Path, range_db: float, bins: int, frames: int, bands: int) -> Iterator[Track]:
    """Rows of track_id, genre, split and a `spectrogram` of bytes (bins x frames), each track scaled to 0..255.

    The scale in dB was lost with the plots; `range_db` is our guess, and each track's peak counts as 0 dB. Bins of
    equal width spend most of the picture on the highest octave; `bands` is how many mel-spaced ones replace them.
    """
    warped = mel_spaced(bands, bins)
    for batch in pq.ParquetFile(source).iter_batches(64):
        for row in batch.to_pylist():
            values = np.frombuffer(row["spectrogram"], np.uint8).reshape(bins, frames)
            levels = values * (range_db / 255) - range_db
            yield Track(row["track_id"], row["genre"], row["split"], [warped @ levels])


def mel_spaced(bands: int, bins: int, nyquist: float = 11025.0) -> np.ndarray:
    """(bands, bins): weights that average bins of equal width from 0 Hz to `nyquist` into bands even in mel.

    Triangles on the scale of O'Shaughnessy 1987, never narrower than a bin to each side, so that low bands
    interpolate between bins rather than stay empty. Each row sums to one.
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
    parser.add_argument("output", type=Path, help="the folder of a run; the features go into its folder 'features'")
    parser.add_argument("--convert", type=Path, help="Parquet with track_id, genre, split, spectrogram (uint8)")
    parser.add_argument("--bands", type=int, default=40, help="with --convert: mel-spaced bands made of linear bins")
    options = parser.parse_args()
    folder = options.output / "features"
    if options.convert:
        shape = pq.read_schema(options.convert).metadata[b"shape"].decode()
        bins, frames = (int(number) for number in shape.split(","))
        tracks = convert(options.convert, 80.0, bins, frames, options.bands)
        write(folder, tracks, options.bands, frames, range_db=80.0, frame_seconds=30.0 / frames)
    else:
        write(folder, made_up(32, 200), 32, 200, range_db=80.0, frame_seconds=0.05)
    print(f"wrote {folder}")


if __name__ == "__main__":
    main()
