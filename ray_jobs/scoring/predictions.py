"""Predictions of saved models for the tracks of a split, from clips that stream through the workers.

Each worker reads clips itself and answers with one row a track, so neither the driver nor the object store holds any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import ray
import torch

from genre import devices, memory
from genre.arrays import Float32
from genre.audio.isolation import portable
from genre.features import Clips, Features, streaming
from genre.features.streaming import ChunkMeans, TrackMeans
from genre.model import checkpoint
from genre.storage import Location
from genre.wording import plural
from ray_jobs.engine import blocks, cluster, machines
from ray_jobs.engine.capacity import SHARE_OF_GPU, Capacity, is_cluster
from ray_jobs.engine.progress import JobProgress

Measure = Callable[[Clips], npt.NDArray[np.floating[Any]]]  # clips -> (tracks, width), means over the clips of a track
_EXTENTS_PER_WORKER = 4
_ANSWERS_PER_WORKER = 64  # of a model for a clip, at least, since a worker also has to load torch and the models


@dataclass(frozen=True)
class Streamed:
    """What a `Stream` computed for the tracks of a split: means over the clips of each."""

    probabilities: list[Float32]  # of each model, (tracks, classes)
    embeddings: Float32 | None  # of the model whose embeddings were asked for, (tracks, size)
    measures: list[Float32]  # of each measure, (tracks, width)


@dataclass(frozen=True)
class Stream:
    """Models and other measures that are computed on all clips of a split. Its pickle is small: it holds addresses."""

    features: Features
    split: str
    models: Sequence[Location]
    measures: Sequence[Measure]
    device: str
    capacity: Capacity
    embedded: Location | None = None  # one of `models`, whose embeddings are computed as well

    def run(self, detail: str = "") -> Streamed:
        """Return what was computed for all tracks; it does not depend on the number of workers.

        The progress shows `detail`. Raises `ArtifactError` when a model cannot be loaded, when clips are missing,
        repeated or unusable, or when the features were prepared again since they were opened.
        """
        detail = detail or f"tracks scored by {plural(len(self.models), 'model')}"
        with self.features.unchanged():
            tracks = self.features.tracks(self.split)
            means = TrackMeans(f"{self.features.folder}, split {self.split!r}", tracks)
            with JobProgress("judging", len(tracks)) as progress:
                for chunk in self.chunks():
                    progress.step(means.add(chunk), detail)
            return self._named(means.result())

    def _named(self, results: list[Float32]) -> Streamed:
        """Return the results of the models and measures by what they are; there are none where there are no tracks."""
        probabilities, measures = results[: len(self.models)], results[len(self.models) :]
        embeddings: Float32 | None = None
        if self.embedded is not None and results:
            model = list(self.models).index(self.embedded)
            own, embeddings = np.split(probabilities[model], [len(self.features.classes)], axis=1)
            probabilities[model] = own.copy()  # a view would keep the embeddings in memory, which may be some GB
        return Streamed(probabilities, embeddings, measures)

    def chunks(self) -> Iterator[ChunkMeans]:
        """Yield the values of all chunks in the order of completion.

        Actors with a CPU each, a few on each GPU, load all models once and read the clips themselves: through the
        reader of Ray Data every spectrogram would be copied into the object store and out of it (docs/DECISIONS.md).
        """
        tracks = self.features.tracks(self.split)
        extents = streaming.extents(self.features, tracks)
        if not extents:
            return iter(())
        share = SHARE_OF_GPU if self.capacity.gives_gpu(self.device) else 0.0
        if is_cluster():
            machines.start([{"CPU": 1} | ({"GPU": share} if share else {})], "scoring the models")
        answers = pc.sum(tracks["clips"]).as_py() * (len(self.models) + len(self.measures))
        workers = _workers(len(extents), answers, share, self.capacity)
        # in a list, because Ray replaces a direct argument by the table itself
        shared = [ray.put(tracks.select(["track_id", "part"]).combine_chunks())]
        data = cluster.data()
        dataset = data.from_arrow([blocks.object_row(extent) for extent in extents]).map_batches(
            _Scorer,
            fn_constructor_args=(self, shared, "cuda" if share else "cpu"),
            batch_size=None,
            batch_format="pyarrow",
            compute=data.ActorPoolStrategy(min_size=1, max_size=workers, initial_size=workers),
            num_cpus=1,
            num_gpus=share,
        )
        return blocks.answers(dataset)


def _workers(extents: int, answers: int, share: float, capacity: Capacity) -> int:
    """Return the most workers, each with a CPU and a `share` of a GPU."""
    # where machines are started for them, each has several extents: it takes as long to load torch and the models
    wanted = -(-extents // _EXTENTS_PER_WORKER) if is_cluster() else extents
    wanted = min(wanted, -(-answers // _ANSWERS_PER_WORKER))
    return capacity.workers(int(min(wanted, capacity.gpus / share)) if share else wanted)


class _Scorer:
    """All models, loaded once for the life of a worker."""

    def __init__(self, stream: Stream, tracks: list[ray.ObjectRef], device: str) -> None:
        memory.keep_freed()
        torch.set_num_threads(1)
        self._stream, self._device = stream, device
        self._tracks: pa.Table = ray.get(tracks[0])
        self._measures: list[Measure] = []

    def __call__(self, extents: pa.Table) -> Iterator[pa.Table]:
        """Yield an answer for each chunk of an extent, or an error."""
        try:
            # not in __init__, whose errors Ray Data takes for those of a machine and tries again
            self._measures = self._measures or [*map(self._load, self._stream.models), *self._stream.measures]
            for extent in blocks.objects_in(extents):
                for chunk in streaming.read(self._stream.features, self._tracks, extent):
                    yield blocks.object_row(chunk.means([measure(chunk.clips) for measure in self._measures]))
        except Exception as error:
            yield blocks.object_row(portable(error))

    def _load(self, folder: Location) -> Measure:
        model = checkpoint.load(folder).to(devices.device_for(self._device))
        if folder != self._stream.embedded:
            return model.predict
        return lambda clips: np.concatenate(model.predict_and_embed(clips), axis=1)
