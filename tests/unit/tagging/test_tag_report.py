"""What the tag job says about its thresholds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from saving import CLASSES, save_model

from genre.model import thresholds
from genre.model.calibration import Calibration
from genre.model.saved_model import SavedEnsemble
from genre.storage import Location
from ray_jobs.tagging import tag_report


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [
        (0.0, "; every file gets a genre, and at least 80% of them are correct (90 % confidence)\n"),
        (
            0.45,
            "; a probability below 0.45 is reported as unknown, "
            "so that at least 80% of the genres of the other files are correct",
        ),
    ],
)
def test_a_threshold_of_zero_is_not_named(
    threshold: float, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ensemble = SavedEnsemble.read([Location.of(save_model(tmp_path))], 0.8)
    calibration = Calibration(1.0, (threshold,) * len(CLASSES), 0.8, tracks=50)
    tag_report.show_start(replace(ensemble, calibration=calibration), files=1, pending=1)
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
    ("provable", "expected"),
    [
        (0.35, "so every file is unknown: min_precision=0.35 names some, min_precision=0 names all without a promise"),
        (0.0, "so every file is unknown: no lower one is proven either, min_precision=0 names all without a promise"),
    ],
)
def test_where_every_file_is_unknown_the_way_out_is_a_number(
    provable: float, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ensemble = SavedEnsemble.read([Location.of(save_model(tmp_path))], 0.8)
    calibration = Calibration(1.0, (thresholds.NEVER,) * len(CLASSES), 0.8, provable, tracks=50)
    tag_report.show_start(replace(ensemble, calibration=calibration), files=1, pending=1)
    assert expected in capsys.readouterr().err
