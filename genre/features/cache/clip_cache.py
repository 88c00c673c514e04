"""The copy of a folder's clips that each machine keeps on a local disk and maps into memory.

All trainings of a machine share one copy through the page cache, so no process holds the clips, and what was copied
once is there for the next job. The first process that needs a copy makes it while the others wait.

    FOLDER/building.lock    locked by the process that makes or deletes a copy
    FOLDER/features-KEY/    a copy (`clip_copy`)

All folds of a cross-validation use one copy, of the tracks that they divide, and so does a training without folds.
Where the clips are too many for a machine, it keeps the share of its workers (`Share`); the table of tracks is always
complete. The key changes with everything that decides the clips, and with the names, sizes and times of the files in
`clips/`. Readers hold a shared lock on the header, and a copy whose header is locked is not deleted.
"""

from __future__ import annotations

import errno
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from genre.arrays import Bools
from genre.config import fingerprint
from genre.errors import ArtifactError
from genre.features.cache import cache_folder
from genre.features.cache.cache_folder import Report
from genre.features.cache.clip_copy import BYTES_PER_BIN, BYTES_PER_CLIP, CopyWriter, MappedCopy
from genre.features.clips import Clips
from genre.features.folder import Features, prepared_again, reading
from genre.features.splitting.folds import Fold
from genre.features.splitting.sampling import Share
from genre.features.statistics import LevelStatistics
from genre.settings import CacheSettings

_FORMAT = 4  # of the files; part of the key
_WORTH_A_MESSAGE = 1e9  # bytes; copying less takes a few seconds


@dataclass(frozen=True)
class CachedClips:
    """The clips of a copy by split, and the level statistics of the clips of its first split."""

    clips: dict[str, Clips]
    statistics: LevelStatistics


@dataclass(frozen=True)
class ClipCache:
    """The address of the clips of some splits: what travels to the processes that train."""

    features: Features
    settings: CacheSettings
    splits: tuple[str, ...]
    key: str
    share: Share | None = None  # of a machine; None: all tracks

    @classmethod
    def of(cls, features: Features, settings: CacheSettings, splits: tuple[str, ...] = ("train", "valid")) -> ClipCache:
        """Return the address of `splits` of a features folder as it is now. Nothing is copied yet."""
        return cls(features, settings, splits, key="")._with_key()

    def of_share(self, share: Share) -> ClipCache:
        """Return the address of the share of a machine."""
        return replace(self, share=share)._with_key()

    def check_size(self) -> None:
        """Raise `ArtifactError` where this machine has no copy, and its disk or cache.max_gb is too small for one.

        Copies of other features do not count, since those that are not in use are deleted. Raises `ConfigError` and
        `StorageError` like `open`.
        """
        folder = cache_folder.of(self.settings)
        with cache_folder.using(folder):
            if not (folder / self._name / cache_folder.HEADER).exists():
                cache_folder.check_size(folder, self.size(), self.settings.max_gb, str(self.features.folder))

    @property
    def _copied(self) -> tuple[Features, tuple[str, ...]]:
        """The features and the splits of the copy: all folds use that of the tracks that they divide."""
        match self.features.views:
            case (Fold() as fold,) if self.share is None:
                return self.features.complete(), tuple(dict.fromkeys((*self.splits, *fold.splits)))
        return self.features, self.splits

    def _tracks(self) -> tuple[dict[str, pa.Table], Bools]:
        """Return the tracks of each split of the copy, and which of all of them have their clips in it, (tracks,)."""
        features, splits = self._copied
        tracks = {split: features.tracks(split) for split in splits}
        if self.share is None:
            return tracks, np.ones(sum(map(len, tracks.values())), dtype=bool)
        return tracks, np.concatenate([self.share.holds(each) for each in tracks.values()])

    def size(self) -> int:
        """Return the bytes that the copy takes: clips, their levels and peaks."""
        tracks, here = self._tracks()
        clips = np.concatenate([np.zeros(0, np.int64), *(each["clips"].to_numpy() for each in tracks.values())])
        shape = self.features.shape
        return int(clips[here].sum()) * (shape.bytes + BYTES_PER_BIN * shape.bins + BYTES_PER_CLIP)

    @property
    def _name(self) -> str:
        return f"{cache_folder.PREFIX}{self.key}"

    def open(self, report: Report = lambda message: None) -> CachedClips:
        """Return the clips, mapped from this machine's copy, which is made first where it is missing or was altered.

        `report` gets a message before this takes long. Raises `ArtifactError` when the features were prepared again
        since `of` or are damaged, or when the disk is too small, `ConfigError` when `cache.folder` cannot be written,
        and `StorageError` when the storage of the features cannot be reached.
        """
        folder = cache_folder.of(self.settings)
        with cache_folder.using(folder):
            copy = self._mapped(folder)
            if copy is None:
                with cache_folder.exclusive(folder, report):
                    copy = self._mapped(folder)  # another process may have made it meanwhile
                    if copy is None:
                        self._make(folder, report)
                        copy = self._mapped(folder)
            if copy is None:
                raise ArtifactError(f"{folder / self._name}: changed while it was made; see what else writes there")
            return self._of_view(copy)

    def _mapped(self, folder: Path) -> MappedCopy | None:
        return MappedCopy.open(folder / self._name, self.features.shape)

    def _of_view(self, copy: MappedCopy) -> CachedClips:
        """Return the clips of the splits: those of a copy, or of the fold that takes their place."""
        features, _ = self._copied
        first = self.splits[0]
        if features.views == self.features.views:
            return CachedClips({split: copy.split(split) for split in self.splits}, copy.split_statistics(first))
        rows = {split: copy.rows_of(self.features.tracks(split), self.features) for split in self.splits}
        return CachedClips(
            {split: copy.selection(tracks) for split, tracks in rows.items()}, copy.statistics(rows[first])
        )

    def _make(self, folder: Path, report: Report) -> None:
        """Copy the clips to `folder`, where this process holds the lock."""
        self._check_unchanged()
        shutil.rmtree(folder / self._name, ignore_errors=True)  # a copy that was altered
        size = self.size()
        cache_folder.make_room(folder, size, self.settings.max_gb, str(self.features.folder))
        if size > _WORTH_A_MESSAGE:
            report(f"copying {size / 1e9:.1f} GB of features to {folder}")
        building = folder / f"{self._name}{cache_folder.UNFINISHED}"
        try:
            building.mkdir()
            CopyWriter(building, self._copied[0], *self._tracks()).write()
            self._check_unchanged()
            building.rename(folder / self._name)
        except ArtifactError:
            self._check_unchanged()  # clips that are missing were perhaps deleted since
            raise
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise ArtifactError(
                    f"cache.folder={folder}: the disk is full, {size / 1e9:.1f} GB are needed for the clips of "
                    f"{self.features.folder}; free some, or set cache.folder to a larger disk"
                ) from None
            raise
        finally:
            shutil.rmtree(building, ignore_errors=True)

    def _check_unchanged(self) -> None:
        if replace(self, features=self.features.reopened())._with_key().key != self.key:
            raise prepared_again(self.features.folder)

    def _with_key(self) -> ClipCache:
        features, splits = self._copied
        return replace(self, key=_key(features, splits, self.share))


def _key(features: Features, splits: tuple[str, ...], share: Share | None) -> str:
    """Return 16 hex digits that change with the clips, their labels and their order."""
    manifest = features.manifest
    with reading(features.folder / "clips"):
        files = [(info.base_name, info.size, info.mtime_ns) for info in (features.folder / "clips").children()]
    content: dict[str, Any] = {
        "format": _FORMAT,
        "folder": str(features.folder),
        "fingerprint": manifest.fingerprint,
        "contents": manifest.contents,
        "classes": manifest.classes,
        "splits": splits,
        "parts": [part and asdict(part) for part in (*features.views, share)],
        "files": files,
    }
    return fingerprint(content)
