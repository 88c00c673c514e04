"""The contract of every architecture. A new one may add settings of a small network to `making.SMALL_MODELS`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from making import SMALL_MODELS
from saving import RATE, save_model
from torch import nn

from genre import Tagger, architectures, config
from genre.architectures import Choice
from genre.errors import ConfigError
from genre.features import Shape
from genre.model import checkpoint
from genre.model.card import ModelCard
from genre.model.classifier import Classifier
from genre.settings import TrainSettings
from genre.storage import Location

CLASSES = 8
every_architecture = pytest.mark.parametrize("name", architectures.names())


def build(name: str, bins: int = 32, **changes: Any) -> nn.Module:
    torch.manual_seed(0)
    return architectures.build(name, SMALL_MODELS.get(name, {}) | changes, bins, CLASSES)


def windows(batch: int = 8, bins: int = 32, frames: int = 40) -> torch.Tensor:
    return torch.randn(batch, 1, bins, frames, generator=torch.Generator().manual_seed(1))


def loss_of(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(network(x).float(), torch.arange(len(x)) % CLASSES)


def backward(loss: torch.Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]


@every_architecture
@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bfloat16"])
def test_every_parameter_has_a_gradient(name: str, bf16: bool) -> None:
    network = build(name)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        backward(loss_of(network, windows()))
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
        if parameter.ndim > 1:  # the gradient of a bias before batch norm is zero
            assert parameter.grad.abs().max() > 0, key


@every_architecture
def test_overfits_eight_clips(name: str) -> None:
    network, x = build(name, dropout=0.0), windows()
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
    for _ in range(120):
        optimizer.zero_grad()
        backward(loss_of(network, x))
        optimizer.step()
    assert network.eval()(x).argmax(dim=1).tolist() == list(range(CLASSES))


@every_architecture
@pytest.mark.parametrize(("bins", "frames"), [(1, 1), (7, 3), (33, 31), (20, 1000), (128, 129)])
def test_takes_any_number_of_bins_and_frames(name: str, bins: int, frames: int) -> None:
    network, x = build(name, bins), windows(2, bins, frames)
    backward(loss_of(network, x))
    logits = network.eval()(x)
    assert logits.shape == (2, CLASSES)
    assert torch.isfinite(logits).all()


@every_architecture
def test_a_window_has_the_same_logits_in_any_batch(name: str) -> None:
    network, x = build(name), windows()
    network(x)  # sets the running statistics
    network.eval()
    with torch.inference_mode():
        expected = network(x)
        single = torch.cat([network(x[i : i + 1]) for i in range(len(x))])
        reversed_order = network(x.flip(0)).flip(0)
    torch.testing.assert_close(single, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(reversed_order, expected, rtol=1e-4, atol=1e-5)
    assert expected.std(dim=0).min() > 0  # different windows have different logits


@every_architecture
def test_equal_seeds_give_equal_weights(name: str) -> None:
    first, second = build(name).state_dict(), build(name).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@every_architecture
def test_every_value_of_the_search_space_is_a_valid_setting(name: str) -> None:
    for key, domain in architectures.search_space(name).items():
        section, _, field = key.partition(".")
        for value in domain.values if isinstance(domain, Choice) else (domain.low, domain.high):
            if section == "params":
                architectures.params(name, {field: value})
            else:
                assert section == "train"
                config.validate(TrainSettings, {field: value})


@every_architecture
def test_the_error_for_an_unknown_setting_names_its_full_key(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"architectures\.{name}\.widht"):
        architectures.params(name, {"widht": 3})


@every_architecture
def test_the_last_layer_applied_to_the_embedding_gives_the_logits(name: str) -> None:
    network = build(name)
    network(windows())  # sets the running statistics
    classifier = Classifier(network, np.full(32, -30, np.float32), np.full(32, 9, np.float32), 80.0).eval()
    levels = windows().squeeze(1) * 9 - 30
    with torch.inference_mode():
        logits, embeddings = classifier.embed(levels)
        torch.testing.assert_close(classifier.head(embeddings), logits)
        assert torch.equal(logits, classifier(levels))
    assert embeddings.shape == (len(levels), classifier.head.in_features)
    assert torch.isfinite(embeddings).all()
    assert embeddings.std(dim=0).max() > 0  # different windows have different embeddings
    assert not classifier.head._forward_pre_hooks


@every_architecture
def test_a_track_has_an_embedding_of_norm_one(name: str, tmp_path: Path) -> None:
    tagger = Tagger.load(save_model(tmp_path, name))
    waves = [np.random.default_rng(seed).normal(0, 0.1, 3 * RATE).astype(np.float32) for seed in range(2)]
    tags = tagger.tag_arrays(waves, RATE)
    for track, wave in zip(tags, waves, strict=True):
        assert track.embedding is not None
        assert track.embedding.dtype == np.float16
        assert np.linalg.norm(track.embedding.astype(np.float32)) == pytest.approx(1, abs=1e-3)
        (single,) = tagger.tag_arrays([wave], RATE)
        assert single.embedding == pytest.approx(track.embedding, abs=2e-3)


@every_architecture
def test_a_loaded_model_gives_the_same_logits(name: str, tmp_path: Path) -> None:
    card = ModelCard(
        architecture=name,
        params=architectures.params(name, SMALL_MODELS.get(name, {})).model_dump(mode="json"),
        classes=[f"genre {i}" for i in range(CLASSES)],
        features={},
        fingerprint="",
        shape=Shape(32, 40, 80.0, 0.023),
        window_seconds=0.5,
        eval_windows=2,
    )
    saved = checkpoint.build(card, np.full(32, -30, np.float32), np.full(32, 9, np.float32))
    saved(windows().squeeze(1))
    checkpoint.save(Location.of(tmp_path), card, saved)
    loaded_card, loaded = checkpoint.load(Location.of(tmp_path))
    assert loaded_card == card
    with torch.inference_mode():
        assert torch.equal(loaded(windows().squeeze(1)), saved.eval()(windows().squeeze(1)))
