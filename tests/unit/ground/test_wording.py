"""Counts, lists and durations in words."""

from __future__ import annotations

import pytest

from genre.wording import clock, data_size, duration, listed, money, plural


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599, "59 min 59 s"),
        (3599.7, "1 h 00 min"),
        (5249, "1 h 27 min"),
        (90_061, "25 h 01 min"),
    ],
)
def test_a_duration_has_two_units_at_most(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_one_of_a_kind_has_no_plural() -> None:
    assert [plural(n, "track") for n in (0, 1, 2)] == ["0 tracks", "1 track", "2 tracks"]


def test_a_list_that_is_cut_says_how_many_are_left_out() -> None:
    assert [listed("abcd", most) for most in (2, 3)] == ["a, b and 2 more", "a, b, c and 1 more"]
    assert listed("abcd", 4) == listed("abcd") == "a, b, c, d"
    assert listed(iter("abc"), 2) == "a, b and 1 more"


def test_a_time_in_a_song_has_minutes_and_seconds() -> None:
    assert [clock(seconds) for seconds in (0.9, 65, 3725.5)] == ["0:00", "1:05", "62:05"]


def test_small_amounts_keep_two_digits() -> None:
    amounts = [12.5, 0.1, 0.0999, 0.0423, 0.000_42, 0.000_000_1, 0.0]
    assert [money(amount) for amount in amounts] == ["12.50", "0.10", "0.100", "0.042", "0.00042", "0.000000", "0.00"]


def test_a_size_has_a_fitting_unit() -> None:
    assert [data_size(count) for count in (1.5e12, 2.34e9, 4.2e6, 17_600, 0)] == [
        "1500.0 GB", "2.3 GB", "4.2 MB", "17.6 kB", "0.0 kB",
    ]  # fmt: skip
