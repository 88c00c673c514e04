"""The typed content of manifest.json: what the clips of a features folder are and where they come from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from genre.config import fingerprint
from genre.errors import ArtifactError
from genre.features.schema import Shape
from genre.features.splitting import splits
from genre.storage import Location

FILE = "manifest.json"
SCHEMA_VERSION = 2  # 1: spectrograms had the bins first


@dataclass(frozen=True)
class DuplicateCounts:
    """How many copies of recordings a folder has."""

    sets: int = 0  # recordings with several tracks
    copies: int = 0  # tracks beyond the first with the same audio
    near: int = 0  # tracks beyond the first with the same recording, where equal audio counts once
    of_several_genres: int = 0  # sets
    excluded: int = 0  # tracks, because a published split separates them from their copies


@dataclass(frozen=True)
class Counts:
    """How many tracks were scanned, and what became of them."""

    scanned: int = 0
    tracks: int = 0  # with clips
    clips: int = 0
    truncated: int = 0
    rejected: int = 0
    reasons: dict[str, int] = field(default_factory=dict)  # rejected tracks by reason
    duplicates: DuplicateCounts = DuplicateCounts()
    splits: dict[str, dict[str, int]] = field(default_factory=dict)  # tracks by genre and split
    unlabelled: int = 0  # tracks with clips and without a genre


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What the clips of a features folder are. The fields are in the order of the JSON file."""

    created: str = ""  # ISO 8601
    command: str = ""  # of the job that wrote the folder; empty: not known
    fingerprint: str  # of the settings
    contents: str = ""  # of the tracks, see `fingerprint_of_tracks`
    settings: dict[str, Any] = field(default_factory=dict)  # `audio` and `spectrogram`; empty: precomputed
    corpus: dict[str, Any] = field(default_factory=dict)
    shape: Shape
    classes: list[str]  # in the order of the models' outputs
    counts: Counts = Counts()
    versions: dict[str, str] = field(default_factory=dict)
    split: str = "official"  # or random: decided by `genre.features.splitting.splits`

    def to_json(self) -> dict[str, Any]:
        """Return the content of manifest.json."""
        return {"stage": "features", "schema_version": SCHEMA_VERSION} | asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Manifest:
        """Return the manifest with this content, as `read` returns it. Unknown keys are ignored."""
        counts = _known(Counts, content.get("counts", {}))
        counts["duplicates"] = DuplicateCounts(**_known(DuplicateCounts, counts.get("duplicates", {})))
        typed = {"shape": Shape(**_known(Shape, content["shape"])), "counts": Counts(**counts)}
        return cls(**_known(cls, content) | typed)


def read(folder: Location) -> dict[str, Any]:
    """Return the content of a folder's manifest.json, checked for the keys that every folder needs.

    Raises `ArtifactError` when the folder is missing or unfinished, is of another version, or lacks a key.
    """
    path = folder / FILE
    if not path.exists():
        state = "it was not finished, run prepare again" if folder.exists() else "there is no such folder, run prepare"
        raise ArtifactError(f"{folder}: no features here ({FILE} is missing); {state}")
    content: dict[str, Any] = path.read_json()
    if content.get("stage") != "features" or content.get("schema_version") != SCHEMA_VERSION:
        kind = f"{content.get('stage')} version {content.get('schema_version')}"
        raise ArtifactError(
            f"{folder}: holds {kind}, not features version {SCHEMA_VERSION}; delete it or choose another output, and "
            "run prepare"
        )
    for key, required in {"shape": {item.name for item in fields(Shape)}, "classes": set()}.items():
        if key not in content or not required <= set(content[key]):
            names = f" with {', '.join(sorted(required))}" if required else ""
            raise ArtifactError(f"{path}: lacks {key!r}{names}; docs/FEATURES.md says what a manifest holds")
    return content


def with_defaults(content: dict[str, Any], tracks: pa.Table, folder: Location) -> dict[str, Any]:
    """Return the content of a manifest that prepare did not write, with defaults for optional keys."""
    counts = {"scanned": len(tracks), "tracks": len(tracks), "splits": splits.summary(tracks)}
    return {
        "fingerprint": fingerprint({"shape": content["shape"], "settings": content.get("settings", {})}),
        "contents": fingerprint_of_tracks(tracks),
        "corpus": {"kind": "features", "root": str(folder), "split": "given"},
        "counts": counts,
    } | content


def fingerprint_of_tracks(tracks: pa.Table) -> str:
    """Return 16 hex digits that change whenever a track, its audio, recording, genre, group, split or fold does.

    For tracks without near copies and published folds they are the digits that earlier versions computed.
    """
    names = ["track_id", "sound", "genre", "group", "split"]
    if tracks["recording"].null_count < len(tracks):
        names.append("recording")
    if "fold" in tracks.column_names and tracks["fold"].null_count < len(tracks):
        names.append("fold")
    columns = [pc.fill_null(tracks[name], "") for name in names]
    lines = pc.binary_join_element_wise(*columns, "\t")
    digest = hashlib.sha256()
    for begin in range(0, len(lines), 10_000):  # a million lines at once would need much memory
        digest.update("\n".join([*lines.slice(begin, 10_000).to_pylist(), ""]).encode())
    return digest.hexdigest()[:16]


def _known(schema: type, content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of `content` that are fields of a dataclass."""
    return {item.name: content[item.name] for item in fields(schema) if item.name in content}
