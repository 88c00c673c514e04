"""What the log of a trial reports to Tune, whose scheduler compares trials by epochs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray import tune

from genre.storage import Location
from ray_jobs.search.trial import Log
from ray_jobs.search.trial_folder import FoldResult, Record, TrialFolder


@pytest.mark.parametrize(
    ("fold", "later", "reported"),
    [(0, 0, {"epoch": 2}), (1, 0, {"epoch": 2}), (2, 4, {"epoch": 4, "fold": 2})],
)
def test_a_failure_is_reported_at_the_epoch_of_its_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fold: int, later: int, reported: dict[str, Any]
) -> None:
    """A final training (`fold` 0) also fails at its own epoch, whatever the folds of the trial that it repeats."""
    reports: list[dict[str, Any]] = []
    monkeypatch.setattr(tune, "report", reports.append)
    finished = {0: [FoldResult(0.5, 3, 6), FoldResult(0.5, 4, 7)], 1: [], 2: [FoldResult(0.5, 1, 2)]}[fold]
    epochs = [SimpleNamespace(epoch=epoch, best_f1=0.5) for epoch in (1, 2)]
    log = Log(TrialFolder(Location.of(tmp_path)), Record({}, folds=finished).started())
    log.resume(SimpleNamespace(history=epochs), min(fold, 1))  # type: ignore[arg-type]
    if later:
        log.resume(SimpleNamespace(history=[SimpleNamespace(epoch=later, best_f1=0.5)]), fold)  # type: ignore[arg-type]
    log.fail("nan")
    assert reports == [reported | {"best_f1": 0.5, "failure": "nan", "trial_seconds": log.record.seconds}]
