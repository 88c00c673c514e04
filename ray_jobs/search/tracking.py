"""Log trials to an MLflow tracking server or database, in addition to Tune's TensorBoard logs."""

from __future__ import annotations

import logging
import os

from ray.tune import Callback

from genre.errors import ConfigError, first_line, install


def check(address: str) -> None:
    """Raise `ConfigError` unless MLflow is installed and can use `address`, the setting tune.mlflow (may be empty)."""
    if not address:
        return
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when mlflow is imported
    try:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
    except ImportError:
        raise ConfigError(f"tune.mlflow needs MLflow; {install('mlflow')}") from None
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        MlflowClient(tracking_uri=address).search_experiments(max_results=1)
    except MlflowException as error:
        raise ConfigError(
            f"tune.mlflow={address} cannot be used ({first_line(error)}); give a server's address or a database, "
            "for example sqlite:///runs.db"
        ) from None


def callbacks(address: str, experiment: str) -> list[Callback]:
    """Return the callbacks that log each trial and epoch to `experiment` at `address`; none if it is empty."""
    if not address:
        return []
    from ray.air.integrations.mlflow import MLflowLoggerCallback  # imports MLflow, which takes seconds

    return [MLflowLoggerCallback(tracking_uri=address, experiment_name=experiment)]
