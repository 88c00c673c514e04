"""Calibrated probabilities, and the thresholds below which the best genre is reported as "unknown".

A saved model may have `validation.parquet`: probabilities for tracks that were held out. A training writes its own for
the validation tracks, by which its epoch was chosen. After a search over folds they are those of the folds for all
tracks that are not test, and a cross-validation replaces them by those for all labelled tracks, each by a network that
was trained like the model and never saw the track's group. Temperature and thresholds are computed from these when the
model is loaded, so they always match the weights. They can be fitted for several models together, for any precision.

The calibrated quantity is the reported one: the mean of a track's probabilities over its windows. Its logarithm takes
the place of the logits in temperature scaling (Guo, Pleiss, Sun, Weinberger, "On calibration of modern neural
networks", ICML 2017, arXiv 1706.04599).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from genre.arrays import Float32, Float64, Ints
from genre.errors import ArtifactError
from genre.model import thresholds
from genre.model.card import CARD, read_card
from genre.storage import Location
from genre.wording import plural

FILE = "validation.parquet"
UNKNOWN = "unknown"  # in place of a genre whose probability is below its threshold

_SMALLEST = 1e-6  # smaller probabilities are raised to it, so that logarithms stay finite
_TEMPERATURES = (0.05, 20.0)  # the range that is searched
_HALVINGS = 50  # of this range
_PART = 256  # tracks; of more, temporary arrays would leave the cache of the processor


@dataclass(frozen=True)
class ValidationPredictions:
    """Probabilities for tracks by a model that did not learn from them, or by the networks of folds that did not."""

    tracks: Sequence[str]  # (tracks,) hashes of their names, which may be private
    labels: Ints  # (tracks,)
    probabilities: Float32  # (tracks, classes), not calibrated
    folds: int = 0  # that the tracks were divided into; 0: validation tracks of the training

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Calibration:
    """The temperature of a model's probabilities, and the thresholds from which its best genre is reported."""

    temperature: float = 1.0  # above 1 flattens, below 1 sharpens
    thresholds: tuple[float, ...] = ()  # calibrated probability, for each genre; empty: every genre is reported
    precision: float = 0.0  # that the thresholds were fitted for
    provable: float = 0.0  # where no genre reaches this precision, the highest that one does; else `precision`
    tracks: int = 0  # number that temperature and thresholds were fitted on; 0: not calibrated
    folds: int = 0  # that these tracks were divided into; 0: validation tracks

    @property
    def source(self) -> str:
        """What temperature and thresholds were fitted on, such as "40 validation tracks"."""
        if not self.folds:
            return plural(self.tracks, "validation track")
        return f"{plural(self.tracks, 'track')} of a {self.folds}-fold cross-validation"

    def __call__(self, probabilities: Float32) -> Float32:
        """Return calibrated probabilities of the same shape (..., classes)."""
        return scale(probabilities, self.temperature) if self.tracks else probabilities

    def without_thresholds(self) -> Calibration:
        """Return what the same predictions give for precision 0: every genre is reported."""
        return replace(self, thresholds=(), precision=0.0, provable=0.0)

    def reported(self, probabilities: Float32 | Float64) -> Ints:
        """Return the index of the best genre of calibrated probabilities (..., classes), -1 where it is unknown."""
        best: Ints = probabilities.argmax(axis=-1)
        if not self.thresholds:
            return best
        return np.where(probabilities.max(axis=-1) >= np.array(self.thresholds)[best], best, -1)


def fit(predictions: Sequence[ValidationPredictions | None], precision: float) -> Calibration:
    """Return the calibration of one model, or of the mean of several, with thresholds for `precision` (0: none).

    Several models are calibrated on the held-out tracks that they have in common. Without such tracks probabilities
    are not changed, and every genre is accepted.
    """
    known = [each for each in predictions if each is not None]
    if not known or len(known) < len(predictions):
        return Calibration(precision=precision)
    joint = known[0] if len(known) == 1 else _in_common(known)
    if not len(joint):
        return Calibration(precision=precision)
    temperature = fit_temperature(joint.probabilities, joint.labels)
    calibrated = np.concatenate([scale(joint.probabilities[part], temperature) for part in _parts(len(joint))])
    limits = thresholds.fit(calibrated, joint.labels, precision) if precision else ()
    is_never = bool(limits) and min(limits) > 1
    provable = thresholds.provable(calibrated, joint.labels, precision) if is_never else precision
    return Calibration(temperature, limits, precision, provable, len(joint), joint.folds)


def fit_temperature(probabilities: Float32, labels: Ints) -> float:
    """Return the temperature with the smallest negative log-likelihood of `labels` (tracks,).

    The loss is convex in the inverse of the temperature, so bisection finds the zero of its derivative. As in Platt
    scaling (1999) the target probability is slightly below 1, by one track in total: otherwise a model without errors
    on a small validation split would get the lowest temperature.
    """
    logits = _log(probabilities)
    tracks, classes = logits.shape

    def mean(value: Callable[[slice], Float64]) -> float:
        return float(np.concatenate([value(part) for part in _parts(tracks)]).mean())

    def expected(part: slice) -> Float64:
        target = np.full(logits[part].shape, 1 / (tracks + 2) / max(1, classes - 1))
        target[np.arange(len(target)), labels[part]] = 1 - 1 / (tracks + 2)
        return np.asarray((target * logits[part]).sum(axis=1))

    wanted = mean(expected)
    low, high = 1 / _TEMPERATURES[1], 1 / _TEMPERATURES[0]
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        mean_logit = mean(lambda part: (_softmax(middle * logits[part]) * logits[part]).sum(axis=1))  # noqa: B023
        low, high = (middle, high) if mean_logit < wanted else (low, middle)
    return float(2 / (low + high))


def scale(probabilities: Float32, temperature: float) -> Float32:
    """Return softmax(log(probabilities) / temperature) over the last axis."""
    return _softmax(_log(probabilities) / temperature).astype(np.float32)


def save(folder: Location, track_ids: Sequence[str], labels: Ints, probabilities: Float32, folds: int = 0) -> None:
    """Write the held-out predictions of the model saved in `folder`, with the hash of its weights.

    `labels` are (tracks,), `probabilities` (tracks, classes); `folds` is as in `ValidationPredictions`.
    """
    ids = hashed(track_ids)
    flat = pa.array(probabilities.astype(np.float32).ravel())
    rows = pa.FixedSizeListArray.from_arrays(flat, probabilities.shape[1]).cast(pa.list_(pa.float32()))
    table = pa.table({"track": ids, "label": pa.array(labels, pa.int64()), "probabilities": rows})
    _, weights = read_card(folder)
    (folder / FILE).write_table(table.replace_schema_metadata({"weights": weights, "folds": str(folds)}))


def hashed(track_ids: Sequence[str]) -> list[str]:
    """Return the hashes by which `ValidationPredictions` name tracks."""
    return [hashlib.sha256(track.encode()).hexdigest()[:16] for track in track_ids]


def load(folder: Location, weights: str, classes: int) -> ValidationPredictions | None:
    """Return the validation predictions of the model in `folder`; None when it has none.

    Raises `ArtifactError` when they do not belong to the weights with the SHA-256 `weights`, or are altered.
    """
    path = folder / FILE
    if not path.exists():
        return None
    with path.open_parquet() as reader:
        return of_table(reader.read(), weights, classes, str(path))


def of_table(table: pa.Table, weights: str, classes: int, source: str) -> ValidationPredictions:
    """Return the predictions in a `validation.parquet` that comes from `source`. Raises `ArtifactError` like `load`."""
    metadata = table.schema.metadata or {}
    if metadata.get(b"weights", b"").decode() != weights:
        raise ArtifactError(f"{source}: belongs to other weights than {CARD} lists; copy the complete folder again")
    try:
        # by DLPack: pyarrow's own conversion to numpy imports pandas, a tenth of the time of tagging one song
        labels = np.asarray(np.from_dlpack(table["label"].combine_chunks().cast(pa.int64())), np.int64)
        rows = table["probabilities"].combine_chunks().cast(pa.list_(pa.float32(), classes))
        probabilities = np.asarray(np.from_dlpack(rows.flatten()), np.float32).reshape(len(table), classes)
        folds = int(metadata.get(b"folds", b"0"))
        return ValidationPredictions(table["track"].to_pylist(), labels, probabilities, folds)
    except (KeyError, ValueError, pa.ArrowException) as error:
        raise ArtifactError(f"{source}: altered or truncated ({error}); copy the complete folder again") from None


def _in_common(predictions: Sequence[ValidationPredictions]) -> ValidationPredictions:
    """Return the mean predictions on the tracks that all models have in common."""
    shared = sorted(set(predictions[0].tracks).intersection(*(each.tracks for each in predictions[1:])))
    rows = []
    for each in predictions:
        index = {track: row for row, track in enumerate(each.tracks)}
        rows.append(np.array([index[track] for track in shared], np.int64))
    first = predictions[0]
    mean = np.mean([each.probabilities[row] for each, row in zip(predictions, rows, strict=True)], axis=0)
    folds = min(each.folds for each in predictions)
    return ValidationPredictions(shared, first.labels[rows[0]], mean.astype(np.float32), folds)


def _parts(tracks: int) -> Iterator[slice]:
    """Yield slices of some tracks each: what is computed of all at a time is many times as large as the predictions."""
    for begin in range(0, tracks, _PART):
        yield slice(begin, begin + _PART)


def _log(probabilities: Float32) -> Float64:
    logits = probabilities.astype(np.float64)
    return np.asarray(np.log(np.maximum(logits, _SMALLEST, out=logits), out=logits))


def _softmax(logits: Float64) -> Float64:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))
