"""Probabilities that mean what they say, and the level below which a model should rather say "unknown".

A saved model carries `validation.parquet`: its answers on the validation tracks, which it was not trained on.
What follows from them (temperature, threshold) is computed when the model is loaded, so that it can never
disagree with the weights, can be fitted for several models together, and for any precision one asks for.

What is calibrated is what is reported: the mean of a track's probabilities over its windows. Its logarithm takes
the place of the logits in temperature scaling (Guo, Pleiss, Sun, Weinberger, "On calibration of modern neural
networks", ICML 2017, arXiv 1706.04599).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from genre.errors import ArtifactError
from genre.features import Float32
from genre.storage import Location

FILE = "validation.parquet"
UNKNOWN = "unknown"  # in place of a genre that is not believed
Labels = npt.NDArray[np.int64]

_SMALLEST = 1e-6  # a probability below it is taken for this: logarithms stay finite
_TEMPERATURES = (0.05, 20.0)
_HALVINGS = 50


@dataclass(frozen=True)
class Answers:
    """What a model said of its validation tracks."""

    tracks: npt.NDArray[np.str_]  # (tracks,) hashes of their names, which may be private
    labels: Labels  # (tracks,)
    probabilities: Float32  # (tracks, classes), not calibrated

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Calibration:
    """How a model's probabilities are corrected, and from where on its best genre is believed."""

    temperature: float = 1.0  # above 1 flattens, below 1 sharpens
    threshold: float = 0.0  # of the calibrated probability; above 1: nothing reached the precision
    precision: float = 0.0  # asked for
    tracks: int = 0  # that all this was learned from; 0: nothing was

    def __call__(self, probabilities: Float32) -> Float32:
        """Calibrated probabilities of the same shape (..., classes)."""
        return scale(probabilities, self.temperature) if self.tracks else probabilities

    def believes(self, probability: float) -> bool:
        """Whether a best genre of this calibrated probability may be named."""
        return probability >= self.threshold


def fit(answers: Sequence[Answers | None], precision: float) -> Calibration:
    """The calibration of one model, or of the mean of several, with a threshold for `precision` (0: none).

    Of several models only the tracks count that all were validated on: none of them was trained on those.
    Without any such track probabilities stay as they are, and every genre is believed.
    """
    known = [one for one in answers if one is not None]
    if not known or len(known) < len(answers):
        return Calibration(precision=precision)
    joint = known[0] if len(known) == 1 else _in_common(known)
    if not len(joint):
        return Calibration(precision=precision)
    temperature = fit_temperature(joint.probabilities, joint.labels)
    calibrated = scale(joint.probabilities, temperature)
    threshold = threshold_for_precision(calibrated, joint.labels, precision) if precision else 0.0
    return Calibration(temperature, threshold, precision, len(joint))


def fit_temperature(probabilities: Float32, labels: Labels) -> float:
    """The temperature with the smallest negative log-likelihood of `labels` (tracks,).

    One over the temperature enters the loss convexly, so the zero of its derivative is the answer. As in Platt
    scaling (1999) the target is a little less than certain, by one track in all: a model that made no mistake
    on a small validation split is not made infinitely sure of itself.
    """
    logits = _log(probabilities)
    tracks, classes = logits.shape
    target = np.full((tracks, classes), 1 / (tracks + 2) / max(1, classes - 1))
    target[np.arange(tracks), labels] = 1 - 1 / (tracks + 2)
    wanted = (target * logits).sum(axis=1).mean()
    low, high = 1 / _TEMPERATURES[1], 1 / _TEMPERATURES[0]
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        slope = (_softmax(middle * logits) * logits).sum(axis=1).mean() - wanted
        low, high = (middle, high) if slope < 0 else (low, middle)
    return float(2 / (low + high))


def threshold_for_precision(probabilities: Float32, labels: Labels, precision: float) -> float:
    """The smallest level of the best genre's probability from which on `precision` of the answers are right.

    Above 1 when no level is enough. It is an estimate from as many tracks as there are, not a guarantee.
    """
    best = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    order = np.argsort(-best, kind="stable")
    levels, hits = best[order], np.cumsum(right[order])
    shares = hits / np.arange(1, len(levels) + 1)
    # equally sure answers are named together or not at all
    whole = np.append(levels[:-1] != levels[1:], True)
    enough = np.flatnonzero(whole & (shares >= precision))
    return float(levels[enough[-1]]) if len(enough) else float(np.nextafter(np.float32(1), np.float32(2)))


def scale(probabilities: Float32, temperature: float) -> Float32:
    """softmax(log(probabilities) / temperature) over the last axis."""
    return _softmax(_log(probabilities) / temperature).astype(np.float32)


def save(folder: Location, track_ids: Sequence[str], labels: Labels, probabilities: Float32) -> None:
    """Write the answers of the model that was just saved in `folder`, bound to its weights."""
    ids = [hashlib.sha256(track.encode()).hexdigest()[:16] for track in track_ids]
    rows = pa.array(probabilities.astype(np.float32).tolist(), pa.list_(pa.float32()))
    table = pa.table({"track": ids, "label": pa.array(labels, pa.int64()), "probabilities": rows})
    (folder / FILE).write_table(table.replace_schema_metadata({"weights": _weights(folder)}))


def load(folder: Location, classes: int) -> Answers | None:
    """The answers saved with a model, or None when it has none. Raises `ArtifactError` when they are another's."""
    path = folder / FILE
    if not path.exists():
        return None
    with path.open_parquet() as reader:
        return of_table(reader.read(), _weights(folder), classes, str(path))


def of_table(table: pa.Table, weights: str, classes: int, source: str) -> Answers:
    """The answers in a `validation.parquet` that came from `source`. Raises `ArtifactError` like `load`."""
    if (table.schema.metadata or {}).get(b"weights", b"").decode() != weights:
        raise ArtifactError(f"{source}: not of the weights that model.json lists; copy the whole folder again")
    try:
        # through lists: pyarrow's own way to numpy imports pandas, a tenth of the time of answering one song
        labels = np.array(table["label"].to_pylist(), np.int64)
        probabilities = np.array(table["probabilities"].to_pylist(), np.float32).reshape(len(table), classes)
        return Answers(np.array(table["track"].to_pylist(), np.str_), labels, probabilities)
    except (KeyError, ValueError) as error:
        raise ArtifactError(f"{source}: altered or cut ({error}); copy the whole folder again") from None


def _weights(folder: Location) -> str:
    """The SHA-256 of the weights that the model in `folder` lists."""
    return str((folder / "model.json").read_json()["weights"])


def _in_common(answers: Sequence[Answers]) -> Answers:
    """The mean answers on the tracks that all of them hold."""
    shared = set(answers[0].tracks.tolist()).intersection(*(one.tracks.tolist() for one in answers[1:]))
    rows = []
    for one in answers:
        index = {track: row for row, track in enumerate(one.tracks.tolist())}
        rows.append(np.array([index[track] for track in sorted(shared)], np.int64))
    first = answers[0]
    mean = np.mean([one.probabilities[row] for one, row in zip(answers, rows, strict=True)], axis=0)
    return Answers(first.tracks[rows[0]], first.labels[rows[0]], mean.astype(np.float32))


def _log(probabilities: Float32) -> npt.NDArray[np.float64]:
    return np.log(np.maximum(probabilities.astype(np.float64), _SMALLEST))


def _softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))
