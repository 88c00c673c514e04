"""Deltas: any file comes back from any other, and what only moved is not in them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from genre.tagging import byte_delta

RANDOM = np.random.default_rng(0)
PARTS = [RANDOM.bytes(size) for size in (40, 100, 1000, 70_000)] + [bytes(500), b"ab" * 50, b"x"]
CONTENT = st.lists(st.sampled_from(PARTS) | st.binary(max_size=40), max_size=8).map(b"".join)


@given(before=CONTENT, after=CONTENT)
def test_what_was_there_comes_back_from_any_file(before: bytes, after: bytes) -> None:
    delta = byte_delta.make(before, after)
    assert delta
    assert byte_delta.restore(delta, after) == before
    assert byte_delta.restore(delta, after + b"x") is None
    assert byte_delta.restore(replace(delta, before="0"), after) is None


@given(order=st.permutations(PARTS[1:4]), new=st.binary(max_size=40))
def test_parts_that_moved_are_references(order: list[bytes], new: bytes) -> None:
    before, after = b"".join(PARTS[1:4]), new.join([b"", *order, b""])
    delta = byte_delta.make(before, after)
    assert delta
    assert len(str(delta.pieces)) < 200
    assert byte_delta.restore(delta, after) == before


def test_another_file_has_no_delta() -> None:
    assert byte_delta.make(RANDOM.bytes(1_000_000), RANDOM.bytes(1_000_000)) is None
