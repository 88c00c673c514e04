"""The architectures: networks from log-mel windows to genres. One file per architecture, registered by its name.

Input: the settings of an architecture, and the numbers of mel bands and genres. Output: a new network, and
the search space of its settings. Independent of data and training.

The name of the file is the value of `architecture`; a name that starts with an underscore marks a helper. Other
packages add architectures with the entry point `genre.architectures`. An architecture is a module with these names:

`class Params(Settings)`
    Its own settings with defaults, bounds and descriptions, set as `architectures.<name>.<key>`.
`SEARCH: dict[str, Domain]`
    The settings that `tune` varies: `train.<key>` for settings of training except `train.epochs`, `params.<key>` for
    those of `Params`. Each value is a `Choice`, a `Uniform` or a `LogUniform`; a setting of integers needs a `Choice`.
    Each setting must take all values of its domain; `build` raises `ConfigError` for what does not go together.
`build(params: Params, bins: int, classes: int) -> torch.nn.Module`
    A network with random weights from torch's global generator. Its `forward` takes normalised log-mel windows
    (batch, 1, bins, frames) of any number of frames and returns logits (batch, classes). The last `nn.Linear` must be
    the layer whose outputs are the genres: fine-tuning replaces it.
`load_pretrained(params: Params, network: torch.nn.Module) -> None` (optional)
    Loads the pretrained weights that `params` ask for into a new network. Only training calls it: a saved model holds
    its own weights.

`genre.testing.check_architecture` checks an architecture. Importing this package does not import torch,
which jobs that only decode audio do not need.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from genre import registry
from genre.architectures._space import Choice, Domain, LogUniform, Uniform, parse
from genre.config import validate
from genre.errors import ConfigError
from genre.settings import Settings, TrainSettings, require_known

__all__ = [
    "Choice", "Domain", "LogUniform", "Uniform", "build", "load_pretrained", "model_name", "names", "package", "params",
    "parse", "search_space",
]  # fmt: skip

if TYPE_CHECKING:
    import torch


def names() -> tuple[str, ...]:
    """Return the names of all architectures."""
    return registry.names(__name__)


def package(name: str) -> str:
    """Return name and version of the other package that has the architecture, as "example 0.1"; "" for a built-in."""
    return registry.package_of(__name__, name)


def params(name: str, values: dict[str, Any]) -> Settings:
    """Return the settings of an architecture: `values`, and defaults for the rest. Raises `ConfigError`."""
    resolved: Settings = validate(_module(name).Params, values, f"architectures.{name}.")
    return resolved


def search_space(name: str) -> dict[str, Domain]:
    """Return the domain of each setting that the search varies, as in the `SEARCH` of the architecture.

    Raises `ConfigError` for an unknown setting and for a value that it does not take.
    """
    space: dict[str, Domain] = _module(name).SEARCH
    for key, domain in space.items():
        try:
            _check_domain(name, key, domain)
        except ConfigError as error:
            raise ConfigError(f"the SEARCH of the architecture {name}: {error}") from None
    return space


def build(name: str, values: dict[str, Any], bins: int, classes: int) -> torch.nn.Module:
    """Return an untrained network; its weights come from torch's global generator."""
    network: torch.nn.Module = _module(name).build(params(name, values), bins, classes)
    return network


def load_pretrained(name: str, values: dict[str, Any], network: torch.nn.Module) -> None:
    """Load the pretrained weights that the settings ask for, if any, into a new network.

    Raises `ConfigError` when they cannot be found or read, or do not fit.
    """
    load = getattr(_module(name), "load_pretrained", None)
    if load is not None:
        load(params(name, values), network)


def model_name(name: str, values: dict[str, Any]) -> str:
    """Return the name of models with these settings: `resnet`, `resnet-imagenet` or `resnet-pretrained` (from a file).

    It names the folder, the run and the row on the leaderboard: models with and without pretrained weights are compared
    as different models. `train.init_from` does not change it.
    """
    source = values.get("pretrained")
    if not source:
        return name
    return f"{name}-{source if source == 'imagenet' else 'pretrained'}"


def _check_domain(name: str, key: str, domain: Domain) -> None:
    section, _, field = key.partition(".")
    if not isinstance(domain, Domain):
        raise ConfigError(f"{key!r} has {domain!r}; use a Choice, a Uniform or a LogUniform")
    if section not in ("train", "params"):
        raise ConfigError(f"found {key!r}; write train.{key} for a setting of training, params.{key} for one of Params")
    if key == "train.epochs":
        raise ConfigError("train.epochs: early stopping compares trials of equal length; leave it out")
    for value in domain.examples():
        if section == "params":
            params(name, {field: value})
        else:
            validate(TrainSettings, {field: value}, "train.")


def _module(name: str) -> Any:
    require_known("architecture", name, names())
    return registry.load(__name__, name)
