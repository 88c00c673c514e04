"""Messages of arrays arrive unchanged, through shared memory or, where they do not fit, through the socket."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import hypothesis.extra.numpy as npst
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genre.audio import channel
from genre.audio.channel import Channel

QUICK = settings(max_examples=40, deadline=None, database=None, derandomize=True)
ARRAYS = npst.arrays(
    st.sampled_from([np.uint8, np.int16, np.int64, np.float32, np.float64, np.bool_]),
    npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=20),
)
PLAIN = st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.binary(max_size=200)


@contextlib.contextmanager
def both_ends() -> Iterator[tuple[Channel, Channel]]:
    """Open a channel with both ends in this process."""
    ours, descriptors = Channel.pair()
    theirs = Channel.of(descriptors)
    yield ours, theirs
    ours.close()
    theirs.close()
    os.close(descriptors[1])  # the shared memory; the other is closed with its end


@pytest.fixture(scope="module")
def ends() -> Iterator[tuple[Channel, Channel]]:
    with both_ends() as pair:
        yield pair


def sent(ends: tuple[Channel, Channel], message: Any) -> Any:
    """Send a message from the first end to the second, and back."""
    for source, target in (ends, ends[::-1]):
        source.send(message)
        assert target.poll(10)
        message = target.receive()
    return message


def assert_equal(received: npt.NDArray[Any], expected: npt.NDArray[Any]) -> None:
    assert (received.dtype, received.shape) == (expected.dtype, expected.shape)
    assert received.tobytes() == expected.tobytes()


@QUICK
@given(arrays=st.lists(ARRAYS, max_size=4), plain=PLAIN)
def test_arrays_arrive_unchanged(ends: tuple[Channel, Channel], arrays: list[npt.NDArray[Any]], plain: Any) -> None:
    received, rest = sent(ends, (arrays, plain))
    assert rest == plain
    assert len(received) == len(arrays)
    for array, expected in zip(received, arrays, strict=True):
        assert_equal(array, expected)


@QUICK
@given(arrays=st.lists(ARRAYS, min_size=1, max_size=3), shared=st.integers(0, 2000))
def test_arrays_beyond_the_shared_memory_use_the_socket(arrays: list[npt.NDArray[Any]], shared: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(channel, "_SHARED", shared + 1)  # memory of no bytes cannot be mapped
        with both_ends() as pair:
            for array, expected in zip(sent(pair, arrays), arrays, strict=True):
                assert_equal(array, expected)


def test_a_received_array_is_a_read_only_copy(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    ours.send(np.arange(1000))
    first = theirs.receive()
    assert not first.flags.writeable
    ours.send(np.zeros(1000, np.int64))
    theirs.receive()
    assert first.tolist() == list(range(1000))
