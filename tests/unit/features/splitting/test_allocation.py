"""Tests of the division of units: as good as the best of all divisions where there are few."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from genre.arrays import Float64, Ints
from genre.features.splitting.allocation import Aims, Units, allocate, is_dispersed

AIMS = Aims.of_splits((0.65, 0.15, 0.2))


def units_of(sizes: list[int], split: list[int] | None = None) -> Units:
    units = np.repeat(np.arange(len(sizes)), sizes)
    return Units.of(units, np.zeros_like(units), np.array(split or [-1] * len(sizes)))


def counted(sizes: list[int], split: Ints) -> Float64:
    return np.bincount(split, sizes, minlength=3).astype(np.float64)


@settings(max_examples=60)
@given(st.lists(st.integers(1, 40), min_size=3, max_size=6))
def test_no_division_of_a_few_units_keeps_more_splits_within_a_fifth(sizes: list[int]) -> None:
    wanted = sum(sizes) * AIMS.shares
    divisions = [np.array(each) for each in itertools.product(range(3), repeat=len(sizes))]
    complete = [counts for each in divisions if (counts := counted(sizes, each)).min() > 0]
    fewest = min(int(is_dispersed(counts[1:], wanted[1:]).sum()) for counts in complete)
    counts = counted(sizes, allocate(units_of(sizes), AIMS, np.arange(len(sizes))))
    assert counts.min() > 0
    assert is_dispersed(counts[1:], wanted[1:]).sum() == fewest


@settings(max_examples=40)
@given(st.lists(st.integers(1, 60), min_size=25, max_size=60))
def test_many_units_are_divided_within_a_fifth(sizes: list[int]) -> None:
    counts = counted(sizes, allocate(units_of(sizes), AIMS, np.arange(len(sizes))))
    assert not is_dispersed(counts[1:], sum(sizes) * AIMS.shares[1:]).any()


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(-1, 2)), min_size=1, max_size=30), st.integers(0, 2**32))
def test_units_that_have_a_split_keep_it(rows: list[tuple[int, int]], seed: int) -> None:
    sizes, split = [row[0] for row in rows], [row[1] for row in rows]
    order = np.random.default_rng(seed).permutation(len(rows))
    result = allocate(units_of(sizes, split), AIMS, order)
    assert result.min() >= 0
    assert all(after == before for before, after in zip(split, result, strict=True) if before >= 0)
