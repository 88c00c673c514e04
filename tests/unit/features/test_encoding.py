"""Tests of spectrograms as bytes."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from genre.arrays import Float32
from genre.features import decode, encode

SPECTROGRAMS = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 8), st.integers(1, 12)),
    elements=st.floats(-100, 60, width=32),
)


def test_error_is_at_most_half_a_step(rng: np.random.Generator) -> None:
    levels = rng.uniform(-90, 20, (8, 50)).astype(np.float32)
    stored, peak = encode(levels, 80.0)
    decoded = decode(stored, peak, 80.0)
    kept = levels >= peak - 80
    assert np.abs(decoded - levels)[kept].max() <= 80 / 255 / 2 + 1e-4
    assert np.allclose(decoded[~kept], peak - 80, atol=1e-4)
    assert stored.dtype == np.uint8
    assert stored.shape == (50, 8)
    assert stored.max() == 255
    assert peak == levels.max()


def test_batch_has_a_peak_for_each_clip(rng: np.random.Generator) -> None:
    levels = rng.uniform(-60, 0, (3, 4, 5)).astype(np.float32) + np.array([0, 30, -30], np.float32)[:, None, None]
    stored, peaks = zip(*(encode(clip, 80.0) for clip in levels), strict=True)
    assert np.abs(decode(np.stack(stored), np.array(peaks), 80.0) - levels).max() < 0.16


@given(SPECTROGRAMS)
def test_each_frame_is_one_run_of_bytes(levels: Float32) -> None:
    stored, peak = encode(levels, 80.0)
    content, bins = stored.tobytes(), len(levels)
    for frame in range(levels.shape[1]):
        alone = np.frombuffer(content[frame * bins : (frame + 1) * bins], np.uint8)
        assert np.abs(decode(alone[None], peak, 80.0)[:, 0] - np.maximum(levels[:, frame], peak - 80)).max() < 0.16


def test_bytes_do_not_depend_on_the_order_of_the_levels_in_memory(rng: np.random.Generator) -> None:
    levels = rng.uniform(-90, 20, (8, 50)).astype(np.float32)
    stored, _ = encode(levels, 80.0)
    transposed, peak = encode(np.asfortranarray(levels), 80.0)
    assert transposed.flags.c_contiguous
    assert transposed.tobytes() == stored.tobytes()
    assert decode(transposed, peak, 80.0).flags.c_contiguous


@given(SPECTROGRAMS, st.floats(20, 160))
def test_any_level_is_restored_within_half_a_step_or_raised_to_the_floor(levels: Float32, range_db: float) -> None:
    stored, peak = encode(levels, range_db)
    expected = np.maximum(levels, peak - range_db)
    assert np.abs(decode(stored, peak, range_db) - expected).max() <= range_db / 255 / 2 + 1e-3


@given(SPECTROGRAMS, st.floats(20, 160))
def test_decoded_levels_are_encoded_to_the_same_bytes(levels: Float32, range_db: float) -> None:
    stored, peak = encode(levels, range_db)
    again, _ = encode(decode(stored, peak, range_db), range_db)
    np.testing.assert_array_equal(again, stored)
