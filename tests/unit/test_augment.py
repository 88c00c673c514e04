from __future__ import annotations

import pytest
import torch

from genre import augment


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
    assert torch.equal(augment.spec_augment(x, 0, 0), x)
    mixed, targets = augment.mixup(x, torch.eye(4), 0)
    assert torch.equal(mixed, x)
    assert torch.equal(targets, torch.eye(4))


@pytest.mark.parametrize(("bin_share", "frame_share"), [(0.25, 0), (0, 0.25), (0.25, 0.25)])
def test_masks_are_bands_of_zeros_of_bounded_width(bin_share, frame_share):
    x = augment.spec_augment(torch.ones(300, 40, 80), bin_share, frame_share)
    assert set(x.unique().tolist()) == {0.0, 1.0}
    masked_bins, masked_frames = (x.sum(dim=2) == 0).sum(dim=1), (x.sum(dim=1) == 0).sum(dim=1)
    # two masks of at most a share of the axis each, drawn anew for each window
    assert masked_bins.max() <= 2 * 40 * bin_share
    assert masked_frames.max() <= 2 * 80 * frame_share
    for masked, share in ((masked_bins, bin_share), (masked_frames, frame_share)):
        assert (len(masked.unique()) > 5) is (share > 0)
    kept = (40 - masked_bins) * (80 - masked_frames)
    assert torch.equal(x.sum(dim=(1, 2)).long(), kept)


def test_mixup_blends_windows_and_targets_alike():
    x, targets = torch.randn(16, 3, 4), torch.eye(16)
    mixed, shares = augment.mixup(x, targets, 0.5)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(16))
    weight = shares.diagonal().min()
    assert 0 < weight < 1
    partner = (shares - weight * targets).argmax(dim=1)
    assert sorted(partner.tolist()) == list(range(16))
    torch.testing.assert_close(mixed, weight * x + (1 - weight) * x[partner])


def test_mixup_weights_follow_a_beta_distribution():
    x = torch.tensor([0.0, 1.0]).reshape(2, 1, 1)
    drawn = [augment.mixup(x, x.squeeze(2), 0.3)[0] for _ in range(4000)]
    weights = torch.stack([mixed[1, 0, 0] for mixed in drawn if mixed[0] != mixed[1]])
    # half of the time each window is its own partner and keeps weight 1; of the others
    others = weights[weights < 1]
    assert abs(others.mean() - 0.5) < 0.03
    assert abs(others.var() - 0.25 / 1.6) < 0.01  # 1 / (4 (2 a + 1))
