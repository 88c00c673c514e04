"""Predictions of a saved model and their cost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from making import make_clips
from saving import save_model

from genre.evaluation import inference
from genre.features import Clips
from genre.model import checkpoint
from genre.storage import Location


@pytest.fixture
def model(tmp_path: Path) -> Location:
    return Location.of(save_model(tmp_path / "model"))


@pytest.fixture
def clips() -> Clips:
    return make_clips(tracks=6, bins=32, frames=87, per_track=2)


def test_costs_cover_one_clip_and_several_and_name_the_hardware(model: Location, clips: Clips) -> None:
    cost = inference.cost(model, clips)
    assert cost.clips_per_second > 0
    assert cost.latency_ms > 0
    card, classifier = checkpoint.load(model)
    assert cost.parameters == sum(parameter.numel() for parameter in classifier.parameters())
    assert cost.flops % card.eval_windows == 0
    assert "cores" in cost.hardware


def test_the_first_clips_are_one_of_each_track(clips: Clips) -> None:
    some = inference.first_clips(clips, 4)
    assert some.track.tolist() == [0, 1, 2, 3]
    assert some.track_ids.tolist() == clips.track_ids[:4].tolist()
    np.testing.assert_array_equal(some.spectrograms, clips.spectrograms[[0, 2, 4, 6]])
    assert len(inference.first_clips(clips, 99)) == 6
