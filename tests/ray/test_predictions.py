"""Clips that stream through a real Ray to the models that score them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from making import load
from saving import CLASSES, save_model

from genre.arrays import Float32
from genre.errors import ArtifactError
from genre.evaluation import track_statistics
from genre.features import Features
from genre.features.manifest import SCHEMA_VERSION
from genre.model import checkpoint
from genre.model.card import read_card
from genre.model.saved_model import WEIGHTS, SavedModel
from genre.storage import Location
from ray_jobs.engine.capacity import Capacity
from ray_jobs.scoring.neighbours import Embedder
from ray_jobs.scoring.predictions import Stream, Streamed

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Location]:
    home = tmp_path_factory.mktemp("models")
    made = [("cnn", 0), ("cnn", 1), ("crnn", 0)]
    return [Location.of(save_model(home / f"{name}-{seed}", name, seed=seed)) for name, seed in made]


@pytest.fixture(scope="module")
def write(models: list[Location]) -> Callable[[Path, list[list[tuple[str, int]]]], Features]:
    """Return a function that writes a folder for the models, with clips (track, number) in each of several files."""
    card = read_card(models[0])[0]

    def write_files(folder: Path, files: list[list[tuple[str, int]]]) -> Features:
        names = sorted({name for rows in files for name, _ in rows})
        tables = []
        for rows in files:
            content = [
                {
                    "track_id": name,
                    "clip": number,
                    "start_seconds": 0.0,
                    "peak_db": float(names.index(name)),
                    "spectrogram": np.random.default_rng([names.index(name), number])
                    .integers(0, 256, card.shape.bins * card.shape.frames, dtype=np.uint8)
                    .tobytes(),
                }
                for name, number in rows
            ]
            tables.append(pa.Table.from_pylist(content, card.shape.clip_schema()))
        (folder / "clips").mkdir(parents=True)
        for number, table in enumerate(tables):
            pq.write_table(table, folder / f"clips/{number}.parquet", row_group_size=3)
        genres = [CLASSES[number % len(CLASSES)] for number in range(len(names))]
        splits = ["train" if number % 4 == 3 else "test" for number in range(len(names))]
        pq.write_table(pa.table({"track_id": names, "genre": genres, "split": splits}), folder / "tracks.parquet")
        Location.of(folder / "manifest.json").write_json(
            {"stage": "features", "schema_version": SCHEMA_VERSION, "shape": vars(card.shape), "classes": list(CLASSES)}
        )
        return Features.open(Location.of(folder))

    return write_files


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield
    ray.shutdown()


def scattered(tracks: int = 20, clips: int = 3, files: int = 4) -> list[list[tuple[str, int]]]:
    """Return the clips of tracks in files: those of most tracks are in one file, those of others in several."""
    parts: list[list[tuple[str, int]]] = [[] for _ in range(files)]
    for track in range(tracks):
        for clip in range(clips):
            parts[(track + clip * (track % 3 == 0)) % files].append((f"track{track:02d}", clip))
    return parts


def in_memory(features: Features, model: Location) -> Float32:
    return checkpoint.load(model).predict(load(features, "test")["test"])


def stream(features: Features, models: list[Location]) -> Streamed:
    return Stream(features, "test", models, [track_statistics.of_clips], "auto", Capacity(cpus=2, gpus=0)).run()


def test_predictions_are_those_of_clips_in_memory(
    cluster: None, models: list[Location], write: Callable[..., Features], tmp_path: Path
) -> None:
    features = write(tmp_path / "f", scattered())
    first = stream(features, models)
    for model, streamed in zip(models, first.probabilities, strict=True):
        np.testing.assert_allclose(streamed, in_memory(features, model), atol=1e-6)
    (statistics,) = first.measures
    np.testing.assert_allclose(
        statistics, track_statistics.of_clips(load(features, "test")["test"]), rtol=1e-4, atol=1e-5
    )
    again = stream(features, models)
    for one, other in zip([*first.probabilities, statistics], [*again.probabilities, *again.measures], strict=True):
        np.testing.assert_array_equal(one, other)


def embed_in_memory(features: Features, split: str, model: Location) -> Float32:
    clips = load(features, split)[split]
    return checkpoint.load(model).predict_and_embed(clips)[1]


def test_embeddings_are_those_of_clips_in_memory(
    cluster: None, models: list[Location], write: Callable[..., Features], tmp_path: Path
) -> None:
    features = write(tmp_path / "f", scattered())
    statistics = [track_statistics.of_clips]
    stream_of = Stream(features, "test", models, statistics, "auto", Capacity(cpus=2, gpus=0), embedded=models[1])
    computed = stream_of.run()
    for model, streamed in zip(models, computed.probabilities, strict=True):
        np.testing.assert_allclose(streamed, in_memory(features, model), atol=1e-6)
    assert computed.embeddings is not None
    np.testing.assert_allclose(computed.embeddings, embed_in_memory(features, "test", models[1]), rtol=1e-4, atol=1e-5)


def test_the_nearest_training_track_of_a_copy_is_the_original_and_a_failure_is_a_note(
    cluster: None, models: list[Location], write: Callable[..., Features], tmp_path: Path
) -> None:
    features = write(tmp_path / "f", scattered())
    model, capacity = SavedModel.read(models[0]), Capacity(cpus=2, gpus=0)
    embedder = Embedder("cnn", replace(model, card=replace(model.card, facts={"seed": 0})))
    training = embed_in_memory(features, "train", models[0])
    nearest, notes = embedder.nearest(features, training, 0, "auto", capacity)
    assert nearest is not None
    assert notes == []
    names = features.tracks("train")["track_id"].to_pylist()
    assert nearest.neighbours.track_ids[:, 0].tolist() == names
    assert nearest.settings["neighbours.training_tracks"] == len(names) == 5
    np.testing.assert_allclose(nearest.probabilities.sum(axis=1), 1, atol=1e-6)

    files = scattered()
    next(rows for rows in files if ("track03", 0) in rows).remove(("track03", 0))  # of the training split
    damaged = write(tmp_path / "damaged", files)
    missing, notes = embedder.nearest(damaged, training, 0, "auto", capacity)
    assert missing is None
    assert len(notes) == 1
    assert notes[0].startswith("Nearest neighbours were not looked up: ")
    assert "\n" not in notes[0]


def test_a_model_that_cannot_be_loaded_is_one_line(
    cluster: None, models: list[Location], write: Callable[..., Features], tmp_path: Path
) -> None:
    damaged = Location.of(save_model(tmp_path / "damaged"))
    weights = damaged / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-100])
    features = write(tmp_path / "f", scattered())
    with pytest.raises(ArtifactError, match=r"damaged/weights.safetensors: not the weights") as error:
        stream(features, [*models, damaged])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("is_listed", [False, True])
def test_features_that_were_prepared_again_are_named(
    cluster: None, models: list[Location], write: Callable[..., Features], tmp_path: Path, is_listed: bool
) -> None:
    """A file is deleted before a reader lists those to read, or after that."""

    def prepare() -> None:
        shutil.rmtree(tmp_path / "f")
        write(tmp_path / "f", scattered(16, files=2))

    class Listed(Features):
        def clip_files(self, tracks: pa.Table) -> Iterator[Location]:
            files = list(super().clip_files(tracks))
            prepare()
            return iter(files)

    features = write(tmp_path / "f", scattered())
    if is_listed:
        features = Listed(features.folder, features.manifest, features.tracks())
    else:
        prepare()
    with pytest.raises(
        ArtifactError, match=r"/f: the features were prepared again while this job ran; run the same command again$"
    ):
        stream(features, models[:1])


def test_clips_must_be_complete(
    cluster: None, models: list[Location], write: Callable[..., Features], tmp_path: Path
) -> None:
    files = scattered()
    files[1].remove(("track01", 1))
    with pytest.raises(ArtifactError, match="holds a clip twice, or more clips of a track"):
        stream(write(tmp_path / "gap", files), models)
    files[2].append(("track02", 0))
    with pytest.raises(ArtifactError, match="holds a clip twice"):
        stream(write(tmp_path / "twice", files), models)
