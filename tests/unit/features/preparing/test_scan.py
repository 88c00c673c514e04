"""Tests of the scan of a corpus as a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from genre import corpora
from genre.corpora import Track
from genre.errors import ArtifactError, ConfigError
from genre.features.preparing.scan import scan
from genre.settings import CorpusSettings


def test_scan_is_sorted_and_leaves_out_excluded_tracks(monkeypatch: pytest.MonkeyPatch) -> None:
    tracks = [
        Track("b", "/b", "x", 1, 1.0),
        Track("c", "/c", "x", 1, 1.0, split="excluded"),
        Track("a", "/a", "y", 1, 1.0),
    ]
    monkeypatch.setattr(corpora, "scan", lambda *_: iter(tracks))
    assert scan(CorpusSettings())["track_id"].to_pylist() == ["a", "b"]


def test_repeated_track_id_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpora, "scan", lambda *_: (Track(name, "/", "x", 1, 1.0) for name in "abcb"))
    with pytest.raises(ArtifactError, match="lists track_id 'b' twice"):
        scan(CorpusSettings())


def test_a_corpus_without_tracks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table that was cut after its header must not take all tracks out of the features."""
    for tracks in ([], [Track("c", "/c", "x", 1, 1.0, split="excluded")]):
        monkeypatch.setattr(corpora, "scan", lambda *_, tracks=tracks: iter(tracks))
        with pytest.raises(ConfigError, match="lists no track"):
            scan(CorpusSettings())


def test_a_corpus_whose_files_are_all_missing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The music of a table may be on a disk that is not mounted."""
    tracks = [Track(name, f"/{name}", "x", corpora.MISSING, 0.0) for name in "ab"]
    monkeypatch.setattr(corpora, "scan", lambda *_: iter(tracks))
    with pytest.raises(ConfigError, match="none of 2 listed files exists, such as '/a'; mount"):
        scan(CorpusSettings())
    tracks.append(Track("c", "/c", "x", 1, 1.0))
    assert len(scan(CorpusSettings())) == 3


@pytest.mark.parametrize(
    ("track", "problem"),
    [
        (Track("a", "/a", None, 1, 1.0), "its track 'a' has no genre; leave it out or give it split='unlabelled'"),
        (Track("a", "/a", "x", 1, 1.0, split="dev"), "its track 'a' has an unknown split; use train, valid, test, "),
        (Track("a", Path("/a"), "x", 1, 1.0), "scan must yield genre.corpora.Track with fields .*PosixPath"),  # type: ignore[arg-type]
        ({"path": "/a"}, "scan must yield genre.corpora.Track with fields "),
    ],
)
def test_a_wrong_track_is_refused_before_anything_is_decoded(
    track: Any, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpora, "scan", lambda *_: iter([track]))
    with pytest.raises(ConfigError, match=f"corpus.kind=folder: {problem}"):
        scan(CorpusSettings(kind="folder"))
