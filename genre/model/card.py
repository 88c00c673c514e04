"""`model.json`, the card of a saved model. No other module interprets or writes that file's content.

    model.json     architecture, parameters, classes, feature settings, windows, facts, SHA-256 of the weights

An exported file carries the same content in its metadata (`genre/model/onnx_file.py`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import ValidationError

from genre import architectures
from genre.errors import ArtifactError
from genre.features import Shape
from genre.features.recipe import FRONT_END_VERSION, Recipe
from genre.settings import DecodingSettings
from genre.storage import Location

CARD = "model.json"
SCHEMA_VERSION = 1
_EXPORTED = ".onnx"


@dataclass(frozen=True)
class ModelCard:
    """What a saved model is: its network, its genres, and the features that it takes."""

    architecture: str
    params: dict[str, Any]
    classes: list[str]
    features: dict[str, Any]  # the settings of the features it was trained on, as in their manifest
    fingerprint: str  # of those settings
    shape: Shape
    window_seconds: float
    eval_windows: int
    window_norm: bool = False  # see `classifier.relaxed_norm`
    facts: dict[str, Any] = field(default_factory=dict)  # how it was trained: scores, seed, time, settings

    @property
    def is_body(self) -> bool:
        """Whether `pretrain` made it: a body without genres, to start training from."""
        return not self.classes

    def frames(self) -> int:
        """Return the number of frames in a window."""
        return self.shape.frames_in(self.window_seconds)

    @property
    def name(self) -> str:
        """The name of its folder and of its row in reports: `architectures.model_name`, for a student with a suffix."""
        return architectures.model_name(self.architecture, self.params) + ("-student" if self.teacher else "")

    @property
    def teacher(self) -> str:
        """The model that predicted genres for its training, "" for none."""
        return str(self.facts.get("teacher", ""))

    @property
    def trained_on(self) -> tuple[str, ...]:
        """The splits whose tracks it learned from."""
        return tuple(self.facts.get("trained_on", ("train",)))

    def recipe(self, limits: DecodingSettings = DecodingSettings()) -> Recipe:
        """Return the settings with which audio becomes the features that the model was trained on.

        Raises `ArtifactError` when the model was trained on precomputed spectrograms, or when the settings do not match
        the card's fingerprint and shape: predictions on other features would be wrong.
        """
        try:
            recipe = Recipe.from_settings(self.features, limits)
        except (KeyError, TypeError, ValidationError):
            raise _altered("a setting is missing or out of range") from None
        if recipe is None:
            raise ArtifactError(
                "the model was trained on precomputed spectrograms, so it cannot take audio; "
                "train one on features that prepare made"
            )
        known = {recipe.fingerprint(version) for version in range(1, FRONT_END_VERSION + 1)}
        if recipe.shape() != self.shape:
            raise _altered(f"they give {recipe.shape()}, its weights take {self.shape}")
        if self.fingerprint not in known:
            raise _altered("their fingerprint is another one")
        return recipe


def is_exported(location: Location) -> bool:
    """Return whether `location` names an exported file, not a model's folder."""
    return location.name.lower().endswith(_EXPORTED)


def read_card(folder: Location, may_be_body: bool = False) -> tuple[ModelCard, str]:
    """Return the card of the model in `folder`, and the SHA-256 of its weights.

    Raises `ArtifactError` when the card is missing, altered or of another version, or belongs to a body and not to a
    model, unless `may_be_body`.
    """
    if is_exported(folder):
        raise ArtifactError(f"{folder}: an exported file, where a model's folder is needed; name the folder")
    path = folder / CARD
    if not path.exists():
        raise ArtifactError(f"{folder}: no model here ({CARD} is missing); train one, or point model= at its folder")
    card, weights = parse_card(path.read_json(), str(path))
    if card.is_body and not may_be_body:
        raise ArtifactError(
            f"{folder}: a body that learned without labels, so it names no genres; train a model from it with "
            f"init_from={folder}"
        )
    return card, weights


def weights_of(folder: Location) -> str | None:
    """Return the SHA-256 that the card in `folder` states for its weights; None if there is no card."""
    path = folder / CARD
    return str(path.read_json()["weights"]) if path.exists() else None


def seeds_of(model: Location) -> list[Location]:
    """Return the models of all seeds that `tune` saved below the folder of the one that it chose."""
    return model.folders("seed-")


def parse_card(content: Any, source: str) -> tuple[ModelCard, str]:
    """Like `read_card`, for the content of a `model.json` that comes from `source`."""
    stage, version = (content.get(key) if isinstance(content, dict) else None for key in ("stage", "schema_version"))
    if stage != "model" or version != SCHEMA_VERSION:
        raise ArtifactError(
            f"{source}: holds {stage} version {version}, not a model of version {SCHEMA_VERSION}; train it again"
        )
    try:
        known = {"window_norm": False} | content  # which earlier versions did not write
        fields = {name: known[name] for name in ModelCard.__dataclass_fields__}
        return ModelCard(**fields | {"shape": Shape(**fields["shape"])}), content["weights"]
    except (KeyError, TypeError) as error:
        raise ArtifactError(f"{source}: a field is missing or altered ({error}); train the model again") from None


def write_card(folder: Location, card: ModelCard, weights: str) -> None:
    """Write the card of the model in `folder`, whose weights have the SHA-256 `weights`."""
    content = {"stage": "model", "schema_version": SCHEMA_VERSION, "weights": weights}
    (folder / CARD).write_json(content | asdict(card))


def has_card(folder: Location) -> bool:
    """Return whether `folder` holds a complete model: the card is written last."""
    return (folder / CARD).exists()


def _altered(fault: str) -> ArtifactError:
    return ArtifactError(
        f"the feature settings in {CARD} do not fit the model ({fault}); "
        "the file was altered or is from a newer version; copy the complete model again"
    )
