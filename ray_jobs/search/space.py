"""The search space: which architectures are searched, and the domain of each setting that varies.

The settings of a trial are a flat dictionary by dotted key, such as `train.learning_rate` or `architectures.cnn.width`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from genre import architectures
from genre.architectures import Domain, parse
from genre.config import validate
from genre.errors import ConfigError
from genre.grammar import nearest
from genre.settings import Config, TuneSettings
from genre.training.experiment import Experiment
from ray_jobs.engine import cli

_FIXED = ("architecture", "train.epochs")  # given to every trial of an architecture, not sampled


def architecture_names(settings: TuneSettings) -> list[str]:
    """Return the names of the architectures to search."""
    return list(settings.architectures or architectures.names())


def domains(settings: TuneSettings, architecture: str) -> dict[str, Domain]:
    """Return the domain of each setting that varies, by dotted key; `tune.space` replaces those of the architecture.

    Raises `ConfigError` if `tune.space` varies the number of epochs or contains an invalid domain.
    """
    own = settings.space.get(architecture, {})
    if "train.epochs" in own:
        raise ConfigError(
            f"tune.space.{architecture}.train.epochs: early stopping compares trials of equal length; set train.epochs"
        )
    changes = {key: parse(f"tune.space.{architecture}.{key}", value) for key, value in own.items()}
    varied = architectures.search_space(architecture) | changes
    return {key.replace("params.", f"architectures.{architecture}.", 1): domain for key, domain in varied.items()}


def configured(planned: Experiment, varied: Mapping[str, Domain]) -> dict[str, Any]:
    """Return the varied settings of `planned`, each moved to the nearest value that its domain allows.

    Raises `ConfigError` for a key that is no setting of a training.
    """
    name = planned.architecture
    values = {f"train.{key}": value for key, value in planned.train.model_dump(mode="json").items()}
    values |= {f"architectures.{name}.{key}": value for key, value in planned.params.items()}
    if unknown := next((key for key in varied if key not in values), ""):
        raise ConfigError(f"tune.space.{name}: found {unknown!r}; {nearest(unknown, values)}")
    return {key: domain.nearest(values[key]) for key, domain in varied.items()}


def sampled(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a trial's settings that the sampler chose."""
    return {key: value for key, value in settings.items() if key not in _FIXED}


def experiments(base: Config) -> dict[str, Experiment]:
    """Return the experiment of each architecture to search, by name, before its settings vary.

    A broken architecture of another package, which no setting names, is left out with a line. Raises `ConfigError` for
    invalid settings of an architecture, and for an invalid `tune.space`.
    """
    planned = {}
    for name in architecture_names(base.tune):
        try:
            its = experiment(base, {"architecture": name})
            configured(its, domains(base.tune, name))
        except ConfigError as error:
            named = {*base.architectures, *base.tune.architectures, *base.tune.space}
            if name in named or not architectures.package(name):
                raise
            cli.say(f"tune: {name} is left out: {error}")
        else:
            planned[name] = its
    return planned


def experiment(base: Config, settings: Mapping[str, Any]) -> Experiment:
    """Return the experiment of `base` with the values at dotted keys replaced. Raises `ConfigError` like `apply`."""
    return Experiment.of(apply(base, settings))


def apply(base: Config, settings: Mapping[str, Any]) -> Config:
    """Return `base` with the values at dotted keys replaced. Raises `ConfigError` for an invalid value."""
    tree = base.model_dump()
    for key, value in settings.items():
        branch = tree
        *path, last = key.split(".")
        for name in path:
            branch = branch.setdefault(name, {})
        branch[last] = value
    return validate(Config, tree)
