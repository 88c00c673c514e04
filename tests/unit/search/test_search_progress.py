"""The states that the progress of a search counts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from genre.storage import Location
from ray_jobs.search.progress import SearchProgress
from ray_jobs.search.slots import Slot
from ray_jobs.search.trial_folder import Ended, Record


@pytest.mark.parametrize(
    ("ended", "epochs", "state"),
    [
        ("finished", 9, "1 done"),
        ("finished", 4, "1 ended early"),  # by train.patience
        ("stopped", 4, "1 stopped"),
        ("failed", 4, "1 failed"),
    ],
)
@pytest.mark.parametrize("is_resumed", [False, True])
def test_a_trial_is_counted_by_how_it_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], ended: Ended, epochs: int, state: str, is_resumed: bool
) -> None:
    slot = Slot("cnn", 0, 9, Location.of(tmp_path))
    slot.folder.write(Record({}, [(epochs, 0.5)], ended=ended))
    slots = [slot.read()]
    progress = SearchProgress("search", slots, [] if is_resumed else slots, concurrent=1)
    progress.setup()
    trials: list[Any] = []
    if not is_resumed:
        report = {"epoch": epochs, "best_f1": 0.5}
        trial = SimpleNamespace(
            config=slot.spec({}).to_config(),
            status="TERMINATED",
            run_metadata=SimpleNamespace(last_result=report),
            is_finished=lambda: True,
        )
        trials.append(trial)
        progress.on_trial_complete(1, trials, trial)
    progress.on_experiment_end(trials)
    assert f"search: {state}, " in capsys.readouterr().err
