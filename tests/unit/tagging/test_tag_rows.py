"""How a file becomes a row of the tag table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from faulty_storage import Fault, Handler, behind
from tagged_rows import tag_row_difference

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


def test_the_comparison_of_rows_sees_times_lengths_and_nan() -> None:
    def rows(start: float = 0.0, first: float = 0.7, embeddings: tuple[int, int] = (2, 2)) -> pa.Table:
        moment = {"start": start, "end": 8.0, "probabilities": [0.7, 0.3]}
        return pa.Table.from_pylist(
            [
                {"path": path, "probabilities": [first, 0.3], "timeline": [moment], "embedding": [np.float16(1)] * size}
                for path, size in zip("ab", embeddings, strict=True)
            ],
            tag_rows.SCHEMA,
        )

    assert tag_row_difference(rows(), rows(first=0.700001)) == ""
    assert tag_row_difference(rows(), rows(first=0.701)).startswith("probabilities differ by 0.001")
    assert tag_row_difference(rows(), rows(first=float("nan"))) == "probabilities differ by nan"
    assert tag_row_difference(rows(), rows(start=4.0)) == "timeline differ by 4"
    assert tag_row_difference(rows(), rows(embeddings=(1, 3))) == "other lengths of embedding"


def test_the_comparison_of_embeddings_allows_the_rounding_of_16_bits() -> None:
    def clips(first: float = 0.5, seconds: tuple[float, float] = (0.0, 3.0)) -> pa.Table:
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.array([first, 0.1, 0.2, 0.3], np.float16)), 2)
        return pa.table({"path": ["a", "a"], "start": seconds, "probability": [0.5, 0.6], "embedding": vectors})

    assert tag_row_difference(clips(), clips().take([1, 0])) == ""
    assert tag_row_difference(clips(), clips(first=0.5005)) == ""
    assert tag_row_difference(clips(), clips(first=0.75)) == "embedding differ by 0.25"
    assert tag_row_difference(clips(), clips(seconds=(0.0, 2.0))).startswith("other values of start")
    assert tag_row_difference(clips(), clips().drop_columns("embedding")).startswith("the columns")


def test_a_file_that_is_gone_has_no_content(tmp_path: Path) -> None:
    (tmp_path / "other.wav").write_bytes(b"")
    assert tag_rows.content_of(str(tmp_path / "song.wav")) is None
