"""Header readers on arbitrary bytes: they return within their limits, whatever a file declares."""

from __future__ import annotations

import time

import damage
from hypothesis import given, settings
from hypothesis import strategies as st

from genre.audio import containers

STARTS = (b"RIFF", b"RIFX", b"RF64", b"FORM", b"caff", b".snd", b"OggS", b"ID3\x04", b"\xff\xfb\x90\x64", b"")
NAMES = (b"data", b"SSND", b"fmt ", b"ds64", b"LIST")
FILES = {container: damage.sound_file(container) for container in damage.CONTAINERS}
HEADER = 200  # bytes, more than the headers of FILES have
QUICK = settings(max_examples=150, deadline=None, database=None, derandomize=True)


def chunks() -> st.SearchStrategy[bytes]:
    """Chunks with any declared size, in both byte orders, and less content than that."""
    size = st.integers(0, 2**32 - 1) | st.integers(0, 64)
    order = st.sampled_from(["little", "big"])
    chunk = st.builds(
        lambda name, size, order, content: name + size.to_bytes(4, order) + content,
        st.sampled_from(NAMES) | st.binary(min_size=4, max_size=4),
        size,
        order,
        st.binary(max_size=40),
    )
    return st.lists(chunk, max_size=8).map(b"".join)


@QUICK
@given(st.sampled_from(STARTS), st.binary(max_size=12), chunks() | st.binary(max_size=300))
def test_any_bytes_are_read_without_an_exception(start: bytes, head: bytes, rest: bytes) -> None:
    content = start + head + rest
    assert 0 <= containers.share_present(content) <= 1
    assert containers.ends_early(content) in (True, False)
    repaired = containers.repaired(content)
    assert 0 <= containers.share_present(repaired) <= 1
    containers.declares_no_length(repaired)


@QUICK
@given(st.sampled_from(STARTS[:5]), st.sampled_from([0, 1, 2]))
def test_many_chunks_take_linear_time(start: bytes, size: int) -> None:
    """A size of 0 must not keep the reader at the same chunk."""
    content = start + bytes(8) + (b"LIST" + bytes([size]) * 4) * 2000
    began = time.process_time()
    assert containers.share_present(content) == 1
    assert time.process_time() - began < 1


@QUICK
@given(st.sampled_from(sorted(FILES)), st.data())
def test_truncating_a_file_never_raises_its_share(container: str, data: st.DataObject) -> None:
    """From the end of the header on: without it no size is declared, and the share is 1."""
    content = FILES[container]
    length = st.integers(HEADER, len(content))
    shorter, longer = sorted((data.draw(length), data.draw(length)))
    assert containers.share_present(content[:shorter]) <= containers.share_present(content[:longer])
    assert containers.share_present(content) == 1
