"""Downloading from a real server with the faults that servers have."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from mirrors import PIECE, Mirror, checksum_of

from genre.errors import ArtifactError, GenreError
from genre.fetching import Archive
from genre.fetching.download import obtain

CONTENT = os.urandom(10 * PIECE + 77)
NEWER = os.urandom(11 * PIECE)


@dataclass
class Watcher:
    lines: list[str] = field(default_factory=list)

    def say(self, line: str) -> None:
        self.lines.append(line)

    @contextlib.contextmanager
    def bar(self, action: str, done: int, total: int) -> Iterator[Callable[[int], None]]:
        counted = [done]
        yield counted.append
        assert not total or sum(counted) <= total


def archive_at(*urls: str, content: bytes = CONTENT, algorithm: str = "sha256") -> Archive:
    size = len(content)
    return Archive(
        file="a.zip", folder="a", size=size, unpacked=size, checksum=checksum_of(content, algorithm), urls=list(urls)
    )


def refusal(archive: Archive, root: Path) -> str:
    with pytest.raises(GenreError) as error:
        obtain(archive, root, Watcher())
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_download_that_is_cut_again_and_again_resumes_where_it_was(tmp_path: Path) -> None:
    with Mirror({"a.zip": CONTENT}, cut_after=3 * PIECE) as mirror:
        target = obtain(archive_at(mirror.url("a.zip")), tmp_path, Watcher())
    assert target.read_bytes() == CONTENT
    assert mirror.ranges == ["", *(f"bytes={count * 3 * PIECE}-" for count in (1, 2, 3))]
    assert mirror.sent == len(CONTENT)  # no byte twice
    assert os.listdir(tmp_path) == ["a.zip"]


def test_what_an_earlier_run_left_is_continued(tmp_path: Path) -> None:
    with Mirror({"a.zip": CONTENT}, cut_after=4 * PIECE) as mirror:
        archive = archive_at(mirror.url("a.zip"))
        mirror.after_cut = mirror.files.clear  # and from then on 404
        assert "404" in refusal(archive, tmp_path)
        assert (tmp_path / "a.zip.part").read_bytes() == CONTENT[: 4 * PIECE]
        mirror.files["a.zip"], mirror.cut_after = CONTENT, None
        obtain(archive, tmp_path, Watcher())
    assert mirror.ranges[-1] == f"bytes={4 * PIECE}-"
    assert mirror.sent == len(CONTENT)


def test_a_failure_of_the_encryption_is_reported_as_one(tmp_path: Path) -> None:
    """The error of the library has a number of its own, which the system would call "Operation not permitted"."""
    with Mirror({"a.zip": CONTENT}) as mirror:
        assert "SSL" in refusal(archive_at(mirror.url("a.zip").replace("http:", "https:")), tmp_path)


def test_a_server_without_ranges_starts_over_and_says_so(tmp_path: Path) -> None:
    watcher = Watcher()
    with Mirror({"a.zip": CONTENT}, cut_after=3 * PIECE, resumes=False) as mirror:
        mirror.after_cut = lambda: setattr(mirror, "cut_after", None)
        target = obtain(archive_at(mirror.url("a.zip")), tmp_path, watcher)
    assert target.read_bytes() == CONTENT
    assert sum("the server cannot resume; starting over" in line for line in watcher.lines) == 1


def test_a_file_that_changes_between_two_attempts_is_not_mixed(tmp_path: Path) -> None:
    watcher = Watcher()
    with Mirror({"a.zip": CONTENT}, cut_after=3 * PIECE) as mirror:
        mirror.after_cut = lambda: mirror.files.update({"a.zip": NEWER})
        target = obtain(archive_at(mirror.url("a.zip"), content=NEWER), tmp_path, watcher)
    assert target.read_bytes() == NEWER
    assert sum("the file has changed; starting over" in line for line in watcher.lines) == 1


def test_the_second_mirror_continues_what_the_first_began(tmp_path: Path) -> None:
    with Mirror({"a.zip": CONTENT}, cut_after=3 * PIECE) as first, Mirror({"b": CONTENT}) as second:
        first.after_cut = first.files.clear
        obtain(archive_at(first.url("a.zip"), second.url("b")), tmp_path, Watcher())
    assert second.ranges == [f"bytes={3 * PIECE}-"]
    assert first.sent + second.sent == len(CONTENT)


def test_the_second_mirror_serves_when_the_first_has_nothing_or_is_away(tmp_path: Path) -> None:
    with Mirror({}) as away:
        pass
    watcher = Watcher()
    with Mirror({}) as empty, Mirror({"a": CONTENT}) as good:
        target = obtain(archive_at(away.url("a"), empty.url("a"), good.url("a")), tmp_path, watcher)
    assert target.read_bytes() == CONTENT
    assert len(empty.ranges) == 1, "a file that is not there is asked for once"
    assert any("Connection refused" in line for line in watcher.lines)


def test_a_mirror_with_another_file_does_not_cost_what_has_arrived(tmp_path: Path) -> None:
    with Mirror({"a": CONTENT}, cut_after=3 * PIECE) as first, Mirror({"a": NEWER}) as other:
        first.after_cut = first.files.clear
        message = refusal(archive_at(first.url("a"), other.url("a")), tmp_path)
    assert f"a file of {len(NEWER)} bytes, expected {len(CONTENT)}" in message
    assert (tmp_path / "a.zip.part").read_bytes() == CONTENT[: 3 * PIECE]


def test_a_web_page_instead_of_the_file_does_not_cost_what_has_arrived(tmp_path: Path) -> None:
    with Mirror({"a": CONTENT}, cut_after=3 * PIECE) as mirror:
        mirror.after_cut = lambda: vars(mirror).update(content_type="text/html", resumes=False, cut_after=None)
        assert "answers with a web page" in refusal(archive_at(mirror.url("a")), tmp_path)
    assert (tmp_path / "a.zip.part").read_bytes() == CONTENT[: 3 * PIECE]


@pytest.mark.parametrize("algorithm", ["sha256", "sha1", "md5"])
def test_another_checksum_is_refused_with_both(algorithm: str, tmp_path: Path) -> None:
    (tmp_path / "b.zip").write_bytes(b"good")
    with Mirror({"a": NEWER}) as mirror:
        message = refusal(archive_at(mirror.url("a"), algorithm=algorithm), tmp_path)
    assert f"found {checksum_of(NEWER, algorithm)}, expected {checksum_of(CONTENT, algorithm)}" in message
    assert os.listdir(tmp_path) == ["b.zip"]


def test_bytes_that_changed_on_the_disk_are_found_and_fetched_again(tmp_path: Path) -> None:
    with Mirror({"a": CONTENT}, cut_after=3 * PIECE) as mirror, Mirror({"a": CONTENT}) as second:
        archive = archive_at(mirror.url("a"))
        mirror.after_cut = mirror.files.clear
        refusal(archive, tmp_path)
        part = tmp_path / "a.zip.part"
        first, *others = part.read_bytes()
        part.write_bytes(bytes([first ^ 1, *others]))
        archive = archive.model_copy(update={"urls": [second.url("a")]})
        assert "expected sha256" in refusal(archive, tmp_path)
        assert obtain(archive, tmp_path, Watcher()).read_bytes() == CONTENT


def test_a_part_that_is_longer_than_the_file_starts_over(tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").write_bytes(CONTENT + b"more")
    with Mirror({"a": CONTENT}) as mirror:
        assert obtain(archive_at(mirror.url("a")), tmp_path, Watcher()).read_bytes() == CONTENT
    assert mirror.ranges == [f"bytes={len(CONTENT) + 4}-", ""]


def test_a_complete_part_is_checked_and_not_asked_for_again(tmp_path: Path) -> None:
    """As after a kill between the last byte and the check."""
    with Mirror({"a": CONTENT}, cut_after=3 * PIECE) as mirror:
        archive = archive_at(mirror.url("a"))
        mirror.after_cut = mirror.files.clear
        refusal(archive, tmp_path)
        (tmp_path / "a.zip.part").write_bytes(CONTENT)
        asked = len(mirror.ranges)
        obtain(archive, tmp_path, Watcher())
        assert len(mirror.ranges) == asked


def test_a_server_that_declares_no_length_is_accepted_by_the_checksum(tmp_path: Path) -> None:
    with Mirror({"a": CONTENT}, has_length=False) as mirror:
        assert obtain(archive_at(mirror.url("a")), tmp_path, Watcher()).read_bytes() == CONTENT


def test_an_archive_of_the_right_content_is_used_without_a_request(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(CONTENT)
    assert obtain(archive_at("http://127.0.0.1:1/"), tmp_path, Watcher()) == tmp_path / "a.zip"


def test_another_file_of_the_archives_name_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(NEWER)
    with pytest.raises(ArtifactError, match=re.escape(f"found {checksum_of(NEWER)}, expected {checksum_of(CONTENT)}")):
        obtain(archive_at("http://127.0.0.1:1/"), tmp_path, Watcher())
    assert (tmp_path / "a.zip").read_bytes() == NEWER
