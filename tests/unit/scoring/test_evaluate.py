"""Which models `evaluate` refuses to score on validation tracks, and which clips on any."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from clip_features import write_features
from grouped import write_grouped
from saving import save_model

from genre.config import load
from genre.errors import ArtifactError, ConfigError
from genre.features import Features
from genre.model.card import read_card, write_card
from genre.model.saved_model import SavedModel
from genre.storage import Location
from ray_jobs import evaluate


def check(model: Location, features: Features, *settings: str) -> None:
    """Check the model as `evaluate.split=valid` does."""
    config = load(overrides=["evaluate.split=valid", *settings])
    evaluate._check_unseen(config, SavedModel.read(model), features)


@pytest.mark.parametrize("is_calibrated", [True, False])
def test_without_held_out_tracks_a_model_is_taken_for_one_of_the_features_of_the_output(
    tmp_path: Path, is_calibrated: bool
) -> None:
    """A final model of a search that finished no fold is not calibrated, so its tracks cannot be compared."""
    features = write_grouped(tmp_path / "features")
    model = Location.of(save_model(tmp_path / "model", answers=is_calibrated))  # by tracks of other names
    card, weights = read_card(model)
    check(model, features)
    write_card(model, replace(card, facts={"trained_on": ["train", "valid"]}), weights)
    with pytest.raises(ConfigError, match="learned from the validation tracks as well"):
        check(model, features)
    check(model, features, f"evaluate.features={features.folder}")
    if is_calibrated:
        check(model, features, f"model={model}")
    else:
        with pytest.raises(ConfigError, match="learned from the validation tracks as well"):
            check(model, features, f"model={model}")


def test_a_clip_without_a_level_is_named_before_anything_is_judged(tmp_path: Path) -> None:
    features = write_features(tmp_path / "features")
    for file in (tmp_path / "features/clips").iterdir():
        rows = pq.read_table(file)
        is_bad = pc.equal(rows["track_id"], "track05")  # of the test split
        peaks = pc.if_else(is_bad, pa.scalar(float("nan"), pa.float32()), rows["peak_db"])
        pq.write_table(rows.set_column(rows.schema.get_field_index("peak_db"), "peak_db", peaks), file)
    with pytest.raises(ArtifactError, match="peak_db holds NaN or nulls, first in track 'track05'"):
        evaluate._score(load(overrides=[f"output={tmp_path}"]), features, [])
