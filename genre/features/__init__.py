"""Clips of music as log-mel spectrograms: made from audio, stored in a folder, loaded as arrays.

Input: a scanned corpus, or a finished folder. Output: a folder, or `Clips` in memory.
Independent of networks, of training, and of what runs the blocks of `prepare`.

    features/
      clips/*.parquet     one row per clip: track_id, clip, start_seconds, peak_db, spectrogram
      tracks.parquet      one row per track that has clips: track_id, genre, group, split, ...
      rejects.parquet     one row per track that has none: track_id, path, reason, message, ...
      rejects.csv         track_id, path, reason and message of these, for people
      duplicates.parquet  one row per track that is a copy of another track
      splits.parquet      the split of every track that was ever assigned one here
      settings.json       what prepare checks before it resumes in this folder
      manifest.json       schema, settings, fingerprint, counts, versions; written last

    preparing/   from a scanned corpus to such a folder
    splitting/   the split or fold of each track
    cache/       the copy of clips on the local disk of a machine

docs/FEATURES.md describes how to write such a folder with nothing but pyarrow, and which parts are optional.
"""

from genre.corpora import SPLITS
from genre.features.clips import Clips
from genre.features.encoding import decode, encode
from genre.features.folder import Features
from genre.features.manifest import Manifest
from genre.features.schema import Shape

__all__ = ["SPLITS", "Clips", "Features", "Manifest", "Shape", "decode", "encode"]
