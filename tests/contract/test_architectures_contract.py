"""The contract of every architecture. A new one may add settings of a small network to `making.SMALL_MODELS`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from making import SMALL_MODELS
from saving import RATE, save_model

from genre import Tagger, architectures
from genre.testing import ARCHITECTURE_CHECKS

every_architecture = pytest.mark.parametrize("name", architectures.names())


@every_architecture
@pytest.mark.parametrize("check", ARCHITECTURE_CHECKS, ids=lambda check: check.__name__)
def test_an_architecture_keeps_the_contract(name: str, check: Callable[[str, dict[str, Any]], None]) -> None:
    check(name, SMALL_MODELS.get(name, {}))


@every_architecture
def test_a_track_has_an_embedding_of_norm_one(name: str, tmp_path: Path) -> None:
    tagger = Tagger.load(save_model(tmp_path, name))
    waves = [np.random.default_rng(seed).normal(0, 0.1, 3 * RATE).astype(np.float32) for seed in range(2)]
    tags = tagger.tag_arrays(waves, RATE)
    for track, wave in zip(tags, waves, strict=True):
        assert track.embedding is not None
        assert track.embedding.dtype == np.float16
        assert np.linalg.norm(track.embedding.astype(np.float32)) == pytest.approx(1, abs=1e-3)
        (single,) = tagger.tag_arrays([wave], RATE)
        assert single.embedding == pytest.approx(track.embedding, abs=2e-3)
