"""The architectures. One file per family member; the file name is the value of `architecture`.

A model module holds:

- `class Params(Settings)`: its own settings, reached as `architectures.<name>.*`;
- `SEARCH: dict[str, Domain]`: what the search varies, by dotted key of the configuration; `params.*` stands for
  the architecture's own settings;
- `build(params, bins, classes) -> torch.nn.Module`: a network whose `forward` takes normalised log-mel
  windows (batch, 1, bins, frames), any number of frames, and returns logits (batch, classes);
- optionally `start(params, network) -> None`: puts the pretrained weights that `params` ask for into a fresh
  network. Only training calls it: a saved model brings its own weights.

This module itself does not import torch, so that jobs that only decode audio never load it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from genre import registry
from genre.architectures._space import Choice, Domain, LogUniform, Uniform, parse
from genre.config import validate
from genre.settings import Settings, require_known

__all__ = [
    "Choice", "Domain", "LogUniform", "Uniform", "build", "label", "names", "params", "parse", "search_space", "start",
]  # fmt: skip

if TYPE_CHECKING:
    import torch


def names() -> tuple[str, ...]:
    """Every architecture there is."""
    return registry.names(__name__)


def params(name: str, values: dict[str, Any]) -> Settings:
    """`values` checked against the architecture's own settings. Raises `ConfigError`."""
    resolved: Settings = validate(_module(name).Params, values, f"architectures.{name}.")
    return resolved


def search_space(name: str) -> dict[str, Domain]:
    """What the search varies for this architecture, by dotted key; `params.*` are its own settings."""
    space: dict[str, Domain] = _module(name).SEARCH
    return space


def build(name: str, values: dict[str, Any], bins: int, classes: int) -> torch.nn.Module:
    """A freshly initialised network of this architecture; torch's global generator decides the weights."""
    network: torch.nn.Module = _module(name).build(params(name, values), bins, classes)
    return network


def start(name: str, values: dict[str, Any], network: torch.nn.Module) -> None:
    """Put the pretrained weights that the settings ask for, if any, into a fresh network of this architecture.

    Raises `ConfigError` when they cannot be found, read or fitted.
    """
    starter = getattr(_module(name), "start", None)
    if starter is not None:
        starter(params(name, values), network)


def label(name: str, values: dict[str, Any]) -> str:
    """What a model of these settings is called: `resnet`, `resnet-imagenet`, `resnet-pretrained` (from a path).

    Its folder, its run and its row of the leaderboard, so that nets with another start do not mix.
    """
    source = values.get("pretrained")
    if not source:
        return name
    return f"{name}-{source if source == 'imagenet' else 'pretrained'}"


def _module(name: str) -> Any:
    require_known("architecture", name, names())
    return registry.load(__name__, name)
