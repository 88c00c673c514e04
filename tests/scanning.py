"""Helpers to write and scan small corpora."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from genre import corpora
from genre.corpora import Track
from genre.errors import ConfigError
from genre.settings import CorpusSettings


def settings(kind: str, root: object = "", split: str = "auto", **params: Any) -> CorpusSettings:
    """Return the settings of a corpus; `params` are those of its kind."""
    return CorpusSettings.model_validate({"kind": kind, "root": str(root), "split": split, "params": params})


def scan(kind: str, root: object = "", split: str = "auto", **params: Any) -> list[Track]:
    """Return all tracks of a corpus."""
    return list(corpora.scan(settings(kind, root, split, **params)))


def ids(tracks: list[Track]) -> list[str]:
    return [track.track_id for track in tracks]


def touch(root: Path, *names: str, content: bytes = b"x") -> Path:
    """Write files below `root`, which is returned."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def states(root: Path, without: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of everything below `root` that is not `without` or below it."""
    paths = [path for path in root.rglob("*") if not path.is_relative_to(without)]
    return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in paths}


def refused(kind: str, root: object = "", split: str = "auto", **params: Any) -> str:
    """Return the message of the `ConfigError` that the scan raises."""
    with pytest.raises(ConfigError) as error:
        scan(kind, root, split, **params)
    assert "\n" not in str(error.value)
    return str(error.value)
