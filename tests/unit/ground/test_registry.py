"""Plug-ins of other packages: which names are accepted, and how a broken one is reported."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from genre import architectures, config, registry
from genre.errors import ArtifactError, ConfigError, TrainingError
from genre.features import Shape, versions
from genre.model import checkpoint
from genre.model.card import ModelCard
from genre.model.classifier import Classifier
from genre.storage import Location
from ray_jobs.engine import cli, help_pages
from ray_jobs.search import space

Install = Callable[[str, dict[str, str], str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Return a function that puts a package on the path: its name, its architectures by name, and its module's source.

    The module has the name of the package.
    """

    def put(package: str, entries: dict[str, str], source: str) -> None:
        folder = tmp_path / package
        metadata = folder / f"{package}-1.0.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = [f"{name} = {module}" for name, module in entries.items()]
        (metadata / "entry_points.txt").write_text("\n".join(["[genre.architectures]", *lines]))
        (folder / f"{package}.py").write_text(source)
        monkeypatch.syspath_prepend(folder)
        forget()

    def forget() -> None:
        for cached in (registry.names, registry.load, registry._registered):
            cached.cache_clear()

    yield put
    monkeypatch.undo()
    forget()


NETWORK = """
from torch import nn
from genre.settings import Settings
class Params(Settings): pass
SEARCH = {}
class Network(nn.Module):
    def __init__(self, bins, classes):
        super().__init__()
        self.head = nn.Linear(bins, classes)
    def forward(self, windows):
        return self.head(FORWARD)
def build(params, bins, classes): return Network(bins, classes)
"""


def test_a_registered_module_is_a_plugin_like_those_here(install: Install) -> None:
    before = architectures.names()
    install("first_plugin", {"first": "first_plugin"}, NETWORK)
    assert architectures.names() == tuple(sorted([*before, "first"]))
    assert registry.load("genre.architectures", "first").__name__ == "first_plugin"
    assert config.load(None, ["architecture=first"]).architecture == "first"


def test_a_name_that_a_built_in_has_is_refused(install: Install) -> None:
    install("second_plugin", {"cnn": "second_plugin"}, NETWORK)
    assert config.load(None, ["architecture=resnet"]).architecture == "resnet"
    with pytest.raises(ConfigError) as error:
        architectures.params("cnn", {})
    assert str(error.value) == (
        "the plug-in 'cnn' (genre.architectures) of the package second_plugin has the name of a built-in; "
        "rename or uninstall it"
    )


def test_a_name_that_two_packages_register_is_refused(install: Install) -> None:
    install("third_plugin", {"same": "third_plugin"}, "")
    install("fourth_plugin", {"same": "fourth_plugin"}, "")
    assert architectures.names().count("same") == 1
    with pytest.raises(
        ConfigError, match=r"'same' .* of the package (\w+)_plugin has the name of .* (?!\1)\w+_plugin; "
    ):
        architectures.params("same", {})


CARD = ModelCard("", {}, ["a", "b", "c"], {}, "", Shape(8, 40, 80.0, 0.02), window_seconds=0.4, eval_windows=1)


def test_a_network_of_another_package_is_checked_and_its_package_recorded(install: Install, tmp_path: Path) -> None:
    forward = {
        "right": "windows.mean((1, 3))",
        "of_frames": "windows.squeeze(1).transpose(1, 2)",
        "of_pixels": "windows.flatten(1)",
    }
    for name, mean in forward.items():
        install(f"{name}_plugin", {name: f"{name}_plugin"}, NETWORK.replace("FORWARD", mean))
    assert architectures.package("right") == "right_plugin 1.0"
    assert architectures.package("cnn") == ""
    assert versions.packages().items() >= {"right_plugin": "1.0", "of_frames_plugin": "1.0"}.items()
    blank = np.zeros(8, np.float32)

    def build(name: str) -> Classifier:
        return checkpoint.build(replace(CARD, architecture=name), blank, blank + 1)

    assert build("right").network.training
    shape = re.escape("(2, 1, 8, 20)")
    message = re.escape("architecture=of_frames (of_frames_plugin 1.0): its forward returns shape (2, 20, 3) for ")
    with pytest.raises(TrainingError, match=message + rf"windows of shape {shape}, must be \(2, 3\)"):
        build("of_frames")
    with pytest.raises(
        TrainingError, match=rf"its forward fails for windows of shape {shape} \(RuntimeError: mat1 and"
    ):
        build("of_pixels")

    facts = {"package": architectures.package("right")}
    checkpoint.save(Location.of(tmp_path / "m"), replace(CARD, architecture="right", facts=facts), build("right"))
    checkpoint.load(Location.of(tmp_path / "m"))
    card = tmp_path / "m/model.json"
    card.write_text(card.read_text().replace('"right"', '"absent"'))
    message = "its architecture absent is not installed; install right_plugin 1.0"
    with pytest.raises(ArtifactError, match=message):
        checkpoint.load(Location.of(tmp_path / "m"))


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("import not_installed", r"cannot be imported \(ModuleNotFoundError: No module named 'not_installed'\)"),
        ("1 / 0", r"cannot be imported \(ZeroDivisionError: division by zero\)"),
        ("Params = None", "lacks SEARCH, build; see the docstring of genre.architectures"),
        (
            "class Params: pass\nSEARCH = build = 0",
            r"its Params must derive from genre\.settings\.Settings .*AttributeError",
        ),
        ("from genre.architectures import Uniform\nUniform(4, 1)", r"cannot .* low end must be below the high"),
    ],
)
def test_a_broken_plugin_names_its_package(install: Install, source: str, problem: str) -> None:
    package = f"broken_{len(source)}"
    install(package, {"broken": package}, source)
    assert "broken" in architectures.names()
    with pytest.raises(ConfigError, match=f"the plug-in 'broken' .* of the package {package}:? {problem}"):
        architectures.params("broken", {})


def test_a_broken_plugin_is_named_and_everything_else_goes_on(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install("away_plugin", {"away": "away_plugin"}, "import not_installed")
    install("odd_plugin", {"odd": "odd_plugin"}, f"{NETWORK}SEARCH = {{'width': 3}}")
    page = help_pages.every_setting("train", "genre train")
    assert "of the architecture away:\n  the plug-in 'away' (genre.architectures)" in page
    assert "architectures.cnn.width" in page

    found = space.experiments(config.load(None, ["architectures.cnn.width=8"]))
    assert {"cnn", "resnet"} <= found.keys()
    assert not {"away", "odd"} & found.keys()
    shown = capsys.readouterr().err
    assert "tune: away is left out: the plug-in 'away' " in shown
    assert "tune: odd is left out: the SEARCH of the architecture odd: 'width' has 3; use a Choice, " in shown
    with pytest.raises(ConfigError, match="the plug-in 'away' "):
        space.experiments(config.load(None, ["tune.architectures=[cnn, away]"]))
    with pytest.raises(ConfigError, match="the plug-in 'away' "):
        cli.check_plugins(config.load(None, ["architecture=away"]))


@pytest.mark.parametrize(
    ("search", "problem"),
    [
        ("{'widht': Choice((1, 2))}", "found 'widht'; write train.widht for a setting of training, params.widht for"),
        ("{'params.widht': Choice((1, 2))}", "unknown key 'architectures.searched.widht'; did you mean"),
        ("{'params.width': Choice((1, 'big'))}", 'architectures.searched.width: found "big"'),
        ("{'params.width': Uniform(1, 8)}", "architectures.searched.width: found 3.2"),
        ("{'train.epochs': Choice((4, 8))}", "train.epochs: early stopping compares trials of equal length"),
        ("{'train.mixpu': Uniform(0, 1)}", "unknown key 'train.mixpu'; did you mean 'train.mixup'"),
    ],
)
def test_a_wrong_search_space_is_refused_before_anything_is_trained(
    install: Install, search: str, problem: str
) -> None:
    package = f"searched_{len(search)}_{len(problem)}"
    source = f"{NETWORK}from genre.architectures import *\nSEARCH = {search}\n".replace(": pass", ": width: int = 4")
    install(package, {"searched": package}, source)
    with pytest.raises(ConfigError) as error:
        architectures.search_space("searched")
    assert str(error.value).startswith(f"the SEARCH of the architecture searched: {problem}")


def test_a_buffer_that_is_not_saved_is_built_again(install: Install, tmp_path: Path) -> None:
    """Positions of a transformer, for example; a model is loaded without computing its initial weights."""
    buffer = "\n        self.register_buffer('scale', torch.full((8,), 2.0), persistent=False)\n    def forward"
    source = "import torch" + NETWORK.replace("\n    def forward", buffer).replace(
        "FORWARD", "windows.mean((1, 3)) * self.scale"
    )
    install("buffer_plugin", {"buffered": "buffer_plugin"}, source)
    blank = np.zeros(8, np.float32)
    card = replace(CARD, architecture="buffered")
    saved = checkpoint.build(card, blank, blank + 1).eval()
    checkpoint.save(Location.of(tmp_path / "m"), card, saved)
    windows = torch.randn(2, 8, 20)
    assert torch.equal(checkpoint.load(Location.of(tmp_path / "m")).classifier(windows), saved(windows))
