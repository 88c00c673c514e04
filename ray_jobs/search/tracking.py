"""The trials of a search at an MLflow tracking server or database, beside the TensorBoard logs that Tune writes."""

from __future__ import annotations

import logging
import os

from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune import Callback

from genre.errors import ConfigError
from genre.settings import Config
from genre.storage import Location


def check(config: Config) -> None:
    """Raise `ConfigError` unless what `tune.mlflow` names, if anything, takes runs."""
    address = config.tune.mlflow
    if not address:
        return
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when mlflow is imported
    try:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
    except ImportError:
        raise ConfigError("tune.mlflow needs MLflow; install it with pip install 'genre[mlflow]'") from None
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        MlflowClient(tracking_uri=address).search_experiments(max_results=1)
    except MlflowException as error:
        why = str(error).splitlines()[0]
        raise ConfigError(
            f"tune.mlflow={address} cannot be used ({why}); give a server's address or a database, "
            "for example sqlite:///runs.db"
        ) from None


def callbacks(config: Config, phase: str) -> list[Callback]:
    """What tells MLflow of each trial and epoch, in an experiment named after the output and the phase."""
    if not config.tune.mlflow:
        return []
    experiment = f"{Location.of(config.output).name} {phase}"
    return [MLflowLoggerCallback(tracking_uri=config.tune.mlflow, experiment_name=experiment)]
