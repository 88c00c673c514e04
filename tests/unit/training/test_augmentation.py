"""Each augmentation by itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from genre.training import augmentation

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def test_gain_is_uniform() -> None:
    shift = next(augmentation.level_changes(500, 8, 6.0, 0, CPU))
    assert shift.shape == (500, 8)
    assert (shift == shift[:, :1]).all()
    assert abs(shift.mean()) < 1
    assert -6 <= shift.min() < -5
    assert 5 < shift.max() <= 6


def test_nothing_changes_when_everything_is_off() -> None:
    x = torch.randn(4, 8, 9)
    assert not next(augmentation.level_changes(4, 8, 0, 0, CPU)).any()
    assert all((kept == 1).all() for kept in next(augmentation.masks(4, 8, 9, 0, 0, CPU)))
    torch.testing.assert_close(augmentation.mixstyle(x, torch.ones(4)), x)
    mixed, targets = augmentation.mixup(x, torch.eye(4), 1.0)
    assert torch.equal(mixed, x)
    assert torch.equal(targets, torch.eye(4))


def test_the_equaliser_is_a_separate_smooth_curve_for_each_window() -> None:
    curves = next(augmentation.level_changes(200, 41, 0, 6.0, CPU))
    assert curves.shape == (200, 41)
    assert -6 <= curves.min() < -5.5
    assert 5.5 < curves.max() <= 6
    # six points on 41 bins: every eighth bin, and a straight line between them
    bent = curves.diff(n=2, dim=1).abs().amax(dim=0) > 1e-4
    assert (bent.nonzero().squeeze(1) + 1).tolist() == [8, 16, 24, 32]
    assert len(set(curves[:, 0].tolist())) == 200


def test_every_step_gets_its_own_level_changes() -> None:
    steps = augmentation.level_changes(4, 8, 3.0, 3.0, CPU)
    drawn = torch.cat([next(steps) for _ in range(40)])
    assert len(set(drawn[:, 0].tolist())) == 160


def test_mixstyle_changes_the_statistics_over_time_and_nothing_else() -> None:
    x = 3 * torch.randn(5, 7, 200) + torch.randn(5, 7, 1)
    weights = torch.tensor([1.0, 0.0, 0.5, 0.25, 0.75])
    mixed = augmentation.mixstyle(x, weights)
    torch.testing.assert_close(mixed[0], x[0], rtol=1e-4, atol=1e-4)
    statistics: list[Callable[[Tensor], Tensor]] = [lambda v: v.mean(dim=2), lambda v: v.std(dim=2, correction=0)]
    for statistic in statistics:
        own, partner = statistic(x), statistic(x).roll(-1, dims=0)
        expected = weights[:, None] * own + (1 - weights[:, None]) * partner
        torch.testing.assert_close(statistic(mixed), expected, rtol=0.02, atol=0.02)
    torch.testing.assert_close(standardised(mixed), standardised(x), rtol=1e-3, atol=1e-3)


def standardised(values: Tensor) -> Tensor:
    return (values - values.mean(2, keepdim=True)) / values.std(2, keepdim=True)


@pytest.mark.parametrize(("bin_share", "frame_share"), [(0.25, 0), (0, 0.25), (0.25, 0.25)])
def test_masks_are_two_bands_of_zeros_of_bounded_width(bin_share: float, frame_share: float) -> None:
    kept_bins, kept_frames = next(augmentation.masks(300, 40, 80, bin_share, frame_share, CPU))
    assert kept_bins.shape == (300, 40, 1)
    assert kept_frames.shape == (300, 1, 80)
    for kept, share in ((kept_bins.squeeze(2), bin_share), (kept_frames.squeeze(1), frame_share)):
        assert set(kept.flatten().tolist()) <= {0.0, 1.0}
        masked = (kept == 0).sum(dim=1)
        assert masked.max() <= 2 * kept.shape[1] * share
        bands = ((kept[:, 1:] == 0) & (kept[:, :-1] == 1)).sum(dim=1) + (kept[:, 0] == 0)
        assert bands.max() == (2 if share else 0)
        assert (len(set(masked.tolist())) > 5) is (share > 0)  # each window has its own


def test_masks_are_drawn_again_for_every_batch() -> None:
    stream = augmentation.masks(8, 40, 80, 0.2, 0.2, CPU)
    drawn = {next(stream)[0].numpy().tobytes() for _ in range(40)}
    assert len(drawn) == 40


def test_mixup_blends_windows_and_targets_alike() -> None:
    x, targets = torch.randn(16, 3, 4), torch.eye(16)
    mixed, shares = augmentation.mixup(x, targets, 0.7)
    partner = (shares - 0.7 * targets).argmax(dim=1)
    assert partner.tolist() == [15, *range(15)]
    torch.testing.assert_close(shares, 0.7 * targets + 0.3 * targets[partner])
    torch.testing.assert_close(mixed, 0.7 * x + 0.3 * x[partner])
