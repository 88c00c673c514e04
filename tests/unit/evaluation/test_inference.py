"""The answers of a saved model and their costs."""

from __future__ import annotations

import numpy as np
import pytest
from making import make_clips
from saving import save_model

from genre.evaluation import inference
from genre.model import checkpoint
from genre.model.classifier import predict
from genre.storage import Location


@pytest.fixture
def model(tmp_path):
    return Location.of(save_model(tmp_path / "model"))


@pytest.fixture
def clips():
    return make_clips(tracks=6, bins=32, frames=87, per_track=2)


def test_answers_are_those_of_the_model(model, clips):
    card, probabilities = inference.answers(model, clips)
    _, classifier = checkpoint.load(model)
    np.testing.assert_array_equal(probabilities, predict(classifier, clips, card.frames(), card.eval_windows))


def test_costs_are_of_one_clip_and_of_several_and_name_where_they_were_measured(model, clips):
    cost = inference.cost(model, clips)
    assert cost.clips_per_second > 0
    assert cost.latency_ms > 0
    card, classifier = checkpoint.load(model)
    assert cost.parameters == sum(parameter.numel() for parameter in classifier.parameters())
    assert cost.flops % card.eval_windows == 0
    assert "cores" in cost.hardware


def test_the_first_clips_are_one_of_each_track(clips):
    some = inference.first(clips, 4)
    assert some.track.tolist() == [0, 1, 2, 3]
    assert some.track_ids.tolist() == clips.track_ids[:4].tolist()
    np.testing.assert_array_equal(some.spectrograms, clips.spectrograms[[0, 2, 4, 6]])
    assert len(inference.first(clips, 99)) == 6
