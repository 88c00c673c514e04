from __future__ import annotations

import pytest
import torch

from genre import augment

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def test_gain_is_uniform():
    peaks = torch.randn(500)
    shift = augment.random_gain(peaks, 6.0) - peaks
    assert abs(shift.mean()) < 1
    assert -6 <= shift.min() < -5
    assert 5 < shift.max() <= 6


def test_nothing_changes_when_all_is_off():
    x = torch.randn(4, 8, 9)
    assert torch.equal(augment.random_gain(x[:, 0, 0], 0), x[:, 0, 0])
    assert all((kept == 1).all() for kept in next(augment.masks(4, 8, 9, 0, 0, CPU)))
    mixed, targets = augment.mixup(x, torch.eye(4), 1.0)
    assert torch.equal(mixed, x)
    assert torch.equal(targets, torch.eye(4))


@pytest.mark.parametrize(("bin_share", "frame_share"), [(0.25, 0), (0, 0.25), (0.25, 0.25)])
def test_masks_are_two_bands_of_zeros_of_bounded_width(bin_share, frame_share):
    kept_bins, kept_frames = next(augment.masks(300, 40, 80, bin_share, frame_share, CPU))
    assert kept_bins.shape == (300, 40, 1)
    assert kept_frames.shape == (300, 1, 80)
    for kept, share in ((kept_bins.squeeze(2), bin_share), (kept_frames.squeeze(1), frame_share)):
        assert set(kept.unique().tolist()) <= {0.0, 1.0}
        masked = (kept == 0).sum(dim=1)
        assert masked.max() <= 2 * kept.shape[1] * share
        bands = ((kept[:, 1:] == 0) & (kept[:, :-1] == 1)).sum(dim=1) + (kept[:, 0] == 0)
        assert bands.max() == (2 if share else 0)
        assert (len(masked.unique()) > 5) is (share > 0)  # each window has its own


def test_masks_are_drawn_anew_for_every_batch():
    stream = augment.masks(8, 40, 80, 0.2, 0.2, CPU)
    drawn = {next(stream)[0].numpy().tobytes() for _ in range(40)}
    assert len(drawn) == 40


def test_mixup_blends_windows_and_targets_alike():
    x, targets = torch.randn(16, 3, 4), torch.eye(16)
    mixed, shares = augment.mixup(x, targets, 0.7)
    partner = (shares - 0.7 * targets).argmax(dim=1)
    assert partner.tolist() == [15, *range(15)]
    torch.testing.assert_close(shares, 0.7 * targets + 0.3 * targets[partner])
    torch.testing.assert_close(mixed, 0.7 * x + 0.3 * x[partner])
