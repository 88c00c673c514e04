"""How a file becomes a row of the tag table."""

from __future__ import annotations

from pathlib import Path

import pytest
from faulty_storage import Fault, Handler, behind

from genre.errors import StorageError
from genre.storage import Location
from genre.tagging import tag_rows


@pytest.fixture
def song() -> Location:
    song = Location.of("s3://bucket/rows/song.wav")
    song.write_bytes(b"no music")
    return song


def expired_at_first(requests: int) -> Fault:
    """Return a fault: the first `requests` of each kind are answered with an expired token."""

    def fault(request: Handler, number: int) -> bool:
        if number < requests:
            request.refuse(400, "ExpiredToken")
        return number < requests

    return fault


def test_a_storage_that_is_away_for_a_moment_is_asked_again(
    bucket_server: dict[str, str], song: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = tag_rows.content_of(str(song))
    with behind(bucket_server, expired_at_first(1), monkeypatch):
        assert tag_rows.content_of(str(song)) == expected


def test_a_storage_that_stays_away_does_not_make_a_file_without_content(
    bucket_server: dict[str, str], song: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tag_rows, "STORAGE_SECONDS", 0.0)
    with (
        behind(bucket_server, expired_at_first(1000), monkeypatch),
        pytest.raises(StorageError, match="run the same command again"),
    ):
        tag_rows.content_of(str(song))


def test_a_file_that_is_gone_has_no_content(tmp_path: Path) -> None:
    (tmp_path / "other.wav").write_bytes(b"")
    assert tag_rows.content_of(str(tmp_path / "song.wav")) is None
