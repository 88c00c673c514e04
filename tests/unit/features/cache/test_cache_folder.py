"""The folder of the copies: bounded, with nothing deleted but copies, and every fault of a disk one line."""

from __future__ import annotations

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from clip_features import copies, write_features
from disks import small_disk

from genre.errors import ArtifactError, ConfigError
from genre.features import Features
from genre.features.cache import ClipCache, cache_folder
from genre.settings import CacheSettings


@pytest.fixture
def features(tmp_path: Path) -> Features:
    return write_features(tmp_path / "features")


@pytest.fixture
def settings(tmp_path: Path) -> CacheSettings:
    return CacheSettings(folder=str(tmp_path / "cache"))


@pytest.fixture
def several(tmp_path: Path) -> list[Features]:
    return [write_features(tmp_path / f"features{number}", seed=number) for number in range(3)]


def gigabytes(features: Features) -> float:
    return ClipCache.of(features, CacheSettings()).size() / 1e9


def test_the_least_recently_used_copy_goes(several: list[Features], settings: CacheSettings) -> None:
    bounded = CacheSettings(folder=settings.folder, max_gb=2.2 * gigabytes(several[0]))
    for number in (0, 1, 0, 2):
        cache = ClipCache.of(several[number], bounded)
        cache.open()
        # the times of two steps may be equal
        os.utime(Path(settings.folder) / f"features-{cache.key}", (number, number + 1))
    names = {path.name for path in copies(settings)}
    assert names == {f"features-{ClipCache.of(several[number], bounded).key}" for number in (1, 2)}


def test_a_copy_in_use_stays(several: list[Features], settings: CacheSettings) -> None:
    bounded = CacheSettings(folder=settings.folder, max_gb=1.5 * gigabytes(several[0]))
    used = ClipCache.of(several[0], bounded).open()
    with pytest.raises(ArtifactError, match=r"take 0\.0 GB, and 0\.0 GB are available, besides .* that other jobs use"):
        ClipCache.of(several[1], bounded).open()
    assert len(used.clips["train"].spectrograms.tobytes()) > 0
    del used
    ClipCache.of(several[1], bounded).open()
    assert len(copies(settings)) == 1


def test_nothing_else_in_the_folder_is_deleted(features: Features, settings: CacheSettings) -> None:
    (Path(settings.folder) / "music").mkdir(parents=True)
    (Path(settings.folder) / "music/song.wav").touch()
    with pytest.raises(ArtifactError, match=r"set cache\.folder to a larger disk, or raise cache\.max_gb"):
        ClipCache.of(features, CacheSettings(folder=settings.folder, max_gb=1e-9)).open()
    assert (Path(settings.folder) / "music/song.wav").exists()


def test_a_folder_that_cannot_be_written_is_named(features: Features, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cache\.folder=.*file/cache: cannot be read or written"):
        ClipCache.of(features, CacheSettings(folder=str(tmp_path / "file/cache"))).open()


@pytest.mark.parametrize("held", ["", "features-old", "features-old.unfinished"])
def test_a_folder_that_was_closed_since_its_first_use_is_named(
    features: Features, settings: CacheSettings, held: str
) -> None:
    """Its lock can still be opened; copies can be neither made nor deleted in it."""
    folder, bounded = Path(settings.folder), CacheSettings(folder=settings.folder, max_gb=2e-4)
    (folder / held).mkdir(parents=True)
    (folder / held / "x").write_bytes(bytes(100_000))
    (folder / "building.lock").touch()
    folder.chmod(0o500)
    try:
        with ThreadPoolExecutor(1, initializer=_respect_modes) as thread:
            opened = thread.submit(ClipCache.of(features, bounded).open)
            with pytest.raises(ConfigError, match=r"^cache\.folder=.*/cache: cannot be .* \(Permission denied\); .*$"):
                opened.result()
    finally:
        folder.chmod(0o700)


def test_a_folder_of_another_user_is_refused(features: Features, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    try:
        os.chown(folder, os.getuid() + 1, -1)
    except PermissionError:
        pytest.skip("needs the right to give a folder away")
    with pytest.raises(ConfigError, match=r"cache\.folder=.*: belongs to another user .*; name a folder of your own"):
        ClipCache.of(features, CacheSettings(folder=str(folder))).open()


def test_the_announced_size_is_that_of_the_clips_with_their_levels(
    features: Features, settings: CacheSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    announced, make_room = list[int](), cache_folder.make_room

    def recorded(folder: Path, size: int, max_gb: float, source: str) -> None:
        announced.append(size)
        make_room(folder, size, max_gb, source)

    monkeypatch.setattr(cache_folder, "make_room", recorded)
    ClipCache.of(features, settings).open()
    (copy,) = copies(settings)
    assert announced == [sum((copy / name).stat().st_size for name in ("clips", "levels", "peaks"))]


def test_the_size_is_checked_without_a_copy(features: Features, settings: CacheSettings) -> None:
    cache = ClipCache.of(features, settings)
    cache.check_size()
    bounded = CacheSettings(folder=settings.folder, max_gb=0.5 * gigabytes(features))
    with pytest.raises(ArtifactError, match="enough for 50% of them"):
        ClipCache.of(features, bounded).check_size()
    assert copies(settings) == []
    cache.open()
    ClipCache.of(features, bounded).check_size()


def test_an_unused_copy_makes_room_on_a_disk_that_is_smaller_than_the_limit(
    several: list[Features], tmp_path: Path
) -> None:
    """A copy takes 116 KB of clips, and 32 KB for its other files."""
    with small_disk(tmp_path / "disk", "size=240k") as disk:
        on_disk = CacheSettings(folder=str(disk), max_gb=1)
        used = ClipCache.of(several[0], on_disk).open()
        ClipCache.of(several[1], on_disk).check_size()  # the other copy may be unused by then
        with pytest.raises(ArtifactError, match=r"take 0\.0 GB, .* besides 0\.0 GB that other jobs use"):
            ClipCache.of(several[1], on_disk).open()
        assert len(used.clips["train"]) > 0
        del used
        cache = ClipCache.of(several[1], on_disk)
        cache.open()
        assert [copy.name for copy in copies(on_disk)] == [f"features-{cache.key}"]


@pytest.mark.parametrize("files", [0, 1, 4])
def test_a_full_disk_is_one_line_and_leaves_nothing(features: Features, tmp_path: Path, files: int) -> None:
    """It has no room for names: for the folder of the copy, its first file, or one of the last."""
    names = 2 + files  # of the disk, the lock and these
    with small_disk(tmp_path / "disk", f"size=1m,nr_inodes={names}") as disk:
        with pytest.raises(ArtifactError, match=r"the disk is full, 0\.0 GB are needed"):
            ClipCache.of(features, CacheSettings(folder=str(disk))).open()
        assert not list(disk.glob("features-*"))


def _respect_modes() -> None:
    """Take from this thread, and from those that it starts, the right of root to ignore the modes of files."""
    header, capabilities = (ctypes.c_uint32 * 2)(0x20080522), (ctypes.c_uint32 * 6)()  # effective ones first
    library = ctypes.CDLL(None)
    assert library.capget(header, capabilities) == 0
    capabilities[0] &= ~(1 << 1)  # CAP_DAC_OVERRIDE
    assert library.capset(header, capabilities) == 0
