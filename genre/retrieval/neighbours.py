"""The genres of tracks by a vote of their nearest training tracks: what embeddings know without the last layer.

The `VOTERS` training tracks with the highest cosine vote with the weight exp(cosine / `TEMPERATURE`), and the shares of
genres in these votes are the probabilities (Wu et al., "Unsupervised feature learning via non-parametric instance
discrimination", CVPR 2018; with 10 or 20 neighbours Caron et al., "Emerging properties in self-supervised vision
transformers", ICCV 2021). Nothing is fitted: among the training tracks, which the network has learned, a single voter
would look best, and a choice by the validation tracks would need a pass over them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from genre.arrays import Float32, Ints
from genre.retrieval.nearest import nearest_to_each

VOTERS = 10
TEMPERATURE = 0.07
SHOWN = 3  # neighbours that are kept of each track
MOST_TRACKS = 20_000  # training tracks that vote; a larger set is sampled

_QUERIES = 4096  # tracks scaled per step: all at once may take some GB


class Neighbour(NamedTuple):
    """A training track with its genre, near another track."""

    track_id: str
    genre: str
    cosine: float


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The nearest training tracks of some tracks, the nearest first. Each array is (tracks, at most `SHOWN`)."""

    track_ids: npt.NDArray[np.object_]
    genres: Ints  # indices of classes
    cosines: Float32

    def take(self, rows: Ints) -> Neighbours:
        """Return the neighbours of the tracks in these rows, in this order."""
        return Neighbours(self.track_ids[rows], self.genres[rows], self.cosines[rows])

    def of(self, row: int, classes: list[str]) -> tuple[Neighbour, ...]:
        """Return the neighbours of one track, their cosines with four decimals."""
        columns = zip(self.track_ids[row], self.genres[row], self.cosines[row], strict=True)
        return tuple(Neighbour(str(name), classes[genre], round(float(cosine), 4)) for name, genre, cosine in columns)


@dataclass(frozen=True, eq=False)
class TrainingTracks:
    """The tracks that vote."""

    track_ids: list[str]
    labels: Ints  # (tracks,)
    vectors: Float32  # (tracks, size), of any norm

    def predict(self, vectors: Float32, classes: int) -> tuple[Float32, Neighbours]:
        """Return probabilities (tracks, classes) and neighbours of tracks with `vectors` (tracks, size) of any norm.

        `classes` is the number of genres. Raises `ValueError` without training tracks.
        """
        own, count = _unit(self.vectors), min(VOTERS, len(self.labels))
        starts = range(0, max(1, len(vectors)), _QUERIES)
        nearest_of = [nearest_to_each(own, _unit(vectors[begin : begin + _QUERIES]), count) for begin in starts]
        rows, cosines = (np.concatenate(parts) for parts in zip(*nearest_of, strict=True))
        names = np.array(self.track_ids, np.object_)
        shown = rows[:, :SHOWN]
        nearest = Neighbours(names[shown], self.labels[shown], cosines[:, :SHOWN])
        return votes(self.labels[rows], cosines, classes), nearest


def votes(labels: Ints, cosines: Float32, classes: int) -> Float32:
    """Return the share of each genre in weighted votes, (tracks, classes).

    `labels` and `cosines` are those of the tracks that vote, (tracks, voters).
    """
    weights = np.exp((cosines - cosines.max(axis=1, keepdims=True)) / TEMPERATURE).astype(np.float64)
    shares = np.zeros((len(labels), classes))
    np.add.at(shares, (np.arange(len(labels))[:, None], labels), weights)
    probabilities: Float32 = (shares / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return probabilities


def _unit(vectors: Float32) -> Float32:
    """Return vectors scaled to a norm of 1. Zeros, of a network whose last layer takes only zeros, stay zeros."""
    # in float64 without a copy of the vectors, which may be some GB
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    unit: Float32 = vectors / np.maximum(norms, 1e-30).astype(np.float32)[:, None]
    return unit
