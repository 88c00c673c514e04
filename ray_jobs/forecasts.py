"""What a search will train and how long it will take on these machines, said before it starts."""

from __future__ import annotations


import torch

from genre import costs, features
from genre.config import Config
from genre.costs import Cost, Workload
from genre.experiment import Data
from genre.storage import Location
from ray_jobs import cli, search
from ray_jobs.budget import Forecast, Plan
from ray_jobs.search_progress import duration
from ray_jobs.trials import apply

import ray  # isort: skip

_SAY_EVERY_SECONDS = 15.0
_LONG_WITHOUT_GPU = 3600.0  # seconds


def workload_of(data: Data, folder: Location) -> Workload:
    """The size of a search on the features in `folder`."""
    test = int(sum(features.read_tracks(folder, "test")["clips"].to_pylist()))
    return Workload(len(data.train), len(data.valid), test, data.train.shape, len(data.classes))


def measure(config: Config, workload: Workload) -> Forecast:
    """Time a few steps of each architecture where its trials will run. Ray must be running.

    `config` is one whose resources are decided; see `search.with_resources`.
    """
    names = search.architectures(config)
    place = _probe.options(num_cpus=config.tune.cpus_per_trial, num_gpus=config.tune.gpus_per_trial or 0)
    running = {place.remote(apply(config, {"model.name": name}), workload): name for name in names}
    measured: dict[str, Cost] = {}
    while running:
        done, _ = ray.wait(list(running), timeout=_SAY_EVERY_SECONDS)
        measured |= {running.pop(task): ray.get(task) for task in done}
        if not done:
            cli.console().print(f"tune: timing a few steps of each architecture, {len(measured)} of {len(names)} done")
    in_order = {name: measured[name] for name in names}
    return Forecast(config, workload, in_order, search.concurrent_trials(config))


def plan_for(forecast: Forecast, seconds: float | None) -> Plan:
    """The plan of the settings, or the one that fits into `seconds`."""
    return forecast.full() if seconds is None else forecast.fit(seconds)


def lines(forecast: Forecast, plan: Plan) -> list[str]:
    """What will be trained, how long it will take, and where that is long, what would shorten it."""
    expected, limit = forecast.estimate(plan), forecast.config.tune.minutes
    shares = ", ".join(f"{name} {share:.0%}" for name, share in forecast.shares(plan).items())
    text = [
        f"{len(plan.epochs)} architectures, {_number(plan.trials, 'trial')} of each, the best with "
        f"{_number(plan.seeds, 'seed')}; {_number(forecast.places, 'training')} at a time",
        f"expected to take {duration(expected.total)}: search {duration(expected.search)}, "
        f"final trainings {duration(expected.finals)}, judging {duration(expected.judging)}",
        f"epochs: {_epochs(plan)}; time: {shares}",
    ]
    if limit and expected.total > 66 * limit:
        text.append(f"tune.minutes={limit:g} is too short for one epoch of each; name fewer in tune.architectures")
    has_gpu = bool(forecast.config.tune.gpus_per_trial)
    if not limit and not has_gpu and expected.total > _LONG_WITHOUT_GPU:
        halved = " or ".join(forecast.halving(plan))
        text.append(f"to halve it: {halved or 'tune.trials=1'}; tune.minutes=60 keeps it to an hour")
    return text


def _epochs(plan: Plan) -> str:
    """Such as "30 each" or "cnn 30, vgg19 12"."""
    if len(set(plan.epochs.values())) == 1:
        return f"{next(iter(plan.epochs.values()))} each"
    return ", ".join(f"{name} {epochs}" for name, epochs in plan.epochs.items())


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


@ray.remote(max_retries=1)
def _probe(config: Config, workload: Workload) -> Cost:
    torch.set_num_threads(max(1, int(config.tune.cpus_per_trial)))
    return costs.probe(config, workload)
