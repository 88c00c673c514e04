"""The models whose tags a folder holds, kept in its models.json: others may not add to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from genre.config import fingerprint
from genre.errors import ArtifactError
from genre.model.saved_model import SavedEnsemble
from genre.storage import Location
from genre.tagging.tag_rows import SCHEMA


def reserve(folder: Location, ensemble: SavedEnsemble) -> None:
    """Reserve `folder` for these models. Raises `ArtifactError` when it holds tags of other models."""
    models = folder / "models.json"
    expected = _fingerprint(ensemble)
    if not models.exists():
        models.write_json({"fingerprint": expected, "models": ensemble.addresses})
    elif (owner := models.read_json()).get("fingerprint") != expected:
        raise ArtifactError(
            f"{folder} holds tags of {', '.join(owner.get('models', ['other models']))}, or of another "
            "version or calibration; choose another output for the tags of this model, or delete the folder"
        )


def genres_of(folder: Location, models: Sequence[Location] = ()) -> list[str]:
    """Return the genres of the models whose tags `folder` holds; `models` says where they are, if they were moved.

    Raises `ArtifactError` when there are no tags, or `models` are missing or others.
    """
    if not (folder / "models.json").exists():
        raise ArtifactError(f"{folder}: holds no tags; tag the collection first, with the same output")
    owner = (folder / "models.json").read_json()
    try:
        saved = SavedEnsemble.read(models or [Location.of(model) for model in owner["models"]], precision=0.0)
    except ArtifactError as error:
        raise ArtifactError(f"{error}; if the model of {folder} was moved, name its folder with model=") from None
    if owner["fingerprint"] != _fingerprint(saved):
        raise ArtifactError(
            f"{folder}: holds tags of other models, or of another version or calibration; name their models with "
            "model=, or tag again"
        )
    return saved.classes


def _fingerprint(ensemble: SavedEnsemble) -> str:
    """Return the fingerprint of the models, of their calibration by folds, and of the version of a table.

    Folds may calibrate a model after its tags were made; probabilities of another temperature do not fit thresholds.
    """
    deciding: dict[str, Any] = {"weights": ensemble.weights, "columns": SCHEMA.names}
    fitted = ensemble.calibration
    return fingerprint(deciding | ({"temperature": fitted.temperature} if fitted.folds else {}))
