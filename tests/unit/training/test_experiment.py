"""Advice on a training that takes few optimiser steps."""

from __future__ import annotations

import re
from pathlib import Path

from clip_features import write_features

from genre.features import windows
from genre.settings import TrainSettings
from genre.training import experiment


def test_the_advised_epochs_make_enough_steps_and_need_no_advice(tmp_path: Path) -> None:
    features = write_features(tmp_path / "features")
    settings = TrainSettings(epochs=3, batch_size=8, window_seconds=10)
    steps = windows.plan(features.clip_count("train"), 3, 8).steps
    advice = experiment.advice_on_steps(settings, features)
    assert advice.startswith(f"{3 * steps} optimiser steps in all")
    found = re.search(r"train\.epochs=(\d+) makes (\d+)", advice)
    assert found
    epochs, total = map(int, found.groups())
    assert total == epochs * steps
    assert total - steps < 1500 <= total
    assert not experiment.advice_on_steps(settings.model_copy(update={"epochs": epochs}), features)
