"""What a saved model says about itself, read without torch and without its weights.

A model is a folder (`genre/model/checkpoint.py`), or one `.onnx` file that `export` made from such a folder and that
carries its `model.json` and `validation.parquet` (`genre/model/exported.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from genre import architectures
from genre.config import differences
from genre.errors import ArtifactError
from genre.features import Shape
from genre.model import calibration
from genre.model.calibration import Answers
from genre.storage import Location

SCHEMA_VERSION = 1
CARD = "model.json"
SUFFIX = ".onnx"


@dataclass(frozen=True)
class ModelCard:
    """What a saved model knows about itself."""

    architecture: str
    params: dict[str, Any]
    classes: list[str]
    features: dict[str, Any]  # the settings of the features it was trained on, as in their manifest
    fingerprint: str  # of those settings
    shape: Shape
    window_seconds: float
    eval_windows: int
    facts: dict[str, Any] = field(default_factory=dict)  # scores, seed, versions: for people, never for decisions

    def frames(self) -> int:
        """Frames of a window."""
        return self.shape.frames_in(self.window_seconds)

    @property
    def label(self) -> str:
        """The name of its folder and of its row: the architecture, and what it started from unless from scratch."""
        return architectures.label(self.architecture, self.params)


@dataclass(frozen=True)
class SavedModel:
    """A saved model without its weights."""

    place: Location
    card: ModelCard
    weights: str  # SHA-256 of weights.safetensors; an exported file has that of the model it was made from
    answers: Answers | None  # on the validation tracks

    @property
    def is_exported(self) -> bool:
        return is_exported(self.place)


def is_exported(place: Location) -> bool:
    """Return whether this is the address of an exported file, not of a model's folder."""
    return place.name.lower().endswith(SUFFIX)


def read(place: Location) -> SavedModel:
    """Read what the model at `place` says about itself.

    Raises `ArtifactError` when it is missing, altered or from another version.
    """
    if is_exported(place):
        from genre.model import exported

        return exported.read(place)
    card, weights = read_card(place)
    return SavedModel(place, card, weights, calibration.load(place, len(card.classes)))


def read_together(places: Sequence[Location]) -> list[SavedModel]:
    """Like `read` for models that answer together. Raises `ArtifactError` when they do not fit each other."""
    found: list[SavedModel] = []
    for place in places:
        found.append(read(place))
        _check_fits(found[0], found[-1])
    return found


def read_card(folder: Location) -> tuple[ModelCard, str]:
    """Return what `model.json` holds: the card, and the SHA-256 of the weights. Raises `ArtifactError`."""
    if is_exported(folder):
        raise ArtifactError(f"{folder}: an exported file, where a model's folder is needed; name the folder")
    path = folder / CARD
    if not path.exists():
        raise ArtifactError(
            f"{folder}: no model here (model.json is missing); train one, or point model= at its folder"
        )
    return parse_card(path.read_json(), str(path))


def parse_card(content: Any, source: str) -> tuple[ModelCard, str]:
    """Like `read_card`, of the content of a `model.json` that came from `source`."""
    stage, version = (content.get(key) if isinstance(content, dict) else None for key in ("stage", "schema_version"))
    if stage != "model" or version != SCHEMA_VERSION:
        raise ArtifactError(
            f"{source}: holds {stage} version {version}, not a model of version {SCHEMA_VERSION}; train it again"
        )
    try:
        fields = {name: content[name] for name in ModelCard.__dataclass_fields__}
        return ModelCard(**fields | {"shape": Shape(**fields["shape"])}), content["weights"]
    except (KeyError, TypeError) as error:
        raise ArtifactError(f"{source}: a field is missing or altered ({error}); train the model again") from None


def _check_fits(first: SavedModel, other: SavedModel) -> None:
    """Models that answer together must mean the same by their inputs and outputs."""
    if other.is_exported != first.is_exported:
        raise ArtifactError(
            f"{other.place} and {first.place}: a folder and an exported file do not answer together; name two of a kind"
        )
    if other.card.classes != first.card.classes:
        raise ArtifactError(
            f"{other.place} knows the genres {', '.join(other.card.classes)}, {first.place} "
            f"{', '.join(first.card.classes)}; only models of the same genres answer together"
        )
    if other.card.fingerprint != first.card.fingerprint:
        changes = differences(first.card.features, other.card.features)
        raise ArtifactError(
            f"{other.place} takes other features than {first.place}: {next(iter(changes), 'made by another version')}; "
            "only models of the same features answer together"
        )
