"""The models whose tags a folder holds, kept in its models.json: others may replace them, and may not add to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from genre.config import fingerprint
from genre.errors import ArtifactError
from genre.model.saved_model import SavedEnsemble
from genre.storage import Location
from genre.tagging.tag_rows import SCHEMA

# what is made from the tags of a model; written.csv and undone.csv are not, because only they can restore files
_TABLES = (
    "tags.parquet", "tags.csv", "tags.jsonl", "timeline.parquet", "timeline.csv", "failures.csv", "parts",
    "ledger.parquet",
)  # fmt: skip


def reserve(folder: Location, ensemble: SavedEnsemble, replace: bool = False) -> None:
    """Reserve `folder` for these models.

    If it holds tags of other models, remove them with `replace`, else raise `ArtifactError`. The owner changes last: a
    process that is killed before has removed tags of the former one, and the next run removes the others.
    """
    models = folder / "models.json"
    if models.exists():
        owner = models.read_json()
        if owner.get("fingerprint") == _fingerprint(ensemble):
            return
        if not replace:
            raise ArtifactError(
                f"{folder} holds tags of {', '.join(owner.get('models', ['other models']))}, or of another version or "
                "calibration; to tag again with this model, set tag.replace=true, which keeps written.csv"
            )
        for name in _TABLES:
            (folder / name).delete()
    models.write_json({"fingerprint": _fingerprint(ensemble), "models": ensemble.addresses})


def is_replaced(folder: Location, ensemble: SavedEnsemble) -> bool:
    """Return whether `folder` holds tags of other models, which `reserve` would remove."""
    models = folder / "models.json"
    return models.exists() and models.read_json().get("fingerprint") != _fingerprint(ensemble)


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
            "model=, or tag again with tag.replace=true"
        )
    return saved.classes


def _fingerprint(ensemble: SavedEnsemble) -> str:
    """Return the fingerprint of the models, of their calibration by folds, and of the version of a table.

    Folds may calibrate a model after its tags were made; probabilities of another temperature do not fit thresholds.
    """
    deciding: dict[str, Any] = {"weights": ensemble.weights, "columns": SCHEMA.names}
    fitted = ensemble.calibration
    return fingerprint(deciding | ({"temperature": fitted.temperature} if fitted.folds else {}))
