"""Pretraining: its loss, equal for any number of workers, resumable, and the body that it leaves."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pytest
import torch
from grouped import write_grouped
from making import SMALL_MODELS, make_clips, statistics
from torch import Tensor, nn

from genre import architectures
from genre.config import differences, load
from genre.errors import ArtifactError, ConfigError
from genre.features import Clips, Features
from genre.features.cache import ClipCache
from genre.features.windows import Worker
from genre.model import checkpoint, finetuning
from genre.model.card import read_card, write_card
from genre.model.classifier import Classifier, head_of
from genre.model.saved_model import SavedModel
from genre.settings import CacheSettings, Config, PretrainSettings, TrainSettings
from genre.storage import Location
from genre.training import experiment, pretraining, trainer_state
from genre.training.contrastive import Pretrainer, PretrainingEpoch, nt_xent
from genre.training.experiment import Experiment
from genre.training.pretraining import Pretraining

CLIPS = make_clips(tracks=24, classes=8, bins=32)
OFF: dict[str, Any] = {"mixstyle": 0, "gain_db": 0, "equaliser_db": 0, "mel_mask": 0, "time_mask": 0}


def pretrainer(
    worker: Worker = Worker(),
    wrap: Any = lambda module: module,
    clips: Clips = CLIPS,
    pairs: Literal["track", "group"] = "track",
    **changes: Any,
) -> Pretrainer:
    torch.manual_seed(0)
    network = architectures.build("cnn", {"width": 8, "depth": 3, "dropout": 0}, CLIPS.shape.bins, 1)
    basic = {"epochs": 3, "batch_size": 16, "window_seconds": 0.5, "windows_per_clip": 4, "mixup": 0, "dtype": "fp32"}
    settings = TrainSettings(**basic | changes)
    classifier = Classifier(network, *statistics(CLIPS), CLIPS.shape.range_db)
    return Pretrainer(classifier, clips, settings, PretrainSettings(pairs=pairs), 0, worker, wrap)


def without_times(history: list[PretrainingEpoch]) -> list[PretrainingEpoch]:
    return [dataclasses.replace(epoch, seconds=0, windows_per_second=0, data_wait_seconds=0) for epoch in history]


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# --- the loss


def test_the_loss_is_that_of_the_definition() -> None:
    torch.manual_seed(0)
    projected, instances = torch.randn(10, 6), torch.tensor([0, 1, 2, 3, 1] * 2)
    loss, matched = nt_xent(projected, instances, 0.3)
    losses, nearest = [], []
    for i in range(10):
        pair = (i + 5) % 10
        compared = {j: torch.cosine_similarity(projected[i], projected[j], dim=0) / 0.3 for j in range(10)}
        compared = {j: value for j, value in compared.items() if instances[j] != instances[i] or j == pair}
        losses.append(-(compared[pair] - torch.stack(list(compared.values())).logsumexp(0)))
        nearest.append(max(compared, key=lambda j: float(compared[j])) == pair)
    torch.testing.assert_close(loss, torch.stack(losses).mean())
    assert matched == pytest.approx(np.mean(nearest))


def test_other_windows_of_a_unit_are_not_compared() -> None:
    projected = torch.randn(6, 4, requires_grad=True)
    loss, matched = nt_xent(projected, torch.zeros(6, dtype=torch.int64), 0.2)
    assert (float(loss), float(matched)) == (0, 1)  # nothing to tell the pairs from
    assert nt_xent(projected, torch.tensor([0, 0, 1] * 2), 0.2)[0] > 0


# --- several workers


def _pretrain_as_one_of_two(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=2)
    parallel = nn.parallel.DistributedDataParallel
    made = pretrainer(Worker(rank, 2), lambda network: parallel(network, broadcast_buffers=False), **OFF)
    gradients = first_gradients(made)
    list(made.run())
    torch.save((gradients, without_times(made.history), made.body().state_dict()), f"{folder}/{rank}")
    torch.distributed.barrier()  # no process may end while others still use its connections
    torch.distributed.destroy_process_group()
    os._exit(0)  # gloo's threads can abort a process that ends by Python's regular shutdown


def first_gradients(made: Pretrainer) -> dict[str, Tensor]:
    """Return the gradients of the first batch, before any step."""
    spectrograms, peak_db, instances = next(made._batches(1))
    made._network.train()
    projected = made._network(made._classifier.normalised(spectrograms, peak_db).unsqueeze(1))
    loss, _ = nt_xent(projected, instances, 0.2, made.worker)
    loss.backward()  # type: ignore[no-untyped-call]
    return {
        name: tensor.grad.clone() for name, tensor in made._classifier.named_parameters() if tensor.grad is not None
    }


def test_two_processes_compute_the_loss_and_the_gradient_of_one(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_pretrain_as_one_of_two, (str(tmp_path),), nprocs=2)  # type: ignore[attr-defined, no-untyped-call]
    (gradients, history, body), second = (torch.load(tmp_path / str(rank), weights_only=False) for rank in range(2))
    assert history == second[1]
    assert same(body, second[2])
    alone = pretrainer(**OFF)
    expected = first_gradients(alone)
    assert gradients.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-3, atol=1e-5)
    assert [epoch.loss for epoch in history] == pytest.approx([epoch.loss for epoch in alone.run()], rel=1e-3)


# --- a training


def test_it_learns_what_the_tracks_of_a_group_share() -> None:
    groups = pa.array([f"artist {label}" for label in CLIPS.labels])
    clips = dataclasses.replace(CLIPS, groups=groups)
    history = list(pretrainer(clips=clips, pairs="group", epochs=20, **OFF).run())
    assert history[-1].loss < history[0].loss / 2
    assert history[-1].matched > 0.5  # 0.08 by chance


def test_a_resumed_pretraining_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    uninterrupted, interrupted, resumed = (pretrainer(ema=0.5) for _ in range(3))
    list(uninterrupted.run())
    next(interrupted.run())
    trainer_state.save(Location.of(tmp_path) / "state.pt", interrupted.state())
    torch.manual_seed(99)
    resumed.restore(trainer_state.load(Location.of(tmp_path) / "state.pt"))
    assert [epoch.epoch for epoch in resumed.run()] == [2, 3]
    assert without_times(resumed.history) == without_times(uninterrupted.history)
    assert same(resumed.body().state_dict(), uninterrupted.body().state_dict())


# --- from features to a body


def configured(name: str, *settings: str) -> Config:
    small = [f"architectures.{name}.{key}={value}" for key, value in SMALL_MODELS[name].items()]
    train = ["train.window_seconds=0.5", "train.windows_per_clip=2", "train.dtype=fp32"]
    few = ["pretrain.epochs=1", "pretrain.batch_size=16"]
    return load(None, [f"architecture={name}", *small, *train, *few, *settings])


def save(config: Config, features: Features, folder: Location) -> None:
    planned, music = Pretraining.of(config), features.music()
    assert pretraining.check(planned, music, 1).is_body
    copy = ClipCache.of(music, CacheSettings(), ("train",)).open()
    card, made = pretraining.pretrainer_for(planned, music, copy, torch.device("cpu"))
    list(made.run())
    pretraining.save_body(folder, card, music, made)


@pytest.mark.parametrize("name", architectures.names())
def test_training_starts_from_a_body_of_every_architecture(name: str, tmp_path: Path) -> None:
    features = write_grouped(tmp_path / "features")
    body = Location.of(tmp_path / "body")
    save(configured(name), features, body)
    _, saved = checkpoint.load(body, may_be_body=True)
    planned = Experiment.of(configured(name, f"train.init_from={body}"))
    card, classifier = experiment.initial(
        planned.train, experiment.card_of(planned, features.manifest), *statistics(make_clips())
    )
    assert card.classes == features.classes
    head = head_of(classifier)
    assert classifier.get_submodule(head).out_features == len(features.classes)
    for key, tensor in classifier.state_dict().items():  # the normaliser too
        assert key.startswith(f"{head}.") or torch.equal(tensor, saved.state_dict()[key])


def test_a_body_is_no_model_and_judges_nothing_that_it_learned(tmp_path: Path) -> None:
    features = write_grouped(tmp_path / "features")
    body = Location.of(tmp_path / "body")
    save(configured("cnn", "pretrain.pairs=group"), features, body)
    for read in (checkpoint.load, SavedModel.read):
        with pytest.raises(ArtifactError, match=r"names no genres; train a model from it with init_from=\S+$"):
            read(body)
    start = TrainSettings(init_from=str(body))
    experiment.check_start(start, features, ["valid"])
    with pytest.raises(ConfigError, match="learned from tracks that would judge the new model"):
        experiment.check_start(start, features, ["train", "valid"])
    other = write_grouped(tmp_path / "other", prefix="other-")
    experiment.check_start(start, other, ["train", "valid"])
    card, weights = read_card(body, may_be_body=True)
    write_card(body, dataclasses.replace(card, facts={}), weights)
    with pytest.raises(ConfigError, match="its training tracks are unknown"):
        experiment.check_start(start, other, ["train", "valid"])


def test_a_body_can_start_from_a_body(tmp_path: Path) -> None:
    features = write_grouped(tmp_path / "features")
    first, second = Location.of(tmp_path / "first"), Location.of(tmp_path / "second")
    save(configured("cnn"), features, first)
    save(configured("cnn", f"train.init_from={first}", "train.learning_rate=1e-9"), features, second)
    (_, old), (_, new) = (checkpoint.load(body, may_be_body=True) for body in (first, second))
    weights = dict(old.named_parameters())
    for name, parameter in new.named_parameters():
        torch.testing.assert_close(parameter, weights[name], rtol=0, atol=1e-6)
    other = write_grouped(tmp_path / "other", prefix="other-")
    third = Location.of(tmp_path / "third")
    save(configured("cnn", f"train.init_from={second}"), other, third)
    for learned in (features, other):  # what the first body learned, the third knows as well
        with pytest.raises(ConfigError, match="learned from tracks that would judge the new model"):
            experiment.check_start(TrainSettings(init_from=str(third)), learned, ["train"])
    with pytest.raises(ConfigError, match=r"train.freeze=true: .* leave it out"):
        Pretraining.of(configured("cnn", f"train.init_from={first}", "train.freeze=true"))
    assert finetuning.start_from(new, old, same_genres=True, freeze=False) == []


def test_other_weights_to_start_from_make_another_run(tmp_path: Path) -> None:
    features = write_grouped(tmp_path / "features")
    bodies = Location.of(tmp_path / "pretrained")
    planned = Experiment.of(configured("cnn", f"train.init_from={bodies / 'cnn'}"))
    card = experiment.card_of(planned, features.manifest)
    known = []
    for seed in range(2):
        save(configured("cnn", f"seed={seed}"), features, bodies / "cnn")
        known.append(experiment.deciding(planned, card, features, Location.of(tmp_path / "models")))
    (line,) = differences(known[0], known[1])
    assert line.startswith("weights of train.init_from is ")
    own = experiment.deciding(planned, card, features, bodies)  # a job that replaces the body that it starts from
    assert own == {key: value for key, value in known[0].items() if key in own}


def test_music_of_a_single_track_is_refused(tmp_path: Path) -> None:
    features = write_grouped(tmp_path / "features", tracks=2, splits=["train"])
    with pytest.raises(ConfigError, match=r"1 track to learn from, of 1 track; .* at least 2 are needed"):
        pretraining.check(Pretraining.of(configured("cnn")), features.music(), 1)


def test_pairs_of_groups_need_a_group_of_two_tracks(tmp_path: Path) -> None:
    features = write_grouped(tmp_path / "features", group_size=1)
    with pytest.raises(ConfigError, match=r"no two tracks .* have the same group \(artist\); use pretrain.pairs=track"):
        pretraining.check(Pretraining.of(configured("cnn", "pretrain.pairs=group")), features.music(), 1)
