"""The trainer: repeatable, resumable, and equal for any number of workers."""

from __future__ import annotations

import dataclasses
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from making import make_clips, statistics
from torch import nn

from genre import architectures
from genre.errors import ConfigError, TrainingError
from genre.evaluation import metrics
from genre.features.windows import Worker
from genre.model.classifier import Classifier, predict
from genre.settings import TrainSettings
from genre.storage import Location
from genre.training import autocast, optimiser, trainer_state, workers
from genre.training.trainer import Epoch, Trainer
from genre.training.validation import epochs_per_validation

CLASSES = 3
TRAIN = make_clips(tracks=26, per_track=1)
VALID = make_clips(tracks=11, per_track=2, seed=1)  # neither is a multiple of the numbers of workers
EVERYTHING: dict[str, Any] = {"ema": 0.8, "class_weights": True, "label_smoothing": 0.1, "mixup": 0.3, "clip_norm": 0.5}


def settings(**changes: Any) -> TrainSettings:
    basic = {"epochs": 3, "batch_size": 8, "window_seconds": 0.5, "eval_windows": 3, "dtype": "fp32"}
    basic |= {"windows_per_clip": 4}  # enough for a validation after every epoch
    return TrainSettings(**basic | changes)


def trainer(seed: int = 0, worker: Worker = Worker(), wrap: Any = lambda module: module, **changes: Any) -> Trainer:
    torch.manual_seed(seed)
    network = architectures.build("cnn", {"width": 4, "depth": 3}, TRAIN.shape.bins, CLASSES)
    classifier = Classifier(network, *statistics(TRAIN), TRAIN.shape.range_db)
    return Trainer(classifier, TRAIN, VALID, CLASSES, settings(**changes), seed, worker, wrap)


def run(trainer: Trainer) -> list[Epoch]:
    return list(trainer.run())


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.classifier.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def without_times(history: list[Epoch]) -> list[Epoch]:
    return [dataclasses.replace(epoch, seconds=0, windows_per_second=0, data_wait_seconds=0) for epoch in history]


def test_a_training_without_validation_has_the_weights_of_the_same_epoch_and_resumes() -> None:
    validated, alone, first = trainer(**EVERYTHING), trainer(**EVERYTHING), trainer(**EVERYTHING)
    steps = validated.run()
    next(steps)
    next(steps)
    history = list(alone.run_to(2, 0.75))
    assert same(alone.best, validated._updates.evaluated.state_dict())
    assert [(epoch.valid_f1, epoch.best_f1, epoch.best_epoch) for epoch in history] == [(None, 0.75, 2)] * 2
    next(first.run_to(2, 0.75))
    resumed = trainer(**EVERYTHING)
    resumed.restore(first.state())
    assert [epoch.epoch for epoch in resumed.run_to(2, 0.75)] == [2]
    assert same(resumed.best, alone.best)
    assert without_times(resumed.history) == without_times(history)


def test_it_learns() -> None:
    made = trainer(epochs=12, learning_rate=0.01)
    history = run(made)
    assert [epoch.epoch for epoch in history] == list(range(1, 13))
    assert history[-1].train_loss < history[0].train_loss
    assert all(0 < epoch.data_wait_seconds < epoch.seconds for epoch in history)
    assert history[-1].best_f1 == max(epoch.valid_f1 or 0.0 for epoch in history) > 0.9
    probabilities = predict(made.use_best(), VALID, made._frames, 3)
    assert (probabilities.argmax(axis=1) == VALID.labels).mean() == history[history[-1].best_epoch - 1].valid_accuracy


# --- repeatable


@pytest.mark.parametrize("changes", [{}, EVERYTHING, {"dtype": "bf16"}], ids=["plain", "everything", "bf16"])
def test_equal_seeds_give_equal_bits(changes: dict[str, Any]) -> None:
    first, second, other = trainer(**changes), trainer(**changes), trainer(seed=1, **changes)
    histories = [without_times(run(made)) for made in (first, second, other)]
    assert histories[0] == histories[1] != histories[2]
    assert same(weights(first), weights(second))
    assert not same(weights(first), weights(other))


@pytest.mark.parametrize("changes", [{}, EVERYTHING], ids=["plain", "everything"])
def test_a_resumed_training_equals_an_uninterrupted_one(changes: dict[str, Any], tmp_path: Path) -> None:
    uninterrupted = trainer(**changes)
    run(uninterrupted)
    interrupted = trainer(**changes)
    next(interrupted.run())
    trainer_state.save(Location.of(tmp_path) / "state.pt", interrupted.state())
    run(interrupted)  # epochs after the saved state are lost
    torch.manual_seed(99)
    resumed = trainer(seed=0, **changes)
    resumed.restore(trainer_state.load(Location.of(tmp_path) / "state.pt"))
    assert [epoch.epoch for epoch in run(resumed)] == [2, 3]
    assert without_times(resumed.history) == without_times(uninterrupted.history)
    assert same(weights(resumed), weights(uninterrupted))
    assert same(resumed.best, uninterrupted.best)


# --- the length of an epoch and the frequency of validation


@pytest.mark.parametrize(("per_clip", "seconds", "steps"), [(0, 0.5, 6), (0, 0.92, 3), (0, 0.1, 32), (3, 0.5, 9)])
def test_an_epoch_covers_all_music_unless_the_number_of_windows_is_set(
    per_clip: int, seconds: float, steps: int
) -> None:
    made = trainer(windows_per_clip=per_clip, window_seconds=seconds)  # of 26 clips of 0.92 s, in batches of 8
    assert made._plan.steps == steps
    assert made._updates.schedule.total_steps == 3 * steps + 1


@pytest.mark.parametrize("train", [1, 7, 52, 1000])
@pytest.mark.parametrize("valid", [1, 66, 5000])
def test_validation_is_as_frequent_as_a_fifth_of_the_work_allows(train: int, valid: int) -> None:
    every = epochs_per_validation(train, valid)

    def share(epochs: int) -> float:
        return valid / (valid + 3 * train * epochs)

    assert share(every) <= 0.2 + 1e-12
    assert every == 1 or share(every - 1) > 0.2


def test_the_last_epoch_is_validated_and_the_epochs_in_between_are_trained() -> None:
    rare = trainer(epochs=5, windows_per_clip=1)
    assert [epoch.epoch for epoch in run(rare)] == [4, 5]  # 66 validation windows, 26 of training
    assert rare._updates.schedule.last_epoch == 5 * rare._plan.steps
    often = trainer(epochs=5, windows_per_clip=1, eval_windows=1)
    run(often)
    assert same(weights(often), weights(rare))  # validation changes nothing in training
    assert rare.history[0].train_loss == pytest.approx(np.mean([epoch.train_loss for epoch in often.history[:2]]))


# --- the optimisation


def test_the_rate_rises_to_its_peak_and_falls_to_nearly_zero() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))])
    schedule = optimiser.one_cycle(optimizer, settings(learning_rate=0.1, warmup=0.25), 100)
    rates = []
    for _ in range(100):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert max(rates) == pytest.approx(0.1, rel=1e-2)
    assert abs(rates.index(max(rates)) - 25) <= 1
    assert rates[-1] < 1e-3


@pytest.mark.parametrize("steps", [1, 2, 100])
def test_without_warm_up_the_second_step_has_the_peak_rate(steps: int) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))])
    schedule = optimiser.one_cycle(optimizer, settings(learning_rate=0.1, warmup=0), steps)
    for _ in range(steps):
        optimizer.step()
        schedule.step()
        if schedule.last_epoch == 1:
            assert schedule.get_last_lr()[0] == pytest.approx(0.1)


def test_only_weights_decay() -> None:
    made = trainer()
    decayed, plain = optimiser.adamw(list(made.classifier.parameters()), settings(weight_decay=0.3)).param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.3, 0.0)
    assert all(parameter.ndim > 1 for parameter in decayed["params"])
    assert all(parameter.ndim == 1 for parameter in plain["params"])
    assert len(decayed["params"]) + len(plain["params"]) == len(list(made.classifier.parameters()))


def test_class_weights_have_mean_one_over_the_clips() -> None:
    clips = dataclasses.replace(TRAIN, labels=np.array([0] * 20 + [1] * 6))
    weights = optimiser.class_weights(clips, CLASSES)
    assert weights[0] * 20 == pytest.approx(weights[1] * 6)
    assert weights[torch.from_numpy(clips.clip_labels())].mean() == pytest.approx(1)


def test_the_weighted_loss_of_a_batch_is_the_mean_of_its_halves() -> None:
    made = trainer(class_weights=True)
    logits, labels = torch.randn(8, CLASSES), torch.arange(8) % CLASSES
    targets = torch.eye(CLASSES)[labels]
    halves = (made._loss(logits[:4], targets[:4]) + made._loss(logits[4:], targets[4:])) / 2
    torch.testing.assert_close(halves, made._loss(logits, targets))
    weights = optimiser.class_weights(TRAIN, CLASSES)
    hard = nn.functional.cross_entropy(logits, labels, weights, label_smoothing=0.1, reduction="sum") / 8
    torch.testing.assert_close(made._loss(logits, targets), hard)


def test_the_moving_average_is_evaluated_and_saved() -> None:
    made = trainer(ema=0.9)
    run(made)
    assert same(made.best, dict(made._updates.evaluated.state_dict())) or made.history[-1].best_epoch < 3
    assert not same(made._updates.evaluated.state_dict(), made.classifier.state_dict())


@pytest.mark.parametrize(
    "changes", [{"gain_db": 3.0}, {"equaliser_db": 3.0}, {"mixstyle": 1.0}, {"mixup": 0.3}, {"mel_mask": 0.2}]
)
def test_each_augmentation_changes_the_loss(changes: dict[str, Any]) -> None:
    off = {"gain_db": 0.0, "equaliser_db": 0.0, "mixstyle": 0.0, "mixup": 0.0, "mel_mask": 0.0, "time_mask": 0.0}
    off["epochs"] = 1
    plain, same_again, changed = (run(trainer(**off | more))[0].train_loss for more in ({}, {}, changes))
    assert plain == same_again != changed


def test_gradients_are_clipped() -> None:
    made = trainer(clip_norm=1e-3)
    run(made)
    gradients = [parameter.grad for parameter in made.classifier.parameters() if parameter.grad is not None]
    norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
    assert norm <= 1.001e-3


def test_it_stops_when_the_score_no_longer_improves() -> None:
    made = trainer(epochs=50, patience=2, learning_rate=1e-7)
    history = run(made)
    best = [epoch.valid_f1 for epoch in history].index(history[-1].best_f1) + 1
    assert len(history) == best + 2 < 50


def test_of_epochs_with_equal_scores_the_one_with_the_lowest_loss_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    made = trainer(epochs=5)
    all_right = metrics.scores(np.eye(CLASSES))
    scores = [dataclasses.replace(all_right, f1=f1) for f1 in (0.6, 0.8, 0.8, 0.8, 0.7)]
    validations = iter(zip((0.5, 0.9, 0.4, 0.6, 0.1), scores, strict=True))
    monkeypatch.setattr(made, "_validate", lambda: next(validations))
    kept = [(epoch.best_epoch, epoch.best_f1, dict(made.best)) for epoch in made.run()]
    assert [each[:2] for each in kept] == [(1, 0.6), (2, 0.8), (3, 0.8), (3, 0.8), (3, 0.8)]
    assert same(kept[-1][2], kept[2][2])
    assert not same(kept[2][2], kept[1][2])


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(TrainingError, match=r"the loss is nan in epoch \d; lower train.learning_rate"):
        run(trainer(weight_decay=1e30, learning_rate=1))


def test_a_batch_too_small_for_the_workers_is_refused() -> None:
    with pytest.raises(ConfigError, match="5 workers"):
        trainer(worker=Worker(0, 5))


PLAIN_PROCESSOR = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": True}, True),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True}, False),
        ({"cpu_name": "AMD EPYC", "avx512_bf16": True}, True),
        ({"cpu_name": "AMD EPYC"}, False),
        ({}, False),
    ],
)
def test_bf16_is_chosen_on_processors_that_are_faster_with_it(capabilities: dict[str, Any], expected: bool) -> None:
    assert autocast.is_faster_with_bf16(capabilities) is expected


def test_bf16_is_not_chosen_where_onednn_would_emulate_it() -> None:
    code = (
        "import torch; from genre.training import autocast; net = torch.nn.Conv2d(16, 16, 3);"
        "print(autocast.autocast_type('auto', torch.device('cpu'), net))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | PLAIN_PROCESSOR, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "None"


# --- several workers


@pytest.mark.parametrize("world", [2, 3])
def test_validation_adds_up_over_shards_exactly(world: int, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = trainer()
    last = run(alone)[-1]
    sums: list[torch.Tensor] = []

    def keep(values: torch.Tensor) -> torch.Tensor:
        sums.append(values)
        return values

    for rank in range(world):
        part = trainer(worker=Worker(rank, world))
        part.classifier.load_state_dict(alone.classifier.state_dict())
        monkeypatch.setattr(workers, "sum_over_workers", keep)
        part._validator(part.classifier)
    monkeypatch.setattr(workers, "sum_over_workers", lambda values: sum(sums))
    loss, scores = part._validator(part.classifier)
    assert (loss, scores.f1, scores.accuracy) == (last.valid_loss, last.valid_f1, last.valid_accuracy)


def _train_as_one_of_three(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=3)
    parallel = nn.parallel.DistributedDataParallel
    made = trainer(worker=Worker(rank, 3), wrap=lambda network: parallel(network, broadcast_buffers=False), ema=0.5)
    run(made)
    torch.save(
        {"history": without_times(made.history), "weights": weights(made), "best": made.best}, f"{folder}/{rank}"
    )
    torch.distributed.barrier()  # no process may end while others still use its connections
    torch.distributed.destroy_process_group()
    # gloo's threads can abort a process that ends by Python's regular shutdown
    os._exit(0)


def test_three_processes_train_one_model_and_validate_it_like_one_process(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_train_as_one_of_three, (str(tmp_path),), nprocs=3)  # type: ignore[attr-defined, no-untyped-call]
    results = [torch.load(tmp_path / str(rank), weights_only=False) for rank in range(3)]
    for result in results[1:]:
        assert result["history"] == results[0]["history"]
        assert same(result["weights"], results[0]["weights"])
        assert same(result["best"], results[0]["best"])
    alone = trainer()
    alone.classifier.load_state_dict(results[0]["best"])
    loss, scores = alone._validate()
    best = results[0]["history"][results[0]["history"][-1].best_epoch - 1]
    assert (loss, scores.f1, scores.accuracy) == (best.valid_loss, best.valid_f1, best.valid_accuracy)
    assert math.isfinite(best.train_loss)
