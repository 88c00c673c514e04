"""The classifier: decibels, normalisation, and the mean over the windows of a track."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from making import make_clips
from torch import nn

from genre import features
from genre.features import Clips
from genre.features.windows import Shard
from genre.model.classifier import Classifier, predict, statistics


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
    clips.spectrograms[:, 5] = 7
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
    parts = [predict(classifier, clips, 20, 3, 8, Shard(rank, world)) for rank in range(world)]
    assert np.array_equal(sum(parts), complete)
    assert max((part > 0).any(axis=1).sum() for part in parts) < 17


def test_a_shard_may_be_empty() -> None:
    clips = make_clips(tracks=2)
    assert predict(classifier_of(clips), clips, 20, 3, 8, Shard(1, 2)).shape == (2, 0)


def test_the_batch_size_is_bounded() -> None:
    clips = make_clips(tracks=3, per_track=30)
    classifier = classifier_of(clips)
    predict(classifier, clips, 20, 3, 16)
    assert isinstance(classifier.network, Means)
    assert max(classifier.network.batches) <= 32


def test_clips_may_be_read_only() -> None:
    clips = make_clips()
    frozen = dataclasses.replace(
        clips, spectrograms=np.frombuffer(clips.spectrograms.tobytes(), np.uint8).reshape(clips.spectrograms.shape)
    )
    assert not frozen.spectrograms.flags.writeable
    assert np.array_equal(predict(classifier_of(frozen), frozen, 20, 3), predict(classifier_of(clips), clips, 20, 3))
