"""The classical baseline: a support vector machine on statistics of each track (`track_statistics`).

Up to `EXACT_TRACKS` training tracks it is scikit-learn's SVC with an RBF kernel, whose time grows with the square of
the tracks. With more, the same kernel is approximated by the Nystroem method (Williams and Seeger, NIPS 2001), and a
linear machine is fitted by least squares (Suykens and Vandewalle, "Least squares support vector machine classifiers",
Neural Processing Letters 9, 1999): two passes over the tracks, one for the scaler, give the machines of all penalties,
and memory holds a batch. The penalty C is chosen on the validation split, like the best epoch of a network, by its mean
over folds, or in a cross-validation by two halves of the tracks that the machine of a fold learns from.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from sklearn.kernel_approximation import Nystroem
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from genre.arrays import Bools, Float32, Float64, Ints
from genre.evaluation import metrics
from genre.evaluation.track_statistics import MFCCS

EXACT_TRACKS = 20_000
_PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0)
_UNCHOSEN = 3.0  # the penalty where nothing can choose it
_COMPONENTS = 1000  # of the Nystroem approximation
_LANDMARK_TRACKS = 20_000  # at most; the components are drawn from them
_BATCH = 4096  # tracks


class Machine(Protocol):
    """A fitted classifier. `classes_` are the labels of its columns, those that it learned from."""

    classes_: Ints

    def decision_function(self, statistics: Float32) -> Float64: ...

    def predict(self, statistics: Float32) -> Ints: ...


@dataclass(frozen=True)
class Baseline:
    """A fitted baseline and its macro F1 on the validation split, or the mean over folds; NaN: its penalty is fixed."""

    machine: Machine
    name: str  # of its row in the report
    settings: dict[str, Any]
    classes: int
    valid_f1: float
    train_seconds: float

    def predict(self, statistics: Float32) -> Float32:
        """Return the softmax of the one-against-rest scores, (tracks, classes): a ranking, not calibrated."""
        scores = self.machine.decision_function(statistics)
        if scores.ndim == 1:  # two classes
            scores = np.stack([-scores, scores], axis=1)
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        full = np.zeros((len(shares), self.classes), dtype=np.float32)
        full[:, self.machine.classes_] = shares / shares.sum(axis=1, keepdims=True)
        return full


@dataclass(frozen=True)
class LabelledStatistics:
    """The statistics (tracks, statistics) and labels (tracks,) of the tracks of a split."""

    statistics: Float32
    labels: Ints

    def take(self, rows: Bools) -> LabelledStatistics:
        """Return the tracks for which `rows`, (tracks,), is true."""
        return LabelledStatistics(self.statistics[rows], self.labels[rows])


Machines = Callable[[LabelledStatistics, bool, Sequence[float]], Iterator[Machine]]


def fit(train: LabelledStatistics, valid: LabelledStatistics, classes: int, class_weights: bool) -> Baseline:
    """Fit on the training split with the penalty that has the best macro F1 on the validation split.

    `class_weights` weights errors by inverse class frequency, as `train.class_weights` does for the networks.
    """
    started, machines = time.perf_counter(), _machines_for(train)
    fitted = zip(_PENALTIES, machines(train, class_weights, _PENALTIES), strict=True)
    scored = ((_macro_f1(machine, valid, classes), penalty, machine) for penalty, machine in fitted)
    score, penalty, machine = max(scored, key=lambda each: each[0])  # of equal scores the first
    return _baseline(machines, machine, penalty, classes, score, started)


def fit_over_folds(tracks: LabelledStatistics, fold: Ints, classes: int, class_weights: bool) -> Baseline:
    """Fit on all `tracks` with the penalty that has the best mean macro F1 over folds, by machines of the other folds.

    `fold` is (tracks,), the number of the fold that holds out each track; `class_weights` is as in `fit`.
    """
    started, machines = time.perf_counter(), _machines_for(tracks)
    scores = np.mean(
        [
            [
                _macro_f1(machine, tracks.take(fold == number), classes)
                for machine in machines(tracks.take(fold != number), class_weights, _PENALTIES)
            ]
            for number in np.unique(fold)
        ],
        axis=0,
    )
    penalty = _PENALTIES[scores.argmax()]
    (machine,) = machines(tracks, class_weights, [penalty])
    return _baseline(machines, machine, penalty, classes, float(scores.max()), started)


def fit_for_fold(tracks: LabelledStatistics, fold: Ints, number: int, classes: int, class_weights: bool) -> Baseline:
    """Fit on the tracks of all folds but `number`, (tracks,), which judge nothing that is chosen here.

    The penalty is chosen by `fit_over_folds` over two halves of the other folds. It is a constant where these are one
    fold, or a half of them has a single class.
    """
    started, others = time.perf_counter(), fold != number
    learned = tracks.take(others)
    half = np.unique(fold[others], return_inverse=True)[1] % 2
    if all(len(np.unique(learned.labels[half == each])) > 1 for each in (0, 1)):
        return fit_over_folds(learned, half, classes, class_weights)
    machines = _machines_for(learned)
    (machine,) = machines(learned, class_weights, [_UNCHOSEN])
    return _baseline(machines, machine, _UNCHOSEN, classes, math.nan, started)


def _baseline(
    machines: Machines, machine: Machine, penalty: float, classes: int, score: float, started: float
) -> Baseline:
    exact = machines is _exact
    settings = {"svm.C": penalty, "mfccs": MFCCS} | ({} if exact else {"nystroem.components": _COMPONENTS})
    name = "statistics + svm" if exact else "statistics + nystroem svm"
    return Baseline(machine, name, settings, classes, score, time.perf_counter() - started)


def _machines_for(tracks: LabelledStatistics) -> Machines:
    return _exact if len(tracks.labels) <= EXACT_TRACKS else _approximate


def _exact(train: LabelledStatistics, class_weights: bool, penalties: Sequence[float]) -> Iterator[Machine]:
    """Yield the machine of each penalty."""
    for penalty in penalties:
        pipeline = make_pipeline(StandardScaler(), SVC(C=penalty, class_weight="balanced" if class_weights else None))
        yield pipeline.fit(train.statistics, train.labels)


class NystroemMachine:
    """One linear least-squares machine for each class on Nystroem components of scaled statistics."""

    def __init__(self, scaler: StandardScaler, nystroem: Nystroem, weights: Float64, classes: Ints) -> None:
        self._scaler, self._nystroem, self.classes_ = scaler, nystroem, classes
        self._weights = weights  # (components + 1, classes): the last row is the bias

    def decision_function(self, statistics: Float32) -> Float64:
        """Return (tracks, classes) scores, about 1 for the class of a track and -1 for others."""
        scores = [self.components(batch) @ self._weights for batch in _batches(statistics)]
        return np.concatenate([np.zeros((0, len(self.classes_))), *scores])

    def predict(self, statistics: Float32) -> Ints:
        """Return the label with the highest score of each track, (tracks,)."""
        labels: Ints = self.classes_[self.decision_function(statistics).argmax(axis=1)]
        return labels

    def components(self, statistics: Float32) -> Float64:
        """Return the components of a batch of tracks and a column of ones: (tracks, components + 1)."""
        components = self._nystroem.transform(self._scaler.transform(statistics.astype(np.float64)))
        return np.concatenate([components, np.ones((len(components), 1))], axis=1)

    def with_weights(self, weights: Float64) -> NystroemMachine:
        return NystroemMachine(self._scaler, self._nystroem, weights, self.classes_)


def _approximate(train: LabelledStatistics, class_weights: bool, penalties: Sequence[float]) -> Iterator[Machine]:
    """Like `_exact`, with Nystroem machines."""
    machine = _nystroem(train)
    gram, right = _normal_equations(machine, train, class_weights)
    for penalty in penalties:
        yield machine.with_weights(_solve(gram, right, penalty))


def _nystroem(train: LabelledStatistics) -> NystroemMachine:
    """Return a machine with components for these tracks, and weights of zero. The kernel is that of `_exact`."""
    scaler = StandardScaler()
    for batch in _batches(train.statistics):
        scaler.partial_fit(batch.astype(np.float64))
    landmarks = np.sort(np.random.default_rng(0).permutation(len(train.labels))[:_LANDMARK_TRACKS])
    nystroem = Nystroem(gamma=1 / train.statistics.shape[1], n_components=_COMPONENTS, random_state=0)
    nystroem.fit(scaler.transform(train.statistics[landmarks].astype(np.float64)))
    classes = np.unique(train.labels)
    return NystroemMachine(scaler, nystroem, np.zeros((_COMPONENTS + 1, len(classes))), classes)


def _normal_equations(
    machine: NystroemMachine, train: LabelledStatistics, class_weights: bool
) -> tuple[Float64, Float64]:
    """Return the weighted sums over tracks of components by components, and of components by targets of -1 and 1."""
    columns = np.searchsorted(machine.classes_, train.labels)  # of the targets, (tracks,)
    counts = np.bincount(columns)
    weights = len(columns) / (len(counts) * counts) if class_weights else np.ones(len(counts))
    gram: Float64 = np.zeros((_COMPONENTS + 1, _COMPONENTS + 1))
    right = np.zeros((_COMPONENTS + 1, len(counts)))
    for number, batch in enumerate(_batches(train.statistics)):
        batch_columns = columns[number * _BATCH :][: len(batch)]
        components = machine.components(batch)
        weighted = components.T * weights[batch_columns]
        gram += weighted @ components
        right += weighted @ np.where(batch_columns[:, None] == np.arange(len(counts)), 1.0, -1.0)
    return gram, right


def _solve(gram: Float64, right: Float64, penalty: float) -> Float64:
    """Return the weights that minimise `penalty` times the squared errors plus the squared weights."""
    ridge: Float64 = np.full(len(gram), 1 / penalty)
    ridge[-1] = 0  # the bias is not penalised
    solution: Float64 = np.linalg.solve(gram + np.diag(ridge), right).astype(np.float64, copy=False)
    return solution


def _macro_f1(machine: Machine, tracks: LabelledStatistics, classes: int) -> float:
    return metrics.mean_scores(tracks.labels, machine.predict(tracks.statistics), classes)["f1"]


def _batches(statistics: Float32) -> Iterator[Float32]:
    for begin in range(0, len(statistics), _BATCH):
        yield statistics[begin : begin + _BATCH]
