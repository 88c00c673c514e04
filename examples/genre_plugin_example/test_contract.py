"""Do the plug-ins of this package keep their contracts? Run it with pytest where the package is installed."""

from __future__ import annotations

from pathlib import Path

from genre.testing import check_architecture, check_corpus


def test_band_statistics() -> None:
    """Settings that make a large architecture small go after its name."""
    check_architecture("band_statistics", dropout=0.1)


def test_prefixed(tmp_path: Path) -> None:
    """The files of the example need no music; the hidden one must not become a track."""
    for name in ("rock_1.wav", "folk_1.wav", ".hidden.wav"):
        (tmp_path / name).write_bytes(name.encode())
    check_corpus("prefixed", tmp_path, separator="_")
