"""Scanning small made-up corpora, for their tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from genre import corpora
from genre.config import CorpusSettings
from genre.corpora import Track
from genre.errors import ConfigError


def settings(kind: str, root: object = "", split: str = "auto", **params: Any) -> CorpusSettings:
    return CorpusSettings.model_validate({"kind": kind, "root": str(root), "split": split, "params": params})


def scan(kind: str, root: object = "", split: str = "auto", **params: Any) -> list[Track]:
    return list(corpora.scan(settings(kind, root, split, **params)))


def ids(tracks: list[Track]) -> list[str]:
    return [track.track_id for track in tracks]


def touch(root: Path, *names: str, content: bytes = b"x") -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def refused(kind: str, root: object = "", split: str = "auto", **params: Any) -> str:
    with pytest.raises(ConfigError) as error:
        scan(kind, root, split, **params)
    assert "\n" not in str(error.value)
    return str(error.value)
