"""Single architectures: sizes and names as published, and published weights."""

from __future__ import annotations

import urllib.error
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from making import make_clips
from torch import nn

from genre import architectures
from genre.architectures import Choice, LogUniform, Uniform, parse
from genre.architectures.crnn_attention import AttentionCRNN
from genre.errors import ConfigError
from genre.model import checkpoint
from genre.model.card import ModelCard
from genre.settings import Config
from genre.storage import Location

CLASSES = 10
State = dict[str, torch.Tensor]

PARAMETERS = {  # with 128 bins and ten classes
    ("cnn", ()): 572_746,
    ("crnn", ()): 883_946,
    ("crnn_attention", ()): 900_458,
    ("resnet", ()): 11_172_810,
    ("resnet", (("depth", 34),)): 21_280_970,
    ("resnet", (("depth", 50),)): 23_519_690,
    ("resnet", (("stem", "published"),)): 11_175_370,
    ("vgg16", ()): 14_727_114,
    ("vgg16", (("head", "published"),)): 134_308_810,
    ("vgg19", ()): 20_039_370,
    ("vgg19", (("head", "published"),)): 139_621_066,
}

PUBLISHED = [
    ("resnet", {"depth": 18, "stem": "published"}, "resnet18"),
    ("resnet", {"depth": 34, "stem": "published"}, "resnet34"),
    ("resnet", {"depth": 50, "stem": "published"}, "resnet50"),
    ("vgg16", {"head": "published"}, "vgg16_bn"),
    ("vgg19", {"head": "published"}, "vgg19_bn"),
]


def on_meta(name: str, params: dict[str, Any]) -> nn.Module:
    """Return a network without memory for its weights."""
    with torch.device("meta"):
        return architectures.build(name, params, 128, CLASSES)


@pytest.mark.parametrize(("name", "params", "count"), [(n, dict(p), count) for (n, p), count in PARAMETERS.items()])
def test_number_of_parameters(name: str, params: dict[str, Any], count: int) -> None:
    assert sum(parameter.numel() for parameter in on_meta(name, params).parameters()) == count


@pytest.mark.parametrize(("name", "params", "published"), PUBLISHED)
def test_full_networks_have_torchvisions_names_and_shapes(name: str, params: dict[str, Any], published: str) -> None:
    with torch.device("meta"):
        theirs = getattr(torchvision.models, published)(num_classes=CLASSES).state_dict()
    ours = on_meta(name, params).state_dict()
    assert list(ours) == list(theirs)
    first = next(iter(ours))
    assert ours.pop(first).shape[1] == 1
    assert theirs.pop(first).shape[1] == 3
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


def test_attention_weights_are_available() -> None:
    network = architectures.build("crnn_attention", {"width": 4, "depth": 3, "hidden": 8}, 16, CLASSES).eval()
    assert isinstance(network, AttentionCRNN)
    weights = network.attention(torch.randn(3, 1, 16, 41))
    assert weights.shape == (3, 11)  # ceil(41 / 4) steps
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(3))


def test_the_error_for_an_unknown_architecture_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'resnet'"):
        architectures.build("resnett", {}, 16, 2)


# --- pretrained weights


@pytest.fixture(scope="module")
def weights() -> State:
    """A random state dictionary in torchvision's layout and full size."""
    torch.manual_seed(3)
    network = torchvision.models.resnet18(num_classes=1000)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    state: State = network.state_dict()
    return state


@pytest.fixture
def weights_file(weights: State, tmp_path: Path) -> Path:
    # without the counts that torchvision's older files lack
    torch.save({key: v for key, v in weights.items() if "num_batches" not in key}, tmp_path / "resnet18.pth")
    return tmp_path / "resnet18.pth"


def pretrained(name: str, **params: Any) -> nn.Module:
    network = architectures.build(name, params, 64, CLASSES)
    architectures.load_pretrained(name, params, network)
    return network


def test_a_spectrogram_is_a_grey_picture_to_pretrained_weights(weights: State, weights_file: Path) -> None:
    ours = pretrained("resnet", pretrained=str(weights_file)).eval()
    theirs = torchvision.models.resnet18(num_classes=1000)
    theirs.load_state_dict(weights)
    theirs.fc = ours.fc
    x = torch.randn(2, 1, 64, 65)
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), theirs.eval()(x.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4)


def test_pretrained_weights_select_the_published_stem(weights_file: Path) -> None:
    assert pretrained("resnet").state_dict()["conv1.weight"].shape[2:] == (3, 3)
    assert pretrained("resnet", pretrained=str(weights_file)).state_dict()["conv1.weight"].shape[2:] == (7, 7)
    with pytest.raises(ConfigError, match="fits only the published stem, found stem=small"):
        architectures.params("resnet", {"pretrained": str(weights_file), "stem": "small"})


def test_vgg_bodies_get_pretrained_weights(tmp_path: Path) -> None:
    body = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"], batch_norm=True)
    state = {f"features.{key}": value for key, value in body.state_dict().items()}
    torch.save(state | {"classifier.0.weight": torch.zeros(1)}, tmp_path / "vgg.pth")
    loaded = pretrained("vgg16", pretrained=str(tmp_path / "vgg.pth")).state_dict()
    torch.testing.assert_close(loaded["features.0.weight"], body.state_dict()["0.weight"].sum(dim=1, keepdim=True))
    assert torch.equal(loaded["features.40.weight"], body.state_dict()["40.weight"])
    with pytest.raises(ConfigError, match=r"not weights of vgg16_bn \(classifier.0.bias has shape None"):
        pretrained("vgg16", pretrained=str(tmp_path / "vgg.pth"), head="published")


def test_imagenet_is_torchvisions_cache(
    weights_file: Path, weights: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    weights_file.rename(tmp_path / "hub/checkpoints/resnet18-f37072fd.pth")
    loaded = pretrained("resnet", pretrained="imagenet").state_dict()
    assert torch.equal(loaded["layer1.0.conv1.weight"], weights["layer1.0.conv1.weight"])


def test_the_error_without_a_network_names_the_folder_for_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    with pytest.raises(ConfigError, match=rf"resnet34-b627a593.pth is neither in {tmp_path}/hub/checkpoints nor"):
        pretrained("resnet", depth=34, pretrained="imagenet")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        (b"no weights", "cannot be read"),
        ({"conv1.weight": torch.zeros(64, 3, 7, 7)}, "bn1.bias has shape None"),
        ([1, 2], "holds no state dictionary"),
    ],
)
def test_unusable_weights_are_refused_in_one_line(content: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(ConfigError, match=message) as caught:
        pretrained("resnet", pretrained=str(path))
    assert "\n" not in str(caught.value)
    assert "resnet18-f37072fd.pth" in str(caught.value)


def test_weights_that_contain_code_are_refused(tmp_path: Path) -> None:
    torch.save(Config, tmp_path / "code.pth")
    with pytest.raises(ConfigError, match="cannot be read"):
        pretrained("resnet", pretrained=str(tmp_path / "code.pth"))


@pytest.mark.parametrize("name", ["resnet", "vgg16", "vgg19"])
def test_pretrained_weights_need_the_published_width(name: str) -> None:
    with pytest.raises(ConfigError, match="use width=64"):
        architectures.params(name, {"pretrained": "imagenet", "width": 16})


def test_a_saved_model_does_not_need_its_pretrained_weights(weights_file: Path, tmp_path: Path) -> None:
    clips = make_clips()
    params = architectures.params("resnet", {"pretrained": str(weights_file)}).model_dump(mode="json")
    card = ModelCard("resnet", params, ["a", "b", "c"], {}, "", clips.shape, 0.5, 2)
    blank = np.zeros(clips.shape.bins, np.float32)
    saved = checkpoint.build(card, blank, blank + 1)
    checkpoint.save(Location.of(tmp_path / "model"), card, saved)
    weights_file.unlink()
    _, loaded = checkpoint.load(Location.of(tmp_path / "model"))
    assert torch.equal(loaded.state_dict()["network.conv1.weight"], saved.state_dict()["network.conv1.weight"])
    with pytest.raises(ConfigError, match="cannot be read"):
        checkpoint.build(card, blank, blank + 1)


def test_pretrained_weights_change_the_label() -> None:
    assert architectures.model_name("resnet", {}) == "resnet"
    assert architectures.model_name("resnet", {"pretrained": "imagenet"}) == "resnet-imagenet"
    assert architectures.model_name("vgg16", {"pretrained": "/weights/vgg16.pth"}) == "vgg16-pretrained"


# --- search spaces in YAML


def test_domains_are_parsed() -> None:
    assert parse("k", [1, 2]) == Choice((1, 2))
    assert parse("k", 3) == Choice((3,))
    assert parse("k", {"uniform": [0, 1]}) == Uniform(0.0, 1.0)
    assert parse("k", {"loguniform": [1e-3, 1]}) == LogUniform(1e-3, 1.0)


@pytest.mark.parametrize(
    "value",
    [
        [],
        {},
        {"uniform": [1, 0]},
        {"loguniform": [0, 1]},
        {"uniform": ["a", "b"]},
        {"normal": [0, 1]},
        {"a": 1, "b": 2},
    ],
)
def test_other_domains_are_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match="write a list"):
        parse("k", value)
