"""The memory layout of networks: channels last, or contiguous where that is unsafe."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from saving import save_model
from torch import nn

from genre import architectures
from genre.model import checkpoint, layout
from genre.storage import Location
from genre.training.autocast import autocast_type


def is_channels_last(network: nn.Module) -> bool:
    """Return the layout of the first kernel that shows it: 1 x 1 kernels and single channels are equal in both."""
    kernel = next(p for p in network.parameters() if p.ndim == 4 and p.shape[1] > 1 and p.shape[2] > 1)
    return kernel.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.Conv2d(4, 8, 1, stride=2), False),
        (nn.Conv2d(15, 8, 1, stride=(1, 2)), False),
        (nn.Conv2d(16, 32, 1, stride=2), True),
        (nn.Conv2d(4, 8, 1), True),
        (nn.Conv2d(4, 8, 3, stride=2), True),
        (nn.Linear(4, 8), True),
    ],
)
def test_safety_depends_on_the_shapes_of_layers(layer: nn.Module, expected: bool) -> None:
    assert layout.safe(nn.Sequential(nn.ReLU(), nn.Sequential(layer))) is expected


@pytest.mark.parametrize(("name", "width", "fast"), [("resnet", 4, False), ("resnet", 16, True), ("cnn", 4, True)])
def test_an_unsafe_network_is_contiguous_and_float32(name: str, width: int, fast: bool) -> None:
    network = architectures.build(name, {"width": width}, 32, 3)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    layout.arrange(network)
    assert is_channels_last(network) is fast
    cpu = torch.device("cpu")
    native = autocast_type("auto", cpu, nn.Linear(1, 1))
    assert autocast_type("auto", cpu, network) == (native if fast else None)


@pytest.mark.parametrize(("name", "fast"), [("resnet", False), ("vgg16", True)])
def test_a_loaded_model_has_the_layout_of_training(name: str, fast: bool, tmp_path: Path) -> None:
    _, classifier = checkpoint.load(Location.of(save_model(tmp_path, name)))
    assert is_channels_last(classifier.network) is fast
