from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from genre.storage import Location
from genre.training import trainer_state


def test_a_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    state: dict[str, Any] = {"x": {"y": torch.arange(3)}, "n": [1, None, "z"], "f": 0.5}
    trainer_state.save(Location.of(tmp_path) / "state.pt", state)
    loaded = trainer_state.load(Location.of(tmp_path) / "state.pt")
    assert torch.equal(loaded.pop("x")["y"], state.pop("x")["y"])
    assert loaded == state


def test_a_state_that_would_execute_code_is_refused(tmp_path: Path) -> None:
    torch.save({"x": np.random.default_rng}, tmp_path / "state.pt")
    with pytest.raises(Exception, match=r"[Uu]nsupported|weights_only"):
        trainer_state.load(Location.of(tmp_path) / "state.pt")
