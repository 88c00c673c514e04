"""The classifier: decibels, normalisation, and the mean over the windows of a track."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from making import make_clips, statistics
from saving import save_model
from torch import nn

from genre import features
from genre.features import Clips, windows
from genre.features.windows import Worker
from genre.model import checkpoint
from genre.model.classifier import Classifier, predict, predict_and_embed, relaxed_norm
from genre.storage import Location


class Means(nn.Module):
    """A network whose logits are twice the mean of each bin; it records the sizes of its batches."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(x))
        return 2 * x.mean(dim=(1, 3))


def classifier_of(clips: Clips) -> Classifier:
    return Classifier(Means(), *statistics(clips), clips.shape.range_db)


def in_decibels(clips: Clips) -> np.ndarray:
    return features.decode(clips.spectrograms, clips.peak_db, clips.shape.range_db).astype(np.float64)


def test_statistics_are_those_of_all_frames_in_decibels() -> None:
    clips = make_clips(tracks=7, frames=33)
    mean, std = statistics(clips)
    np.testing.assert_allclose(mean, in_decibels(clips).mean(axis=(0, 2)), rtol=1e-5)
    np.testing.assert_allclose(std, in_decibels(clips).std(axis=(0, 2)), rtol=1e-5)


def test_a_constant_bin_is_not_divided_by_zero() -> None:
    clips = make_clips(tracks=3)
    clips.spectrograms[:, :, 5] = 7
    clips.peak_db[:] = 0
    mean, std = statistics(clips)
    assert std[5] == 1
    assert np.isclose(mean[5], 7 * 80 / 255 - 80)


def test_the_network_sees_normalised_windows() -> None:
    clips = make_clips(tracks=9)
    classifier = classifier_of(clips)
    levels = classifier.levels(torch.from_numpy(clips.spectrograms), torch.from_numpy(clips.peak_db))
    np.testing.assert_allclose(levels.numpy(), in_decibels(clips), rtol=1e-4, atol=1e-4)
    seen = classifier.normalise(levels)
    torch.testing.assert_close(seen.mean(dim=(0, 2)), torch.zeros(16), rtol=0, atol=1e-4)
    torch.testing.assert_close(seen.std(dim=(0, 2), correction=0), torch.ones(16), rtol=0, atol=1e-4)


def test_one_pass_normalises_like_two() -> None:
    clips = make_clips()
    classifier = classifier_of(clips)
    stored = torch.from_numpy(clips.spectrograms), torch.from_numpy(clips.peak_db)
    one_pass = classifier.normalised(*stored)
    torch.testing.assert_close(one_pass, classifier.normalise(classifier.levels(*stored)), rtol=0, atol=1e-4)
    each_bin = torch.from_numpy(clips.peak_db).unsqueeze(1).expand(-1, clips.shape.bins)
    torch.testing.assert_close(classifier.normalised(stored[0], each_bin), one_pass)


def test_the_relaxed_normalisation_is_half_by_bin_and_half_by_all_bins(rng: np.random.Generator) -> None:
    x = rng.normal(rng.normal(size=(3, 16, 1)), rng.uniform(0.5, 2, (3, 16, 1)), (3, 16, 50))
    by_bin = (x - x.mean(axis=2, keepdims=True)) / (x.std(axis=2, keepdims=True) + 0.1)
    by_all = (x - x.mean(axis=(1, 2), keepdims=True)) / (x.std(axis=(1, 2), keepdims=True) + 0.01)
    result = relaxed_norm(torch.from_numpy(x).float()).numpy()
    np.testing.assert_allclose(result, (by_bin + by_all) / 2, rtol=0, atol=1e-5)


def test_the_relaxed_normalisation_removes_the_level_of_a_window() -> None:
    x = torch.randn(3, 16, 50)
    torch.testing.assert_close(relaxed_norm(x + 3), relaxed_norm(x), rtol=0, atol=1e-4)


@pytest.mark.parametrize("window_norm", [False, True])
def test_the_network_gets_what_the_card_states(window_norm: bool) -> None:
    clips = make_clips(tracks=9)
    classifier = Classifier(nn.Identity(), *statistics(clips), clips.shape.range_db, window_norm)
    levels = classifier.levels(torch.from_numpy(clips.spectrograms), torch.from_numpy(clips.peak_db))
    expected = classifier.normalise(levels)
    torch.testing.assert_close(classifier(levels)[:, 0], relaxed_norm(expected) if window_norm else expected)


def test_the_relaxed_normalisation_of_silence_is_zero() -> None:
    assert torch.equal(relaxed_norm(torch.full((2, 16, 50), -3.0)), torch.zeros(2, 16, 50))


def test_normalised_windows_do_not_depend_on_the_layout_of_clips() -> None:
    """Compare with clips (clips, bins, frames), cut and normalised by a few lines of their own, bit for bit."""
    clips = make_clips(tracks=5, per_track=2, frames=40)
    classifier = classifier_of(clips)
    old = np.ascontiguousarray(clips.spectrograms.transpose(0, 2, 1))
    rows, starts = np.array([9, 0, 4, 4]), np.array([24, 0, 7, 3])
    cut = torch.from_numpy(np.stack([old[row, :, start : start + 16] for row, start in zip(rows, starts, strict=True)]))
    batch = windows.cut(clips, rows, starts, 16)
    stored, peaks = torch.from_numpy(batch.spectrograms), torch.from_numpy(batch.peak_db)
    for peak_db in (peaks, peaks[:, None] + torch.linspace(-6, 6, 16)):
        floor = (peak_db - 80).reshape(len(rows), -1, 1)
        expected = cut.float().mul_(80 / 255 / classifier.std).add_((floor - classifier.mean) / classifier.std)
        result = classifier.normalised(stored, peak_db)
        assert torch.equal(result, expected)
        assert result.is_contiguous()
    levels = classifier.levels(stored, peaks)
    assert torch.equal(levels, cut.float() * (80 / 255) + (peaks - 80).reshape(-1, 1, 1))
    assert levels.is_contiguous()


@pytest.mark.parametrize("frames", [1, 33, 2000])
def test_statistics_are_those_of_clips_with_the_bins_first(frames: int) -> None:
    """Sums of bytes and of their squares are exact in any order, so that the normaliser is the same bit for bit."""
    clips = make_clips(tracks=5, frames=frames)
    total, squares, step = np.zeros(16), np.zeros(16), 80 / 255
    for spectrogram, peak in zip(clips.spectrograms, clips.peak_db, strict=True):
        values = np.ascontiguousarray(spectrogram.T).astype(np.float64)
        byte_mean, byte_square = values.mean(axis=1), np.vecdot(values, values) / frames
        mean = byte_mean * step + (float(peak) - 80)
        total += mean
        squares += (byte_square - byte_mean**2) * step**2 + mean**2
    deviation = np.sqrt(squares / 5 - (total / 5) ** 2)
    mean, std = statistics(clips)
    assert np.array_equal(mean, (total / 5).astype(np.float32))
    assert np.array_equal(std, deviation.astype(np.float32))


def test_the_probabilities_of_a_track_are_the_mean_over_its_windows() -> None:
    clips = make_clips(tracks=3, per_track=2, frames=40)
    classifier = classifier_of(clips)
    probabilities = predict(classifier, clips, 20, 3)
    levels = in_decibels(clips)[clips.track == 1]
    cut = np.concatenate([levels[:, :, start : start + 20] for start in (0, 10, 20)])
    with torch.inference_mode():
        expected = classifier(torch.from_numpy(cut.astype(np.float32))).softmax(dim=1).mean(dim=0)
    np.testing.assert_allclose(probabilities[1], expected, rtol=1e-5)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("world", [2, 3, 5])
def test_shards_add_up_exactly(world: int) -> None:
    clips = make_clips(tracks=17, per_track=2)
    classifier = classifier_of(clips)
    complete = predict(classifier, clips, 20, 3, 8)
    parts = [predict(classifier, clips, 20, 3, 8, Worker(rank, world)) for rank in range(world)]
    assert np.array_equal(sum(parts), complete)
    assert max((part > 0).any(axis=1).sum() for part in parts) < 17


def test_a_shard_may_be_empty() -> None:
    clips = make_clips(tracks=2)
    assert predict(classifier_of(clips), clips, 20, 3, 8, Worker(1, 2)).shape == (2, 0)


def test_the_batch_size_is_bounded() -> None:
    clips = make_clips(tracks=3, per_track=30)
    classifier = classifier_of(clips)
    predict(classifier, clips, 20, 3, 16)
    assert isinstance(classifier.network, Means)
    assert max(classifier.network.batches) <= 32


def test_clips_may_be_read_only() -> None:
    clips = make_clips()
    frozen = dataclasses.replace(
        clips, stored=np.frombuffer(clips.spectrograms.tobytes(), np.uint8).reshape(clips.spectrograms.shape)
    )
    assert not frozen.spectrograms.flags.writeable
    assert np.array_equal(predict(classifier_of(frozen), frozen, 20, 3), predict(classifier_of(clips), clips, 20, 3))


def test_embeddings_change_no_probability(tmp_path: Path) -> None:
    card, classifier = checkpoint.load(Location.of(save_model(tmp_path / "model")))
    clips = make_clips(tracks=7, frames=card.shape.frames, bins=card.shape.bins)
    probabilities, embeddings = predict_and_embed(classifier, clips, card.frames(), 2)
    np.testing.assert_array_equal(probabilities, predict(classifier, clips, card.frames(), 2))
    assert embeddings.shape == (7, classifier.head.in_features)
