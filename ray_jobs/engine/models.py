"""The saved models that a job uses."""

from __future__ import annotations

from genre import architectures
from genre.errors import ArtifactError, ConfigError
from genre.model.card import has_card
from genre.settings import Config
from genre.storage import Location


def find_models(config: Config) -> list[Location]:
    """Return the addresses of the models in the setting `model`; if empty, of the best network of the leaderboard.

    Without a leaderboard it is the model that `train` saves with these settings. Raises `ArtifactError` when there is
    none, and `ConfigError` when `architecture` is set to another one than the leaderboard recommends.
    """
    if config.model:
        return named(config.model)
    output = Location.of(config.output)
    name = architectures.model_name(config.architecture, config.architectures.get(config.architecture, {}))
    if (output / "leaderboard" / "leaderboard.json").exists():
        best = _best(output)
        if "architecture" in config.model_fields_set and best.name != name:
            raise _other_than_best(output, config.architecture, name, best.name)
        return [best]
    if not has_card(output / "models" / name):
        raise ArtifactError(
            f"output={output} holds no trained model; run `genre tune` with this output first, or name a model with "
            "model=FOLDER"
        )
    return [output / "models" / name]


def find_model(config: Config, job: str) -> Location:
    """Return the only model of `find_models`, for a `job` that takes one. Raises `ConfigError` if there are several."""
    locations = find_models(config)
    if len(locations) > 1:
        raise ConfigError(f"{job} takes one model; name one with model=FOLDER")
    return locations[0]


def named(model: str) -> list[Location]:
    """Return the addresses in a setting that names one model, or several separated by commas."""
    if "," not in model or Location.of(model).exists():
        return [Location.of(model)]
    return [Location.of(name) for name in map(str.strip, model.split(",")) if name]


def _other_than_best(output: Location, architecture: str, name: str, best: str) -> ConfigError:
    """Return what to raise when `architecture` is set, and the leaderboard recommends another model."""
    folder = output / "models" / name
    remedy = (
        f"write model={folder}, or leave architecture out"
        if has_card(folder)
        else f"leave it out, or train {architecture} and name it with model={folder}"
    )
    return ConfigError(
        f"architecture={architecture} chooses no model where there is a leaderboard, and that of {output} recommends "
        f"{best}; {remedy}"
    )


def _best(output: Location) -> Location:
    from genre import report  # slow to import, and not needed for a named model

    network = report.best_network(output / "leaderboard")
    if network is None:
        raise ArtifactError(f"{output}: the leaderboard holds no network; run tune, or name a model with model=FOLDER")
    return output / "models" / network
