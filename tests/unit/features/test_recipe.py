"""Tests of the recipe of features and the shape that follows from it."""

from __future__ import annotations

import pyarrow as pa

from genre.features import Shape
from genre.features.recipe import FRONT_END_VERSION, Recipe
from genre.settings import Config


def test_stored_width_follows_from_the_shape() -> None:
    shape = Shape(bins=4, frames=6, range_db=80.0, frame_seconds=0.1)
    assert shape.clip_schema().field("spectrogram").type == pa.binary(24)
    assert Config().spectrogram.range_db == 80.0


def test_recipe_comes_from_the_settings_of_a_manifest_unless_clips_are_precomputed() -> None:
    recipe = Recipe.of(Config())
    assert Recipe.from_settings(recipe.settings(), recipe.decoding) == recipe
    assert Recipe.from_settings({"made by": "somebody"}) is None


def test_fingerprint_depends_on_the_settings_of_the_bytes_and_the_version_alone() -> None:
    config = Config()
    recipe = Recipe.of(config)
    other_limits = recipe.model_copy(update={"decoding": config.decoding.model_copy(update={"file_timeout_s": 1.0})})
    other_bins = recipe.model_copy(update={"spectrogram": config.spectrogram.model_copy(update={"n_mels": 64})})
    assert other_limits.fingerprint() == recipe.fingerprint()
    assert other_limits.limits() != recipe.limits()
    assert other_bins.fingerprint() != recipe.fingerprint()
    assert recipe.fingerprint(FRONT_END_VERSION - 1) != recipe.fingerprint()
